import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DeviceClock, type StoredClock } from '../../firmware-protocol/device-clock.ts';
import { ClockStore } from '../../ingest/clock-store.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let t: TestDatabase;
let store: ClockStore;
let deviceIds: number[];

beforeAll(async () => {
  t = await createTestDatabase();
  store = new ClockStore(t.database.pool);
  const { rows } = await t.database.pool.query<{ device_id: number }>(
    `WITH made AS (INSERT INTO organization (slug, display_name) VALUES ('clocks', 'Clocks') RETURNING organization_id)
     INSERT INTO device (organization_id, slug, display_name)
     SELECT organization_id, 'clock-' || number, 'Clock' FROM made, generate_series(1, 2500) AS number
     RETURNING device_id`,
  );
  deviceIds = rows.map((row) => row.device_id);
});
afterAll(() => t.drop());

async function find(deviceId: number): Promise<StoredClock | null> {
  const { rows } = await t.database.pool.query<StoredClock>(
    `SELECT offset_ms AS "offsetMs", drift_ppm AS "driftPpm", samples,
            (extract(epoch FROM measured_at) * 1000000)::float8 AS "measuredMicros"
     FROM device_clock WHERE device_id = $1`,
    [deviceId],
  );
  return rows[0] ?? null;
}

const known: StoredClock = {
  offsetMs: 10_800_123.389,
  driftPpm: 49.5,
  samples: 1234,
  measuredMicros: Date.parse('2026-11-21T08:00:00.123Z') * 1000 + 456,
};

function clockOf(stored: StoredClock): DeviceClock {
  const clock = new DeviceClock();
  clock.restore(stored);
  return clock;
}

/** Moves what it is corrected by, so that there is something new. */
function unstoredClock(stored: StoredClock): DeviceClock {
  const clock = clockOf(stored);
  const receivedMicros = stored.measuredMicros + 1_000_000;
  const tsMicros = receivedMicros + stored.offsetMs * 1000 + 900_000;
  clock.observe({ tsMicros, unsetMicros: null, upMs: null }, receivedMicros);
  expect(clock.isUnstored).toBe(true);
  return clock;
}

describe('store of device clocks', () => {
  it('gives back to the microsecond what was written, and writes nothing twice', async () => {
    const [deviceId = 0] = deviceIds;
    const clock = unstoredClock(known);
    const { stored } = clock;
    expect(await find(deviceId)).toBeNull();
    expect(await store.write([{ deviceId, clock }])).toBe(1);
    expect(await store.write([{ deviceId, clock }])).toBe(0);
    const found = await find(deviceId);
    expect(found).toEqual(stored);
    if (found === null) throw new Error('nothing stored');
    expect(clockOf(found).basis).toEqual(clock.basis);
  });

  it('writes more than one statement takes, and leaves out devices that are gone', async () => {
    const clocks = [...deviceIds, 2_000_000_000].map((deviceId) => ({
      deviceId,
      clock: unstoredClock(known),
    }));
    expect(await store.write(clocks)).toBe(2501);
    const { rows } = await t.database.pool.query(
      `SELECT count(*)::int4 AS rows FROM device_clock JOIN device USING (device_id, organization_id)`,
    );
    expect(rows).toEqual([{ rows: 2500 }]);
    expect(await store.write(clocks)).toBe(0);
  });

  it('stores a drift that is not known yet, and more messages than an integer holds', async () => {
    const [deviceId = 0] = deviceIds;
    const clock = unstoredClock({ ...known, driftPpm: null, samples: 2 ** 40 });
    await store.write([{ deviceId, clock }]);
    expect(await find(deviceId)).toMatchObject({ driftPpm: null, samples: 2_147_483_647 });
  });
});
