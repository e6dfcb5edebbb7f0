import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Ingest, type IngestLimits } from '../../ingest/ingest.ts';
import type { Lane } from '../../ingest/lane.ts';
import { eventually } from '../support/app.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { makePublication } from '../support/messages.ts';
import { createOrganization } from '../support/registry.ts';

const LIMITS: IngestLimits = {
  writer: { batchRowsMax: 1000, lingerMs: 0, queueRowsMax: 1000, queueBytesMax: 1_000_000 },
  pipeline: {
    deviceMetricsMax: 10,
    deviceHeldBytesMax: 1_000_000,
    heldBytesMax: 1_000_000,
    ageMaxMs: 30 * 86_400_000,
    aheadMaxMs: 300_000,
    deviceLogBytesPerSecond: 0,
    spoolAfterMs: 1000,
  },
  rates: { messagesPerSecond: 0, pointsPerSecond: 0 },
  organizationMetricsMax: 100,
  databaseTimeoutMs: 2000,
};

let testDatabase: TestDatabase;
let organizationId: number;
let lastDeviceId = 0;
const running = new Set<Ingest>();

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  const { author } = await createOrganization(testDatabase.database, 'acme');
  organizationId = author.organizationId;
});
afterEach(async () => {
  for (const ingest of running) await ingest.stop();
  running.clear();
});
afterAll(() => testDatabase.drop());

/** Ingest as after a start of the program. */
async function startIngest(): Promise<Ingest> {
  const ingest = new Ingest({
    database: testDatabase.database,
    spool: null,
    limits: LIMITS,
    registry: new MetricsRegistry(),
    log: pino({ level: 'silent' }),
  });
  await ingest.start();
  running.add(ingest);
  return ingest;
}

async function stopIngest(ingest: Ingest): Promise<void> {
  running.delete(ingest);
  await ingest.stop();
}

/** Resolves with what the message is acknowledged with. */
function send(ingest: Ingest, lane: Lane, payload: string): Promise<string | null> {
  return new Promise((resolve) => {
    const acknowledge = (canonical: Buffer | null) => resolve(canonical?.toString() ?? null);
    ingest.accept(lane, makePublication(payload, acknowledge));
  });
}

async function countReadings(deviceId: number): Promise<number> {
  const { rows } = await testDatabase.database.pool.query<{ count: number }>(
    'SELECT count(*)::int4 AS count FROM reading WHERE device_id = $1',
    [deviceId],
  );
  return rows[0]?.count ?? 0;
}

async function storedRow(deviceId: number): Promise<unknown> {
  const { rows } = await testDatabase.database.pool.query(
    'SELECT boot, received::text FROM device_sequence WHERE device_id = $1 ORDER BY boot DESC',
    [deviceId],
  );
  return rows[0];
}

const newDevice = (): number => (lastDeviceId += 1);

describe('seq of a device that names its boot', () => {
  it('is stored with the readings, and a copy is acknowledged and not stored', async () => {
    const ingest = await startIngest();
    const deviceId = newDevice();
    const lane = ingest.openLane(organizationId, deviceId);
    ingest.setBoot(lane, 7);
    expect(await send(ingest, lane, '{"seq":41,"temp":1}')).toMatch(/"seq":41,"temp":1/);
    expect(await send(ingest, lane, '{"seq":43,"temp":2}')).not.toBeNull();
    expect(await send(ingest, lane, '{"seq":41,"temp":1}')).toBeNull();
    expect(await countReadings(deviceId)).toBe(2);
    expect(await storedRow(deviceId)).toEqual({
      boot: '7',
      received: '{[41,42),[43,44)}',
    });
    expect(ingest.storedSequence(lane)).toBe(41);
    expect(ingest.metrics.duplicateMessages).toBe(1);
    expect(ingest.metrics.storedMessages).toBe(2);
  });

  it('is known again after a reconnect and after a restart of the program', async () => {
    const first = await startIngest();
    const deviceId = newDevice();
    const before = first.openLane(organizationId, deviceId);
    first.setBoot(before, 7);
    for (let seq = 0; seq < 70; seq += 1) await send(first, before, `{"seq":${seq},"temp":1}`);
    first.closeLane(before);
    const again = first.openLane(organizationId, deviceId);
    first.setBoot(again, 7);
    expect(await send(first, again, '{"seq":69,"temp":1}')).toBeNull();
    await stopIngest(first);

    const second = await startIngest();
    const after = second.openLane(organizationId, deviceId);
    expect(second.storedSequence(after)).toBeNull();
    second.setBoot(after, 7);
    await second.whenLoaded(after);
    expect(second.storedSequence(after)).toBe(69);
    for (let seq = 6; seq < 70; seq += 1) {
      expect(await send(second, after, `{"seq":${seq},"temp":1}`)).toBeNull();
    }
    expect(await countReadings(deviceId)).toBe(70);
    // Behind the window: the time alone decides, and this one has none.
    expect(await send(second, after, '{"seq":5,"temp":1}')).not.toBeNull();
    expect(await countReadings(deviceId)).toBe(71);
  });

  it('starts anew with a new boot', async () => {
    const ingest = await startIngest();
    const deviceId = newDevice();
    const before = ingest.openLane(organizationId, deviceId);
    ingest.setBoot(before, 7);
    await send(ingest, before, '{"seq":0,"temp":1}');
    const after = ingest.openLane(organizationId, deviceId);
    ingest.setBoot(after, 8);
    expect(await send(ingest, after, '{"seq":0,"temp":2}')).not.toBeNull();
    expect(await storedRow(deviceId)).toEqual({ boot: '8', received: '{[0,1)}' });
    // What the older connection still has to say neither harms the new boot nor is lost.
    expect(await send(ingest, before, '{"seq":1,"temp":1}')).not.toBeNull();
    expect(await send(ingest, after, '{"seq":0,"temp":2}')).toBeNull();
    expect(await storedRow(deviceId)).toEqual({ boot: '8', received: '{[0,1)}' });
    expect(await countReadings(deviceId)).toBe(3);
    // Whichever boot was stored last, the numbers of both are known after a restart.
    await stopIngest(ingest);
    const next = await startIngest();
    const again = next.openLane(organizationId, deviceId);
    next.setBoot(again, 8);
    expect(await send(next, again, '{"seq":0,"temp":2}')).toBeNull();
    expect(await countReadings(deviceId)).toBe(3);
  });

  it('is judged sample by sample, and once for a whole series', async () => {
    const ingest = await startIngest();
    const deviceId = newDevice();
    const lane = ingest.openLane(organizationId, deviceId);
    ingest.setBoot(lane, 1);
    await send(ingest, lane, '{"seq":1,"temp":1}');
    const batch = '[{"seq":1,"temp":1},{"seq":2,"temp":2},{"seq":2,"temp":2},{"rh":3}]';
    expect(JSON.parse((await send(ingest, lane, batch)) ?? '')).toMatchObject([
      { seq: 2, temp: 2 },
      { rh: 3 },
    ]);
    const series = '{"seq":3,"dt":1000,"temp":[1,2,3]}';
    expect(JSON.parse((await send(ingest, lane, series)) ?? '')).toHaveLength(3);
    expect(await send(ingest, lane, series)).toBeNull();
    expect(await countReadings(deviceId)).toBe(6);
    expect(ingest.storedSequence(lane)).toBe(3);
  });

  it('counts as stored when the message went to quarantine', async () => {
    const ingest = await startIngest();
    const deviceId = newDevice();
    const lane = ingest.openLane(organizationId, deviceId);
    ingest.setBoot(lane, 1);
    const old = `{"ts":${Date.now() - 31 * 86_400_000},"seq":1,"temp":1}`;
    const wide = JSON.stringify({
      seq: 2,
      ...Object.fromEntries(Array.from({ length: 11 }, (_, index) => [`m${index}`, 1])),
    });
    for (const payload of [old, wide, old, wide]) {
      expect(await send(ingest, lane, payload)).toBeNull();
    }
    expect(ingest.metrics.quarantinedMessages).toBe(2);
    expect(ingest.metrics.duplicateMessages).toBe(2);
    expect(ingest.storedSequence(lane)).toBe(2);
    expect(await storedRow(deviceId)).toEqual({ boot: '1', received: '{[1,3)}' });
  });

  it('of a message whose rows the database refuses is stored with its row in quarantine (D-09)', async () => {
    const ingest = await startIngest();
    const { pool } = testDatabase.database;
    const deviceIds = [newDevice(), newDevice(), newDevice()] as const;
    const lanes = deviceIds.map((deviceId) => ingest.openLane(organizationId, deviceId));
    for (const lane of lanes) {
      ingest.setBoot(lane, 1);
      await send(ingest, lane, '{"seq":1,"temp":1}');
    }
    await pool.query(`ALTER TABLE reading ADD CONSTRAINT reading_test_check CHECK (value <> 666)`);
    try {
      const values = [1, 666, 1];
      const sent = lanes.map((lane, index) =>
        send(ingest, lane, `{"seq":2,"temp":${values[index]}}`),
      );
      const [first, refused, last] = await Promise.all(sent);
      expect(refused).toBeNull();
      expect(first).not.toBeNull();
      expect(last).not.toBeNull();
    } finally {
      await pool.query('ALTER TABLE reading DROP CONSTRAINT reading_test_check');
    }
    for (const deviceId of deviceIds) {
      expect(await storedRow(deviceId)).toEqual({ boot: '1', received: '{[1,3)}' });
    }
    expect(await countReadings(deviceIds[1])).toBe(1);
  });
});

describe('seq of a device that names no boot', () => {
  it('is compared within one connection only, so that a reboot loses nothing', async () => {
    const ingest = await startIngest();
    const deviceId = newDevice();
    const first = ingest.openLane(organizationId, deviceId);
    await send(ingest, first, '{"seq":0,"temp":1}');
    expect(await send(ingest, first, '{"seq":0,"temp":1}')).toBeNull();
    expect(ingest.storedSequence(first)).toBe(0);
    const second = ingest.openLane(organizationId, deviceId);
    expect(ingest.storedSequence(second)).toBeNull();
    expect(await send(ingest, second, '{"seq":0,"temp":2}')).not.toBeNull();
    expect(await countReadings(deviceId)).toBe(2);
    expect(await storedRow(deviceId)).toBeUndefined();
  });
});

describe('a COMMIT that fails', () => {
  it('marks no seq, whoever asks before it is repeated', async () => {
    const ingest = await startIngest();
    const deviceId = newDevice();
    const lane = ingest.openLane(organizationId, deviceId);
    ingest.setBoot(lane, 1);
    await send(ingest, lane, '{"seq":1,"temp":1}');
    const { pool } = testDatabase.database;
    // A deferred trigger fails at COMMIT itself, when all the rows were taken.
    await pool.query(`
      CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '57000'; END $$;
      CREATE CONSTRAINT TRIGGER refuse_commit AFTER INSERT OR UPDATE ON device_sequence
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_commit()`);
    const acknowledged: unknown[] = [];
    try {
      void send(ingest, lane, '{"seq":2,"temp":2}').then((canonical) =>
        acknowledged.push(canonical),
      );
      await eventually('two attempts have failed', () => ingest.metrics.commitFailures >= 2);
      expect(ingest.storedSequence(lane)).toBe(1);
      expect(await storedRow(deviceId)).toEqual({ boot: '1', received: '{[1,2)}' });
      expect(await countReadings(deviceId)).toBe(1);
      // Sent again meanwhile: a copy of what waits, answered after it.
      void send(ingest, lane, '{"seq":2,"temp":2}').then((canonical) =>
        acknowledged.push(canonical),
      );
      expect(acknowledged).toEqual([]);
    } finally {
      await pool.query('DROP TRIGGER refuse_commit ON device_sequence');
    }
    await eventually('both are acknowledged', () => acknowledged.length === 2);
    expect(acknowledged[0]).not.toBeNull();
    expect(acknowledged[1]).toBeNull();
    expect(await countReadings(deviceId)).toBe(2);
    expect(ingest.storedSequence(lane)).toBe(2);
  });

  it('leaves a seq unmarked over a restart, so that the message is stored when it comes again', async () => {
    const first = await startIngest();
    const deviceId = newDevice();
    const lane = first.openLane(organizationId, deviceId);
    first.setBoot(lane, 1);
    await send(first, lane, '{"seq":1,"temp":1}');
    const { pool } = testDatabase.database;
    const blocker = await pool.connect();
    await blocker.query('BEGIN; LOCK TABLE device_sequence IN ACCESS EXCLUSIVE MODE');
    void send(first, lane, '{"seq":2,"temp":2}');
    await eventually('the writer waits for the lock', async () => {
      const { rowCount } = await pool.query(
        `SELECT FROM pg_stat_activity WHERE application_name = 'puback writer'
         AND wait_event_type = 'Lock' AND datname = current_database()`,
      );
      return (rowCount ?? 0) > 0;
    });
    const { rows } = await pool.query<{ terminated: boolean }>(
      `SELECT pg_terminate_backend(pid) AS terminated FROM pg_stat_activity
       WHERE application_name = 'puback writer' AND datname = current_database()`,
    );
    expect(rows.length).toBeGreaterThan(0);
    await stopIngest(first);
    await blocker.query('COMMIT');
    blocker.release();
    const second = await startIngest();
    const after = second.openLane(organizationId, deviceId);
    second.setBoot(after, 1);
    await second.whenLoaded(after);
    expect(second.storedSequence(after)).toBe(1);
    expect(await send(second, after, '{"seq":2,"temp":2}')).not.toBeNull();
    expect(await countReadings(deviceId)).toBe(2);
  });
});
