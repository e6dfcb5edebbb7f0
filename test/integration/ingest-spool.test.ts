import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Ingest, type IngestLimits } from '../../ingest/ingest.ts';
import type { Lane } from '../../ingest/lane.ts';
import type { Publication } from '../../ingest/message.ts';
import { Spool } from '../../ingest/spool/spool.ts';
import { createTestDatabase, onTestServer, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { makePublication } from '../support/messages.ts';
import { createOrganization } from '../support/registry.ts';

const LIMITS: IngestLimits = {
  writer: {
    batchRowsMax: 1000,
    lingerMs: 0,
    queueRowsMax: 1000,
    queueBytesMax: 1_000_000,
    spoolAfterMs: 50,
  },
  pipeline: {
    deviceMetricsMax: 10,
    deviceHeldBytesMax: 1_000_000,
    heldBytesMax: 1_000_000,
    ageMaxMs: 30 * 86_400_000,
    aheadMaxMs: 300_000,
    deviceLogBytesPerSecond: 0,
    spoolAfterMs: 50,
  },
  rates: { messagesPerSecond: 0, pointsPerSecond: 0 },
  organizationMetricsMax: 100,
  databaseTimeoutMs: 2000,
};
const log = pino({ level: 'silent' });

let testDatabase: TestDatabase;
let organizationId: number;
let lastDevice = 0;
const running: (() => Promise<void>)[] = [];
const folders: string[] = [];

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  const { author } = await createOrganization(testDatabase.database, 'acme');
  organizationId = author.organizationId;
});
afterEach(async () => {
  await allowConnections(true);
  for (const stop of running.splice(0)) await stop();
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});
afterAll(() => testDatabase.drop());

/** A database that is away: nobody is let in, and whoever is in is sent out. */
async function allowConnections(isAllowed: boolean): Promise<void> {
  const name = new URL(testDatabase.url.replace('///', '//x/').replace('@/', '@x/')).pathname.slice(
    1,
  );
  await onTestServer(`ALTER DATABASE ${name} ALLOW_CONNECTIONS ${isAllowed}`);
  if (isAllowed) return;
  await onTestServer(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`,
  );
}

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'puback-spool-'));
  folders.push(folder);
  return folder;
}

/** Ingest over a spool, as after a start of the program. */
async function startIngest(folder: string) {
  const limits = { bytesMax: 10_000_000, segmentBytes: 1_000_000 };
  const spool = await Spool.open({ folder, limits, log });
  const { database } = testDatabase;
  const registry = new MetricsRegistry();
  const ingest = new Ingest({ database, spool, limits: LIMITS, registry, log });
  await ingest.start();
  running.push(async () => {
    await ingest.stop();
    await spool.close();
  });
  return { ingest, spool, registry };
}

type Running = Awaited<ReturnType<typeof startIngest>>;

/** Resolves with what the message is acknowledged with. */
function send(
  { ingest }: Running,
  lane: Lane,
  payload: string,
  changes: Partial<Publication> = {},
): Promise<Buffer | null> {
  return new Promise((resolve) => {
    ingest.accept(lane, { ...makePublication(payload, resolve), ...changes });
  });
}

const drained = ({ spool }: Running): Promise<void> =>
  eventually('the spool is drained', () => spool.pendingMessages === 0);

/** `received` is the sum of the others, as a scrape sees it. */
async function expectLedger({ registry }: Running): Promise<Record<string, number>> {
  const metric = await registry.getSingleMetric('puback_ingest_ledger_messages')?.get();
  const entries = (metric?.values ?? []).map(({ labels, value }) => [labels['entry'], value]);
  const ledger = Object.fromEntries(entries) as Record<string, number>;
  const { received, ...others } = ledger;
  expect(received).toBe(Object.values(others).reduce((sum, count) => sum + count, 0));
  return ledger;
}

async function rowsOf(deviceId: number): Promise<Record<string, unknown>> {
  const { rows } = await testDatabase.database.pool.query<Record<string, unknown>>(
    `SELECT (SELECT array_agg(value ORDER BY time) FROM reading WHERE device_id = $1) AS readings,
            (SELECT count(*)::int4 FROM quarantine WHERE device_id = $1) AS quarantine,
            (SELECT count(*)::int4 FROM event WHERE device_id = $1) AS events,
            (SELECT count(*)::int4 FROM log_entry WHERE device_id = $1) AS log_entries,
            (SELECT received::text FROM device_sequence WHERE device_id = $1) AS sequence`,
    [deviceId],
  );
  return rows[0] ?? {};
}

async function newDevice(): Promise<number> {
  lastDevice += 1;
  const { rows } = await testDatabase.database.pool.query<{ device_id: number }>(
    `INSERT INTO device (organization_id, slug, display_name) VALUES ($1, $2, $2) RETURNING device_id`,
    [organizationId, `device-${lastDevice}`],
  );
  return rows[0]?.device_id ?? 0;
}

/** One message of every kind, some of them of a device that was never looked up. */
async function sendEveryKind(program: Running, lane: Lane): Promise<void> {
  await Promise.all([
    send(program, lane, '{"seq":2,"temp":2}'),
    send(program, lane, `{"ts":${Date.now() - 5000},"temp":1}`),
    send(program, lane, '{"age":60000,"temp":0}'),
    send(program, lane, '{"temp":3}'),
    send(program, lane, '{"new":4}'),
    send(program, lane, '{"temp":'),
    send(program, lane, '{"button":1}', { channel: 'event', name: 'press', word: 'event' }),
    send(program, lane, 'I (1) wifi: up\nW (2) wifi: down', { channel: 'log', word: 'log' }),
    send(program, lane, '[{"n":"rh","v":5}]', { channel: 'senml', word: 'senml' }),
  ]);
}

describe('while the database is away', () => {
  it('messages are acknowledged from the spool, and stored once when it is back (D-04)', async () => {
    const program = await startIngest(await makeFolder());
    const [known, unknown] = [await newDevice(), await newDevice()];
    const lane = program.ingest.openLane(organizationId, known);
    program.ingest.setBoot(lane, 7);
    await send(program, lane, '{"seq":1,"temp":0.5}');
    await allowConnections(false);
    await sendEveryKind(program, lane);
    await sendEveryKind(program, program.ingest.openLane(organizationId, unknown));
    expect(await expectLedger(program)).toMatchObject({ received: 19, spooled: 18, committed: 1 });
    expect(program.ingest.isSpooling).toBe(true);
    expect(program.ingest.storedSequence(lane)).toBe(2);
    await allowConnections(true);
    await drained(program);
    expect(await expectLedger(program)).toMatchObject({
      spooled: 0,
      committed: 17,
      quarantined: 2,
    });
    expect(program.ingest.isSpooling).toBe(false);
    const all = { quarantine: 1, events: 1, log_entries: 2 };
    expect(await rowsOf(known)).toMatchObject({ ...all, sequence: '{[1,3)}' });
    expect(await rowsOf(unknown)).toMatchObject({ ...all, sequence: null });
    expect((await rowsOf(known))['readings']).toHaveLength(7);
    expect((await rowsOf(unknown))['readings']).toHaveLength(6);
  });

  it('a copy told by its seq is none after a restart either, drained or not (D-14)', async () => {
    const folder = await makeFolder();
    const before = await startIngest(folder);
    const deviceId = await newDevice();
    const lane = before.ingest.openLane(organizationId, deviceId);
    before.ingest.setBoot(lane, 7);
    await send(before, lane, '{"seq":0,"temp":0}');
    await allowConnections(false);
    for (let seq = 1; seq <= 20; seq += 1) await send(before, lane, `{"seq":${seq},"temp":${seq}}`);
    const crashed = await makeFolder();
    await cp(folder, crashed, { recursive: true });
    await Promise.all(running.splice(0).map((stop) => stop()));
    await allowConnections(true);

    const after = await startIngest(crashed);
    const again = after.ingest.openLane(organizationId, deviceId);
    after.ingest.setBoot(again, 7);
    const numbers = Array.from({ length: 22 }, (_, seq) => seq);
    await Promise.all(numbers.map((seq) => send(after, again, `{"seq":${seq},"temp":${seq}}`)));
    await drained(after);
    expect(after.spool.recoveredMessages).toBe(20);
    const { readings, sequence } = await rowsOf(deviceId);
    expect((readings as number[]).toSorted((a, b) => a - b)).toEqual(numbers);
    expect(sequence).toBe('{[0,22)}');
    await expectLedger(after);
  });

  it('what is drained twice is stored once (D-01)', async () => {
    const folder = await makeFolder();
    const first = await startIngest(folder);
    const deviceId = await newDevice();
    const lane = first.ingest.openLane(organizationId, deviceId);
    await send(first, lane, '{"temp":9}');
    await allowConnections(false);
    await sendEveryKind(first, lane);
    const copy = await makeFolder();
    await cp(folder, copy, { recursive: true });
    await allowConnections(true);
    await drained(first);
    const stored = await rowsOf(deviceId);
    const second = await startIngest(copy);
    expect(second.spool.recoveredMessages).toBe(9);
    await drained(second);
    expect(await rowsOf(deviceId)).toEqual(stored);
    await expectLedger(second);
  });

  it('a hello need not wait, also when all that comes is of devices that cannot be looked up', async () => {
    const program = await startIngest(await makeFolder());
    const lane = program.ingest.openLane(organizationId, await newDevice());
    await allowConnections(false);
    await send(program, lane, '{"seq":1,"temp":1}');
    expect(program.ingest.isSpooling).toBe(true);
    await allowConnections(true);
    await drained(program);
    expect(program.ingest.isSpooling).toBe(false);
  });

  it('a copy told by its seq is acknowledged and not spooled, with a boot and without (D-14)', async () => {
    const program = await startIngest(await makeFolder());
    const deviceId = await newDevice();
    const lane = program.ingest.openLane(organizationId, deviceId);
    await send(program, lane, '{"seq":1,"temp":1}');
    await allowConnections(false);
    const numbers = [2, 2, 1, 3];
    await Promise.all(numbers.map((seq) => send(program, lane, `{"seq":${seq},"temp":${seq}}`)));
    expect(program.spool.pendingMessages).toBe(2);
    await expectLedger(program);
    await allowConnections(true);
    await drained(program);
    expect((await rowsOf(deviceId))['readings']).toEqual([1, 2, 3]);
    expect(await expectLedger(program)).toMatchObject({ received: 5, committed: 5 });
  });

  it('what a device in quarantine sends is kept apart, whatever becomes of it before the drain', async () => {
    const program = await startIngest(await makeFolder());
    const [known, unknown] = [await newDevice(), await newDevice()];
    const lane = program.ingest.openLane(organizationId, known);
    await send(program, lane, '{"temp":1}');
    for (const deviceId of [known, unknown]) program.ingest.setQuarantined(deviceId, true);
    await allowConnections(false);
    const other = program.ingest.openLane(organizationId, unknown);
    expect(await send(program, lane, '{"temp":2}')).toBeNull();
    expect(await send(program, other, '{"temp":2}')).toBeNull();
    for (const deviceId of [known, unknown]) program.ingest.setQuarantined(deviceId, false);
    await allowConnections(true);
    await drained(program);
    expect(await rowsOf(known)).toMatchObject({ readings: [1], quarantine: 1 });
    expect(await rowsOf(unknown)).toMatchObject({ readings: null, quarantine: 1 });
  });

  it('what came of a device is not stored once that is deleted, and the spool goes on', async () => {
    const folder = await makeFolder();
    const before = await startIngest(folder);
    const [kept, deleted] = [await newDevice(), await newDevice()];
    await allowConnections(false);
    for (const deviceId of [deleted, kept]) {
      await send(before, before.ingest.openLane(organizationId, deviceId), '{"temp":3}');
    }
    await Promise.all(running.splice(0).map((stop) => stop()));
    await allowConnections(true);
    const { pool } = testDatabase.database;
    await pool.query('DELETE FROM device WHERE device_id = $1', [deleted]);
    const after = await startIngest(folder);
    await drained(after);
    expect((await rowsOf(kept))['readings']).toEqual([3]);
    expect(await rowsOf(deleted)).toMatchObject({ readings: null, quarantine: 0 });
    expect(await expectLedger(after)).toMatchObject({ received: 2, committed: 1, rejected: 1 });
  });
});

describe('a device that is looked up late', () => {
  it('has the numbers that were spooled meanwhile (D-14)', async () => {
    const program = await startIngest(await makeFolder());
    const deviceId = await newDevice();
    await send(program, program.ingest.openLane(organizationId, await newDevice()), '{"temp":1}');
    const locker = new pg.Client({ connectionString: testDatabase.url });
    await locker.connect();
    const numbers = [1, 2, 3];
    const sendAll = async (): Promise<void> => {
      const lane = program.ingest.openLane(organizationId, deviceId);
      program.ingest.setBoot(lane, 7);
      await Promise.all(numbers.map((seq) => send(program, lane, `{"seq":${seq},"temp":${seq}}`)));
    };
    try {
      await locker.query('BEGIN; LOCK TABLE device_latest IN ACCESS EXCLUSIVE MODE');
      await sendAll();
      expect(program.spool.pendingMessages).toBe(3);
      await locker.query('COMMIT');
    } finally {
      await locker.end();
    }
    await drained(program);
    await sendAll();
    await drained(program);
    expect((await rowsOf(deviceId))['readings']).toEqual(numbers);
  });
});
