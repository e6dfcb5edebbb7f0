import type pg from 'pg';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRandom } from '../../bench/random.ts';
import type { Author } from '../../registry/devices.ts';
import { Checkpoint } from '../../rules/log/checkpoint.ts';
import { compileRule } from '../../rules/compile.ts';
import type { CompiledRule } from '../../rules/compiled-rule.ts';
import { DeviceLoadMetrics } from '../../rules/evaluation/device-load-metrics.ts';
import { createDeviceLoader } from '../../rules/evaluation/device-loader.ts';
import { RuleEvaluator } from '../../rules/evaluation/evaluator.ts';
import { listOpenAlerts } from '../../rules/log/open-alerts.ts';
import { parseRule } from '../../rules/rule-schema.ts';
import { createTestAlertLog, S, T0 } from '../support/alert-log.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { ensureDays, ensureMetric } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const silent = pino({ level: 'silent' });
const RULES = [
  { name: 'hot', severity: 'high', when: { metric: 'temp', op: '>', value: 80, clear: 78 } },
  { for: '3s', name: 'hot for a while', when: { metric: 'temp', op: '>', value: 80 } },
  { keepFiringFor: '4s', name: 'kept', when: { metric: 'temp', op: '>', value: 82 } },
  {
    name: 'hot on average',
    for: '1s',
    when: { metric: 'temp', window: '6s', fn: 'avg', op: '>', value: 80 },
  },
  {
    name: 'of the last ones',
    when: { metric: 'temp', samples: 5, fn: 'max', op: '>', value: 83 },
  },
  {
    name: 'steps',
    severity: 'low',
    for: '2s',
    keepFiringFor: '2s',
    when: { metric: 'temp', op: '>', value: 79 },
    levels: [{ severity: 'critical', when: { metric: 'temp', op: '>', value: 83 } }],
  },
];

let test: TestDatabase;
let author: Author;
let metricId: number;
let rules: CompiledRule[];
beforeAll(async () => {
  test = await createTestDatabase();
  const { database } = test;
  ({ author } = await createOrganization(database, 'acme'));
  const { organizationId } = author;
  metricId = await ensureMetric(database, organizationId, 'temp');
  await ensureDays(database, '2026-11-20', '2026-11-22');
  rules = RULES.map((json, index) =>
    compileRule(
      {
        ruleId: index + 1,
        publicId: `rule ${index + 1}`,
        organizationId,
        version: 1,
        mode: 'enabled',
        definition: parseRule({ severity: 'high', ...json }),
      },
      { windowSamplesMax: 1000 },
    ),
  );
});
afterAll(() => test.drop());

/** A program as far as rules go, on a clock that the test moves. */
class Program {
  static nowMicros = T0;
  readonly evaluator: RuleEvaluator;
  readonly alertLog;
  #isKilled = false;

  constructor(startCheckpointMicros: number | null) {
    const pool = new Proxy(test.database.pool, {
      get: (target, name) => {
        if (this.#isKilled && (name === 'connect' || name === 'query')) {
          return () => new Promise(() => undefined);
        }
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    }) satisfies pg.Pool;
    this.alertLog = createTestAlertLog({ pool }, { queueMax: 20_000 }).alertLog;
    this.evaluator = new RuleEvaluator({
      loader: createDeviceLoader({
        pool,
        startCheckpointMicros,
        checkpointMicros: () => this.alertLog.checkpointMicros,
        windowSamplesMax: 1000,
        metrics: new DeviceLoadMetrics(new Registry()),
        log: silent,
      }),
      alertLog: this.alertLog,
      findDevices: async () => [],
      noData: null,
      onSuspend: () => undefined,
      now: () => Program.nowMicros / 1000,
      limits: { evaluationUsMax: 1e6, timerSlackMs: 1000, deviceReadingsHeldMax: 2000 },
      log: silent,
    });
    this.evaluator.replaceRules(rules);
  }

  /** Observes a reading, once its device is loaded. */
  async observe(deviceId: number, value: number): Promise<void> {
    const { evaluator } = this;
    const { organizationId } = author;
    const times = {
      timeMicros: Program.nowMicros,
      receivedMicros: Program.nowMicros,
      isLive: true,
    };
    evaluator.tick();
    const series = evaluator.seriesOf(organizationId, deviceId, 'temp');
    evaluator.reading(series, times.timeMicros, value, null);
    evaluator.sampleEnd(deviceId, times);
    if (evaluator.evaluationOf(deviceId) !== null) return;
    await eventually('the device', () => evaluator.evaluationOf(deviceId) !== null);
  }

  /** Nothing that it has not written is written any more. */
  kill(): void {
    this.#isKilled = true;
    void this.evaluator.stop();
  }
}

async function addDevice(slug: string): Promise<number> {
  return (await createTestRegistry(test.database).devices.create(author, { slug })).deviceId;
}

async function store(deviceId: number, value: number): Promise<void> {
  await test.database.pool.query(
    `WITH stored AS (
       INSERT INTO reading VALUES (to_timestamp($3::float8 / 1000000), $1, $2, $4, NULL,
         to_timestamp($3::float8 / 1000000), 0) ON CONFLICT DO NOTHING
     )
     INSERT INTO device_latest VALUES ($1, $2, to_timestamp($3::float8 / 1000000), $4, NULL,
       to_timestamp($3::float8 / 1000000), 0)
     ON CONFLICT (device_id, metric_id) DO UPDATE
     SET time = excluded.time, value = excluded.value, received_at = excluded.received_at`,
    [deviceId, metricId, Program.nowMicros, value],
  );
}

async function recorded(deviceId: number): Promise<unknown[]> {
  const { rows } = await test.database.pool.query(
    `SELECT step.rule_id, step.sequence, step.at, step.from_state, step.to_state, step.severity,
       step.reason, step.detail->'timers' AS timers, alert.state, alert.active_at
     FROM alert_transition AS step JOIN alert USING (alert_id)
     WHERE step.device_id = $1 ORDER BY step.rule_id, alert.active_at, step.sequence`,
    [deviceId],
  );
  return rows;
}

/** A value each half second that wanders around the bounds of the rules. */
function valuesOf(seed: number, count: number): number[] {
  const random = createRandom(seed);
  let value = 79;
  return Array.from({ length: count }, () => {
    value += random.between(-1.5, 1.5) + (80 - value) * 0.1;
    return Math.round(value * 10) / 10;
  });
}

async function run(
  deviceId: number,
  values: readonly number[],
  killed: (() => number) | null,
): Promise<{ kills: number }> {
  const checkpoint = new Checkpoint(test.database.pool);
  await test.database.pool.query('DELETE FROM rule_checkpoint');
  let program = new Program(null);
  let kills = 0;
  for (const [index, value] of values.entries()) {
    Program.nowMicros = T0 + index * (S / 2);
    const roll = killed?.() ?? 1;
    // Observed and then not stored, as the program died: the device sends it again.
    if (roll < 0.05) await program.observe(deviceId, value);
    if (roll < 0.1) {
      program.kill();
      kills += 1;
      program = new Program(await checkpoint.read());
      const open = await listOpenAlerts(test.database.pool);
      program.evaluator.start(open.map((alert) => alert.deviceId));
    }
    await store(deviceId, value);
    await program.observe(deviceId, value);
    if (roll > 0.8) {
      await program.alertLog.drain();
      await checkpoint.move(Program.nowMicros);
    }
  }
  await program.alertLog.drain();
  program.kill();
  return { kills };
}

describe('a program that is killed again and again', () => {
  it.each([1, 2])(
    'records what one records that never was, nothing lost and nothing twice (L-03), seed %i',
    async (seed) => {
      const values = valuesOf(seed, 300);
      const steady = await addDevice(`steady-${seed}`);
      const unlucky = await addDevice(`unlucky-${seed}`);
      await run(steady, values, null);
      const expected = await recorded(steady);
      const dice = createRandom(1000 + seed);
      const { kills } = await run(unlucky, values, () => dice.between(0, 1));
      expect(kills).toBeGreaterThan(15);
      expect(expected.length).toBeGreaterThan(40);
      expect(await recorded(unlucky)).toEqual(expected);
    },
  );
});
