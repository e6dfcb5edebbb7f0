import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import pg from 'pg';
import { AcknowledgementCheck } from '../../bench/acknowledgement-check.ts';
import { measureCeiling } from '../../bench/copy-ceiling.ts';
import { findServerPid } from '../../bench/measurement.ts';
import { processorTimeOfTree } from '../../bench/processor-time.ts';
import { FIRST_NUMBER } from '../../bench/publish-ring.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

const START_MS = Date.UTC(2026, 10, 21, 8);

let test: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  test = await createTestDatabase();
  client = new pg.Client({ connectionString: test.url });
  await client.connect();
  await client.query(`
    INSERT INTO organization (slug, display_name) VALUES ('demo', 'Demo');
    INSERT INTO device (organization_id, slug, display_name)
      SELECT organization_id, name, name FROM organization, unnest('{one,two}'::text[]) AS name;
    INSERT INTO metric (organization_id, name, kind)
      SELECT organization_id, 'n', 'number' FROM organization`);
  if (!test.database.capabilities.hypertables) {
    await client.query(`SELECT reading_partition_ensure('2026-11-21')`);
  }
});

afterAll(async () => {
  await client.end();
  await test.drop();
});

describe('AcknowledgementCheck', () => {
  it('tells lost, doubled and altered messages from those that are merely unacknowledged', async () => {
    const check = new AcknowledgementCheck();
    for (const [device, index] of [
      ['one', 0],
      ['one', 1],
      ['one', 2],
      ['two', 0],
    ] as const) {
      const number = FIRST_NUMBER + index;
      check.add({ device, number, timeMs: START_MS + index, acknowledgedAtMs: START_MS });
    }
    await insert('one', 0, START_MS);
    await insert('one', 2, START_MS + 2);
    await insert('one', 2, START_MS + 700);
    await insert('one', 3, START_MS + 3);
    await insert('two', 0, START_MS + 9);

    const result = await check.compare(client, ['one', 'two']);

    expect(result).toEqual({
      acknowledged: 4,
      stored: 5,
      lost: 1,
      twice: 1,
      altered: 2,
      unacknowledged: 1,
      examples: [
        expect.stringMatching(/^(twice|altered): one 1000000002$/),
        expect.stringMatching(/^(twice|altered): one 1000000002$/),
        'lost: one 1000000001',
        'altered: two 1000000000',
      ],
    });
  });
});

describe('measureCeiling', () => {
  it('copies rows into a scratch table and leaves nothing behind', async () => {
    const before = await client.query('SELECT count(*) FROM reading');
    const phases: string[] = [];
    const shape = { devices: 3, metrics: 2, samples: 5 };
    const ceiling = await measureCeiling(test.url, shape, 0.2, (phase) => {
      phases.push(phase);
      return Promise.resolve();
    });
    expect(ceiling.rows).toBeGreaterThanOrEqual(10_000);
    expect(phases).toEqual(['begin', 'end']);
    expect((await client.query('SELECT count(*) FROM reading')).rows).toEqual(before.rows);
    const { rows } = await client.query(`SELECT FROM pg_namespace WHERE nspname = 'bench_scratch'`);
    expect(rows).toHaveLength(0);
  });
});

describe('processorTimeOfTree', () => {
  it.runIf(process.platform === 'linux' && (process.env['TEST_DATABASE_URL'] ?? '') === '')(
    'sees the work of the database server, found from one of its connections',
    async () => {
      const pid = (await findServerPid(client)) ?? 0;
      const before = (await processorTimeOfTree(pid)) ?? Number.NaN;
      await client.query('SELECT count(*) FROM generate_series(1, 2000000)');
      expect(await processorTimeOfTree(pid)).toBeGreaterThan(before + 50_000);
    },
  );
});

async function insert(device: string, index: number, timeMs: number): Promise<void> {
  await client.query(
    `INSERT INTO reading
     SELECT $3::timestamptz, device_id, metric_id, $2::float8, NULL, now(), 0
     FROM device, metric WHERE slug = $1`,
    [device, FIRST_NUMBER + index, new Date(timeMs)],
  );
}
