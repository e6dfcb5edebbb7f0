import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIST, listCommands, listValues } from '../../commands/command-queries.ts';
import type { CommandState } from '../../commands/command.ts';
import { inOrganization } from '../../drizzle/transaction.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization } from '../support/registry.ts';

const COMMANDS = 20_000;
const LIMIT = 50;
/** Where one in fifty is wanted, a page of fifty is found in 2 500. */
const READ_MAX = 3000;

let test: TestDatabase;
let organizationId: number;
beforeAll(async () => {
  test = await createTestDatabase();
  const { author } = await createOrganization(test.database, 'acme');
  ({ organizationId } = author);
  const { pool } = test.database;
  await pool.query(
    `INSERT INTO device (organization_id, slug, display_name)
     SELECT $1, 'd' || n, '' FROM generate_series(0, 99) AS n`,
    [organizationId],
  );
  // The oldest still run, those behind them were cancelled; of the others one in fifty failed.
  await pool.query(
    `INSERT INTO command (command_id, organization_id, device_id, name, args, state, is_retry_safe,
       expires_at, origin, actor)
     SELECT (lpad(to_hex(n), 12, '0') || '70008' || lpad('', 15, '0'))::uuid, $1, device_id, 'relay',
       '{}', CASE WHEN n <= 20 THEN 'running' WHEN n <= 1000 THEN 'cancelled'
                  WHEN n % 50 = 0 THEN 'failed' ELSE 'succeeded' END,
       false, now(), 'api', 'x'
     FROM generate_series(1, $2::int4) AS n
     JOIN device ON organization_id = $1 AND slug = 'd' || (n * 7 % 100)`,
    [organizationId, COMMANDS],
  );
  await pool.query('ANALYZE');
});
afterAll(() => test.drop());

interface Plan {
  'Relation Name'?: string;
  'Actual Rows': number;
  'Actual Loops': number;
  'Rows Removed by Filter'?: number;
  Plans?: Plan[];
}

/** How many commands are read for the first page. */
async function readFor(states: CommandState[] | null, device: string | null): Promise<number> {
  const query = { organizationId, device, states, limit: LIMIT, after: null };
  const rows = await inOrganization(test.database, organizationId, async ({ client }) => {
    const explained = await client.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
      `EXPLAIN (ANALYZE, FORMAT JSON) ${LIST}`,
      listValues(query),
    );
    return explained.rows;
  });
  const plan = rows[0]?.['QUERY PLAN'][0].Plan;
  if (plan === undefined) throw new Error('no plan');
  return allOf(plan)
    .filter((one) => one['Relation Name'] === 'command')
    .map((one) => (one['Actual Rows'] + (one['Rows Removed by Filter'] ?? 0)) * one['Actual Loops'])
    .reduce((sum, read) => sum + read, 0);
}

function allOf(plan: Plan): Plan[] {
  return [plan, ...(plan.Plans ?? []).flatMap(allOf)];
}

describe('a list of commands', () => {
  it.each<[string, CommandState[] | null, number]>([
    ['in any state', null, LIMIT],
    ['in the state of most', ['succeeded'], LIMIT],
    ['in a rare state', ['failed'], LIMIT],
    ['in a state of old ones', ['cancelled'], LIMIT],
    ['in a state of few', ['running'], 20],
    ['in one of several rare states', ['queued', 'published', 'sent', 'running'], 20],
    ['in one of several states', ['failed', 'expired'], LIMIT],
  ])('%s does not read all to find a page', async (_, states, count) => {
    expect(await readFor(states, null)).toBeLessThan(READ_MAX);
    const query = { organizationId, device: null, states, limit: LIMIT, after: null };
    const { rows } = await listCommands(test.database, query);
    expect(rows).toHaveLength(count);
    expect(rows.every(({ state }) => states === null || states.includes(state))).toBe(true);
    const ids = rows.map(({ commandId }) => commandId);
    expect(ids).toEqual(ids.toSorted().toReversed());
  });

  it('of a device reads at most those of the device', async () => {
    for (const states of [null, ['running'], ['failed'], ['succeeded']] as const) {
      const read = await readFor(states === null ? null : [...states], 'd7');
      expect(read).toBeLessThanOrEqual(COMMANDS / 100);
    }
  });

  it('in no state at all is empty', async () => {
    const query = { organizationId, device: null, states: [], limit: LIMIT, after: null };
    expect(await listCommands(test.database, query)).toMatchObject({ rows: [], hasMore: false });
  });
});
