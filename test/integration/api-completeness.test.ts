import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createCompleteness, type CompletenessQuery } from '../../ingest/completeness.ts';
import { pruneBoots } from '../../ingest/completeness-pruning.ts';
import { int4Array, int8Array } from '../../ingest/binary-array.ts';
import { multirangeArray, sequenceStatement } from '../../ingest/sequence-statement.ts';
import { rangesOf } from '../../ingest/sequence-ranges.ts';
import { createTestApi, type TestApi } from '../support/api.ts';

const MINUTE = 60_000_000;
/** Beginning of the window: yesterday, at a whole minute. */
const START = Math.floor(Date.now() / 86_400_000) * 86_400_000_000 - 86_400_000_000;

let t: TestApi;
let metricId: number;
beforeAll(async () => {
  t = await createTestApi();
  const { rows } = await t.test.database.pool.query(
    `INSERT INTO metric (organization_id, name, kind) VALUES ($1, 'temp', 'number') RETURNING metric_id`,
    [t.acme.author.organizationId],
  );
  metricId = rows[0].metric_id;
  if (t.test.database.capabilities.hypertables) return;
  for (const days of [1, 2]) {
    await t.test.database.pool.query(
      `SELECT reading_partition_ensure((now() AT TIME ZONE 'UTC')::date - $1::int4)`,
      [days],
    );
  }
});
afterAll(() => t.stop());

let made = 0;
async function createDevice(): Promise<{ slug: string; deviceId: number }> {
  made += 1;
  const device = await t.registry.devices.create(t.acme.author, { slug: `board-${made}` });
  await t.test.database.pool.query(
    `INSERT INTO device_latest (device_id, metric_id, time, received_at, quality)
     VALUES ($1, $2, now(), now(), 0)`,
    [device.deviceId, metricId],
  );
  return device;
}

async function store(deviceId: number, micros: readonly number[]): Promise<void> {
  await t.test.database.pool.query(
    `INSERT INTO reading (time, device_id, metric_id, value, received_at, quality)
     SELECT to_timestamp(at / 1000000.0), $1, $2, 1, now(), 0 FROM unnest($3::float8[]) AS at`,
    [deviceId, metricId, micros],
  );
}

async function note(deviceId: number, boot: number, seqs: readonly number[]): Promise<void> {
  await t.test.database.pool.query(sequenceStatement(), [
    int4Array([deviceId]),
    int8Array([boot]),
    multirangeArray([rangesOf(seqs)]),
  ]);
}

function window(deviceId: number, minutes: number): CompletenessQuery {
  return {
    organizationId: t.acme.author.organizationId,
    deviceId,
    fromMicros: START,
    toMicros: START + minutes * MINUTE,
    boot: null,
    metrics: null,
    cadenceMicros: MINUTE,
    gapsMax: 1000,
  };
}

const tick = (index: number): number => START + index * MINUTE;

/** The runs of whole numbers that are not in a set, from 0 up to and without `end`. */
function runsWithout(kept: ReadonlySet<number>, end: number): [number, number][] {
  const runs: [number, number][] = [];
  for (let at = 0; at < end; at += 1) {
    if (kept.has(at)) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[1] === at) last[1] = at + 1;
    else runs.push([at, at + 1]);
  }
  return runs;
}

describe('completeness by cadence', () => {
  it('has exactly the runs that were dropped as gaps, and they close in whatever order they are filled', async () => {
    const completeness = createCompleteness(t.test.database);
    const plan = fc.record({
      dropped: fc.uniqueArray(fc.nat(39), { maxLength: 38 }),
      jitter: fc.array(fc.integer({ min: -10, max: 10 }), { minLength: 40, maxLength: 40 }),
      isOlder: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(plan, async ({ dropped, jitter, isOlder }) => {
        const { deviceId } = await createDevice();
        const isRegular = jitter.every((step) => step === 0);
        const at = (index: number): number =>
          tick(index) + (isRegular ? 0 : (jitter[index] ?? 0) * 900_000);
        // Without an older reading nothing is known to be missing before the first.
        if (isOlder) await store(deviceId, [START - MINUTE]);
        const kept = new Set(Array.from({ length: 40 }, (_, index) => index));
        for (const index of dropped) kept.delete(index);
        if (!isOlder) kept.add(0);
        await store(deviceId, [...kept].map(at));
        for (const next of [null, ...dropped]) {
          if (next !== null && !kept.has(next)) {
            kept.add(next);
            await store(deviceId, [at(next)]);
          }
          const [found] = await completeness.metrics(window(deviceId, 40));
          const inWindow = [...kept].map(at).filter((micros) => micros >= START).length;
          const runs = runsWithout(kept, 40);
          const missing = runs.map(([from, to]) => to - from);
          expect(found?.received).toBe(inWindow);
          if (jitter[0] === 0 || kept.has(0)) {
            expect(found?.gaps.map((gap) => gap.missing)).toEqual(missing);
          }
          if (isRegular) {
            expect(found?.gaps.map((gap) => [gap.fromMicros, gap.toMicros])).toEqual(
              runs.map(([from, to]) => [tick(from), tick(to)]),
            );
          }
        }
        const [whole] = await completeness.metrics(window(deviceId, 40));
        expect(whole).toMatchObject({ missing: 0, percent: 100, gaps: [], gapCount: 0 });
      }),
      { numRuns: 15 },
    );
  });

  it('is told over HTTP, with the median interval when none is given', async () => {
    const { slug, deviceId } = await createDevice();
    const minutes = [0, 1, 2, 5, 6, 7, 8, 9];
    await store(deviceId, minutes.map(tick));
    const from = new Date(START / 1000).toISOString();
    const to = new Date((START + 10 * MINUTE) / 1000).toISOString();
    const path = `/api/v1/devices/${slug}/completeness?from=${from}&to=${to}`;
    const { status, body } = await t.send('GET', path);
    expect(status).toBe(200);
    expect(body).toEqual({
      from,
      to,
      boots: [],
      metrics: [
        {
          metric: 'temp',
          cadenceS: 60,
          expected: 10,
          received: 8,
          missing: 2,
          percent: 80,
          gaps: [
            {
              from: new Date((START + 3 * MINUTE) / 1000).toISOString(),
              to: new Date((START + 5 * MINUTE) / 1000).toISOString(),
              missing: 2,
            },
          ],
          gapCount: 1,
        },
      ],
    });
    const halves = await t.send('GET', `${path}&cadence=30s&gaps=2&metric=temp`);
    expect(halves.body.metrics[0]).toMatchObject({ cadenceS: 30, gapCount: 8, missing: 12 });
    expect(halves.body.metrics[0].gaps).toHaveLength(2);
    expect((await t.send('GET', `${path}&metric=other`)).body.metrics).toEqual([]);
    for (const wrong of ['cadence=0s', 'cadence=5', 'gaps=0', 'gaps=1001', 'boot=-1', 'x=1']) {
      expect((await t.send('GET', `${path}&${wrong}`)).status, wrong).toBe(400);
    }
    const year = `/api/v1/devices/${slug}/completeness?from=2020-01-01`;
    expect((await t.send('GET', year)).status).toBe(400);
    const foreign = await t.send('GET', path, undefined, t.other.adminKey);
    expect(foreign.status).toBe(404);
  });

  it('has no cadence when there is one reading, and counts silence when one is given', async () => {
    const { deviceId } = await createDevice();
    const completeness = createCompleteness(t.test.database);
    await store(deviceId, [tick(0)]);
    const unknown = await completeness.metrics({ ...window(deviceId, 10), cadenceMicros: null });
    expect(unknown).toMatchObject([{ received: 1, cadenceMicros: null, percent: null }]);
    const [given] = await completeness.metrics(window(deviceId, 10));
    expect(given).toMatchObject({ received: 1, missing: 9, percent: 10 });
  });

  it('looks at no more readings than its bound', async () => {
    const { deviceId } = await createDevice();
    await store(
      deviceId,
      Array.from({ length: 30 }, (_, index) => tick(index)),
    );
    const looking = createCompleteness(t.test.database, 29).metrics(window(deviceId, 40));
    await expect(looking).rejects.toMatchObject({ code: 'WINDOW_TOO_LARGE' });
    const [found] = await createCompleteness(t.test.database, 30).metrics(window(deviceId, 30));
    expect(found).toMatchObject({ received: 30, missing: 0 });
  });
});

describe('completeness by number', () => {
  it('has exactly the numbers that were dropped, and closes as they come', async () => {
    const { slug, deviceId } = await createDevice();
    await note(deviceId, 7, [5, 6, 9, 12, 13]);
    const path = `/api/v1/devices/${slug}/completeness?boot=7`;
    const { body } = await t.send('GET', path);
    expect(body.boots).toMatchObject([
      {
        boot: 7,
        first: 5,
        highest: 13,
        received: 5,
        missing: 4,
        percent: 55.555,
        forgotten: 0,
        gaps: [
          { from: 7, to: 8 },
          { from: 10, to: 11 },
        ],
      },
    ]);
    await note(deviceId, 7, [11, 7]);
    await note(deviceId, 7, [8, 10]);
    const filled = await t.send('GET', path);
    expect(filled.body.boots).toMatchObject([{ received: 9, missing: 0, percent: 100, gaps: [] }]);
    expect((await t.send('GET', `/api/v1/devices/${slug}/completeness?boot=8`)).body.boots).toEqual(
      [],
    );
  });

  it('is worked out one at a time for an organization, so that all others go on', async () => {
    const { slug } = await createDevice();
    const client = await t.test.database.pool.connect();
    await client.query('BEGIN; LOCK TABLE reading IN ACCESS EXCLUSIVE MODE');
    try {
      const path = `/api/v1/devices/${slug}/completeness`;
      const answers = Array.from({ length: 20 }, () => t.send('GET', path));
      const startedAt = performance.now();
      const other = await t.send('GET', '/api/v1/devices', undefined, t.other.adminKey);
      expect(other.status).toBe(200);
      expect(performance.now() - startedAt).toBeLessThan(5000);
      const refused = await Promise.race(answers);
      expect(refused).toMatchObject({ status: 429, body: { code: 'QUESTIONS_BUSY' } });
      expect(refused.headers.get('retry-after')).toBe('5');
      await client.query('ROLLBACK');
      const codes = (await Promise.all(answers)).map(({ status }) => status);
      expect(codes.filter((status) => status === 200).length).toBeGreaterThan(0);
      expect(codes.filter((status) => status === 429).length).toBeGreaterThan(10);
      expect((await t.send('GET', path)).status).toBe(200);
    } finally {
      await client.query('ROLLBACK');
      client.release();
    }
  });

  it('is kept of the newest boots of a device', async () => {
    const { deviceId } = await createDevice();
    const { pool } = t.test.database;
    for (let boot = 0; boot < 8; boot += 1) await note(deviceId, boot, [1]);
    await pool.query(
      `UPDATE device_sequence SET last_at = now() - boot * interval '1 hour' WHERE device_id = $1`,
      [deviceId],
    );
    expect(await pruneBoots(pool, 5)).toBe(3);
    expect(await pruneBoots(pool, 5)).toBe(0);
    const { rows } = await pool.query(
      'SELECT boot FROM device_sequence WHERE device_id = $1 ORDER BY boot',
      [deviceId],
    );
    expect(rows.map(({ boot }) => Number(boot))).toEqual([0, 1, 2, 3, 4]);
  });
});
