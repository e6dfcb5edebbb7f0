import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createRandom, type Random } from '../../bench/random.ts';
import { TcpProxy } from '../../bench/tcp-proxy.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { whileAway, whileLocked } from '../support/database-faults.ts';
import { eventually } from '../support/eventually.ts';
import { makePublication } from '../support/messages.ts';
import { NumberedDevice, NumberedFleet } from '../support/numbered-fleet.ts';
import { createOrganization } from '../support/registry.ts';
import { startSpoolingIngest, type SpoolingIngest } from '../support/spooling-ingest.ts';

const DEVICES = 6;
const BOOT = 7;
const SETTLED_MS_MAX = 60_000;
const TEST_MS_MAX = 120_000;

let testDatabase: TestDatabase;
let organizationId: number;
let lastDevice = 0;
const ends: (() => Promise<void>)[] = [];

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  const { author } = await createOrganization(testDatabase.database, 'acme');
  organizationId = author.organizationId;
});
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});
afterAll(() => testDatabase.drop());

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'puback-faults-'));
  ends.push(() => rm(folder, { recursive: true }));
  return folder;
}

async function newDevice(): Promise<number> {
  lastDevice += 1;
  const { rows } = await testDatabase.database.pool.query<{ device_id: number }>(
    `INSERT INTO device (organization_id, slug, display_name) VALUES ($1, $2, $2) RETURNING device_id`,
    [organizationId, `device-${lastDevice}`],
  );
  return rows[0]?.device_id ?? 0;
}

/** A fleet and the ingest that it sends to, which may be stopped and started again. */
class Scene {
  readonly fleet: NumberedFleet;
  program: SpoolingIngest;
  spooledMessages = 0;
  recoveredMessages = 0;
  readonly unbalanced: string[] = [];
  readonly #start: () => Promise<SpoolingIngest>;
  readonly #random: Random;
  #isStopped = false;

  private constructor(
    devices: NumberedDevice[],
    start: () => Promise<SpoolingIngest>,
    seed: number,
    program: SpoolingIngest,
  ) {
    this.#random = createRandom(seed);
    this.#start = start;
    this.program = program;
    this.fleet = new NumberedFleet(devices, this.#random, () => this.program.ingest);
  }

  static async open(seed: number, spoolBytesMax?: number): Promise<Scene> {
    const folder = await makeFolder();
    const { database } = testDatabase;
    const start = () => startSpoolingIngest(database, folder, spoolBytesMax);
    const devices: NumberedDevice[] = [];
    while (devices.length < DEVICES) {
      devices.push(new NumberedDevice(organizationId, await newDevice(), 100 + devices.length));
    }
    const scene = new Scene(devices, start, seed, await start());
    ends.push(() => scene.stop());
    return scene;
  }

  run(stepsMin: number, stepsMax: number): Promise<void> {
    return this.fleet.run(Math.floor(this.#random.between(stepsMin, stepsMax)));
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.fleet.disconnect();
    await this.program.stop();
    this.spooledMessages += this.program.spool.totals.appendedMessages;
    this.unbalanced.push(...this.program.unbalanced);
  }

  /** What the old program had under way ends first, as it does in the time that a restart takes. */
  async start(): Promise<void> {
    await eventually('the connections of the stopped program end', hasNoWriters, SETTLED_MS_MAX);
    this.program = await this.#start();
    this.#isStopped = false;
    this.recoveredMessages += this.program.spool.recoveredMessages;
  }

  async settle(): Promise<void> {
    const isSettled = (): boolean =>
      this.fleet.settle() && this.program.spool.pendingMessages === 0;
    await eventually('all is acknowledged and in the database', isSettled, SETTLED_MS_MAX);
  }
}

async function hasNoWriters(): Promise<boolean> {
  const { rows } = await testDatabase.database.pool.query(
    `SELECT FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'puback writer'`,
  );
  return rows.length === 0;
}

/** Which numbers of a device are not stored, and which more than once. */
async function faultsOf({ deviceId, lastSeq, twiceAcknowledged }: NumberedDevice) {
  const { rows } = await testDatabase.database.pool.query<{ value: number; count: number }>(
    'SELECT value, count(*)::int4 FROM reading WHERE device_id = $1 GROUP BY value',
    [deviceId],
  );
  const counts = new Map(rows.map(({ value, count }) => [value, count]));
  const numbers = Array.from({ length: lastSeq }, (_, index) => index + 1);
  return {
    missing: numbers.filter((seq) => !counts.has(seq)),
    twice: numbers.filter((seq) => (counts.get(seq) ?? 0) > 1),
    twiceAcknowledged,
  };
}

async function expectAllStoredOnce(scene: Scene): Promise<void> {
  await scene.settle();
  const { committed, received, ...others } = scene.program.ingest.ledger;
  expect(committed).toBe(received - others.rejected);
  expect(others).toMatchObject({ spooled: 0, quarantined: 0, lost: 0, inFlight: 0 });
  for (const device of scene.fleet.devices) {
    expect(device.lastSeq).toBeGreaterThan(0);
    const none = { missing: [], twice: [], twiceAcknowledged: [] };
    expect(await faultsOf(device), `device ${device.deviceId}`).toEqual(none);
  }
  await scene.stop();
  expect(scene.unbalanced).toEqual([]);
}

describe('a fleet that sends again what was not acknowledged', { timeout: TEST_MS_MAX }, () => {
  it('is stored exactly once over outages and locked tables (D-04, D-08, D-14)', async () => {
    const scene = await Scene.open(1);
    for (const table of ['device_latest', 'reading', 'metric', 'device_sequence']) {
      await scene.run(20, 60);
      await whileAway(testDatabase, () => scene.run(20, 120));
      await scene.run(20, 60);
      await whileLocked(testDatabase, table, () => scene.run(40, 200));
    }
    await expectAllStoredOnce(scene);
    expect(scene.spooledMessages).toBeGreaterThan(0);
  });

  it('is stored exactly once when the program is stopped and started too (D-01, D-14)', async () => {
    const scene = await Scene.open(2);
    for (const table of ['reading', 'device_sequence', 'device_latest']) {
      await scene.run(20, 60);
      await whileAway(testDatabase, async () => {
        await scene.run(20, 100);
        const { spool } = scene.program;
        await scene.fleet.runUntil('something is spooled', () => spool.pendingMessages > 0);
        await scene.stop();
      });
      await scene.start();
      await scene.run(20, 60);
      await whileLocked(testDatabase, table, () => scene.run(20, 100));
      await scene.stop();
      await scene.start();
    }
    await expectAllStoredOnce(scene);
    expect(scene.recoveredMessages).toBeGreaterThan(0);
  });

  it('is stored exactly once when the spool fills up (D-05, D-14)', async () => {
    const scene = await Scene.open(3, 40_000);
    const { spool } = scene.program;
    for (const table of ['metric', 'reading', 'device_latest']) {
      await whileAway(testDatabase, async () => {
        await scene.fleet.runUntil('the spool is full', () => spool.isFull);
        await scene.run(20, 100);
      });
      await scene.run(20, 60);
      await whileLocked(testDatabase, table, () => scene.run(40, 150));
      await scene.run(20, 60);
    }
    await expectAllStoredOnce(scene);
  });
});

/** Sends numbered messages over a connection of their own. Resolves when all are acknowledged. */
async function sendNumbers(
  { ingest }: SpoolingIngest,
  deviceId: number,
  from: number,
  to: number,
): Promise<void> {
  const lane = ingest.openLane(organizationId, deviceId);
  ingest.setBoot(lane, BOOT);
  const acknowledged: Promise<unknown>[] = [];
  for (let seq = from; seq <= to; seq += 1) {
    const payload = JSON.stringify({ seq, temp: seq });
    acknowledged.push(
      new Promise((resolve) => ingest.accept(lane, makePublication(payload, resolve))),
    );
  }
  await Promise.all(acknowledged);
  ingest.closeLane(lane);
}

async function readingsOf(deviceId: number): Promise<number[]> {
  const { rows } = await testDatabase.database.pool.query<{ value: number }>(
    'SELECT value FROM reading WHERE device_id = $1 ORDER BY value',
    [deviceId],
  );
  return rows.map(({ value }) => value);
}

/** Whole numbers, both ends included. */
const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index);

const drained = ({ spool }: SpoolingIngest): Promise<void> =>
  eventually('the spool is drained', () => spool.pendingMessages === 0, SETTLED_MS_MAX);

async function startIngest(database = testDatabase.database): Promise<SpoolingIngest> {
  const program = await startSpoolingIngest(database, await makeFolder());
  ends.push(() => program.stop());
  return program;
}

describe('copies of a device that could not be looked up when they came', () => {
  it('are stored once although live messages are far ahead by then (D-14)', async () => {
    const program = await startIngest();
    const deviceId = await newDevice();
    await testDatabase.database.pool.query(
      'INSERT INTO device_sequence (device_id, boot, received) VALUES ($1, $2, $3)',
      [deviceId, BOOT, '{[60,120)}'],
    );
    await whileAway(testDatabase, async () => {
      await sendNumbers(program, deviceId, 1, 10);
      await sendNumbers(program, deviceId, 1, 10);
    });
    await drained(program);
    expect(await readingsOf(deviceId)).toEqual(range(1, 10));
  });

  it('are acknowledged and not spooled again when that waits in the spool since before a restart (D-14)', async () => {
    const { database } = testDatabase;
    const folder = await makeFolder();
    const before = await startSpoolingIngest(database, folder);
    const deviceId = await newDevice();
    await whileAway(testDatabase, async () => {
      await sendNumbers(before, deviceId, 1, 50);
      await before.stop();
    });
    await eventually('the connections of the stopped program end', hasNoWriters, SETTLED_MS_MAX);
    const program = await startSpoolingIngest(database, folder);
    ends.push(() => program.stop());
    await whileLocked(testDatabase, 'device_latest', () => sendNumbers(program, deviceId, 1, 50));
    expect(program.spool.totals.appendedMessages).toBe(0);
    await drained(program);
    expect(await readingsOf(deviceId)).toEqual(range(1, 50));
  });

  it('are not stored when what they are copies of is in the database (D-14)', async () => {
    const [before, program] = [await startIngest(), await startIngest()];
    const deviceId = await newDevice();
    await sendNumbers(before, deviceId, 5, 8);
    await whileAway(testDatabase, () => sendNumbers(program, deviceId, 1, 10));
    await drained(program);
    expect(await readingsOf(deviceId)).toEqual(range(1, 10));
  });
});

describe('a connection to the database that falls silent while it is set up', () => {
  let proxy: TcpProxy;
  let isDeaf = false;
  let silentLinks = 0;

  beforeEach(async () => {
    proxy = await TcpProxy.open(testDatabase.url);
    ends.push(() => proxy.close());
    [isDeaf, silentLinks] = [false, 0];
    proxy.inspect = ({ server }, bytes, from) => {
      if (!isDeaf || from !== 'client' || !bytes.includes('SET synchronous_commit')) return true;
      silentLinks += 1;
      server.pause();
      return true;
    };
  });

  const isSilent = (): Promise<void> => eventually('a connection is silent', () => silentLinks > 0);

  /** Spools one message, and goes on when a connection has fallen silent. */
  async function fallSilent(): Promise<{ program: SpoolingIngest; deviceId: number }> {
    const { database } = testDatabase;
    const program = await startIngest({ ...database, url: proxy.through(database.url) });
    const deviceId = await newDevice();
    await whileAway(testDatabase, async () => {
      await sendNumbers(program, deviceId, 1, 1);
      isDeaf = true;
    });
    await isSilent();
    return { program, deviceId };
  }

  it('is given up, and another one drains the spool (D-08)', async () => {
    const { program, deviceId } = await fallSilent();
    isDeaf = false;
    await drained(program);
    await sendNumbers(program, deviceId, 2, 2);
    await drained(program);
    expect(await readingsOf(deviceId)).toEqual([1, 2]);
    expect(program.unbalanced).toEqual([]);
  });

  it('does not keep the program from stopping (D-08)', async () => {
    const { program } = await fallSilent();
    await program.stop();
    expect(program.spool.pendingMessages).toBe(1);
  });
});
