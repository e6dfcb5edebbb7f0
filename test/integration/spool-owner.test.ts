import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { claimSpool } from '../../ingest/spool/spool-owner.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization } from '../support/registry.ts';

let one: TestDatabase;
let other: TestDatabase;
let empty: TestDatabase;
let folder: string;

beforeAll(async () => {
  [one, other, empty] = await Promise.all([
    createTestDatabase(),
    createTestDatabase(),
    createTestDatabase(),
  ]);
  for (const { database } of [one, other]) await createOrganization(database, 'acme');
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-owner-'));
  return () => rm(folder, { recursive: true });
});
afterAll(async () => {
  for (const { drop } of [one, other, empty]) await drop();
});

describe('the spool', () => {
  it('is of the database that it was first used with', async () => {
    await claimSpool(folder, one.database.pool, 0);
    await claimSpool(folder, one.database.pool, 7);
    expect(await readFile(join(folder, 'database'), 'utf8')).toMatch(/^acme \d{4}-/);
    expect((await stat(join(folder, 'database'))).mode & 0o777).toBe(0o600);
  });

  it('does not let its messages go to another database, and says what to do', async () => {
    await claimSpool(folder, one.database.pool, 0);
    const claim = claimSpool(folder, other.database.pool, 7);
    await expect(claim).rejects.toMatchObject({ code: 'FILE_UNUSABLE' });
    await expect(claim).rejects.toThrow(/7 messages wait in it for another database; start with/);
    await claimSpool(folder, one.database.pool, 7);
  });

  it('goes over to another database when nothing waits in it', async () => {
    await claimSpool(folder, one.database.pool, 0);
    await claimSpool(folder, other.database.pool, 0);
    await expect(claimSpool(folder, one.database.pool, 1)).rejects.toThrow('another database');
  });

  it('is nobody’s while there is no organization', async () => {
    await claimSpool(folder, empty.database.pool, 0);
    await claimSpool(folder, one.database.pool, 7);
  });
});
