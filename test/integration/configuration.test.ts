import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type {
  ConfigurationChange,
  ConfiguredDevice,
  DeviceConfiguration,
  Document,
} from '../../configuration/configuration.ts';
import { createTestConfiguration, type TestConfiguration } from '../support/configuration.ts';
import { eventually } from '../support/eventually.ts';

let fleet: TestConfiguration;
const MINUTE = 60_000;

beforeAll(async () => {
  fleet = await createTestConfiguration();
});
afterAll(() => fleet.stop());

const edit = (
  device: string,
  change: ConfigurationChange,
  version: number | null = null,
): Promise<DeviceConfiguration> =>
  fleet.parts.configurations.edit(fleet.author, { device, version, change });
const put = (device: string, desired: Document, version: number | null = null) =>
  edit(device, { kind: 'put', desired }, version);
const patch = (device: string, change: Document, version: number | null = null) =>
  edit(device, { kind: 'patch', patch: change }, version);
const get = (device: string): Promise<DeviceConfiguration> =>
  fleet.parts.configurations.get(fleet.author.organizationId, device);
const published = (device: string, v: number): Promise<void> =>
  eventually(`${device} at version ${v}`, async () => {
    return fleet.wire.read(device)?.v === v && (await get(device)).isPublished;
  });

describe('what is desired of a device', () => {
  it('is version 0 and nothing before anybody sets it', async () => {
    await fleet.device('new-1');
    expect(await get('new-1')).toMatchObject({
      version: 0,
      desired: {},
      document: {},
      changedAt: null,
      reported: null,
      differsSince: null,
      isPublished: false,
      packet: { bytes: 0, bytesMax: 256 },
    });
    expect(fleet.wire.read('new-1')).toBeNull();
    await expect(get('nobody')).rejects.toMatchObject({ code: 'DEVICE_NOT_FOUND' });
    await expect(put('nobody', {})).rejects.toMatchObject({ code: 'DEVICE_NOT_FOUND' });
  });

  it('is committed with its version and its audit, then published whole', async () => {
    await fleet.device('put-1');
    expect(await put('put-1', { every: 60, mode: 'auto' }, 0)).toMatchObject({ version: 1 });
    await published('put-1', 1);
    expect(await patch('put-1', { every: 30, mode: null }, 1)).toMatchObject({
      version: 2,
      desired: { every: 30 },
      changedBy: 'test',
    });
    await published('put-1', 2);
    expect(fleet.wire.read('put-1')).toEqual({ v: 2, cfg: { every: 30 } });
    const { rows } = await fleet.test.database.pool.query(
      `SELECT change FROM audit_event WHERE subject = 'device/put-1/configuration' ORDER BY audit_event_id`,
    );
    expect(rows).toHaveLength(2);
  });

  it('makes no version and no message of what is desired already', async () => {
    await fleet.device('same-1');
    await put('same-1', { a: { b: 1 }, c: [1] });
    await published('same-1', 1);
    const before = fleet.wire.published.length;
    expect(await put('same-1', { c: [1], a: { b: 1 } })).toMatchObject({ version: 1 });
    expect(await patch('same-1', { a: {} })).toMatchObject({ version: 1 });
    await fleet.parts.sweep();
    expect(fleet.wire.published.length).toBe(before);
  });

  it('is refused when it was made for another version', async () => {
    await fleet.device('match-1');
    await put('match-1', { a: 1 }, 0);
    await expect(put('match-1', { a: 2 }, 0)).rejects.toMatchObject({
      code: 'CONFIGURATION_CHANGED',
      status: 412,
      version: 1,
    });
    expect(await get('match-1')).toMatchObject({ version: 1, desired: { a: 1 } });
  });

  it('goes to one of many who change the same version at once', async () => {
    await fleet.device('race-1');
    const all = Array.from({ length: 6 }, (_, index) => put('race-1', { a: index }, 0));
    const settled = await Promise.allSettled(all);
    expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    await published('race-1', 1);
  });

  it('is published in order, never an older version over a newer one', async () => {
    await fleet.device('order-1');
    for (let index = 1; index <= 20; index += 1) await put('order-1', { a: index });
    await published('order-1', 20);
    const versions = fleet.wire.published
      .filter(({ topic }) => topic === 'v1/acme/order-1/in/cfg')
      .map(({ payload }) => (JSON.parse(payload.toString()) as { v: number }).v);
    expect(versions).toEqual(versions.toSorted((left, right) => left - right));
  });

  it('is refused with the bytes when its packet is larger than the device takes', async () => {
    const device = await fleet.device('big-1');
    const long = { text: 'x'.repeat(230) };
    await expect(put('big-1', long)).rejects.toMatchObject({
      code: 'CONFIGURATION_TOO_BIG',
      status: 422,
      message: expect.stringMatching(/packet of 2\d\d bytes, the device takes 256/),
    });
    await fleet.hello(device, { mps: 1024 });
    expect(await put('big-1', long)).toMatchObject({ version: 1, packet: { bytesMax: 1024 } });
    expect((await get('big-1')).packet.bytes).toBeGreaterThan(256);
  });

  it('is measured as the device spells its topics', async () => {
    const device = await fleet.device('spelled-1');
    const rest = 'PUBLISH'.length - 2 + 'v1/me/in/cfg'.length + '{"v":1,"cfg":{"t":""}}'.length + 2;
    const text = 'x'.repeat(256 - rest);
    await expect(put('spelled-1', { t: `${text}x` })).rejects.toThrow('257 bytes');
    const { bytes } = (await put('spelled-1', { t: text })).packet;
    expect(bytes).toBe(256);
    const { pool } = fleet.test.database;
    await pool.query(
      `INSERT INTO command_slot (device_id, organization_id, uses_alias) VALUES ($1, $2, false)`,
      [device.deviceId, device.organizationId],
    );
    const longer = 'v1/acme/spelled-1/in/cfg'.length - 'v1/me/in/cfg'.length;
    expect((await get('spelled-1')).packet.bytes).toBe(bytes + longer);
  });

  it.each([
    ['a number too large', { a: Number.POSITIVE_INFINITY }],
    ['U+0000', { a: 'x\0' }],
    ['U+0000', { 'a\0': 1 }],
    ['half of a surrogate pair', { a: '\ud800' }],
    ['levels', { a: { b: { c: { d: { e: { f: { g: { h: {} } } } } } } } }],
    ['members and items', { a: Array.from({ length: 1000 }, () => 1) }],
    ['bytes', { a: 'x'.repeat(2048) }],
  ])('is refused with %s', async (reason, desired) => {
    await fleet.device('bad-1').catch(() => undefined);
    for (const change of [put, patch]) {
      await expect(change('bad-1', desired)).rejects.toMatchObject({
        code: 'CONFIGURATION_INVALID',
        message: expect.stringContaining(reason),
      });
    }
    expect((await get('bad-1')).version).toBe(0);
  });

  it('has a history that ends at the bound, and from which a version is restored', async () => {
    await fleet.device('past-1');
    for (let index = 1; index <= 8; index += 1) await put('past-1', { a: index });
    await published('past-1', 8);
    const { configurations } = fleet.parts;
    const query = { organizationId: fleet.author.organizationId, device: 'past-1' };
    const page = await configurations.versions({ ...query, limit: 3, before: null });
    expect(page.rows.map(({ version }) => version)).toEqual([8, 7, 6]);
    expect(page.hasMore).toBe(true);
    const rest = await configurations.versions({ ...query, limit: 10, before: 6 });
    expect(rest.rows.map(({ version }) => version)).toEqual([5, 4]);
    const gone = configurations.version(query.organizationId, 'past-1', 3);
    await expect(gone).rejects.toMatchObject({ code: 'CONFIGURATION_VERSION_NOT_FOUND' });
    expect(await edit('past-1', { kind: 'restore', version: 5 }, 8)).toMatchObject({
      version: 9,
      desired: { a: 5 },
    });
    await published('past-1', 9);
  });

  it('is none of another organization', async () => {
    await fleet.device('own-1');
    await put('own-1', { a: 1 });
    const stranger = { organizationId: fleet.author.organizationId + 1000, actor: 'x' };
    const { configurations } = fleet.parts;
    const change = { kind: 'put', desired: {} } as const;
    await expect(configurations.get(stranger.organizationId, 'own-1')).rejects.toMatchObject({
      code: 'DEVICE_NOT_FOUND',
    });
    await expect(
      configurations.edit(stranger, { device: 'own-1', version: null, change }),
    ).rejects.toMatchObject({ code: 'DEVICE_NOT_FOUND' });
  });
});

describe('a crash', () => {
  it('between COMMIT and publish leaves nothing behind that the next start does not mend', async () => {
    const [first] = await Promise.all([fleet.device('crash-1'), fleet.device('crash-2')]);
    await put('crash-2', { a: 1 });
    await published('crash-2', 1);
    // As if the program had ended there: nothing is published, or nothing marked.
    fleet.wire.before = () => Promise.reject(new Error('dead'));
    await put('crash-1', { a: 1 });
    await put('crash-2', { a: 2 });
    await fleet.restart();
    fleet.wire.before = () => Promise.resolve();
    expect(fleet.wire.read('crash-1')).toBeNull();
    await fleet.parts.sweep();
    expect(fleet.wire.read('crash-1')).toEqual({ v: 1, cfg: { a: 1 } });
    expect(fleet.wire.read('crash-2')).toEqual({ v: 2, cfg: { a: 2 } });
    // Between publish and its mark.
    const { pool } = fleet.test.database;
    await pool.query('UPDATE device_configuration SET published_version = NULL');
    const before = fleet.wire.published.length;
    await fleet.restart();
    await fleet.parts.sweep();
    expect(fleet.wire.published.length).toBe(before);
    expect((await get('crash-1')).isPublished).toBe(true);
    expect(fleet.parts.peers.version(first)).toBe(1);
  });

  it('that lost topics, or left some of devices that are gone, is mended at the start', async () => {
    await fleet.device('lost-1');
    await put('lost-1', { a: 1 });
    await published('lost-1', 1);
    fleet.wire.topics.delete('v1/acme/lost-1/in/cfg');
    fleet.wire.topics.set('v1/acme/ghost/in/cfg', Buffer.from('{"v":3,"cfg":{}}'));
    fleet.wire.topics.set('v1/acme/ghost/in/cmd', Buffer.from('{"id":3}'));
    await fleet.restart();
    await fleet.parts.sweep();
    expect(fleet.wire.read('lost-1')).toEqual({ v: 1, cfg: { a: 1 } });
    expect(fleet.wire.read('ghost')).toBeNull();
    expect(fleet.wire.topics.has('v1/acme/ghost/in/cmd')).toBe(true);
    fleet.wire.topics.delete('v1/acme/ghost/in/cmd');
  });

  it('after which an older backup was restored passes the numbers that devices know', async () => {
    await fleet.device('backup-1');
    await put('backup-1', { a: 'restored' });
    await published('backup-1', 1);
    fleet.wire.topics.set('v1/acme/backup-1/in/cfg', Buffer.from('{"v":9,"cfg":{"a":"later"}}'));
    await fleet.restart();
    await fleet.parts.sweep();
    await published('backup-1', 10);
    expect(fleet.wire.read('backup-1')).toEqual({ v: 10, cfg: { a: 'restored' } });
  });

  it('after which a backup from before the first version was restored sends nothing, behind it', async () => {
    await fleet.device('backup-2');
    fleet.wire.topics.set('v1/acme/backup-2/in/cfg', Buffer.from('{"v":4,"cfg":{"a":"later"}}'));
    await fleet.restart();
    await fleet.parts.sweep();
    expect(fleet.wire.read('backup-2')).toEqual({ v: 5, cfg: {} });
    expect(await get('backup-2')).toMatchObject({ version: 5, desired: {}, reported: null });
    expect(await put('backup-2', { a: 1 })).toMatchObject({ version: 6 });
    await published('backup-2', 6);
  });

  it('of the broker alone is tried again by the sweeper', async () => {
    await fleet.device('again-1');
    fleet.wire.before = () => Promise.reject(new Error('disk full'));
    await put('again-1', { a: 1 });
    await fleet.parts.sweep();
    expect(fleet.wire.read('again-1')).toBeNull();
    const text = await fleet.metricsRegistry.metrics();
    expect(text).toMatch(/puback_configuration_publish_failures_total [1-9]/);
    expect(text).toMatch(/puback_configuration_unpublished_devices [1-9]/);
    fleet.wire.before = () => Promise.resolve();
    await fleet.parts.sweep();
    await published('again-1', 1);
  });
});

describe('what a device reports', () => {
  const report = (from: ConfiguredDevice, v: number, more: object = {}) =>
    fleet.parts.peers.reported(from, { v, ok: true, ...more });

  it('is the document of the version, or what it says is in effect', async () => {
    const from = await fleet.device('said-1');
    await put('said-1', { every: 60 });
    expect(await get('said-1')).toMatchObject({ reported: null, differsSince: expect.any(Date) });
    expect(await report(from, 1)).toBe('applied');
    expect(await get('said-1')).toMatchObject({
      reported: { version: 1, isApplied: true, document: { every: 60 }, message: null },
      differsSince: null,
    });
    expect(await report(from, 1)).toBe('repeated');
    expect(await report(from, 1, { cfg: { every: 64 } })).toBe('applied');
    expect((await get('said-1')).reported?.document).toEqual({ every: 64 });
  });

  it('keeps why a version was not applied, with the document before it', async () => {
    const from = await fleet.device('said-2');
    await put('said-2', { every: 60 });
    await report(from, 1);
    await put('said-2', { every: 1 });
    expect(await report(from, 2, { ok: false, msg: 'every<10' })).toBe('refused');
    expect(await get('said-2')).toMatchObject({
      reported: { version: 2, isApplied: false, document: { every: 60 }, message: 'every<10' },
      differsSince: expect.any(Date),
    });
    // A hello says less than what was reported of that version.
    await fleet.parts.peers.greeted(from, { cfg: 2 });
    expect((await get('said-2')).reported?.isApplied).toBe(false);
    await fleet.parts.peers.greeted(from, { cfg: 1 });
    expect((await get('said-2')).reported?.version).toBe(2);
  });

  it('of a version before the last is ignored', async () => {
    const from = await fleet.device('said-3');
    await put('said-3', { a: 1 });
    await put('said-3', { a: 2 });
    expect(await report(from, 2)).toBe('applied');
    expect(await report(from, 1)).toBe('outdated');
    expect((await get('said-3')).reported).toMatchObject({ version: 2, document: { a: 2 } });
  });

  it('of an old version has the document of that version', async () => {
    const from = await fleet.device('said-4');
    for (const a of [1, 2, 3]) await put('said-4', { a });
    expect(await report(from, 2)).toBe('applied');
    expect(await get('said-4')).toMatchObject({
      reported: { version: 2, document: { a: 2 } },
      differsSince: expect.any(Date),
    });
  });

  it('comes with a hello too', async () => {
    const from = await fleet.device('said-5');
    await put('said-5', { a: 1 });
    await fleet.parts.peers.greeted(from, { cfg: 1, mps: 512 });
    expect(await get('said-5')).toMatchObject({
      reported: { version: 1, isApplied: true, document: { a: 1 } },
      differsSince: null,
    });
  });

  it('that it receives less than before takes what does not fit out of its topic, until it does', async () => {
    const from = await fleet.device('shrunk-1');
    await fleet.hello(from, { mps: 512 });
    await put('shrunk-1', { text: 'x'.repeat(300) });
    await published('shrunk-1', 1);
    await fleet.parts.peers.greeted(from, { mps: 512 });
    expect(fleet.wire.read('shrunk-1')?.v).toBe(1);
    await fleet.hello(from, { mps: 128 });
    await fleet.parts.peers.greeted(from, { mps: 128 });
    expect(fleet.wire.read('shrunk-1')).toBeNull();
    await fleet.parts.sweep();
    expect(fleet.wire.read('shrunk-1')).toBeNull();
    expect(await get('shrunk-1')).toMatchObject({ version: 1, isPublished: false });
    await fleet.hello(from, { mps: 512 });
    await fleet.parts.sweep();
    await published('shrunk-1', 1);
  });

  it('is kept of a device of which nothing was ever wanted, whose versions begin behind it', async () => {
    const from = await fleet.device('said-6');
    expect(await report(from, 0, { cfg: { every: 5 } })).toBe('applied');
    expect(await get('said-6')).toMatchObject({
      version: 0,
      reported: { version: 0, document: { every: 5 } },
      differsSince: null,
    });
    await fleet.parts.peers.greeted(from, { cfg: 7 });
    expect(await put('said-6', { a: 1 }, 0)).toMatchObject({ version: 8 });
    await fleet.parts.sweep();
    expect(fleet.wire.read('said-6')).toEqual({ v: 8, cfg: { a: 1 } });
  });

  it('of a version that nobody gave out passes to a higher number, once an hour', async () => {
    const from = await fleet.device('said-7');
    await put('said-7', { a: 1 });
    expect(await report(from, 7)).toBe('ahead');
    await published('said-7', 8);
    expect(fleet.wire.read('said-7')).toEqual({ v: 8, cfg: { a: 1 } });
    expect(await report(from, 9)).toBe('ahead');
    expect((await get('said-7')).version).toBe(8);
    fleet.nowMs += 61 * MINUTE;
    expect(await report(from, 10)).toBe('ahead');
    await published('said-7', 11);
    expect(await report(from, 4_294_967_295)).toBe('ahead');
    expect(await get('said-7')).toMatchObject({ version: 11, reported: { version: 10 } });
    expect(await report(from, 11)).toBe('applied');
  });

  it('is stored whatever characters it has', async () => {
    const from = await fleet.device('said-8');
    const cfg = JSON.parse('{"a\\u0000":"\\ud800","__proto__":{"b":"\\u0000"}}') as Document;
    expect(await report(from, 0, { cfg: cfg as never, msg: 'x\0' })).toBe('applied');
    expect((await get('said-8')).reported?.document).toEqual(
      JSON.parse('{"a\\ufffd":"\\ufffd","__proto__":{"b":"\\ufffd"}}'),
    );
  });

  it('of a device that is gone is acknowledged', async () => {
    const from = { organizationId: 1, organization: 'acme', deviceId: 99_999_999, device: 'x' };
    expect(await report(from, 1)).toBe('unknown_device');
  });

  it('is taken in the order of its saying, many at once', async () => {
    const from = await fleet.device('said-9');
    for (const a of [1, 2, 3]) await put('said-9', { a });
    const outcomes = await Promise.all([report(from, 1), report(from, 3), report(from, 2)]);
    expect(outcomes).toEqual(['applied', 'applied', 'outdated']);
    expect((await get('said-9')).reported?.document).toEqual({ a: 3 });
  });

  it('waits while its device is being changed or deleted, and holds up no other', async () => {
    const [held, free] = await Promise.all([fleet.device('busy-1'), fleet.device('busy-2')]);
    const client = await fleet.test.database.pool.connect();
    await client.query('BEGIN');
    await client.query('SELECT FROM device WHERE device_id = $1 FOR UPDATE', [held.deviceId]);
    let isTaken = false;
    const waiting = report(held, 0, { cfg: { a: 1 } }).finally(() => (isTaken = true));
    expect(await report(free, 0, { cfg: { a: 1 } })).toBe('applied');
    expect(isTaken).toBe(false);
    await client.query('DELETE FROM device WHERE device_id = $1', [held.deviceId]);
    await client.query('COMMIT');
    client.release();
    expect(await waiting).toBe('unknown_device');
  });

  it('that meets a bug of ours is acknowledged, and those around it are stored', async () => {
    const devices = await Promise.all(
      Array.from({ length: 6 }, (_, index) => fleet.device(`bug-${index}`)),
    );
    const { database } = fleet.test;
    const isAtFault = (values: unknown): boolean =>
      JSON.stringify(values ?? null).includes('poison');
    const faulty = {
      query: database.pool.query.bind(database.pool),
      async connect() {
        const client = await database.pool.connect();
        return new Proxy(client, {
          get(target, name) {
            if (name === 'query') {
              return (text: string, values?: unknown[]) =>
                isAtFault(values) ? Promise.reject(new Error('a bug')) : target.query(text, values);
            }
            const member: unknown = Reflect.get(target, name);
            return typeof member === 'function' ? (member.bind(target) as unknown) : member;
          },
        });
      },
    } as unknown as pg.Pool;
    await fleet.restart({ database: { ...database, pool: faulty } });
    const outcomes = await Promise.all(
      devices.map((from, index) => report(from, 0, { cfg: { a: index === 2 ? 'poison' : 'x' } })),
    );
    expect(outcomes).toEqual(['applied', 'applied', 'failed', 'applied', 'applied', 'applied']);
    await fleet.restart();
  });

  it('waits for the database, up to a bound', async () => {
    const from = await fleet.device('said-10');
    await put('said-10', { a: 1 });
    const { pool } = fleet.test.database;
    await fleet.parts.stop();
    let isAway = true;
    let attempts = 0;
    const flaky = new Proxy(pool, {
      get: (target, name, receiver) =>
        isAway && (name === 'connect' || name === 'query')
          ? () => {
              attempts += 1;
              return Promise.reject(new Error('Connection terminated'));
            }
          : (Reflect.get(target, name, receiver) as unknown),
    });
    await fleet.restart({ database: { ...fleet.test.database, pool: flaky } });
    const waiting = report(from, 1);
    for (let index = 0; index < 299; index += 1) void report(from, 1);
    let isTaken = false;
    void report(from, 1).then(() => (isTaken = true));
    const text = await fleet.metricsRegistry.metrics();
    expect(text).toContain('puback_configuration_reports_rows 300');
    expect(text).toContain('puback_configuration_reports_held_back_total 1');
    await eventually('it was tried twice', () => attempts > 1);
    isAway = false;
    expect(await waiting).toBe('applied');
    await eventually('nothing waits', async () => {
      const after = await fleet.metricsRegistry.metrics();
      return after.includes('puback_configuration_reports_rows 0');
    });
    expect(isTaken).toBe(false);
    await fleet.restart();
  });
});

describe('drift', () => {
  it('begins when a difference is older than 15 minutes and three times the sleep', async () => {
    const [awake, asleep, fine] = await Promise.all([
      fleet.device('drift-1'),
      fleet.device('drift-2'),
      fleet.device('drift-3'),
    ]);
    await fleet.hello(asleep, { sleep: 3600 });
    for (const device of ['drift-1', 'drift-2', 'drift-3']) await put(device, { a: 1 });
    await fleet.parts.peers.reported(fine, { v: 1, ok: true });
    const since = (await get('drift-1')).differsSince;
    const drifting = async (): Promise<string[]> => {
      const { organizationId } = fleet.author;
      const query = { organizationId, isDrifting: true, type: null, limit: 100, after: null };
      const { rows } = await fleet.parts.configurations.list(query);
      return rows.map(({ device }) => device).filter((device) => device.startsWith('drift-'));
    };
    fleet.nowMs += 15 * MINUTE;
    expect(await drifting()).toEqual([]);
    fleet.nowMs += MINUTE;
    expect(await drifting()).toEqual(['drift-1']);
    // A change on top starts nothing anew.
    await put('drift-1', { a: 2 });
    expect(await get('drift-1')).toMatchObject({ differsSince: since, isDrifting: true });
    fleet.nowMs += 180 * MINUTE;
    expect(await drifting()).toEqual(['drift-1', 'drift-2']);
    await fleet.parts.sweep();
    expect(await fleet.metricsRegistry.metrics()).toMatch(
      /puback_configuration_drifting_devices [1-9]/,
    );
    await fleet.parts.peers.reported(awake, { v: 2, ok: true });
    expect(await drifting()).toEqual(['drift-2']);
  });
});
