import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inOrganization, type Transaction } from '../../drizzle/transaction.ts';
import { createTestApi, type TestApi } from '../support/api.ts';
import { downlinkRequest } from '../support/downlink-requests.ts';
import { insertDownlinkRows } from '../support/downlink-rows.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';
import type { TestOrganization } from '../support/registry.ts';

/** Statements that put a row of organization $1 into a table: of each that the role may add to. */
const FORGED: Readonly<Record<string, string>> = {
  device: `INSERT INTO device (organization_id, slug, display_name) VALUES ($1, 'forged', '')`,
  api_key: `INSERT INTO api_key (key_id, organization_id, kind, name, secret_hash)
            VALUES ('forged00', $1, 'admin', '', '')`,
  audit_event: `INSERT INTO audit_event (audit_event_id, organization_id, actor, action, subject)
                VALUES (gen_random_uuid(), $1, '', '', '')`,
  import_run: `INSERT INTO import_run (import_run_id, organization_id, source, format, state, fingerprint)
               VALUES (gen_random_uuid(), $1, 'f.csv', 'csv', 'done', '')`,
  import_refusal: `INSERT INTO import_refusal
                   SELECT import_run_id, 99, $1, '', '', '' FROM import_run`,
  retention: `INSERT INTO retention VALUES ($1, '1d', 3000)`,
  alert_rule: `INSERT INTO alert_rule (public_id, organization_id, name, mode, version)
               VALUES (gen_random_uuid(), $1, 'forged', 'enabled', 1)`,
  alert_rule_version: `INSERT INTO alert_rule_version
                       SELECT rule_id, 99, $1, '{}', now(), '' FROM alert_rule`,
  alert_note: `INSERT INTO alert_note SELECT gen_random_uuid(), alert_id, $1, now(), '', '', '' FROM alert`,
  silence: `INSERT INTO silence
            VALUES (gen_random_uuid(), $1, 'silence', '[]', NULL, now(), now(), '', '', now())`,
  receiver: `INSERT INTO receiver (receiver_id, organization_id, name, kind, settings)
             VALUES (gen_random_uuid(), $1, 'forged', 'webhook', '{}')`,
  notification_route: `INSERT INTO notification_route (route_id, organization_id, position, definition)
                       VALUES (gen_random_uuid(), $1, 9, '{}')`,
  notification_policy: `INSERT INTO notification_policy VALUES ($1, now(), 'forged')
                        ON CONFLICT DO NOTHING`,
  notification: `INSERT INTO notification
                 (notification_id, organization_id, receiver_id, group_key, kind, state, content)
                 VALUES (gen_random_uuid(), $1, gen_random_uuid(), '', 'alert', 'waiting', '{}')`,
  notification_alert: `INSERT INTO notification_alert
                       SELECT gen_random_uuid(), notification_id, $1 FROM notification`,
  campaign: `INSERT INTO campaign
             (campaign_id, organization_id, kind, name, state, request, policy, created_by)
             VALUES (gen_random_uuid(), $1, 'command', 'forged', 'running', '{}', '{}', '')`,
  campaign_device: `INSERT INTO campaign_device
                    (campaign_id, device_id, organization_id, wave, position, state, facts)
                    SELECT campaign_id, device_id, $1, 0, 0, 'waiting', '{}'
                    FROM campaign CROSS JOIN device`,
  command: `INSERT INTO command (command_id, organization_id, device_id, name, args, state,
              is_retry_safe, expires_at, origin, actor)
            SELECT gen_random_uuid(), $1, device_id, 'x', '{}', 'queued', false, now(), 'api', ''
            FROM device`,
  command_slot: `INSERT INTO command_slot (device_id, organization_id)
                 SELECT device_id, $1 FROM device
                 ON CONFLICT (device_id) DO UPDATE SET organization_id = excluded.organization_id`,
  command_event: `INSERT INTO command_event
                    (command_id, organization_id, device_id, occurred_at, state, detail)
                  SELECT command_id, $1, device_id, now(), 'failed', '{}' FROM command`,
  command_definition: `INSERT INTO command_definition
                         (organization_id, device_type, name, schema, updated_by)
                       VALUES ($1, 'pump', 'forged', '{}', '')`,
  device_configuration: `INSERT INTO device_configuration (device_id, organization_id, desired,
                           document, version, changed_at, changed_by)
                         SELECT device_id, $1, '{}', '{}', 9, now(), '' FROM device
                         ON CONFLICT (device_id)
                         DO UPDATE SET organization_id = excluded.organization_id`,
  device_configuration_version: `INSERT INTO device_configuration_version
                                   (device_id, version, organization_id, desired, document, cause,
                                    created_by)
                                 SELECT device_id, 9, $1, '{}', '{}', 'device', '' FROM device`,
  configuration_type: `INSERT INTO configuration_type
                         (organization_id, device_type, defaults, version, updated_by)
                       VALUES ($1, 'forged', '{}', 1, '')`,
  firmware_image: `INSERT INTO firmware_image (firmware_id, organization_id, model, version, state,
                     byte_count, sha256, created_by)
                   VALUES (gen_random_uuid(), $1, 'm', 'forged', 'ready', 0, '', '')`,
  firmware_part: `INSERT INTO firmware_part SELECT firmware_id, 9, $1, '' FROM firmware_image`,
  firmware_signer: `INSERT INTO firmware_signer (organization_id, signer_id, public_key, created_by)
                    VALUES ($1, 'forged', '', '')`,
  device_update: `INSERT INTO device_update (update_id, organization_id, device_id, firmware_id,
                    state, started_at, changed_at)
                  SELECT gen_random_uuid(), $1, device_id, gen_random_uuid(), 'offered', now(), now()
                  FROM device`,
  key_rotation: `INSERT INTO key_rotation (device_id, organization_id, old_key_id, asked_at, ends_at)
                 SELECT device_id, $1, 'forged00', now(), now() FROM device
                 ON CONFLICT (device_id) DO UPDATE SET organization_id = excluded.organization_id`,
  claim_policy: `INSERT INTO claim_policy (key_id, organization_id, quota, tags, needs_approval)
                 SELECT key_id, $1, 1, '{}', false FROM api_key WHERE kind = 'integrator'`,
  device_claim: `INSERT INTO device_claim VALUES ($1, 'forged', '', NULL, 'waiting', '', now())`,
};
/**
 * What the program does for itself, as the owner, while or after a request is answered: statements that
 * name one row of their own accord, and not as somebody asked.
 */
const OF_THE_PROGRAM: readonly RegExp[] = [
  // Whose key it is.
  /secret_hash|last_used_at/,
  // Documents of devices that are new, or of another type now, are made anew by the sweeper.
  /coalesce\(type\.defaults, '\{\}'\) <> '\{\}'/,
  /^SELECT device_id FROM device WHERE device_id = ANY\(\$1::int4\[\]\)/,
  // What stands in topics is noted.
  /SET published_version = given\.version/,
  // An update that has ended ends its command; what becomes of the command is noted in the update.
  /^SELECT to_jsonb\(command\) AS row.*WHERE command\.command_id = \$1::uuid$/s,
  /^SELECT command_queue_lock/,
  /^SELECT update_id,.*FOR UPDATE OF device_update$/s,
];
const isOfProgram = (text: string): boolean =>
  OF_THE_PROGRAM.some((pattern) => pattern.test(text.trim()));
const ADDRESS = '192.0.2.7';
/** Paths that read, of things that both organizations have under one name. */
const READS = [
  '/api/v1/devices',
  '/api/v1/devices/d',
  '/api/v1/devices/d/keys',
  '/api/v1/devices/d/latest',
  '/api/v1/devices/d/readings',
  '/api/v1/devices/d/aggregates?bucket=1m',
  '/api/v1/retention',
  '/api/v1/devices/d/diagnostics',
  '/api/v1/devices/d/events',
  '/api/v1/devices/d/logs',
  '/api/v1/metrics',
  '/api/v1/keys',
  '/api/v1/quarantine',
  '/api/v1/quarantine?device=d',
  '/api/v1/rules',
  '/api/v1/alerts',
  '/api/v1/alerts?device=d&rule=hot',
  '/api/v1/silences',
  '/api/v1/commands',
  '/api/v1/devices/d/commands',
  '/api/v1/command-definitions',
  '/api/v1/campaigns',
  '/api/v1/configurations',
  '/api/v1/devices/d/configuration',
  '/api/v1/devices/d/configuration/versions',
  '/api/v1/devices/d/configuration/versions/1',
  '/api/v1/configuration-types',
  '/api/v1/device-types/pump/configuration',
  '/api/v1/firmware',
  '/api/v1/firmware-signers',
  '/api/v1/firmware-signers/release',
  '/api/v1/devices/d/updates',
  '/api/v1/admin-keys',
  '/api/v1/rules/00000000-0000-4000-8000-000000000011/action-runs',
  '/api/v1/commands/00000000-0000-4000-9000-000000000011',
  '/api/v1/devices/d/rotation',
  '/api/v1/claim-keys',
  '/api/v1/claims',
  '/api/v1/statistics/alerts?from=2026-01-01&to=2026-12-31',
  `/api/v1/diagnostics?address=${ADDRESS}`,
];

let t: TestApi;
let otherDeviceId: number;
/** While a test makes what a request is about: nobody looks at its statements. */
let isPreparing = false;
/** Every table that has an organization. */
let tables: { name: string; secured: boolean; addable: boolean }[];
beforeAll(async () => {
  t = await createTestApi();
  await ensureDays(t.test.database, '2026-11-21', '2026-11-21');
  // The other one first, so that a query without a filter meets its rows first.
  otherDeviceId = await fill(t.other, 2);
  await fill(t.acme, 1);
  await t.test.database.pool.query(
    `INSERT INTO device_event VALUES (gen_random_uuid(), NULL, NULL, now(), now(), 'refusal',
       'key_unknown', 'of nobody', 1, $1, NULL, NULL)`,
    [ADDRESS],
  );
  tables = await findTables();
});
afterAll(() => t.stop());

/** By itself, so that no new table is forgotten. */
async function findTables(): Promise<typeof tables> {
  const { pool, tenantRole } = t.test.database;
  const { rows } = await pool.query<(typeof tables)[number]>(
    `SELECT relname AS name, has_table_privilege($1::name, pg_class.oid, 'INSERT') AS addable,
            relrowsecurity AND EXISTS (
              SELECT FROM pg_policy WHERE polrelid = pg_class.oid) AS secured
     FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
     WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
       AND attname = 'organization_id'
       -- Read by the owner of the views alone.
       AND relname <> 'organization_reader'
     ORDER BY relname`,
    [tenantRole],
  );
  return rows;
}

/** Gives an organization a device `d` and something in every table. @returns the device's id. */
async function fill({ author }: TestOrganization, value: number): Promise<number> {
  const { database } = t.test;
  const { organizationId } = author;
  const { deviceId } = await t.registry.devices.create(author, { slug: 'd' });
  await t.registry.apiKeys.createForDevice(author, 'd', `device key ${value}`);
  await t.registry.integratorKeys.create(author, {
    name: `integrator key ${value}`,
    scopes: ['data'],
    devices: null,
    expiresAt: null,
  });
  const metricId = await ensureMetric(database, organizationId, 'temp');
  await insertReading(database, { deviceId, metricId, time: '2026-11-21 08:00Z', value });
  await database.pool.query(
    `INSERT INTO quarantine
     VALUES (gen_random_uuid(), $1, $2, now(), 't', 'bad_json', $3, 'x')`,
    [organizationId, deviceId, `detail ${value}`],
  );
  await database.pool.query(`INSERT INTO event VALUES ($2, now(), 'door', $1, $3, now(), 0)`, [
    organizationId,
    deviceId,
    { value },
  ]);
  await database.pool.query(`INSERT INTO log_entry VALUES ($2, now(), $1, 'E', 'wifi', 1, $3)`, [
    organizationId,
    deviceId,
    `message ${value}`,
  ]);
  await database.pool.query(`INSERT INTO retention VALUES ($1, 'raw', $2)`, [
    organizationId,
    20 + value,
  ]);
  await database.pool.query(`INSERT INTO device_clock VALUES ($2, $1, $3, NULL, 1, now())`, [
    organizationId,
    deviceId,
    value,
  ]);
  const { rows } = await database.pool.query<{ import_run_id: string }>(
    `INSERT INTO import_run (import_run_id, organization_id, source, format, state, fingerprint)
     VALUES (gen_random_uuid(), $1, 'f.csv', 'csv', 'done', '') RETURNING import_run_id`,
    [organizationId],
  );
  await database.pool.query(`INSERT INTO import_refusal VALUES ($2, 2, $1, 'bad_line', $3, '')`, [
    organizationId,
    rows[0]?.import_run_id,
    `detail ${value}`,
  ]);
  await database.pool.query(
    `INSERT INTO device_presence
     VALUES ($2, $1, 'online', now(), now(), 1, $3, '{}', NULL)`,
    [organizationId, deviceId, `198.51.100.${value}`],
  );
  await database.pool.query(
    `INSERT INTO device_event VALUES (gen_random_uuid(), $1, $2, now(), now(), 'refusal',
       'rate_limited', $3, 1, $4, NULL, NULL)`,
    [organizationId, deviceId, `detail ${value}`, ADDRESS],
  );
  await fillRules(organizationId, deviceId, value);
  await insertDownlinkRows(database.pool, { organizationId, deviceId, value });
  return deviceId;
}

/** The tables of rules and notifications: one of each, all about one alert. */
async function fillRules(organizationId: number, deviceId: number, value: number): Promise<void> {
  const { pool } = t.test.database;
  const id = (of: number): string => `00000000-0000-4000-8000-0000000000${of}${value}`;
  const own = { o: organizationId, d: deviceId, rule: id(1), alert: id(2), sent: id(3), to: id(4) };
  const { rows } = await pool.query<{ rule_id: number }>(
    `INSERT INTO alert_rule (public_id, organization_id, name, mode, version)
     VALUES ($1, $2, 'hot', 'enabled', 1) RETURNING rule_id`,
    [own.rule, own.o],
  );
  const ruleId = rows[0]?.rule_id;
  const statements: [string, ...unknown[]][] = [
    [`INSERT INTO alert_rule_version VALUES ($2, 1, $1, '{}', now(), 'test')`, own.o, ruleId],
    [
      `INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, state, severity,
         labels, annotations, active_at, changed_at)
       VALUES ($2, $1, $3, 1, $4, 'firing', 'high', '{}', '{}', now(), now())`,
      ...[own.o, own.alert, ruleId, own.d],
    ],
    [
      `INSERT INTO alert_transition VALUES
         ($2, 0, $1, $3, 1, $4, now(), 'inactive', 'firing', 'high', 'condition_holds', '{}')`,
      ...[own.o, own.alert, ruleId, own.d],
    ],
    [
      `INSERT INTO alert_note VALUES ($2, $3, $1, now(), 'test', 'comment', 'x')`,
      ...[own.o, id(5), own.alert],
    ],
    [`INSERT INTO device_cadence VALUES ($2, $1, 1, 1, '{}', now())`, own.o, own.d],
    [
      `INSERT INTO silence VALUES ($2, $1, 'silence', '[]', NULL, now(), now(), '', 'test', now())`,
      ...[own.o, id(6)],
    ],
    [
      `INSERT INTO receiver (receiver_id, organization_id, name, kind, settings)
       VALUES ($2, $1, 'r', 'webhook', '{}')`,
      ...[own.o, own.to],
    ],
    [`INSERT INTO notification_route VALUES ($2, $1, 1, '{}')`, own.o, id(7)],
    [`INSERT INTO notification_policy VALUES ($1)`, own.o],
    [
      `INSERT INTO notification_group VALUES ($2, $1, $3, $4, '', '{}', '{}')`,
      ...[own.o, id(8), id(7), own.to],
    ],
    [
      `INSERT INTO notification
         (notification_id, organization_id, receiver_id, group_key, kind, state, content)
       VALUES ($2, $1, $3, '', 'alert', 'waiting', '{}')`,
      ...[own.o, own.sent, own.to],
    ],
    [`INSERT INTO notification_alert VALUES ($2, $3, $1)`, own.o, own.alert, own.sent],
  ];
  for (const [statement, ...values] of statements) await pool.query(statement, values);
}

const asAcme = <T>(work: (transaction: Transaction) => Promise<T>): Promise<T> =>
  inOrganization(t.test.database, t.acme.author.organizationId, work);

/** Runs a statement under the role, without an organization, on a connection used before. */
async function withoutOrganization(statement: string): Promise<number | null> {
  const client = await t.test.database.pool.connect();
  try {
    await client.query(`BEGIN; SET LOCAL puback.organization_id = 1; COMMIT`);
    await client.query(`BEGIN; SET LOCAL ROLE ${t.test.database.tenantRole}`);
    return (await client.query(statement)).rowCount;
  } finally {
    await client.query('ROLLBACK');
    client.release();
  }
}

it('has every table with an organization under row security (A-03)', () => {
  expect(tables.length).toBeGreaterThan(10);
  expect(tables.filter(({ secured }) => !secured)).toEqual([]);
});

describe('a statement that forgets the organization (A-03)', () => {
  it('sees only rows of its transaction’s, in every table', async () => {
    const own = t.acme.author.organizationId;
    for (const { name } of tables) {
      const { rows } = await asAcme(({ client }) =>
        client.query<{ organization_id: number | null }>(`SELECT organization_id FROM ${name}`),
      );
      const expected = name === 'device_event' ? new Set([own, null]) : new Set([own]);
      expect(new Set(rows.map((row) => row.organization_id)), name).toEqual(expected);
    }
  });

  it('sees nothing without one, of every table', async () => {
    for (const { name } of tables) {
      expect(await withoutOrganization(`SELECT FROM ${name}`), name).toBe(0);
    }
  });

  it('changes and deletes no row of another, in every table', async () => {
    const { pool } = t.test.database;
    const other = t.other.author.organizationId;
    for (const { name } of tables) {
      const count = `SELECT count(*)::int4 AS count FROM ${name} WHERE organization_id = $1`;
      const before = (await pool.query(count, [other])).rows;
      expect(before, name).not.toEqual([{ count: 0 }]);
      for (const statement of [
        `UPDATE ${name} SET organization_id = organization_id WHERE organization_id = ${other}`,
        `DELETE FROM ${name} WHERE organization_id = ${other}`,
      ]) {
        const affected = await asAcme(
          async ({ client }) => (await client.query(statement)).rowCount,
        )
          // Where the role has no such right at all.
          .catch((error: unknown) => {
            expect(error).toMatchObject({
              code: expect.stringMatching(/^(42501|428C9)$/) as string,
            });
            return 0;
          });
        expect(affected, statement).toBe(0);
      }
      expect((await pool.query(count, [other])).rows, name).toEqual(before);
    }
  });

  it('puts no row of another into any table that it may add to', async () => {
    const addable = tables.filter((table) => table.addable).map(({ name }) => name);
    expect(addable).toEqual(Object.keys(FORGED).toSorted());
    for (const name of addable) {
      const forged = asAcme(({ client }) =>
        client.query(FORGED[name] ?? '', [t.other.author.organizationId]),
      );
      await expect(forged, name).rejects.toMatchObject({ code: '42501' });
    }
  });

  it('hands no row of its own to another', async () => {
    const given = asAcme(({ client }) =>
      client.query(`UPDATE device SET organization_id = $1`, [t.other.author.organizationId]),
    );
    await expect(given).rejects.toMatchObject({ code: '42501' });
  });

  it('deletes neither readings, nor those of another’s device by the function for it', async () => {
    const all = asAcme(({ client }) => client.query('DELETE FROM reading'));
    await expect(all).rejects.toMatchObject({ code: '42501' });
    const forged = asAcme(({ client }) =>
      client.query('SELECT device_readings_delete($1)', [otherDeviceId]),
    );
    await expect(forged).rejects.toMatchObject({ code: '42501' });
    const { rows } = await t.test.database.pool.query('SELECT FROM reading');
    expect(rows).toHaveLength(2);
  });

  it('can add to the audit trail and not change it', async () => {
    for (const statement of ['DELETE FROM audit_event', `UPDATE audit_event SET actor = 'x'`]) {
      await expect(asAcme(({ client }) => client.query(statement))).rejects.toMatchObject({
        code: '42501',
      });
    }
  });
});

type Query = (...parameters: unknown[]) => Promise<pg.QueryResult>;

/** Stands between the pool and the program while `work` runs; `seen` gets every statement. */
async function spyOn(
  seen: (text: string, query: Query) => Promise<string>,
  work: () => Promise<void>,
): Promise<void> {
  const { pool } = t.test.database;
  const connect = pool.connect.bind(pool) as (own?: unknown) => Promise<pg.PoolClient>;
  pool.connect = (async (own?: unknown) => {
    // That of `pool.query`, which the last test looks at.
    if (own !== undefined) return connect(own);
    const client = await connect();
    const query = client.query.bind(client) as Query;
    client.query = (async (first: string | { text: string }, ...rest: unknown[]) => {
      const isText = typeof first === 'string';
      const text = await seen(isText ? first : first.text, query);
      return query(isText ? text : { ...first, text }, ...rest);
    }) as never;
    const release = client.release.bind(client);
    client.release = (error) => {
      client.query = query as never;
      client.release = release;
      release(error);
    };
    return client;
  }) as never;
  try {
    await work();
  } finally {
    pool.connect = connect as never;
  }
}

const isBracket = (text: string): boolean => /^(BEGIN|COMMIT|ROLLBACK)/.test(text);
/** Takes the filter out of a statement. */
const forget = (text: string): string =>
  text.replaceAll(/(?:"?\w+"?\.)?"?organization_id"? = (\$\d+)/g, '$1::int4 IS NOT NULL');

async function readAll(): Promise<unknown[]> {
  const answers = [];
  for (const path of READS) {
    const { status, body } = await t.send('GET', path);
    expect(status, path).toBe(200);
    answers.push(body);
  }
  return answers;
}

describe('the HTTP API', () => {
  it('answers the same when every query forgets the organization (A-03)', async () => {
    const expected = await readAll();
    let forgotten = 0;
    await spyOn(
      async (text) => {
        if (forget(text) !== text) forgotten += 1;
        return forget(text);
      },
      async () => expect(await readAll()).toEqual(expected),
    );
    expect(forgotten).toBeGreaterThan(READS.length);
  });

  it('would answer otherwise without row security, or the test above proved nothing', async () => {
    const database = { ...t.test.database, tenantRole: null };
    await spyOn(
      async (text) => forget(text),
      async () => {
        const { rows } = await inOrganization(database, t.acme.author.organizationId, (all) =>
          all.client.query(
            'SELECT DISTINCT organization_id FROM device WHERE organization_id = $1',
            [t.acme.author.organizationId],
          ),
        );
        expect(rows).toHaveLength(2);
      },
    );
  });

  it('runs every statement of every route under the role, in the key’s organization', async () => {
    const { tenantRole } = t.test.database;
    expect(tenantRole).toMatch(/^puback_tenant_/);
    const under = new Map<string, number>();
    const asOwner: string[] = [];
    const whoAmI = `SELECT current_user || ' ' || current_setting('puback.organization_id') AS who`;
    await spyOn(
      async (text, query) => {
        if (isPreparing || isBracket(text)) return text;
        const { who } = (await query(whoAmI)).rows[0] as { who: string };
        if (who.startsWith('puback_tenant')) under.set(who, (under.get(who) ?? 0) + 1);
        else asOwner.push(text);
        return text;
      },
      async () => {
        await readAll();
        await changeEverything();
      },
    );
    expect([...under.keys()]).toEqual([`${tenantRole} ${t.acme.author.organizationId}`]);
    expect([...under.values()][0]).toBeGreaterThan(200);
    expect(asOwner.filter((text) => !isOfProgram(text))).toEqual([]);
  });

  it('asks the pool itself, as the owner, for whose key it is and for what the program needs alone', async () => {
    const { pool } = t.test.database;
    const query = pool.query.bind(pool) as Query;
    const asked: string[] = [];
    pool.query = ((first: string | { text: string }, ...rest: unknown[]) => {
      if (!isPreparing) asked.push(typeof first === 'string' ? first : first.text);
      return query(first, ...rest);
    }) as never;
    try {
      await readAll();
      await changeEverything();
    } finally {
      pool.query = query as never;
    }
    expect(asked.filter((text) => !isOfProgram(text))).toEqual([]);
  });
});

// The last one: it ends the device that the others are about.
it('deleting a device leaves no row of it in any table, and those of others alone', async () => {
  const { pool } = t.test.database;
  const { organizationId } = t.acme.author;
  const { deviceId } = await t.registry.devices.get(organizationId, 'd');
  const { rows: named } = await pool.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
     WHERE relkind IN ('r', 'p') AND NOT relispartition AND attname = 'device_id'
       AND relnamespace = 'public'::regnamespace ORDER BY 1`,
  );
  const count = async (device: number): Promise<Record<string, number>> => {
    const found: Record<string, number> = {};
    for (const { name } of named) {
      const { rows } = await pool.query<{ count: number }>(
        `SELECT count(*)::int4 AS count FROM ${name} WHERE device_id = $1`,
        [device],
      );
      found[name] = rows[0]?.count ?? -1;
    }
    return found;
  };
  const before = await count(deviceId);
  const others = await count(otherDeviceId);
  const downlink = ['command', 'command_slot', 'command_event', 'campaign_device', 'device_update'];
  const settings = ['device_configuration', 'device_configuration_version', 'key_rotation'];
  for (const name of [...downlink, ...settings, 'rule_action_run', 'reading', 'event', 'alert']) {
    expect(before[name], name).toBeGreaterThan(0);
  }
  expect((await t.send('DELETE', '/api/v1/devices/d')).status).toBe(204);
  const left = Object.entries(await count(deviceId)).filter(([, rows]) => rows > 0);
  expect(left).toEqual([]);
  expect(await count(otherDeviceId)).toEqual(others);
});

/** Every route of commands, campaigns, configuration, keys and updates, once. */
async function useDownlink(): Promise<void> {
  for (const route of t.api.routes) {
    isPreparing = true;
    const request = await downlinkRequest(t, route);
    isPreparing = false;
    if (request === null || route.role !== 'admin') continue;
    const { path, body, headers, done } = request;
    const isRead = route.method === 'GET' || route.method === 'DELETE';
    const sent = isRead ? undefined : body;
    const { status } = await t.send(route.method, path, sent, t.acme.adminKey, headers);
    expect(status, `${route.method} ${path}`).toBe(done);
  }
}

/** Every route that changes something, once. */
async function changeEverything(): Promise<void> {
  await useDownlink();
  const path = '/api/v1/devices/changed';
  expect((await t.send('POST', '/api/v1/devices', { device: 'changed' })).status).toBe(201);
  expect((await t.send('PATCH', path, { disabled: false, tags: ['x'] })).status).toBe(200);
  const made = await t.send('POST', `${path}/keys`, { name: 'k' });
  expect(made.status).toBe(201);
  expect((await t.send('GET', `${path}/keys/${made.body.keyId}`)).status).toBe(200);
  expect((await t.send('DELETE', `${path}/keys/${made.body.keyId}`)).status).toBe(204);
  const wanted = { name: 'i', scopes: ['data'], devices: ['d'] };
  const integrator = await t.send('POST', '/api/v1/keys', wanted);
  expect(integrator.status).toBe(201);
  const keyPath = `/api/v1/keys/${integrator.body.keyId}`;
  expect((await t.send('GET', keyPath)).status).toBe(200);
  expect((await t.send('DELETE', keyPath)).status).toBe(204);
  expect((await t.send('DELETE', path)).status).toBe(204);
}
