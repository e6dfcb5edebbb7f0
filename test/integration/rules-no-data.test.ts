import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { StoreUnavailableError } from '../../errors.ts';
import { createCadenceStore } from '../../rules/no-data/cadence-store.ts';
import { Cadence } from '../../rules/no-data/cadence.ts';
import type { NoDataStore, SilenceChange } from '../../rules/no-data/no-data-port.ts';
import { NoData } from '../../rules/no-data/no-data.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization } from '../support/registry.ts';

const SECOND = 1_000_000;
/** 2026-11-21T08:00:00Z in microseconds. */
const T = 1_795_248_000 * SECOND;
let test: TestDatabase;
let store: NoDataStore;
let organizationId: number;
beforeAll(async () => {
  test = await createTestDatabase();
  const { author } = await createOrganization(test.database, 'acme');
  ({ organizationId } = author);
  store = createCadenceStore(test.database);
});
afterAll(() => test.drop());
beforeEach(async () => {
  await test.database.pool.query(
    'DELETE FROM device_cadence; DELETE FROM device_latest; DELETE FROM device; DELETE FROM rule_uptime',
  );
});

async function makeDevices(count: number): Promise<number[]> {
  const { rows } = await test.database.pool.query<{ device_id: number }>(
    `INSERT INTO device (organization_id, slug, display_name)
     SELECT $1, 'd' || place, '' FROM generate_series(1, $2) AS place RETURNING device_id`,
    [organizationId, count],
  );
  return rows.map(({ device_id }) => device_id);
}

async function setLatest(
  deviceId: number,
  metricId: number,
  receivedMicros: number,
): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO device_latest (device_id, metric_id, time, value, received_at, quality)
     VALUES ($1, $2, now(), 1, to_timestamp($3::float8 / 1000000), 0)
     ON CONFLICT (device_id, metric_id) DO UPDATE SET received_at = excluded.received_at`,
    [deviceId, metricId, receivedMicros],
  );
}

async function setPresence(deviceId: number, contactMicros: number, hello: object): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO device_presence
       (device_id, organization_id, state, since, last_contact_at, connection_number, address, hello)
     VALUES ($1, $2, 'sleeping', now(), to_timestamp($3::float8 / 1000000), 1, '', $4)`,
    [deviceId, organizationId, contactMicros, hello],
  );
}

function learned(): Cadence {
  const cadence = new Cadence();
  for (let count = 0; count < 40; count += 1) {
    cadence.heard(T + count * 20 * SECOND, -Infinity, Infinity);
  }
  return cadence;
}

describe('store of cadences', () => {
  it('knows of a device when it was heard, whether it sleeps, and what was learned', async () => {
    const [first = 0, second = 0, third = 0] = await makeDevices(3);
    await setLatest(first, 1, T);
    await setLatest(first, 2, T + 5 * SECOND);
    await test.database.pool.query(
      'UPDATE device SET report_interval_ms = 60000 WHERE device_id = $1',
      [first],
    );
    await setPresence(first, T + 9 * SECOND, { sleep: 600 });
    const { content } = learned();
    const rows = [first, second].map((deviceId) => ({
      deviceId,
      gapP99Micros: 20 * SECOND,
      sketch: content,
      lastReceivedMicros: T + 1.25 * SECOND,
    }));
    await store.writeCadences(rows);
    await store.writeCadences(rows);
    const found = await store.load([first, second, third, 1_000_000]);
    expect(found.toSorted((left, right) => left.deviceId - right.deviceId)).toEqual([
      {
        deviceId: first,
        organizationId,
        lastReadingMicros: T + 5 * SECOND,
        lastContactMicros: T + 9 * SECOND,
        connection: 'sleeping',
        sleepS: 600,
        intervalMicros: 60 * SECOND,
        cadence: content,
      },
      {
        deviceId: second,
        organizationId,
        lastReadingMicros: T + 1.25 * SECOND,
        lastContactMicros: null,
        connection: 'never',
        sleepS: 0,
        intervalMicros: null,
        cadence: content,
      },
      {
        deviceId: third,
        organizationId,
        lastReadingMicros: null,
        lastContactMicros: null,
        connection: 'never',
        sleepS: 0,
        intervalMicros: null,
        cadence: null,
      },
    ]);
    const { rows: stored } = await test.database.pool.query(
      'SELECT gap_p99_ms, samples, organization_id FROM device_cadence WHERE device_id = $1',
      [first],
    );
    expect(stored).toEqual([{ gap_p99_ms: 20_000, samples: 39, organization_id: organizationId }]);
  });

  it('leaves out devices that no longer exist', async () => {
    const sketch = learned().content;
    const row = { deviceId: 1_000_000, gapP99Micros: 1, sketch, lastReceivedMicros: T };
    await expect(store.writeCadences([row])).resolves.toBeUndefined();
  });

  it('gives outages back as they were written, the first without a beginning as well', async () => {
    expect(await store.loadUptime()).toEqual({ outages: [], upMicros: null });
    const outages = [
      { downMicros: -Infinity, backMicros: T },
      { downMicros: T + SECOND, backMicros: T + 2 * SECOND },
    ];
    await store.writeUptime(outages, T + 3 * SECOND);
    await store.writeUptime(outages, T + 4 * SECOND);
    expect(await store.loadUptime()).toEqual({ outages, upMicros: T + 4 * SECOND });
  });

  it('throws StoreUnavailableError while the database is away', async () => {
    const away = createCadenceStore({
      pool: Object.assign(Object.create(test.database.pool) as typeof test.database.pool, {
        query: () => Promise.reject(Object.assign(new Error('gone'), { code: '57P01' })),
      }),
    });
    await expect(away.load([1])).rejects.toThrow(StoreUnavailableError);
    await expect(away.writeUptime([], T)).rejects.toThrow(StoreUnavailableError);
  });
});

describe('missing readings, over a database and with real timers', () => {
  function program(graceMs: number): { noData: NoData; changes: SilenceChange[] } {
    const changes: SilenceChange[] = [];
    const noData = new NoData({
      store,
      onSilence: (change) => changes.push(change),
      onConnection: () => undefined,
      connectionOf: () => null,
      isAway: () => false,
      now: () => performance.timeOrigin + performance.now(),
      graceMs,
      log: pino({ level: 'silent' }),
    });
    return { noData, changes };
  }
  const nowMicros = (): number => (performance.timeOrigin + performance.now()) * 1000;

  it('L-06 finds ten of two thousand devices within two seconds, none twice and no other over a restart', async () => {
    const ids = await makeDevices(2000);
    const silentIds = ids.filter((_, index) => index % 200 === 0);
    const before = program(3000);
    await before.noData.start();
    for (const deviceId of ids) {
      before.noData.watch({ deviceId, organizationId, ruleId: 7, afterMicros: 3 * SECOND });
    }
    const hear = (noData: NoData): void => {
      for (const [index, id] of ids.entries()) {
        if (index % 200 !== 0) noData.received(id, nowMicros());
      }
    };
    const silentSince = nowMicros();
    for (const id of ids) before.noData.received(id, nowMicros());
    const silentFrom = nowMicros();
    const sending = setInterval(() => hear(before.noData), 400);
    const idsOf = (changes: readonly SilenceChange[]): number[] =>
      changes.map(({ deviceId }) => deviceId).toSorted((left, right) => left - right);
    const found = (changes: readonly SilenceChange[]): readonly SilenceChange[] =>
      changes.filter(({ silence }) => silence !== null);
    await expect.poll(() => found(before.changes).length).toBe(10);
    expect(nowMicros() - silentFrom).toBeLessThan(5 * SECOND);
    clearInterval(sending);
    await before.noData.stop();
    expect(idsOf(found(before.changes))).toEqual(silentIds);
    await test.database.pool.query(
      `INSERT INTO device_latest (device_id, metric_id, time, value, received_at, quality)
       SELECT device_id, 1, now(), 1, to_timestamp(CASE
         WHEN device_id = ANY ($1::int4[]) THEN $2::float8 ELSE $3::float8 END / 1000000), 0
       FROM device`,
      [silentIds, silentFrom, nowMicros()],
    );

    const after = program(3000);
    await after.noData.start();
    for (const deviceId of ids) {
      after.noData.watch({ deviceId, organizationId, ruleId: 7, afterMicros: 3 * SECOND });
    }
    const again = setInterval(() => hear(after.noData), 400);
    await expect.poll(() => found(after.changes).length).toBe(10);
    clearInterval(again);
    await after.noData.stop();
    expect(idsOf(found(after.changes))).toEqual(silentIds);
    // The alert that is open already: its deadline was before the restart.
    for (const { atMicros } of found(after.changes)) {
      expect(atMicros - silentSince).toBeGreaterThan(2.8 * SECOND);
      expect(atMicros - silentFrom).toBeLessThan(3.2 * SECOND);
    }
  });

  it('writes at the end what was learned, and when it was up', async () => {
    const [deviceId = 0] = await makeDevices(1);
    const { noData } = program(1000);
    await noData.start();
    noData.watch({ deviceId, organizationId, ruleId: 7, afterMicros: 'auto' });
    await expect.poll(() => noData.gauges.watchedDevices).toBe(1);
    const from = nowMicros();
    for (let count = 0; count < 40; count += 1)
      noData.received(deviceId, from + count * 20 * SECOND);
    await noData.stop();
    const [activity] = await store.load([deviceId]);
    expect(activity?.lastReadingMicros).toBeCloseTo(from + 39 * 20 * SECOND, -1);
    const restored = new Cadence();
    if (activity?.cadence) restored.restore(activity.cadence);
    expect((restored.gapP99Micros ?? 0) / SECOND).toBeCloseTo(20, -0.5);
    const { outages, upMicros } = await store.loadUptime();
    expect(outages).toHaveLength(1);
    expect(nowMicros() - (upMicros ?? 0)).toBeLessThan(30 * SECOND);
  });
});
