import pg from 'pg';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Checkpoint } from '../../rules/log/checkpoint.ts';
import { DeviceLoadMetrics } from '../../rules/evaluation/device-load-metrics.ts';
import type { LoadedDevice, LoadRequest } from '../../rules/evaluation/device-load.ts';
import {
  createDeviceLoader,
  LOAD_DEVICES_MAX,
  type StartLoader,
} from '../../rules/evaluation/device-loader.ts';
import { CATCH_UP_ROWS_MAX } from '../../rules/evaluation/history-rows.ts';
import { listOpenAlerts } from '../../rules/log/open-alerts.ts';
import type { Author } from '../../registry/devices.ts';
import { createTestAlertLog, S, stepsOf, T0, type StepsOf } from '../support/alert-log.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const WINDOW_SAMPLES_MAX = 400;

let test: TestDatabase;
let author: Author;
let metricIds: Record<string, number>;
beforeAll(async () => {
  test = await createTestDatabase();
  const { database } = test;
  ({ author } = await createOrganization(database, 'acme'));
  const { organizationId } = author;
  metricIds = {
    temp: await ensureMetric(database, organizationId, 'temp'),
    rh: await ensureMetric(database, organizationId, 'rh'),
    door: await ensureMetric(database, organizationId, 'door', 'text'),
    unseen: await ensureMetric(database, organizationId, 'unseen'),
  };
  await ensureDays(database, '2026-11-18', '2026-11-22');
});
afterAll(() => test.drop());

let devices = 0;
let deviceId: number;
let of: StepsOf;
beforeEach(async () => {
  devices += 1;
  deviceId = await addDevice(`d${devices}`);
  of = { organizationId: author.organizationId, deviceId };
});

async function addDevice(slug: string): Promise<number> {
  const wanted = { slug, tags: ['hall-3'] };
  return (await createTestRegistry(test.database).devices.create(author, wanted)).deviceId;
}

interface Stored {
  readonly metric?: string;
  readonly at: number;
  /** When it differs from the time. */
  readonly received?: number;
  readonly value?: number;
  readonly text?: string;
}

/** Stores readings as the writer does. */
async function store(rows: readonly Stored[], device = deviceId): Promise<void> {
  await test.database.pool.query(
    `WITH given AS (
       SELECT device_id, metric_id, to_timestamp(at / 1000000.0) AS time, value, text_value,
         to_timestamp(received / 1000000.0) AS received_at
       FROM jsonb_to_recordset($1::jsonb) AS row (device_id int4, metric_id int4, at float8,
         received float8, value float8, text_value text)
     ), stored AS (
       INSERT INTO reading SELECT time, device_id, metric_id, value, text_value, received_at, 0 FROM given
     )
     INSERT INTO device_latest
     SELECT DISTINCT ON (device_id, metric_id) device_id, metric_id, time, value, text_value,
       received_at, 0
     FROM given ORDER BY device_id, metric_id, time DESC
     ON CONFLICT (device_id, metric_id) DO UPDATE
     SET time = excluded.time, value = excluded.value, text_value = excluded.text_value,
       received_at = excluded.received_at
     WHERE excluded.time >= device_latest.time`,
    [
      JSON.stringify(
        rows.map(({ metric = 'temp', at, received = at, value = null, text = null }) => ({
          device_id: device,
          metric_id: metricIds[metric],
          at,
          received,
          value,
          text_value: text,
        })),
      ),
    ],
  );
}

/** A value a second of a metric, from one time to another. */
function series(fromMicros: number, toMicros: number, metric = 'temp'): Stored[] {
  const rows: Stored[] = [];
  for (let at = fromMicros; at <= toMicros; at += S) {
    rows.push({ metric, at, value: (at - T0) / S });
  }
  return rows;
}

function loader(
  startMicros: number | null = null,
  nowMicros = 0,
  pool = test.database.pool,
): StartLoader & { cut: () => Promise<number> } {
  const registry = new Registry();
  const made = createDeviceLoader({
    pool,
    startCheckpointMicros: startMicros,
    checkpointMicros: () => nowMicros,
    windowSamplesMax: WINDOW_SAMPLES_MAX,
    metrics: new DeviceLoadMetrics(registry),
    log: pino({ level: 'silent' }),
  });
  const cut = async (): Promise<number> => {
    const found = await registry.getSingleMetric('puback_rules_cut_series_total')?.get();
    return found?.values[0]?.value ?? NaN;
  };
  return { ...made, cut };
}

/** A request for `temp` and `door` as they are, and `rh` with a window of 5 minutes. */
function request(over: Partial<LoadRequest> = {}): LoadRequest {
  return {
    deviceId,
    beforeMicros: Infinity,
    metrics: new Map([
      ['temp', { historyMicros: 0 }],
      ['door', { historyMicros: 0 }],
      ['rh', { historyMicros: 300 * S }],
      ['missing', { historyMicros: 0 }],
    ]),
    ...over,
  };
}

async function loadOne(
  over: Partial<LoadRequest> = {},
  by: StartLoader = loader(),
): Promise<LoadedDevice> {
  const [loaded] = await by.load([request(over)]);
  if (loaded === undefined) throw new Error('not loaded');
  return loaded;
}

const times = ({ history }: LoadedDevice, metric: string): number[] =>
  history.filter((reading) => reading.metric === metric).map(({ timeMicros }) => timeMicros);

describe('a device that is loaded', () => {
  it('comes with what rules ask of it, and with its connection', async () => {
    const { pool } = test.database;
    await pool.query(`UPDATE device SET device_type = 'boiler' WHERE device_id = $1`, [deviceId]);
    const before = await loadOne();
    expect(before).toEqual({
      device: {
        deviceId,
        organizationId: author.organizationId,
        slug: `d${devices}`,
        tags: ['hall-3'],
        type: 'boiler',
      },
      connection: 'never',
      connectionMicros: 0,
      open: [],
      history: [],
      events: [],
      catchUpFromMicros: Infinity,
      tickedMicros: -Infinity,
      settled: [],
    });
    await pool.query(
      `INSERT INTO device_presence
       VALUES ($2, $1, 'sleeping', to_timestamp($3::float8 / 1000000), now(), 1, '', '{}', NULL)`,
      [author.organizationId, deviceId, T0],
    );
    expect(await loadOne()).toMatchObject({ connection: 'sleeping', connectionMicros: T0 });
  });

  it('has the last reading of each metric that rules look at, and of no other', async () => {
    await store([
      { at: T0, value: 1 },
      { at: T0 + S, value: 81.5 },
      { metric: 'door', at: T0 - 1, text: 'open' },
      { metric: 'unseen', at: T0, value: 1 },
    ]);
    expect((await loadOne()).history).toEqual([
      { metric: 'door', timeMicros: T0 - 1, value: NaN, text: 'open' },
      { metric: 'temp', timeMicros: T0 + S, value: 81.5, text: null },
    ]);
  });

  it('has windows as far back as they reach, and the reading before (L-09)', async () => {
    await store(series(T0 - 400 * S, T0, 'rh'));
    const found = times(await loadOne(), 'rh');
    expect(found).toHaveLength(302);
    expect(found[0]).toBe(T0 - 301 * S);
    expect(found.at(-1)).toBe(T0);
    expect(found).toEqual(found.toSorted((a, b) => a - b));
  });

  it('has as many of the last readings as are asked for, however old they are', async () => {
    await store([...series(T0 - 1000 * S, T0 - 990 * S), { at: T0, value: 1 }]);
    const metrics = new Map([['temp', { historyMicros: 0, historySamples: 5 }]]);
    const found = times(await loadOne({ metrics }), 'temp');
    expect(found.length).toBeGreaterThanOrEqual(5);
    expect(found.slice(-5)).toEqual([...[993, 992, 991, 990].map((ago) => T0 - ago * S), T0]);
  });

  it('has nothing at or behind the first reading that waits', async () => {
    await store([...series(T0 - 400 * S, T0, 'rh'), ...series(T0 - 2 * S, T0)]);
    const loaded = await loadOne({ beforeMicros: T0 - S });
    expect(times(loaded, 'temp')).toEqual([T0 - 2 * S]);
    expect(times(loaded, 'rh').at(-1)).toBe(T0 - 2 * S);
    expect(times(loaded, 'rh')[0]).toBe(T0 - 302 * S);
  });

  it('has what was received before the first one that waits, whatever its time is', async () => {
    await store(series(T0 - 10 * S, T0));
    // Waits, and is stored already: one that came late, and one that did not.
    await store([
      { at: T0 - 5 * S + 1, received: T0 + 2 * S, value: 7 },
      { at: T0 + 3 * S, received: T0 + 3 * S, value: 8 },
    ]);
    const over = { beforeMicros: T0 - 5 * S + 1, receivedBeforeMicros: T0 + 2 * S };
    expect(times(await loadOne(over), 'temp')).toEqual([T0]);
  });

  it('finds the last reading days back', async () => {
    await store([
      { at: T0 - 3 * 86_400 * S, value: 5 },
      { at: T0, value: 6 },
    ]);
    const loaded = await loadOne({ beforeMicros: T0 - 1 });
    expect(times(loaded, 'temp')).toEqual([T0 - 3 * 86_400 * S]);
  });

  it('keeps of a window the newest readings that fit, and counts that', async () => {
    const by = loader();
    const rows = WINDOW_SAMPLES_MAX + CATCH_UP_ROWS_MAX;
    await store(series(T0 - (rows + 50) * S, T0, 'rh'));
    const metrics = new Map([['rh', { historyMicros: 86_400 * S }]]);
    const found = times(await loadOne({ metrics }, by), 'rh');
    expect(found.at(-1)).toBe(T0);
    expect(found.length).toBeLessThanOrEqual(rows + 1);
    expect(await by.cut()).toBe(1);
  });

  it('is missing when it does not exist, and sees nothing of another organization', async () => {
    const other = await createOrganization(test.database, `other-${devices}`);
    const theirs = await ensureMetric(test.database, other.author.organizationId, 'temp');
    await test.database.pool.query(
      `INSERT INTO device_latest VALUES ($1, $2, now(), 1, NULL, now(), 0)`,
      [deviceId, theirs],
    );
    const loaded = await loader().load([request(), request({ deviceId: 999_999 })]);
    expect(loaded.map(({ device }) => device.deviceId)).toEqual([deviceId]);
    expect(loaded[0]?.history).toEqual([]);
  });

  it('comes with others, at most so many at a time', async () => {
    const second = await addDevice(`${of.deviceId}-second`);
    await store(series(T0, T0 + S));
    await store(series(T0, T0 + 2 * S), second);
    const other = new Map([['temp', { historyMicros: 60 * S }]]);
    const loaded = await loader().load([request(), request({ deviceId: second, metrics: other })]);
    const found = loaded.toSorted((a, b) => a.device.deviceId - b.device.deviceId);
    expect(found.map(({ history }) => history.length)).toEqual([1, 3]);
    const many = Array.from({ length: LOAD_DEVICES_MAX + 1 }, () => request());
    await expect(loader().load(many)).rejects.toThrow(RangeError);
  });

  it('is refused in a way that can be tried again while the database is away', async () => {
    const pool = new pg.Pool({ connectionString: 'postgres://nobody@127.0.0.1:1/none' });
    await expect(loader(null, 0, pool).load([request()])).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      retryable: true,
    });
    await pool.end();
  });
});

describe('after the program was killed', () => {
  it('a pending alert goes on with its timer', async () => {
    const { alertLog } = createTestAlertLog(test.database);
    const { pending } = stepsOf(of);
    alertLog.append(pending);
    await alertLog.drain();
    const expected = {
      alertId: pending.alertId,
      ruleId: 1,
      ruleVersion: 1,
      deviceId,
      groupKey: '',
      state: pending.state,
      sequence: 0,
      occurrences: 1,
      changedMicros: T0,
    };
    expect((await loadOne()).open).toEqual([expected]);
    expect(await listOpenAlerts(test.database.pool)).toContainEqual(expected);
  });

  it('a firing alert goes on with its severity and what it waits for', async () => {
    const { alertLog } = createTestAlertLog(test.database);
    const { pending, firing } = stepsOf(of);
    const raise = { level: 5, since: T0 + 3 * S, next: null } as const;
    const clearing = {
      ...firing,
      sequence: 2,
      from: 'firing',
      reason: 'condition_cleared',
      atMicros: T0 + 4 * S,
      state: { ...firing.state, clearSince: T0 + 4 * S, raise },
      occurrences: 3,
    } as const;
    for (const transition of [pending, firing, clearing]) alertLog.append(transition);
    await alertLog.drain();
    expect((await loadOne()).open).toMatchObject([
      { state: clearing.state, sequence: 2, occurrences: 3, changedMicros: T0 + 4 * S },
    ]);
  });

  it('an alert without a snapshot of this version goes on as its columns have it', async () => {
    const { alertLog } = createTestAlertLog(test.database);
    alertLog.append(stepsOf(of).pending);
    await alertLog.drain();
    await test.database.pool.query(
      `UPDATE alert SET snapshot = '{"phase":"odd"}' WHERE device_id = $1`,
      [deviceId],
    );
    expect((await loadOne()).open[0]?.state).toMatchObject({
      phase: 'pending',
      level: 4,
      activeAt: T0,
    });
  });

  it('lists open alerts of all pages once', async () => {
    const { alertLog } = createTestAlertLog(test.database, { queueMax: 20_000 });
    for (let i = 0; i < 2100; i += 1) {
      alertLog.append(stepsOf({ ...of, ruleId: 5 + (i % 3), groupKey: `group ${i}` }).pending);
    }
    await alertLog.drain();
    const listed = await listOpenAlerts(test.database.pool);
    const own = listed.filter((alert) => alert.deviceId === deviceId);
    expect(own).toHaveLength(2100);
    expect(new Set(own.map(({ alertId }) => alertId)).size).toBe(2100);
    await test.database.pool.query('DELETE FROM alert WHERE device_id = $1', [deviceId]);
  });

  it('readings received behind the checkpoint are to be evaluated again, with their windows', async () => {
    await store(series(T0 - 60 * S, T0));
    await store(series(T0 - 400 * S, T0, 'rh'));
    const loaded = await loadOne({}, loader(T0 - 20 * S));
    // Ten seconds of margin before the checkpoint.
    expect(loaded.catchUpFromMicros).toBe(T0 - 29 * S);
    expect(times(loaded, 'temp')[0]).toBe(T0 - 30 * S);
    expect(times(loaded, 'rh')[0]).toBe(T0 - 330 * S);
  });

  it('nothing is when all was evaluated, or nothing ever', async () => {
    await store(series(T0 - 60 * S, T0));
    expect((await loadOne({}, loader(T0 + 60 * S))).catchUpFromMicros).toBe(Infinity);
    expect((await loadOne({}, loader(null))).catchUpFromMicros).toBe(Infinity);
  });

  it('finds what a device had stored and sent in one go', async () => {
    const received = T0 + 60 * S;
    await store(series(T0 - 40_000 * S, T0 - 39_950 * S));
    const backlog = series(T0 - 39_949 * S, T0 - 39_900 * S);
    await store(backlog.map((row) => ({ ...row, received })));
    const loaded = await loadOne({}, loader(T0 + 50 * S));
    expect(loaded.catchUpFromMicros).toBe(T0 - 39_949 * S);
    expect(times(loaded, 'temp')).toHaveLength(backlog.length + 1);
  });

  it('evaluates no more again than its bound of readings', async () => {
    await store(
      series(T0 - (CATCH_UP_ROWS_MAX + 99) * S, T0).map((row) => ({ ...row, received: T0 })),
    );
    const { catchUpFromMicros } = await loadOne({}, loader(T0 - S));
    expect(catchUpFromMicros).toBe(T0 - (CATCH_UP_ROWS_MAX - 1) * S);
  });

  it('says which alerts ended since, so that none of their steps is taken again', async () => {
    const { alertLog } = createTestAlertLog(test.database);
    await store(series(T0 - 60 * S, T0 + 20 * S));
    const { pending, firing, resolved } = stepsOf(of);
    const early = stepsOf({ ...of, ruleId: 2 }, T0 - 50 * S);
    for (const step of [pending, firing, resolved, early.pending, early.cleared]) {
      alertLog.append(step);
    }
    await alertLog.drain();
    const loaded = await loadOne({}, loader(T0 + 5 * S));
    expect(loaded.open).toEqual([]);
    const settled = [{ ruleId: 1, groupKey: '', untilMicros: T0 + 10 * S }];
    expect(loaded.settled).toEqual(settled);
    // Without readings to catch up with, ticks alone go on from there.
    const idle = await loadOne({ metrics: new Map() }, loader(T0 + 18 * S));
    expect(idle).toMatchObject({ catchUpFromMicros: Infinity, tickedMicros: T0 + 8 * S, settled });
    expect((await loadOne({}, loader(T0 + 30 * S))).settled).toEqual([]);
  });

  it('loads a device again with what was received behind the checkpoint of now', async () => {
    await store(series(T0 - 60 * S, T0));
    const by = loader(T0 - 50 * S, T0 + 60 * S);
    expect((await loadOne({}, by)).catchUpFromMicros).toBe(T0 - 59 * S);
    expect((await loadOne({}, by)).catchUpFromMicros).toBe(Infinity);
  });

  it('evaluates nothing of hours in which no rule looked at a device', async () => {
    const by = loader(T0, T0 + 3600 * S);
    expect(await by.devicesToCatchUp()).not.toContain(deviceId);
    await store(series(T0 + 3500 * S, T0 + 3580 * S));
    expect((await loadOne({}, by)).catchUpFromMicros).toBe(Infinity);
  });

  it('knows the devices that sent something then, also those that send nothing more', async () => {
    const silent = await addDevice(`silent-${devices}`);
    await store(series(T0 + 1000 * S, T0 + 1001 * S), silent);
    await store(series(T0 + 900 * S, T0 + 901 * S));
    const found = await loader(T0 + 1000 * S).devicesToCatchUp();
    expect(found).toContain(silent);
    expect(found).not.toContain(deviceId);
    expect(await loader(null).devicesToCatchUp()).toEqual([]);
  });

  it('goes by the checkpoint that the last run has left', async () => {
    const { alertLog } = createTestAlertLog(test.database);
    alertLog.noteEvaluated(T0 + 5000 * S);
    await alertLog.stop();
    const checkpoint = await new Checkpoint(test.database.pool).read();
    expect(checkpoint).toBe(T0 + 5000 * S);
  });
});
