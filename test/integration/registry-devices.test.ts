import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DeviceExistsError, DeviceLimitError, DeviceNotFoundError } from '../../errors.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import {
  createOrganization,
  createTestRegistry,
  type TestOrganization,
} from '../support/registry.ts';

let test: TestDatabase;
let registry: Registry;
let acme: TestOrganization;
let other: TestOrganization;

beforeAll(async () => {
  test = await createTestDatabase();
  registry = createTestRegistry(test.database);
  acme = await createOrganization(test.database, 'acme');
  other = await createOrganization(test.database, 'other');
});

afterAll(() => test.drop());

async function auditActions(organizationId: number): Promise<string[]> {
  const { rows } = await test.database.pool.query<{ text: string }>(
    `SELECT action || ' ' || subject AS text FROM audit_event WHERE organization_id = $1
     ORDER BY occurred_at, audit_event_id`,
    [organizationId],
  );
  return rows.map((row) => row.text);
}

describe('devices', () => {
  it('creates a device whose display name is its slug unless said otherwise', async () => {
    const made = await registry.devices.create(acme.author, { slug: 'boiler-7' });
    expect(made).toMatchObject({ slug: 'boiler-7', displayName: 'boiler-7', tags: [] });
    expect(await registry.devices.get(acme.author.organizationId, 'boiler-7')).toEqual(made);
  });

  it('tells of devices that are new, gone, or have other tags or another type, and of no other change', async () => {
    const told: unknown[] = [];
    const end = registry.deviceChanges.onChanged((change) => told.push(change));
    const { organizationId } = acme.author;
    const { deviceId } = await registry.devices.create(acme.author, { slug: 'told' });
    await registry.devices.update(acme.author, 'told', { displayName: 'no news' });
    await registry.devices.update(acme.author, 'told', { tags: ['a'] });
    await registry.devices.update(acme.author, 'told', { type: 'pump' });
    await registry.devices.update(acme.author, 'told', { reportIntervalMs: 5000 });
    await registry.devices.remove(acme.author, 'told');
    end();
    await registry.devices.create(acme.author, { slug: 'untold' });
    const isNew = { organizationId, deviceId, isDeleted: false };
    const change = { ...isNew, reportIntervalMs: null };
    expect(told).toEqual([
      isNew,
      change,
      change,
      { ...change, reportIntervalMs: 5000 },
      { ...isNew, isDeleted: true },
    ]);
  });

  it('refuses a second device of the same name in one organization and allows it in another', async () => {
    await registry.devices.create(acme.author, { slug: 'twin' });
    await expect(registry.devices.create(acme.author, { slug: 'twin' })).rejects.toThrow(
      DeviceExistsError,
    );
    await registry.devices.create(other.author, { slug: 'twin' });
  });

  it('does not find devices of other organizations or names that no device can have', async () => {
    await registry.devices.create(acme.author, { slug: 'mine' });
    const { organizationId } = other.author;
    for (const slug of ['mine', '', '../x', 'a\0b', 'x'.repeat(49), '__proto__']) {
      await expect(registry.devices.get(organizationId, slug)).rejects.toThrow(DeviceNotFoundError);
    }
    await expect(registry.devices.update(other.author, 'mine', {})).rejects.toThrow(
      DeviceNotFoundError,
    );
    await expect(registry.devices.remove(other.author, 'mine')).rejects.toThrow(
      DeviceNotFoundError,
    );
  });

  it('keeps the limit of devices when many are created at once', async () => {
    const small = createTestRegistry(test.database, 3);
    const { author } = await createOrganization(test.database, 'small');
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, (_, at) => small.devices.create(author, { slug: `d${at}` })),
    );
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(3);
    const errors = outcomes.flatMap((outcome) =>
      outcome.status === 'rejected' ? [outcome.reason as unknown] : [],
    );
    expect(errors.every((error) => error instanceof DeviceLimitError)).toBe(true);
  });

  it('pages through all devices in order without losing or repeating one', async () => {
    const { author } = await createOrganization(test.database, 'paged');
    const slugs = Array.from({ length: 25 }, (_, at) => `d-${String(at).padStart(2, '0')}`);
    for (const slug of slugs.toReversed()) await registry.devices.create(author, { slug });
    const found: string[] = [];
    let after: string | null = null;
    for (;;) {
      const page = await registry.devices.list({
        organizationId: author.organizationId,
        limit: 10,
        after,
      });
      found.push(...page.rows.map((row) => row.slug));
      if (!page.hasMore) break;
      after = found.at(-1) ?? null;
    }
    expect(found).toEqual(slugs);
  });

  it('changes only what is given and keeps the time of the first disabling', async () => {
    await registry.devices.create(acme.author, { slug: 'changing', tags: ['a'] });
    const named = await registry.devices.update(acme.author, 'changing', { displayName: 'Name' });
    expect(named).toMatchObject({ displayName: 'Name', tags: ['a'], isDisabled: false });
    const disabled = await registry.devices.update(acme.author, 'changing', { isDisabled: true });
    expect(disabled).toMatchObject({ displayName: 'Name', isDisabled: true });
    const before = await disabledAt('changing');
    await registry.devices.update(acme.author, 'changing', { isDisabled: true });
    expect(await disabledAt('changing')).toEqual(before);
  });

  it('removes a device with its keys, readings, latest values and quarantine', async () => {
    const { author } = await createOrganization(test.database, 'removing');
    const { deviceId } = await registry.devices.create(author, { slug: 'gone' });
    const kept = await registry.devices.create(author, { slug: 'kept' });
    await registry.apiKeys.createForDevice(author, 'gone', 'k');
    for (const id of [deviceId, kept.deviceId]) await insertRows(author.organizationId, id);
    await registry.devices.remove(author, 'gone');
    for (const table of ['device', 'api_key', 'reading', 'device_latest', 'quarantine']) {
      expect(await countRows(table, deviceId), table).toBe(0);
      if (table !== 'api_key') expect(await countRows(table, kept.deviceId), table).toBe(1);
    }
    await registry.devices.create(author, { slug: 'gone' });
  });

  it('writes each change to the audit trail', async () => {
    const { author } = await createOrganization(test.database, 'audited');
    await registry.devices.create(author, { slug: 'd' });
    const { keyId } = await registry.apiKeys.createForDevice(author, 'd', 'k');
    await registry.apiKeys.revoke(author, 'd', keyId);
    await registry.devices.update(author, 'd', { isDisabled: true });
    await registry.devices.remove(author, 'd');
    expect((await auditActions(author.organizationId)).slice(1)).toEqual([
      'device.create device/d',
      `key.create device/d/key/${keyId}`,
      `key.revoke device/d/key/${keyId}`,
      'device.update device/d',
      'device.delete device/d',
    ]);
  });
});

async function disabledAt(slug: string): Promise<Date | undefined> {
  const { rows } = await test.database.pool.query<{ disabled_at: Date }>(
    'SELECT disabled_at FROM device WHERE slug = $1',
    [slug],
  );
  return rows[0]?.disabled_at;
}

async function insertRows(organizationId: number, deviceId: number): Promise<void> {
  const { pool } = test.database;
  if (!test.database.capabilities.hypertables) {
    await pool.query(`SELECT reading_partition_ensure('2026-11-21')`);
  }
  await pool.query(`INSERT INTO reading VALUES ('2026-11-21 08:00Z', $1, 1, 1, NULL, now(), 0)`, [
    deviceId,
  ]);
  await pool.query(
    `INSERT INTO device_latest VALUES ($1, 1, '2026-11-21 08:00Z', 1, NULL, now(), 0)`,
    [deviceId],
  );
  await pool.query(
    `INSERT INTO quarantine VALUES (gen_random_uuid(), $1, $2, now(), 't', 'bad_json', '', 'x')`,
    [organizationId, deviceId],
  );
}

async function countRows(table: string, deviceId: number): Promise<number> {
  const { rows } = await test.database.pool.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM ${table} WHERE device_id = $1`,
    [deviceId],
  );
  return rows[0]?.count ?? -1;
}
