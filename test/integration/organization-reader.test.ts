import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLogin, createTestDatabase } from '../support/database.ts';
import type { TestDatabase, TestLogin } from '../support/database.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const VIEWS = [
  'v_own_reading',
  'v_own_latest',
  'v_own_device',
  'v_own_reading_1m',
  'v_own_reading_1h',
  'v_own_reading_1d',
  'v_own_alert_history',
  'v_own_command',
];

let test: TestDatabase;
let grafana: TestLogin;
let stranger: TestLogin;
let client: pg.Client;
beforeAll(async () => {
  test = await createTestDatabase();
  grafana = await createLogin();
  stranger = await createLogin();
  const { database } = test;
  await ensureDays(database, '2026-11-21', '2026-11-21');
  for (const slug of ['other', 'acme']) {
    const { author } = await createOrganization(database, slug);
    const { deviceId } = await createTestRegistry(database).devices.create(author, {
      slug: `device-of-${slug}`,
    });
    const metricId = await ensureMetric(database, author.organizationId, 'temp');
    await insertReading(database, { deviceId, metricId, time: '2026-11-21 08:00Z', value: 1 });
    await insertAlert(author.organizationId, deviceId);
    await insertCommand(author.organizationId, deviceId);
  }
  // As docs/integrators.md has it.
  await database.pool.query(
    `INSERT INTO organization_reader
     SELECT $1, organization_id FROM organization WHERE slug = 'acme'`,
    [grafana.name],
  );
  for (const { name } of [grafana, stranger]) {
    await database.pool.query(`GRANT SELECT ON ${VIEWS.join(', ')} TO ${name}`);
  }
  client = await connect(grafana);
});
afterAll(async () => {
  await client.end();
  await test.drop();
  await grafana.drop();
  await stranger.drop();
});

async function insertAlert(organizationId: number, deviceId: number): Promise<void> {
  await test.database.pool.query(
    `WITH rule AS (
       INSERT INTO alert_rule (public_id, organization_id, name, mode, version)
       VALUES (gen_random_uuid(), $1, 'hot', 'enabled', 1) RETURNING rule_id
     )
     INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, state, severity,
       value, labels, annotations, active_at, fired_at, changed_at)
     SELECT gen_random_uuid(), $1, rule_id, 1, $2, 'firing', 'high', 81.5, '{}', '{}',
       '2026-11-21 08:00Z', '2026-11-21 08:00:02Z', '2026-11-21 08:00:02Z' FROM rule`,
    [organizationId, deviceId],
  );
}

async function insertCommand(organizationId: number, deviceId: number): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO command (command_id, organization_id, device_id, name, args, state, is_retry_safe,
       created_at, expires_at, ended_at, is_late, origin, actor, code)
     VALUES (gen_random_uuid(), $1, $2, 'relay', '{"on":true}', 'failed', false,
       '2026-11-21 08:00Z', '2026-11-22 08:00Z', '2026-11-21 08:00:02Z', true, 'api', 'Ada', 'jam')`,
    [organizationId, deviceId],
  );
}

async function connect(login: TestLogin): Promise<pg.Client> {
  const opened = new pg.Client({ connectionString: login.urlOf(test.url) });
  await opened.connect();
  return opened;
}

async function organizationsIn(view: string, through = client): Promise<unknown[]> {
  const { rows } = await through.query<{ organization: string }>(
    `SELECT organization FROM ${view}`,
  );
  return rows.map(({ organization }) => organization);
}

describe('a role of Grafana (A-03)', () => {
  it.each(VIEWS)('sees its organization alone in %s', async (view) => {
    expect(await organizationsIn(view)).toEqual(['acme']);
  });

  it.each(VIEWS)('sees nothing in %s without a row in organization_reader', async (view) => {
    const opened = await connect(stranger);
    expect(await organizationsIn(view, opened)).toEqual([]);
    await opened.end();
  });

  it('sees no more for a setting of its own', async () => {
    await client.query(`SET puback.organization_id = '1'`);
    await client.query(`SET search_path = pg_temp, public`);
    await client.query(
      `CREATE TEMP TABLE organization_reader (role_name name, organization_id int)`,
    );
    await client.query(`INSERT INTO organization_reader VALUES (session_user, 1)`);
    for (const view of VIEWS) expect(await organizationsIn(view)).toEqual(['acme']);
    await client.query('DROP TABLE pg_temp.organization_reader');
    await client.query('RESET ALL');
  });

  it.each([
    'SELECT FROM v_reading',
    'SELECT FROM reading',
    'SELECT FROM device',
    'SELECT FROM command',
    'SELECT FROM v_command',
    'SELECT command_queue_lock(NULL)',
    'SELECT content FROM firmware_part',
    'SELECT FROM organization_reader',
    'UPDATE organization_reader SET organization_id = 1',
    `INSERT INTO organization_reader VALUES (session_user, 1)`,
    'SELECT device_readings_delete(1)',
  ])('may not: %s', async (statement) => {
    await expect(client.query(statement)).rejects.toMatchObject({ code: '42501' });
  });

  it('becomes nobody else', async () => {
    for (const name of [test.database.tenantRole, stranger.name]) {
      for (const statement of [`SET ROLE ${name}`, `SET SESSION AUTHORIZATION ${name}`]) {
        await expect(client.query(statement)).rejects.toMatchObject({ code: '42501' });
      }
    }
  });

  it('shows no row of another to a function of its own that tells what it is given', async () => {
    const told: string[] = [];
    client.on('notice', ({ message }) => told.push(message ?? ''));
    await client.query(
      `CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
       AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN true; END $$`,
    );
    for (const view of VIEWS) await client.query(`SELECT FROM ${view} WHERE pg_temp.tell(device)`);
    expect(told).toEqual(VIEWS.map(() => 'told device-of-acme'));
  });
});

describe('the views', () => {
  it('show an alert at the time at which it fired, with names', async () => {
    const { rows } = await client.query('SELECT * FROM v_own_alert_history');
    expect(rows).toMatchObject([
      {
        time: new Date('2026-11-21T08:00:02Z'),
        organization: 'acme',
        device: 'device-of-acme',
        rule: 'hot',
        severity: 'high',
        state: 'firing',
        value: 81.5,
        active_at: new Date('2026-11-21T08:00:00Z'),
        resolved_at: null,
      },
    ]);
  });

  it('show a command at the time at which it was asked for, with names', async () => {
    const { rows } = await client.query('SELECT * FROM v_own_command');
    expect(rows).toMatchObject([
      {
        time: new Date('2026-11-21T08:00:00Z'),
        organization: 'acme',
        device: 'device-of-acme',
        command: 'relay',
        args: { on: true },
        state: 'failed',
        origin: 'api',
        actor: 'Ada',
        code: 'jam',
        is_late: true,
        started_at: null,
        ended_at: new Date('2026-11-21T08:00:02Z'),
      },
    ]);
  });

  it('do not show the link of an update, which whoever reads it could fetch the image with [A-15]', async () => {
    const { pool } = test.database;
    await pool.query(
      `INSERT INTO command (command_id, organization_id, device_id, name, args, state, is_retry_safe,
         expires_at, origin, actor)
       SELECT gen_random_uuid(), organization_id, device_id, 'sys.ota',
         '{"ver":"1.4.3","url":"https://a/fw/x?t=secret"}', 'published', false, now(), 'update', 'Ada'
       FROM device WHERE slug = 'device-of-acme'`,
    );
    const { rows } = await client.query(`SELECT args FROM v_own_command WHERE command = 'sys.ota'`);
    await pool.query(`DELETE FROM command WHERE name = 'sys.ota'`);
    expect(rows).toEqual([{ args: { ver: '1.4.3' } }]);
  });

  it.each([
    ['v_own_reading', 'v_reading'],
    ['v_own_latest', 'v_latest'],
    ['v_own_device', 'v_device'],
    ['v_own_reading_1m', 'v_reading_1m'],
    ['v_own_reading_1h', 'v_reading_1h'],
    ['v_own_reading_1d', 'v_reading_1d'],
    ['v_own_alert_history', 'v_alert_history'],
    ['v_own_command', 'v_command'],
  ])('%s has the columns of %s', async (own, all) => {
    const fields = async (view: string): Promise<string[]> => {
      const { fields } = await test.database.pool.query(`SELECT * FROM ${view} LIMIT 0`);
      return fields.map(({ name }) => name);
    };
    expect(await fields(own)).toEqual(await fields(all));
  });
});
