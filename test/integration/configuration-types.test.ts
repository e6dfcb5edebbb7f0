import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type {
  ConfigurationVersion,
  DeviceConfiguration,
  Document,
  TypeEffect,
} from '../../configuration/configuration.ts';
import {
  configurationLimits,
  createTestConfiguration,
  type TestConfiguration,
} from '../support/configuration.ts';
import { eventually } from '../support/eventually.ts';

let fleet: TestConfiguration;

beforeAll(async () => {
  fleet = await createTestConfiguration();
});
afterAll(() => fleet.stop());

const putType = async (
  type: string,
  defaults: Document,
  more: { readonly schema?: Document; readonly version?: number } = {},
): Promise<TypeEffect> => {
  const { schema = null, version = null } = more;
  const edit = { type, defaults, schema, version };
  return (await fleet.parts.configurations.putType(fleet.author, edit)).effect;
};
const removeType = (type: string, version: number | null = null): Promise<TypeEffect> =>
  fleet.parts.configurations.removeType(fleet.author, type, version);
const put = (device: string, desired: Document): Promise<DeviceConfiguration> =>
  fleet.parts.configurations.edit(fleet.author, {
    device,
    version: null,
    change: { kind: 'put', desired },
  });
const get = (device: string): Promise<DeviceConfiguration> =>
  fleet.parts.configurations.get(fleet.author.organizationId, device);
const newest = async (device: string): Promise<ConfigurationVersion | undefined> => {
  const query = { organizationId: fleet.author.organizationId, device, limit: 1, before: null };
  return (await fleet.parts.configurations.versions(query)).rows[0];
};
const setType = async (device: string, type: string | null): Promise<void> => {
  const { deviceId } = await fleet.registry.devices.update(fleet.author, device, { type });
  fleet.parts.peers.deviceChanged(deviceId);
};
const version = async (device: string, v: number): Promise<void> =>
  eventually(`${device} at version ${v}`, () => fleet.wire.read(device)?.v === v);
/** Room for types, of which there are three. */
const clear = async (): Promise<void> => {
  const { organizationId } = fleet.author;
  const query = { organizationId, limit: 100, after: null };
  for (const { type } of (await fleet.parts.configurations.listTypes(query)).rows) {
    await removeType(type);
  }
};

describe('defaults of a type', () => {
  it('reach its devices, configured before or not, and no others', async () => {
    await fleet.device('valve-1', 'valve');
    await fleet.device('valve-2', 'valve');
    await fleet.device('lamp-1', 'lamp');
    await put('valve-2', { every: 5 });
    expect(await putType('valve', { every: 60, mode: 'auto' })).toMatchObject({
      changed: 2,
      held: [],
      isComplete: true,
    });
    expect(fleet.wire.read('valve-1')).toEqual({ v: 1, cfg: { every: 60, mode: 'auto' } });
    expect(fleet.wire.read('valve-2')).toEqual({ v: 2, cfg: { every: 5, mode: 'auto' } });
    expect(fleet.wire.read('lamp-1')).toBeNull();
    expect(await newest('valve-2')).toMatchObject({
      cause: 'type',
      createdBy: 'device-type/valve',
    });
    expect((await get('valve-1')).desired).toEqual({});
  });

  it('make new versions only where the document changes by them', async () => {
    await putType('valve', { every: 60, mode: 'auto' });
    const before = fleet.wire.published.length;
    expect(await putType('valve', { every: 30, mode: 'auto' })).toMatchObject({ changed: 1 });
    expect(fleet.wire.published.length).toBe(before + 1);
    expect((await get('valve-2')).version).toBe(2);
  });

  it('lie under what is desired, where a null takes one away', async () => {
    await put('valve-1', { mode: null, thr: 1 });
    await version('valve-1', 3);
    expect(fleet.wire.read('valve-1')?.cfg).toEqual({ every: 30, thr: 1 });
  });

  it('that are removed are taken from its devices, and count on when they are set again', async () => {
    const { organizationId } = fleet.author;
    const before = await fleet.parts.configurations.getType(organizationId, 'valve');
    expect(await removeType('valve')).toMatchObject({ changed: 2 });
    expect(fleet.wire.read('valve-1')?.cfg).toEqual({ thr: 1 });
    await expect(removeType('valve')).rejects.toMatchObject({
      code: 'CONFIGURATION_TYPE_NOT_FOUND',
    });
    expect(await putType('valve', { every: 1 })).toMatchObject({ changed: 1 });
    const after = await fleet.parts.configurations.getType(organizationId, 'valve');
    expect(after.version).toBeGreaterThanOrEqual(1);
    expect(before.version).toBe(2);
  });

  it('reach a device that is new, and one whose type changes', async () => {
    await putType('valve', { every: 7 });
    const fresh = await fleet.device('valve-3', 'valve');
    fleet.parts.peers.deviceChanged(fresh.deviceId);
    await version('valve-3', 1);
    await setType('valve-3', 'lamp');
    await version('valve-3', 2);
    expect(fleet.wire.read('valve-3')?.cfg).toEqual({});
    await setType('valve-3', 'valve');
    await version('valve-3', 3);
    await setType('valve-3', null);
    await version('valve-3', 4);
  });

  it('are refused when they were made for another version, and beyond the bound of types', async () => {
    await expect(putType('valve', {}, { version: 0 })).rejects.toMatchObject({
      code: 'CONFIGURATION_CHANGED',
    });
    await expect(removeType('valve', 99)).rejects.toMatchObject({ code: 'CONFIGURATION_CHANGED' });
    await expect(putType('new', {}, { version: 1 })).rejects.toMatchObject({
      code: 'CONFIGURATION_CHANGED',
      version: 0,
    });
    await putType('b', {});
    await putType('c', {});
    await expect(putType('d', {})).rejects.toMatchObject({ code: 'CONFIGURATION_TYPE_LIMIT' });
    expect(configurationLimits.typesMax).toBe(3);
    await clear();
  });
});

describe('the schema of a type', () => {
  const schema = {
    properties: { every: { type: 'integer', minimum: 10 } },
    required: ['every'],
    additionalProperties: false,
  };

  it('is one that is checked in bounded time', async () => {
    const bad = { properties: { a: { pattern: '(a+)+$' } } };
    await expect(putType('pump', {}, { schema: bad })).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
      faults: [{ path: 'schema', message: expect.stringContaining('/properties/a/pattern') }],
    });
  });

  it('holds for the document, defaults and desired together', async () => {
    await fleet.device('pump-1', 'pump');
    await putType('pump', { every: 60 }, { schema });
    expect(await put('pump-1', {})).toMatchObject({ version: 1 });
    await expect(put('pump-1', { every: 9 })).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
      faults: [{ path: '/every', message: expect.stringContaining('9 is less than 10') }],
    });
    await expect(put('pump-1', { every: null })).rejects.toThrow('required');
    await expect(put('pump-1', { evry: 20 })).rejects.toThrow('/evry: is not allowed here');
    expect(await put('pump-1', { every: 20 })).toMatchObject({ version: 2 });
  });

  it('holds devices back that do not fit it, and lists them', async () => {
    const strict = { ...schema, properties: { every: { maximum: 15 } } };
    const effect = await putType('pump', { every: 12 }, { schema: strict });
    expect(effect).toMatchObject({
      changed: 0,
      heldCount: 1,
      held: [{ device: 'pump-1', code: 'invalid', detail: expect.stringContaining('/every') }],
    });
    expect(fleet.wire.read('pump-1')).toEqual({ v: 2, cfg: { every: 20 } });
    expect((await get('pump-1')).held).toMatchObject({ code: 'invalid' });
    expect(await put('pump-1', {})).toMatchObject({
      version: 3,
      held: null,
      document: { every: 12 },
    });
    await clear();
  });
});

describe('a document that is too big for a device', () => {
  it('is held, shown, and sent once the device takes it', async () => {
    const small = await fleet.device('meter-1', 'meter');
    const large = await fleet.device('meter-2', 'meter');
    await fleet.hello(large, { mps: 1024 });
    const effect = await putType('meter', { text: 'x'.repeat(300) });
    expect(effect).toMatchObject({
      changed: 1,
      heldCount: 1,
      held: [{ device: 'meter-1', code: 'too_big', bytes: expect.any(Number) }],
    });
    expect(fleet.wire.read('meter-1')).toBeNull();
    expect(await get('meter-1')).toMatchObject({ version: 0, held: { code: 'too_big' } });
    await fleet.parts.sweep();
    expect(await fleet.metricsRegistry.metrics()).toContain('puback_configuration_held_devices 1');
    expect(fleet.wire.read('meter-1')).toBeNull();
    await fleet.hello(small, { mps: 512 });
    await fleet.parts.sweep();
    expect(fleet.wire.read('meter-1')?.v).toBe(1);
    expect((await get('meter-1')).held).toBeNull();
    await clear();
  });
});

describe('a crash', () => {
  it('in the middle of the devices of a type is gone on from at the next start', async () => {
    for (let index = 0; index < 450; index += 1) await fleet.device(`bulk-${index}`, 'bulk');
    let left = 1;
    fleet.wire.before = () => {
      left -= 1;
      return left >= 0 ? Promise.resolve() : Promise.reject(new Error('dead'));
    };
    const { database } = fleet.test;
    let transactions = 0;
    const dying = {
      query: database.pool.query.bind(database.pool),
      connect() {
        transactions += 1;
        if (transactions > 1) return Promise.reject(new Error('Connection terminated'));
        return database.pool.connect();
      },
    } as unknown as pg.Pool;
    await database.pool.query(
      `INSERT INTO configuration_type (organization_id, device_type, defaults, version, updated_by)
       VALUES ($1, 'bulk', '{"every":1}', 1, 'test')`,
      [fleet.author.organizationId],
    );
    await fleet.restart({ database: { ...database, pool: dying } });
    await fleet.parts.sweep();
    const counted = await database.pool.query<{ made: number }>(
      `SELECT count(*)::int4 AS made FROM device_configuration AS stored
       JOIN device USING (device_id) WHERE device.device_type = 'bulk' AND version = 1`,
    );
    expect(counted.rows[0]?.made).toBe(200);
    fleet.wire.before = () => Promise.resolve();
    await fleet.restart();
    await fleet.parts.sweep();
    for (let index = 0; index < 450; index += 1) {
      expect(fleet.wire.read(`bulk-${index}`)).toEqual({ v: 1, cfg: { every: 1 } });
    }
    await clear();
  });
});

describe('ten thousand devices of a type', () => {
  it('have their new versions within the time of an answer, and others have their turn', async () => {
    await fleet.test.database.pool.query(
      `INSERT INTO device (organization_id, slug, display_name, device_type)
       SELECT $1, 'many-' || number, 'many', 'many' FROM generate_series(1, 10000) AS number`,
      [fleet.author.organizationId],
    );
    // At work, between two turns of others. Where it is not at work, it holds nobody up.
    let longestMs = 0;
    let last = process.cpuUsage();
    const timer = setInterval(() => {
      const { user, system } = process.cpuUsage(last);
      longestMs = Math.max(longestMs, (user + system) / 1000);
      last = process.cpuUsage();
    }, 5);
    const startedMs = performance.now();
    const effect = await putType('many', { every: 60, net: { pins: [1, 2, 3], ssid: 'plant' } });
    const tookMs = performance.now() - startedMs;
    clearInterval(timer);
    expect(effect).toMatchObject({ changed: 10_000, isComplete: true, heldCount: 0 });
    expect(fleet.wire.read('many-10000')?.v).toBe(1);
    expect(tookMs).toBeLessThan(20_000);
    expect(longestMs).toBeLessThan(500);
    const sweptMs = performance.now();
    await fleet.parts.sweep();
    expect(performance.now() - sweptMs).toBeLessThan(10_000);
    if (process.env['SHOW_FIGURES'] !== undefined) {
      console.error({ tookMs, longestMs, sweepMs: performance.now() - sweptMs });
    }
  });

  it('report them all at once, and are stored within seconds', async () => {
    await fleet.restart({ limits: { ...configurationLimits, reportsHeldMax: 10_000 } });
    const { organizationId } = fleet.author;
    const { rows } = await fleet.test.database.pool.query<{ device_id: number; slug: string }>(
      `SELECT device_id, slug FROM device WHERE device_type = 'many'`,
    );
    const startedMs = performance.now();
    const outcomes = await Promise.all(
      rows.map(({ device_id: deviceId, slug: device }) =>
        fleet.parts.peers.reported(
          { organizationId, organization: 'acme', deviceId, device },
          { v: 1, ok: true },
        ),
      ),
    );
    const tookMs = performance.now() - startedMs;
    expect(new Set(outcomes)).toEqual(new Set(['applied']));
    expect(tookMs).toBeLessThan(15_000);
    if (process.env['SHOW_FIGURES'] !== undefined) console.error({ reportsMs: tookMs });
  });
});
