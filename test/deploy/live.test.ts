import { execFile } from 'node:child_process';
import { describe, expect, inject, it } from 'vitest';
import { ROOT } from '../support/documents.ts';

// The rehearsal as anybody can run it, at a twentieth of its size.

async function rehearse(...args: string[]): Promise<{ code: number; said: string }> {
  return await new Promise((resolve) => {
    execFile(
      process.execPath,
      ['scripts/rehearse-migrations.ts', ...args],
      { cwd: ROOT, env: { ...process.env, DATABASE_URL: inject('postgresUrl') } },
      (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : (error.code as number), said: stdout + stderr }),
    );
  });
}

describe('a database of others, under writers, is migrated', () => {
  it.each([['without our columns'], ['with occasions and amounts', '--with-occasions']])(
    '%s, and no writer is blocked for long, and none fails',
    async (_, ...options) => {
      const size = ['--budgets', '100000', '--assignments', '250000'];
      const { code, said } = await rehearse(...size, ...options);
      console.log(said.slice(said.indexOf('\nmigrated in')).trim());
      expect(said).toMatch(/writers: [\d,]{2,} transactions, 0 failed/);
      expect(said).toMatch(/the longest \d+ ms, 250 ms allowed/);
      expect(said).toContain('AccessExclusiveLock person_occasions');
      expect(said).not.toMatch(
        /(create index|validate)[^\n]*\n[^\n]*(Exclusive|Share)Lock(?<!ShareUpdateExclusiveLock) /,
      );
      expect(code).toBe(0);
    },
  );

  it('fails where a writer is blocked for longer than allowed, or an option makes no sense', async () => {
    const size = ['--budgets', '2000', '--assignments', '2000'];
    const { code, said } = await rehearse(...size, '--writers', '8', '--limit', '1');
    expect(said).toMatch(/the longest \d+ ms, 1 ms allowed\n {2}by: /);
    expect(code).toBe(1);
    expect((await rehearse('--budgets', 'many')).said).toContain(
      'a whole number above 0 is needed',
    );
  });
});
