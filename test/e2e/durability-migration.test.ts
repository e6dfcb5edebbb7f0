import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TcpProxy } from '../../bench/tcp-proxy.ts';
import { withDatabase } from '../../bench/database-client.ts';
import { openDatabase, type Database } from '../../drizzle/database.ts';
import { readJournal } from '../../drizzle/migrate.ts';
import { openOwnServer, type OwnServer } from '../support/own-database.ts';

const log = pino({ level: 'silent' });
/** Every so many answers of the server the migration is cut off. */
const STEPS = 8;

let own: OwnServer;
beforeAll(async () => {
  own = await openOwnServer();
});
afterAll(() => own.close());

const open = (url: string): Promise<Database> =>
  openDatabase({ url, connectionsMax: 2, timeoutMs: 10_000, log });

describe('D-15 a migration', { timeout: 120_000 }, () => {
  it('that is cut off at any of its statements is whole or not there, and the next start finishes it', async () => {
    const answers = await countAnswers();
    expect(answers).toBeGreaterThan(STEPS);
    for (let step = 0; step < STEPS; step += 1) {
      const name = `cut_${step}`;
      const url = await own.server.makeDatabase(name);
      const proxy = await TcpProxy.open(url);
      let left = Math.floor((answers * step) / STEPS);
      proxy.inspect = (_link, _bytes, from) => from === 'client' || (left -= 1) >= 0;
      await expect(open(proxy.through(url))).rejects.toThrow();
      await proxy.close();
      expect(await tablesAndVersion(own.server.urlOf(name))).toSatisfy(
        ({ tables, version }) =>
          (tables === 0 && version === 0) || (tables > 0 && version === readJournal().length),
        `cut off after ${step} of ${STEPS}`,
      );
      await (await open(url)).close();
      expect(await tablesAndVersion(own.server.urlOf(name))).toMatchObject({
        version: readJournal().length,
      });
    }
  });
});

/** Chunks that the server sends from the first connection to the end of the migrations. */
async function countAnswers(): Promise<number> {
  const url = await own.server.makeDatabase('whole');
  const proxy = await TcpProxy.open(url);
  let answers = 0;
  proxy.inspect = (_link, _bytes, from) => {
    if (from === 'server') answers += 1;
    return true;
  };
  await (await open(proxy.through(url))).close();
  await proxy.close();
  return answers;
}

function tablesAndVersion(url: string): Promise<{ tables: number; version: number }> {
  return withDatabase(url, async (client) => {
    const tables = await client.query<{ count: number }>(
      `SELECT count(*)::int4 AS count FROM pg_tables WHERE schemaname = 'public'`,
    );
    const isThere = await client.query<{ name: string | null }>(
      `SELECT to_regclass('drizzle.__drizzle_migrations') AS name`,
    );
    if (isThere.rows[0]?.name === null) return { tables: tables.rows[0]?.count ?? 0, version: 0 };
    const version = await client.query<{ count: number }>(
      'SELECT count(*)::int4 AS count FROM drizzle.__drizzle_migrations',
    );
    return { tables: tables.rows[0]?.count ?? 0, version: version.rows[0]?.count ?? 0 };
  });
}
