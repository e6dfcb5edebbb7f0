import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runBacktest, type BacktestProgress } from '../../rules/backtest/backtest.ts';
import type { BacktestOutcome } from '../../rules/backtest/backtest.ts';
import { differenceOf } from '../../rules/backtest/tally.ts';
import { compileRule } from '../../rules/compile.ts';
import type { CompiledRule } from '../../rules/compiled-rule.ts';
import { parseRule } from '../../rules/rule-schema.ts';
import type { Author } from '../../registry/devices.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const DAY = Date.parse('2026-11-20T00:00:00Z') * 1000;
const S = 1_000_000;
const HOUR = 3600 * S;

let test: TestDatabase;
let author: Author;
let registry: ReturnType<typeof createTestRegistry>;
const metricIds = new Map<string, number>();

beforeAll(async () => {
  test = await createTestDatabase();
  ({ author } = await createOrganization(test.database, 'acme'));
  registry = createTestRegistry(test.database);
  await ensureDays(test.database, '2026-11-18', '2026-11-21');
  for (const [name, kind] of [
    ['temp', 'number'],
    ['setpoint', 'number'],
    ['door', 'text'],
  ] as const) {
    metricIds.set(name, await ensureMetric(test.database, author.organizationId, name, kind));
  }
});
afterAll(() => test.drop());

async function makeDevice(slug: string, tags: string[] = []): Promise<number> {
  return (await registry.devices.create(author, { slug, tags })).deviceId;
}

/** Stores readings of one metric, a second apart from the beginning of the day. */
async function store(deviceId: number, metric: string, values: (number | string)[]): Promise<void> {
  for (const [index, value] of values.entries()) {
    const time = new Date((DAY + index * S) / 1000).toISOString();
    const row = { deviceId, metricId: metricIds.get(metric) ?? 0, time };
    await insertReading(
      test.database,
      typeof value === 'number' ? { ...row, value } : { ...row, text: value },
    );
  }
}

const RULE = { name: 'hot', severity: 'high', when: { metric: 'temp', op: '>', value: 80 } };

function compile(json: object, ruleId = 1, version = 1): CompiledRule {
  const definition = parseRule({ ...RULE, ...json });
  const { organizationId } = author;
  return compileRule(
    { ruleId, publicId: 'r', organizationId, version, mode: 'enabled', definition },
    { windowSamplesMax: 4096 },
  );
}

const run = (rules: CompiledRule[], more: object = {}): Promise<BacktestOutcome> =>
  runBacktest(test.database, {
    organizationId: author.organizationId,
    rules,
    fromMicros: DAY,
    toMicros: DAY + HOUR,
    ...more,
  });

describe('a backtest', () => {
  it('finds when a rule would have fired and resolved, and how long it was in alarm', async () => {
    const deviceId = await makeDevice('timed');
    await store(deviceId, 'temp', [70, 85, 86, 87, 88, 70, 71]);
    const { tallies, readings } = await run([
      compile({ scope: { devices: ['timed'] }, for: '2s' }),
    ]);
    expect(readings).toBe(7);
    expect(tallies[0]?.alerts).toMatchObject([
      { deviceId, activeMicros: DAY + S, firedMicros: DAY + 3 * S, resolvedMicros: DAY + 5 * S },
    ]);
    expect(tallies[0]).toMatchObject({
      firedCount: 1,
      resolvedCount: 1,
      notificationCount: 2,
      alarmMicros: 2 * S,
    });
  });

  it('counts an alert that fires at the end up to there', async () => {
    const deviceId = await makeDevice('endless');
    await store(deviceId, 'temp', [85]);
    const { tallies } = await run([compile({ scope: { devices: ['endless'] }, for: '60s' })]);
    expect(tallies[0]).toMatchObject({ firedCount: 1, resolvedCount: 0 });
    expect(tallies[0]?.alarmMicros).toBe(HOUR - 60 * S);
  });

  it('fills windows with what was before its beginning', async () => {
    const deviceId = await makeDevice('windowed');
    await store(deviceId, 'temp', [100, 100, 100, 100, 10, 10, 10, 10]);
    const when = { metric: 'temp', window: '3s', fn: 'max', op: '>', value: 90 };
    const rule = compile({ scope: { devices: ['windowed'] }, when });
    const { tallies } = await run([rule], { fromMicros: DAY + 4 * S });
    // It was firing before, and no longer is when the last high value has left the window.
    expect(tallies[0]?.alerts).toMatchObject([{ firedMicros: DAY }]);
    expect(tallies[0]).toMatchObject({ firedCount: 0, resolvedCount: 1 });
  });

  it('does not count as fired what was firing at its beginning', async () => {
    const deviceId = await makeDevice('before');
    await store(deviceId, 'temp', [90, 90, 90, 90, 70]);
    const rule = compile({ scope: { devices: ['before'] } });
    const { tallies } = await run([rule], { fromMicros: DAY + 2 * S });
    expect(tallies[0]).toMatchObject({ firedCount: 0, resolvedCount: 1, alarmMicros: 2 * S });
  });

  it('evaluates metrics of one time together, and texts', async () => {
    const deviceId = await makeDevice('both');
    await store(deviceId, 'temp', [10, 20, 30]);
    await store(deviceId, 'setpoint', [11, 21, 25]);
    await store(deviceId, 'door', ['shut', 'open', 'open']);
    const when = {
      all: [
        { metric: 'temp', op: '>', other: 'setpoint' },
        { metric: 'door', op: '==', value: 'open' },
      ],
    };
    const { tallies } = await run([compile({ scope: { devices: ['both'] }, when })]);
    expect(tallies[0]?.alerts).toMatchObject([{ firedMicros: DAY + 2 * S }]);
  });

  it('compares a device with its fleet, those outside of the scope too', async () => {
    const hall = ['hall-3'];
    const [own, other] = [await makeDevice('own', hall), await makeDevice('other', hall)];
    await store(own, 'temp', [50, 50, 80]);
    await store(other, 'temp', [50, 50, 50]);
    const when = { metric: 'temp', op: '>', fleet: 'avg', tag: 'hall-3', plus: 10 };
    const { tallies } = await run([compile({ scope: { devices: ['own'] }, when })]);
    expect(tallies[0]?.alerts).toMatchObject([{ deviceId: own, firedMicros: DAY + 2 * S }]);
  });

  it('finds silence between readings, and at the end', async () => {
    const deviceId = await makeDevice('quiet');
    await store(deviceId, 'temp', [1]);
    await insertReading(test.database, {
      deviceId,
      metricId: metricIds.get('temp') ?? 0,
      time: new Date((DAY + 600 * S) / 1000).toISOString(),
      value: 1,
    });
    const rule = compile({ scope: { devices: ['quiet'] }, when: { noData: '5m' } });
    const { tallies } = await run([rule]);
    expect(tallies[0]?.alerts).toMatchObject([
      { firedMicros: DAY + 300 * S, resolvedMicros: DAY + 600 * S },
      { firedMicros: DAY + 900 * S, resolvedMicros: null },
    ]);
  });

  it('tells two versions apart', async () => {
    const deviceId = await makeDevice('versions');
    await store(deviceId, 'temp', [85, 70, 95, 70, 85]);
    const scope = { devices: ['versions'] };
    const strict = compile({ scope, when: { metric: 'temp', op: '>', value: 90 } }, 1, 2);
    const { tallies } = await run([strict, compile({ scope })]);
    const difference = differenceOf(tallies[0]?.alerts ?? [], tallies[1]?.alerts ?? []);
    expect(difference.both).toBe(1);
    expect(difference.onlyThis).toEqual([]);
    expect(difference.onlyOther.map(({ firedMicros }) => firedMicros)).toEqual([DAY, DAY + 4 * S]);
  });

  it('ends when nobody waits for it any more', async () => {
    const deviceId = await makeDevice('cut');
    await test.database.pool.query(
      `INSERT INTO reading SELECT time, $1, $2, 1, NULL, time, 0
       FROM generate_series('2026-11-20Z'::timestamptz, '2026-11-20 23:59:59Z', '1 second') AS time`,
      [deviceId, metricIds.get('temp')],
    );
    const ended = new AbortController();
    const seen: BacktestProgress[] = [];
    const running = run([compile({ scope: { devices: ['cut'] } })], {
      toMicros: DAY + 24 * HOUR,
      signal: ended.signal,
      onProgress(progress: BacktestProgress) {
        seen.push(progress);
        ended.abort(new Error('nobody waits'));
      },
    });
    await expect(running).rejects.toThrow('nobody waits');
    expect(seen[0]?.share).toBeLessThan(1);
  });
});
