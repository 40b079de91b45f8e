# syntax=docker/dockerfile:1
# gift-budgets, compiled, with what it needs to run and no more:
#   docker build --tag gift-budgets .
#   docker run --rm gift-budgets help
# All state is in PostgreSQL and Redis: its user can write nothing here, so the root may be read-only.

FROM node:24.21.0-bookworm-slim AS base
WORKDIR /app

FROM base AS build
COPY package.json package-lock.json ./
RUN npm ci
COPY mikro-orm.config.ts tsconfig.json tsconfig.build.json ./
COPY scripts/build.ts scripts/
COPY migrations migrations/
COPY src src/
RUN npm run build

FROM base AS dependencies
COPY package.json package-lock.json ./
# What is optional are the programs of the embedded PostgreSQL, which is for development, and native
# parts of packages that do without. Install scripts have nothing to do here.
RUN npm ci --omit=dev --omit=optional --ignore-scripts \
  && ln -s ../../dist/src/cli.js node_modules/.bin/gift-budgets

FROM base
# The MikroORM CLI (--entrypoint mikro-orm) is to look for the compiled configuration only.
ENV NODE_ENV=production \
  PATH=/app/node_modules/.bin:$PATH \
  MIKRO_ORM_CLI_PREFER_TS=0
COPY LICENSE package.json ./
COPY --from=dependencies /app/node_modules node_modules/
COPY --from=build /app/dist dist/
# The image's user "node", by number: Kubernetes' runAsNonRoot does not look up names.
USER 1000:1000
EXPOSE 3000
# It asks the process itself, not its servers: a restart would not help if those are away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.GIFT_BUDGETS_DASHBOARD_PORT || 3000) + '/healthz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# No npm and no shell before it: signals reach the program, which is process 1.
ENTRYPOINT ["gift-budgets"]
CMD ["start"]
