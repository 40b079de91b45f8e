/** The message of an error; where it has none (several addresses were tried), its code. */
export function describeError(error: unknown): string {
  const { message, code, name } = error as Error & { code?: string };
  return message || code || name || String(error);
}
