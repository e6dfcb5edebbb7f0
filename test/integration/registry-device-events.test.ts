import pg from 'pg';
import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { DeviceEvent } from '../../registry/device-event-row.ts';
import { DeviceEvents, type DeviceEventsDeps } from '../../registry/device-events.ts';
import { createDiagnostics } from '../../registry/diagnostics.ts';
import { createDeviceEventMetrics } from '../../registry/metrics.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase();
});
beforeEach(async () => {
  await test.database.pool.query('TRUNCATE device_event');
});
afterAll(() => test.drop());

const ROWS_MAX = 50;
const BOUNDS = { ageMaxMs: 86_400_000, rowsPerDeviceMax: 5, unknownRowsMax: 8 };

interface Recorder {
  readonly events: DeviceEvents;
  readonly metrics: MetricsRegistry;
  nowMs: number;
}

function createRecorder(replaced: Partial<DeviceEventsDeps> = {}): Recorder {
  const metrics = new MetricsRegistry();
  const recorder: Recorder = {
    metrics,
    nowMs: 0,
    events: new DeviceEvents({
      pool: test.database.pool,
      log: pino({ level: 'silent' }),
      now: () => recorder.nowMs,
      rowsMax: ROWS_MAX,
      bounds: BOUNDS,
      createMetrics: (rows) => createDeviceEventMetrics(metrics, rows, ROWS_MAX),
      ...replaced,
    }),
  };
  return recorder;
}

function event(replaced: Partial<DeviceEvent> = {}): DeviceEvent {
  return {
    kind: 'refusal',
    code: 'rate',
    detail: 'too fast',
    address: '203.0.113.7',
    organizationId: 1,
    deviceId: 7,
    keyId: 'A1b2C3d4',
    connectionNumber: 3,
    occurredAtMs: Date.now(),
    ...replaced,
  };
}

async function stored(): Promise<Record<string, unknown>[]> {
  const { rows } = await test.database.pool.query<Record<string, unknown>>(
    `SELECT device_id, kind, code, detail, count, address, key_id FROM device_event
     ORDER BY device_event_id`,
  );
  return rows;
}

async function valueOf(metrics: MetricsRegistry, name: string): Promise<number> {
  const found = await metrics.getSingleMetric(name)?.get();
  return found?.values.reduce((sum, { value }) => sum + value, 0) ?? 0;
}

describe('note', () => {
  it('has written an event within two seconds, without being asked', async () => {
    const { events } = createRecorder();
    events.note(event({ kind: 'connect', code: 'connected' }));
    await expect.poll(stored, { timeout: 5000 }).toHaveLength(1);
    await events.stop();
  });

  it('makes one row of equal refusals within ten seconds, with their count', async () => {
    const recorder = createRecorder();
    const { events } = recorder;
    for (let at = 0; at < 100; at += 1) events.note(event());
    await events.flush();
    expect(await stored()).toMatchObject([{ code: 'rate', count: 100 }]);
    recorder.nowMs = 9999;
    events.note(event());
    recorder.nowMs = 10_000;
    events.note(event());
    await events.flush();
    expect(await stored()).toMatchObject([{ count: 101 }, { count: 1 }]);
    await events.stop();
  });

  it('writes the final count of a row whose ten seconds are over by itself', async () => {
    const recorder = createRecorder();
    recorder.events.note(event());
    await recorder.events.flush();
    recorder.events.note(event());
    recorder.nowMs = 20_000;
    await expect.poll(stored).toMatchObject([{ count: 2 }]);
    await expect
      .poll(() => valueOf(recorder.metrics, 'puback_registry_device_events_rows'))
      .toBe(0);
    await recorder.events.stop();
  });

  it('tells refusals apart by device, code and address, and by key where that is proved', async () => {
    const { events } = createRecorder();
    const nobody = { organizationId: null, deviceId: null };
    for (let turn = 0; turn < 2; turn += 1) {
      events.note(event());
      events.note(event({ deviceId: 8 }));
      events.note(event({ code: 'bad_json' }));
      // Who guesses names another key each time.
      events.note(event({ ...nobody, keyId: `guess-${turn}` }));
      events.note(event({ ...nobody, address: '203.0.113.8' }));
      events.note(event({ address: '203.0.113.8' }));
      events.note(event({ deviceId: null, keyId: 'integrat' }));
      events.note(event({ deviceId: null, keyId: 'integra2' }));
    }
    await events.stop();
    const counts = (await stored()).map(({ count }) => count);
    expect(counts).toEqual([2, 2, 2, 2, 2, 2, 2, 2]);
  });

  it('keeps every connect and disconnect, in their order within a millisecond', async () => {
    const { events } = createRecorder();
    for (let at = 0; at < 20; at += 1) {
      const kind = at % 2 === 0 ? 'connect' : 'disconnect';
      events.note(event({ kind, connectionNumber: at, occurredAtMs: 1_790_000_000_000 }));
    }
    await events.stop();
    const { rows } = await createDiagnostics(test.database).listForDevice({
      organizationId: 1,
      deviceId: 7,
      limit: 100,
      after: null,
    });
    expect(rows.map(({ connectionNumber }) => connectionNumber)).toEqual(
      Array.from({ length: 20 }, (_, at) => 19 - at),
    );
    expect(rows[0]?.occurredAt).toEqual(new Date(1_790_000_000_000));
  });

  it('cleans what clients wrote, so that nothing is refused or logged raw [I-03, I-13]', async () => {
    const { events, metrics } = createRecorder();
    const hostile = { kind: 'connect', code: 'c\0', keyId: 'k\ud800\u001b' } as const;
    const detail = `a\0\r\n\u001b[31m\udfff${'x'.repeat(1000)}`;
    events.note(event({ ...hostile, detail, address: '::ffff:192.0.2.1', occurredAtMs: NaN }));
    events.note(event({ kind: 'connect', address: `${'y'.repeat(1000)}\0`, occurredAtMs: 1e300 }));
    events.note(event({ kind: 'connect', address: '2001:DB8:0::1', occurredAtMs: -5 }));
    await events.stop();
    const rows = await stored();
    expect(rows).toHaveLength(3);
    const [first] = rows.filter(({ address }) => address === '192.0.2.1');
    expect(first).toMatchObject({ code: 'c?', key_id: 'k??' });
    expect(first?.['detail']).toBe(`a????[31m?${'x'.repeat(90)}`);
    expect(rows.map(({ address }) => address)).toContain('2001:db8::1');
    expect(await valueOf(metrics, 'puback_registry_device_events_dropped_rows_total')).toBe(0);
  });

  it('drops and counts beyond its bound, and still adds up what it knows', async () => {
    const { events, metrics } = createRecorder();
    for (let at = 0; at < ROWS_MAX + 20; at += 1) events.note(event({ deviceId: at }));
    events.note(event({ deviceId: 0 }));
    await events.flush();
    expect(await stored()).toHaveLength(ROWS_MAX);
    expect((await stored())[0]).toMatchObject({ device_id: 0, count: 2 });
    expect(await valueOf(metrics, 'puback_registry_device_events_dropped_rows_total')).toBe(20);
    expect(await valueOf(metrics, 'puback_registry_device_events_total')).toBe(ROWS_MAX + 21);
    await events.stop();
  });

  it('keeps rows while the database is away, and writes them when it is back', async () => {
    const away = new pg.Pool({ host: '127.0.0.1', port: 1, max: 1 });
    let pool: pg.Pool = away;
    const query = (...parameters: unknown[]): unknown => pool.query(...(parameters as [string]));
    const { events } = createRecorder({ pool: { query } as unknown as pg.Pool });
    events.note(event());
    events.note(event({ kind: 'connect' }));
    expect(await events.flush()).toBe(false);
    events.note(event());
    pool = test.database.pool;
    expect(await events.flush()).toBe(true);
    expect(await stored()).toMatchObject([{ count: 2 }, { count: 1 }]);
    pool = away;
    events.note(event({ deviceId: 9 }));
    await events.stop();
    await away.end();
  });

  it('goes on behind rows that the database refuses, and counts them', async () => {
    const { events, metrics } = createRecorder();
    events.note(event({ deviceId: 1e12 }));
    await events.flush();
    events.note(event());
    await events.stop();
    expect(await stored()).toMatchObject([{ device_id: 7 }]);
    expect(await valueOf(metrics, 'puback_registry_device_events_dropped_rows_total')).toBe(1);
    expect(await valueOf(metrics, 'puback_registry_device_events_rows')).toBe(0);
  });
});

describe('prune', () => {
  it('deletes what is too old, and the oldest of what is too much', async () => {
    const { events } = createRecorder();
    const now = Date.now();
    for (let at = 0; at < 9; at += 1) {
      const kind = 'connect' as const;
      events.note(event({ kind, connectionNumber: at, occurredAtMs: now - 900 + at }));
      events.note(event({ kind, deviceId: 8, occurredAtMs: now - 2 * 86_400_000 }));
    }
    events.note(event({ kind: 'connect', deviceId: 9 }));
    for (let at = 0; at < 12; at += 1) {
      events.note(event({ kind: 'connect', deviceId: null, organizationId: null }));
    }
    await events.flush();
    expect(await events.prune()).toBe(4 + 9 + 4);
    const left = (await stored()).map(({ device_id }) => device_id);
    expect(left.filter((deviceId) => deviceId === 7)).toHaveLength(BOUNDS.rowsPerDeviceMax);
    expect(left.filter((deviceId) => deviceId === null)).toHaveLength(BOUNDS.unknownRowsMax);
    expect(left).toContain(9);
    const { rows } = await test.database.pool.query(
      `SELECT min(connection_number)::int AS oldest FROM device_event WHERE device_id = 7`,
    );
    expect(rows).toEqual([{ oldest: 4 }]);
    expect(await events.prune()).toBe(0);
    await events.stop();
  });
});
