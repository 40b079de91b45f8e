// What the MikroORM CLI opens in this repository. Node runs the TypeScript behind it as it is, so no
// loader has to be installed, neither here nor by those who install the package.
export { default } from './mikro-orm.config.ts';
