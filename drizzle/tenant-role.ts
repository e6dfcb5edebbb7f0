import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { reasonOf } from '../errors.ts';
import { isUnavailable } from './sqlstate.ts';

/** The role under which an organization's queries run, or why there is none. */
export type TenantRole =
  | { readonly name: string; readonly reason: null }
  | { readonly name: null; readonly reason: string };

/**
 * What the role may do with a table, as far as its rows go. `reading`, `device_latest` and
 * `device_sequence` have no row security: they are read by joining `device` or `metric`, and never
 * written.
 */
const RIGHTS: Readonly<Record<string, readonly string[]>> = {
  // UPDATE, because a row that is locked counts as one that will be updated.
  organization: ['SELECT', 'UPDATE'],
  device: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  api_key: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  metric: ['SELECT'],
  quarantine: ['SELECT', 'UPDATE', 'DELETE'],
  audit_event: ['SELECT', 'INSERT'],
  device_presence: ['SELECT'],
  device_event: ['SELECT', 'DELETE'],
  reading: ['SELECT'],
  device_latest: ['SELECT'],
  device_sequence: ['SELECT'],
  device_clock: ['SELECT'],
  event: ['SELECT'],
  log_entry: ['SELECT'],
  import_run: ['SELECT', 'INSERT', 'UPDATE'],
  import_refusal: ['SELECT', 'INSERT'],
  retention: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  reading_1m: ['SELECT'],
  reading_1h: ['SELECT'],
  reading_1d: ['SELECT'],
  device_cadence: ['SELECT'],
  alert_rule: ['SELECT', 'INSERT', 'UPDATE'],
  alert_rule_version: ['SELECT', 'INSERT'],
  alert: ['SELECT', 'UPDATE'],
  // UPDATE, because steps of open alerts are to be notified anew when routes change.
  alert_transition: ['SELECT', 'UPDATE'],
  alert_note: ['SELECT', 'INSERT'],
  silence: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  receiver: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  notification_route: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  notification_policy: ['SELECT', 'INSERT', 'UPDATE'],
  notification_group: ['SELECT', 'UPDATE', 'DELETE'],
  notification: ['SELECT', 'INSERT', 'UPDATE'],
  notification_alert: ['SELECT', 'INSERT'],
  command: ['SELECT', 'INSERT', 'UPDATE'],
  command_slot: ['SELECT', 'INSERT', 'UPDATE'],
  command_event: ['SELECT', 'INSERT'],
  command_definition: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  campaign: ['SELECT', 'INSERT', 'UPDATE'],
  campaign_device: ['SELECT', 'INSERT', 'UPDATE'],
  device_configuration: ['SELECT', 'INSERT', 'UPDATE'],
  device_configuration_version: ['SELECT', 'INSERT'],
  configuration_type: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  key_rotation: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  claim_policy: ['SELECT', 'INSERT', 'UPDATE'],
  device_claim: ['SELECT', 'INSERT', 'UPDATE'],
  firmware_image: ['SELECT', 'INSERT', 'UPDATE'],
  firmware_part: ['SELECT', 'INSERT', 'DELETE'],
  firmware_signer: ['SELECT', 'INSERT', 'UPDATE'],
  device_update: ['SELECT', 'INSERT', 'UPDATE'],
  rule_action_run: ['SELECT'],
};

const DELETE_READINGS = 'device_readings_delete(int4)';

/** Roles are the server's: programs on other databases of it may be making the same one. */
const ATTEMPTS_MAX = 10;
const RETRY_MS = 20;

/**
 * Makes the role of this database user, without login, and gives it its rights in this database,
 * as far as they are missing. It has a name of its own for each database user: otherwise the users of
 * two databases on one server would be let into each other's.
 *
 * To be called by one program at a time for each database, after the migrations. A user that may not
 * make roles is no error: somebody else may make the role and grant it, and the next start finds it.
 */
export async function prepareTenantRole(client: pg.Client): Promise<TenantRole> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT ('puback_tenant_' || current_user)::name::text AS name`,
  );
  const name = rows[0]?.name ?? '';
  for (let attempt = 1; ; attempt += 1) {
    try {
      await createRole(client, name);
      await grantRights(client, name);
      if (await isBound(client, name)) return { name, reason: null };
      return { name: null, reason: `row security does not bind the role ${name}` };
    } catch (error) {
      if (!(error instanceof pg.DatabaseError) || isUnavailable(error)) throw error;
      if (!isRace(error) || attempt === ATTEMPTS_MAX)
        return { name: null, reason: reasonOf(error) };
      await delay(RETRY_MS * attempt);
    }
  }
}

async function createRole(client: pg.Client, name: string): Promise<void> {
  const quoted = pg.escapeIdentifier(name);
  const { rows } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [name]);
  if (rows.length === 0) await client.query(`CREATE ROLE ${quoted} NOLOGIN`);
  // Since PostgreSQL 16 who makes a role is its member, but may not yet take it.
  if (!(await canTakeRole(client, quoted))) await client.query(`GRANT ${quoted} TO CURRENT_USER`);
}

async function canTakeRole(client: pg.Client, quoted: string): Promise<boolean> {
  try {
    await client.query(`BEGIN; SET LOCAL ROLE ${quoted}; ROLLBACK`);
    return true;
  } catch (error) {
    await client.query('ROLLBACK');
    if (error instanceof pg.DatabaseError && error.code === '42501') return false;
    throw error;
  }
}

/** Only what is missing: on a hypertable a GRANT goes through all chunks. */
async function grantRights(client: pg.Client, name: string): Promise<void> {
  const quoted = pg.escapeIdentifier(name);
  const wanted = Object.entries(RIGHTS).flatMap(([table, rights]) =>
    rights.map((right) => ({ table, right })),
  );
  const { rows: missing } = await client.query<{ table: string; right: string }>(
    `SELECT "table", "right" FROM jsonb_to_recordset($2::jsonb) AS wanted ("table" text, "right" text)
     WHERE NOT has_table_privilege($1::name, "table", "right")`,
    [name, JSON.stringify(wanted)],
  );
  for (const { table, right } of missing) {
    await client.query(`GRANT ${right} ON ${pg.escapeIdentifier(table)} TO ${quoted}`);
  }
  const { rows } = await client.query<{ usage: boolean; execute: boolean }>(
    `SELECT has_schema_privilege($1::name, 'public', 'USAGE') AS usage,
            has_function_privilege($1::name, '${DELETE_READINGS}', 'EXECUTE') AS execute`,
    [name],
  );
  if (rows[0]?.usage !== true) await client.query(`GRANT USAGE ON SCHEMA public TO ${quoted}`);
  if (rows[0]?.execute !== true) {
    await client.query(`GRANT EXECUTE ON FUNCTION ${DELETE_READINGS} TO ${quoted}`);
  }
}

/** Whether the role can be taken, and is not let past row security. */
async function isBound(client: pg.Client, name: string): Promise<boolean> {
  try {
    await client.query(`BEGIN; SET LOCAL ROLE ${pg.escapeIdentifier(name)}`);
    const { rows } = await client.query<{ bound: boolean }>(
      `SELECT row_security_active('organization') AS bound`,
    );
    return rows[0]?.bound === true;
  } finally {
    await client.query('ROLLBACK');
  }
}

function isRace({ code, message }: pg.DatabaseError): boolean {
  return code === '42710' || code === '23505' || message.includes('concurrently');
}
