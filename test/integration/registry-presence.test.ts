import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { DevicePresence } from '../../broker/presence/presence-state.ts';
import { Presence, type PresentDevice } from '../../broker/presence/presence.ts';
import { StoreUnavailableError } from '../../errors.ts';
import type { Author } from '../../registry/devices.ts';
import { createPresenceStore, type PresenceStore } from '../../registry/presence-store.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization } from '../support/registry.ts';

let test: TestDatabase;
let author: Author;
let other: Author;
let store: PresenceStore;
beforeAll(async () => {
  test = await createTestDatabase();
  ({ author } = await createOrganization(test.database, 'acme'));
  ({ author: other } = await createOrganization(test.database, 'other'));
  store = createPresenceStore(test.database);
});
afterAll(() => test.drop());
beforeEach(async () => {
  await test.database.pool.query('DELETE FROM device');
});

const T = 1_795_235_431_857;

/** Makes devices `d1`, `d2`, … in one statement. */
async function makeDevices(count: number, owner = author): Promise<PresentDevice[]> {
  const { rows } = await test.database.pool.query<{ device_id: number; slug: string }>(
    `INSERT INTO device (organization_id, slug, display_name)
     SELECT $1, 'd' || place, '' FROM generate_series(1, $2) AS place
     RETURNING device_id, slug`,
    [owner.organizationId, count],
  );
  const organization = owner === author ? 'acme' : 'other';
  return rows.map(({ device_id: deviceId, slug: device }) => ({
    organizationId: owner.organizationId,
    organization,
    deviceId,
    device,
  }));
}

async function makeDevice(): Promise<PresentDevice> {
  const [device] = await makeDevices(1);
  if (device === undefined) throw new Error('no device');
  return device;
}

function presenceOf(
  connectionNumber: number,
  change: Partial<DevicePresence> = {},
): DevicePresence {
  return {
    state: 'online',
    sinceMs: T,
    lastContactMs: T + 1,
    connectionNumber,
    address: '2001:db8::1',
    hello: {},
    helloMs: null,
    ...change,
  };
}

async function stored(device: PresentDevice): Promise<DevicePresence | undefined> {
  const { organizationId, deviceId } = device;
  const page = { organizationId, devices: null, after: deviceId - 1, limit: 1 };
  const [row] = await store.listOf(page);
  return row?.deviceId === deviceId ? row.presence : undefined;
}

async function countStates(): Promise<Record<string, number>> {
  const { rows } = await test.database.pool.query<{ state: string; total: number }>(
    'SELECT state, count(*)::int4 AS total FROM device_presence GROUP BY state',
  );
  return Object.fromEntries(rows.map(({ state, total }) => [state, total]));
}

describe('presence store', () => {
  it('reads what it wrote, with names, to the millisecond', async () => {
    const device = await makeDevice();
    const number = 1_795_235_431_857_123;
    const hello = { fw: '1.4.2', sleep: 60, up: 812, rst: 'ä"\\' };
    const presence = presenceOf(number, { hello, helloMs: T + 3 });
    expect(await store.upsertMany([{ ...device, presence }])).toEqual([]);
    expect(await store.listAll({ after: 0, limit: 10 })).toEqual([{ ...device, presence }]);
    expect(await store.findDevices([device])).toEqual([{ ...device, presence }]);
  });

  it('lets no older connection overwrite a newer one', async () => {
    const device = await makeDevice();
    await store.upsertMany([{ ...device, presence: presenceOf(7) }]);
    await store.upsertMany([{ ...device, presence: presenceOf(6, { state: 'offline' }) }]);
    expect(await stored(device)).toMatchObject({ state: 'online', connectionNumber: 7 });
    await store.upsertMany([{ ...device, presence: presenceOf(7, { state: 'offline' }) }]);
    expect(await stored(device)).toMatchObject({ state: 'offline', connectionNumber: 7 });
  });

  it('keeps what was said before, but for the uptime, and the address while none is known', async () => {
    const device = await makeDevice();
    const first = { fw: '1', up: 812, u: { temp: 'Cel' } };
    await store.upsertMany([{ ...device, presence: presenceOf(1, { hello: first, helloMs: T }) }]);
    await store.upsertMany([{ ...device, presence: presenceOf(2, { hello: { sleep: 5 } }) }]);
    expect((await stored(device))?.hello).toEqual({ fw: '1', up: 812, sleep: 5 });
    const second = presenceOf(3, { hello: { fw: '2' }, helloMs: T + 9, address: '' });
    await store.upsertMany([{ ...device, presence: second }]);
    expect(await stored(device)).toMatchObject({
      hello: { fw: '2', sleep: 5 },
      helloMs: T + 9,
      address: '2001:db8::1',
    });
    const { rows } = await test.database.pool.query('SELECT hello FROM device_presence');
    expect(rows).toEqual([{ hello: { fw: '2', sleep: 5, u: { temp: 'Cel' } } }]);
  });

  it('writes the other rows when devices were deleted, and says which', async () => {
    const devices = await makeDevices(3);
    await test.database.pool.query(`DELETE FROM device WHERE slug = 'd2'`);
    const rows = devices.map((device) => ({ ...device, presence: presenceOf(1) }));
    expect(await store.upsertMany(rows)).toEqual([devices[1]?.deviceId]);
    expect(await countStates()).toEqual({ online: 2 });
  });

  it('writes the other rows when a device is being deleted', async () => {
    const devices = await makeDevices(3);
    const deleting = await test.database.pool.connect();
    await deleting.query('BEGIN');
    await deleting.query(`DELETE FROM device WHERE slug = 'd2'`);
    const rows = devices.map((device) => ({ ...device, presence: presenceOf(1) }));
    const writing = store.upsertMany(rows);
    await vi.waitFor(async () => {
      const { rows: waiting } = await test.database.pool.query(
        `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`,
      );
      expect(waiting).toHaveLength(1);
    }, 20_000);
    await deleting.query('COMMIT');
    deleting.release();
    expect(await writing).toEqual([devices[1]?.deviceId]);
    expect(await countStates()).toEqual({ online: 2 });
  });

  it('goes with its device', async () => {
    const device = await makeDevice();
    await store.upsertMany([{ ...device, presence: presenceOf(1) }]);
    await test.database.pool.query('DELETE FROM device');
    expect(await stored(device)).toBeUndefined();
  });

  it('pages through one organization, or some of its devices, and shows no other: A-01', async () => {
    const mine = await makeDevices(5);
    const foreign = await makeDevices(5, other);
    const rows = [...mine, ...foreign].map((device) => ({ ...device, presence: presenceOf(1) }));
    await store.upsertMany(rows);
    const slugs = async (devices: string[] | null, after: number) => {
      const page = { organizationId: author.organizationId, devices, after, limit: 3 };
      return (await store.listOf(page)).map(
        ({ organization, device }) => `${organization}/${device}`,
      );
    };
    expect(await slugs(null, 0)).toEqual(['acme/d1', 'acme/d2', 'acme/d3']);
    expect(await slugs(null, mine[2]?.deviceId ?? 0)).toEqual(['acme/d4', 'acme/d5']);
    expect(await slugs(['d5', 'd2', '__proto__'], 0)).toEqual(['acme/d2', 'acme/d5']);
    expect(await slugs([], 0)).toEqual([]);
    expect(await store.findDevices([{ organization: 'acme', device: 'none' }])).toEqual([]);
    const [none] = await store.findDevices([{ organization: 'other', device: 'd1' }]);
    expect(none).toMatchObject({ organization: 'other', device: 'd1' });
  });

  it('says that the database is away in one way', async () => {
    const broken = createPresenceStore({
      pool: { query: () => Promise.reject(new Error('Connection terminated')) } as never,
    });
    await expect(broken.upsertMany([])).rejects.toThrow(StoreUnavailableError);
    await expect(broken.listAll({ after: 0, limit: 1 })).rejects.toThrow(StoreUnavailableError);
  });
});

describe('presence on the database', () => {
  let retained: Map<string, Buffer>;
  let statements = 0;
  /** Nothing is written any more. */
  let isKilled = false;
  beforeEach(() => {
    retained = new Map();
    statements = 0;
  });

  function open(nowMs: () => number = Date.now): Presence {
    return new Presence({
      store: {
        ...store,
        upsertMany: (rows) => {
          statements += 1;
          if (isKilled) return new Promise(() => undefined);
          return store.upsertMany(rows);
        },
      },
      publishStatus: async (topic, payload) => void retained.set(topic, payload),
      readStatus: (topic) => retained.get(topic) ?? null,
      retainedStatusTopics: () => retained.keys(),
      now: nowMs,
      log: pino({ level: 'silent' }),
      registry: new Registry(),
    });
  }
  function come(presence: Presence, device: PresentDevice): number {
    const connectionNumber = presence.nextConnectionNumber();
    presence.connected({ ...device, address: '192.0.2.1', connectionNumber });
    return connectionNumber;
  }
  const states = () => {
    const counts: Record<string, number> = {};
    for (const payload of retained.values()) {
      const { st } = JSON.parse(String(payload)) as { st: string };
      counts[st] = (counts[st] ?? 0) + 1;
    }
    return counts;
  };

  it('stores 5000 devices that connect at once in a few statements: N-06', async () => {
    const presence = open();
    for (const device of await makeDevices(5000)) come(presence, device);
    await presence.flush();
    expect(await countStates()).toEqual({ online: 5000 });
    expect(statements).toBe(5);
    await presence.stop();
    expect(await countStates()).toEqual({ offline: 5000 });
    expect(states()).toEqual({ offline: 5000 });
  });

  it('leaves no ghost online after kill -9, of 10000 devices: N-07', async () => {
    const killed = open(() => T);
    const devices = await makeDevices(10_000);
    for (const [place, device] of devices.entries()) {
      const number = come(killed, device);
      const sleep = place % 2 === 0 ? 60 : 0;
      killed.hello(device.deviceId, number, { sleep }, () => undefined);
    }
    await killed.flush();
    // These are published and never written.
    for (const device of devices.slice(0, 100)) come(killed, device);
    expect(states()).toEqual({ online: 10_000 });
    isKilled = true;
    const lost = killed.flush();
    await new Promise((resolve) => setImmediate(resolve));
    isKilled = false;
    void lost;

    const presence = open(() => T + 1000);
    await presence.start();
    expect(states()).toEqual({ sleeping: 5000, offline: 5000 });
    expect(await countStates()).toEqual({ sleeping: 5000, offline: 5000 });
    await presence.stop();

    const later = open(() => T + 210_001);
    await later.start();
    expect(states()).toEqual({ offline: 10_000 });
    expect(await countStates()).toEqual({ offline: 10_000 });
    await later.stop();
  });

  it('acknowledges a hello only after COMMIT, and shows readers nothing older than what is published', async () => {
    const presence = open();
    const device = await makeDevice();
    const number = come(presence, device);
    const blocker = await test.database.pool.connect();
    await blocker.query('BEGIN; LOCK TABLE device_presence IN SHARE MODE');
    const onStored = vi.fn<() => void>();
    presence.hello(device.deviceId, number, { fw: '1.4.2' }, onStored);
    const page = presence.statusPage({
      organizationId: device.organizationId,
      devices: null,
      after: 0,
      limit: 10,
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(onStored).not.toHaveBeenCalled();
    await blocker.query('COMMIT');
    blocker.release();
    const { messages } = await page;
    expect(onStored).toHaveBeenCalledOnce();
    expect(messages).toHaveLength(1);
    expect(messages[0]?.payload).toEqual(retained.get('v1/acme/d1/status'));
    await presence.stop();
  });
});
