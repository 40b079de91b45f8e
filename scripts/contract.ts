// Writes the contract of the gift events, as docs/ ships it, from the schema in the code.
import { writeFileSync } from 'node:fs';
import { giftEventAsyncApi } from './async-api.ts';
import { giftEventJsonSchema } from '../src/events/contract.ts';

for (const [file, document] of [
  ['docs/gift-event.schema.json', giftEventJsonSchema()],
  ['docs/asyncapi.json', giftEventAsyncApi()],
] as const) {
  writeFileSync(file, `${JSON.stringify(document, null, 2)}\n`);
}
