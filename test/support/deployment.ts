import { parse } from 'yaml';
import { readDocument } from './documents.ts';

export interface ComposeService {
  readonly command?: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly healthcheck?: { readonly test?: readonly string[]; readonly disable?: boolean };
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly [other: string]: unknown;
}

export type ComposeFile = { readonly services: Readonly<Record<string, ComposeService>> };

/** The compose file as Compose reads it: merged, and with these variables in place. */
export function readCompose(variables: Readonly<Record<string, string>> = {}): ComposeFile {
  const text = readDocument('docker-compose.yml').replace(
    /\$\{(\w+):\?([^}]+)\}/g,
    (_, name, message) => {
      const value = variables[name];
      if (value === undefined) throw new Error(`${name} is missing: ${message}`);
      return value;
    },
  );
  return parse(text, { merge: true }) as ComposeFile;
}
