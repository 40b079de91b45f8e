import { Ajv } from 'ajv';
import specs from '@asyncapi/specs';
import { describe, expect, it } from 'vitest';
import { giftEventAsyncApi } from '../scripts/async-api.ts';
import { GIFT_EVENT_NAMES, giftEventJsonSchema, parseGiftEvent } from '../src/events/contract.ts';
import { readDocument } from './support/documents.ts';

const documents: [file: string, generated: Record<string, unknown>][] = [
  ['docs/gift-event.schema.json', giftEventJsonSchema()],
  ['docs/asyncapi.json', giftEventAsyncApi()],
];

describe('the contract in docs/', () => {
  it.each(documents)('%s is what the schema in the code says ("npm run contract")', (file, now) => {
    expect(JSON.parse(readDocument(file))).toEqual(now);
  });

  it('is part of the package, with the page that tells of it', () => {
    const { files } = JSON.parse(readDocument('package.json')) as { files: string[] };
    expect(files).toContain('docs');
    for (const [file] of documents) {
      expect(readDocument('docs/events.md')).toContain(`](${file.replace('docs/', '')})`);
    }
  });
});

describe('the AsyncAPI document', () => {
  // Its schema brings the one of JSON Schema along, so ajv's own must stay out.
  const ajv = new Ajv({
    meta: false,
    strict: false,
    validateSchema: false,
    validateFormats: false,
  });
  const isAsyncApi = ajv.compile(specs.schemas['3.0.0'] as object);
  const document = giftEventAsyncApi() as unknown as AsyncApi;

  interface AsyncApi {
    readonly components: {
      readonly messages: Readonly<Record<string, Message>>;
      readonly schemas: object;
    };
  }
  interface Message {
    readonly payload: object;
    readonly examples: readonly { readonly payload: unknown }[];
  }

  it('is one by the JSON Schema of AsyncAPI 3, which refuses others', () => {
    isAsyncApi(document);
    expect(isAsyncApi.errors).toBeNull();
    expect(isAsyncApi({ ...document, channels: 7 })).toBe(false);
    expect(isAsyncApi({ ...document, asyncapi: '2.6.0' })).toBe(false);
  });

  it('has every reference lead somewhere', () => {
    const text = JSON.stringify(document);
    const references = [...text.matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path]) => path!);
    expect(references.length).toBeGreaterThan(15);
    for (const path of references) {
      const target = path
        .split('/')
        .reduce<unknown>((inner, key) => (inner as Record<string, unknown>)[key], document);
      expect(target, path).toBeTypeOf('object');
    }
  });

  it('has every event, with examples that its payload and the code take', () => {
    expect(Object.keys(document.components.messages)).toEqual(GIFT_EVENT_NAMES);
    for (const [name, { examples }] of Object.entries(document.components.messages)) {
      for (const { payload } of examples) {
        expect(takes(name, payload)).toBe(true);
        expect(() => parseGiftEvent(name, payload)).not.toThrow();
      }
    }
  });

  it.each([
    { version: 2, affected: [{ personId: 1, occasionId: 1 }] },
    { version: 1, affected: [] },
    { version: 1, affected: [{ personId: '0', occasionId: 1 }] },
    { version: 1, giftId: '7' },
    { version: 1 },
  ])('takes data exactly where the code does: %j', (data) => {
    for (const name of GIFT_EVENT_NAMES) expect(takes(name, data)).toBe(understands(name, data));
  });

  function takes(name: string, payload: unknown): boolean {
    const { messages, schemas } = document.components;
    const payloads = new Ajv({ strict: false, validateFormats: false });
    return payloads.validate({ ...messages[name]!.payload, components: { schemas } }, payload);
  }
});

function understands(name: string, data: unknown): boolean {
  try {
    parseGiftEvent(name, data);
    return true;
  } catch {
    return false;
  }
}
