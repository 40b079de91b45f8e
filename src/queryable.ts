/**
 * What a single statement needs: a pool, a client of it, or a connection of somebody else's. Alone in
 * its file, so that the types of a reader do not ask for those of a driver.
 */
export interface Queryable {
  query(text: string, values?: unknown[]): Promise<{ rows: Record<string, unknown>[] }>;
}
