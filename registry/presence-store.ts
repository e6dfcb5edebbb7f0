import pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type { DeviceIdentity } from '../firmware-protocol/topics.ts';

/** What is stored of a device's connection; the broker says what it means. Times in ms since 1970. */
export interface PresenceRecord {
  readonly state: 'online' | 'sleeping' | 'offline';
  readonly sinceMs: number;
  readonly lastContactMs: number;
  readonly connectionNumber: number;
  readonly address: string;
  /** Members of the last hellos; without units where it is read. */
  readonly hello: Hello;
  readonly helloMs: number | null;
}

/** A row of `device_presence`. */
export interface PresenceRecordRow {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly presence: PresenceRecord;
}

/** A row with the names of its device. */
export interface NamedPresence extends PresenceRecordRow, DeviceIdentity {}

/** A device with its row, when it has one. */
export interface DeviceWithPresence extends DeviceIdentity {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly presence: PresenceRecord | null;
}

/** The table `device_presence`. Every call throws {@link StoreUnavailableError} when the database is away. */
export interface PresenceStore {
  /**
   * Stores rows, at most 1000 and each device once, in one statement. A row whose connection is older
   * than the stored one is left out; members of `hello` are added to the stored ones.
   * @returns ids of the devices that no longer exist; their rows are left out.
   */
  upsertMany(rows: readonly PresenceRecordRow[]): Promise<readonly number[]>;
  /** Rows of all organizations in the order of device ids, behind `after`. */
  listAll(page: {
    readonly after: number;
    readonly limit: number;
  }): Promise<readonly NamedPresence[]>;
  /** The same of one organization; `devices` are slugs, null for all. */
  listOf(page: {
    readonly organizationId: number;
    readonly devices: readonly string[] | null;
    readonly after: number;
    readonly limit: number;
  }): Promise<readonly NamedPresence[]>;
  /** Devices by name, with or without a row. Names that no device has are left out. */
  findDevices(names: readonly DeviceIdentity[]): Promise<readonly DeviceWithPresence[]>;
}

/** Attempts at a statement that meets a device which is being deleted. */
const ATTEMPTS_MAX = 3;
const FOREIGN_KEY_VIOLATION = '23503';

/*
 * In the order of ids, so that two programs never wait for each other in a circle. `up` is the uptime at
 * the last hello: an older one must not outlive it.
 */
const UPSERT = `
  WITH given AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS row (
      device_id int4, organization_id int4, state text, since_ms float8, contact_ms float8,
      connection_number int8, address text, hello jsonb, hello_ms float8)
  ), written AS (
    INSERT INTO device_presence AS stored (device_id, organization_id, state, since, last_contact_at,
                                           connection_number, address, hello, hello_at)
    SELECT device_id, given.organization_id, state, to_timestamp(since_ms / 1000),
           to_timestamp(contact_ms / 1000), connection_number, address, hello,
           to_timestamp(hello_ms / 1000)
    FROM given JOIN device USING (device_id)
    ORDER BY device_id
    ON CONFLICT (device_id) DO UPDATE SET
      state = excluded.state,
      since = excluded.since,
      last_contact_at = excluded.last_contact_at,
      connection_number = excluded.connection_number,
      address = CASE WHEN excluded.address = '' THEN stored.address ELSE excluded.address END,
      hello = CASE WHEN excluded.hello_at IS NULL THEN stored.hello ELSE stored.hello - 'up' END
              || excluded.hello,
      hello_at = coalesce(excluded.hello_at, stored.hello_at)
    WHERE excluded.connection_number >= stored.connection_number
  )
  SELECT device_id FROM given
  WHERE NOT EXISTS (SELECT FROM device WHERE device.device_id = given.device_id)`;

const COLUMNS = `device.device_id, device.organization_id, organization.slug AS organization,
  device.slug AS device, state, extract(epoch FROM since)::float8 AS since,
  extract(epoch FROM last_contact_at)::float8 AS contact, connection_number::float8 AS number,
  address, hello - 'u' AS hello, extract(epoch FROM hello_at)::float8 AS hello_at`;

/** Joins names to rows that were chosen before: else each page may look through the whole of `device`. */
const named = (chosen: string): string => `
  SELECT ${COLUMNS}
  FROM (SELECT * FROM device_presence ${chosen} LIMIT $1) AS presence
  JOIN device ON device.device_id = presence.device_id
  JOIN organization ON organization.organization_id = device.organization_id
  ORDER BY presence.device_id`;

const LIST_ALL = named('WHERE device_id > $2 ORDER BY device_id');
const LIST_OF = named('WHERE organization_id = $3 AND device_id > $2 ORDER BY device_id');
const LIST_SOME = named(`
  WHERE device_id > $2 AND device_id IN (
    SELECT device_id FROM device WHERE organization_id = $3 AND slug = ANY($4::text[]))
  ORDER BY device_id`);

/** Makes the store of presence over a pool, which stays the caller's. */
export function createPresenceStore({ pool }: { readonly pool: pg.Pool }): PresenceStore {
  return {
    upsertMany: (rows) => upsert(pool, rows),
    async listAll({ after, limit }) {
      const { rows } = await guardStore(pool.query<Row>(LIST_ALL, [limit, after]));
      return rows.map(namedOf);
    },
    async listOf({ organizationId, devices, after, limit }) {
      const values = [limit, after, organizationId];
      const { rows } = await guardStore(
        devices === null
          ? pool.query<Row>(LIST_OF, values)
          : pool.query<Row>(LIST_SOME, [...values, devices]),
      );
      return rows.map(namedOf);
    },
    async findDevices(names) {
      const { rows } = await guardStore(
        pool.query<Row | NoRow>(
          `SELECT ${COLUMNS}
           FROM unnest($1::text[], $2::text[]) AS name (organization, device)
           JOIN organization ON organization.slug = name.organization
           JOIN device ON device.organization_id = organization.organization_id
                      AND device.slug = name.device
           LEFT JOIN device_presence AS presence ON presence.device_id = device.device_id`,
          [names.map(({ organization }) => organization), names.map(({ device }) => device)],
        ),
      );
      return rows.map((row) => (row.state === null ? bareOf(row) : namedOf(row)));
    },
  };
}

interface Named {
  device_id: number;
  organization_id: number;
  organization: string;
  device: string;
}

interface Row extends Named {
  state: PresenceRecord['state'];
  since: number;
  contact: number;
  number: number;
  address: string;
  hello: Hello;
  hello_at: number | null;
}

interface NoRow extends Named {
  state: null;
}

async function upsert(pool: pg.Pool, rows: readonly PresenceRecordRow[]): Promise<number[]> {
  const given = JSON.stringify(rows.map(givenOf));
  for (let attempt = 1; ; attempt += 1) {
    try {
      const { rows: gone } = await guardStore(pool.query<{ device_id: number }>(UPSERT, [given]));
      return gone.map((row) => row.device_id);
    } catch (error) {
      // A device was deleted between the look at it and the check of the key: it is seen now.
      const isDeleted = error instanceof pg.DatabaseError && error.code === FOREIGN_KEY_VIOLATION;
      if (!isDeleted || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

function givenOf({ deviceId, organizationId, presence }: PresenceRecordRow): object {
  return {
    device_id: deviceId,
    organization_id: organizationId,
    state: presence.state,
    since_ms: presence.sinceMs,
    contact_ms: presence.lastContactMs,
    connection_number: presence.connectionNumber,
    address: presence.address,
    hello: presence.hello,
    hello_ms: presence.helloMs,
  };
}

function namedOf(row: Row): NamedPresence {
  return {
    ...bareOf(row),
    presence: {
      state: row.state,
      sinceMs: Math.round(row.since * 1000),
      lastContactMs: Math.round(row.contact * 1000),
      connectionNumber: row.number,
      address: row.address,
      hello: row.hello,
      helloMs: row.hello_at === null ? null : Math.round(row.hello_at * 1000),
    },
  };
}

function bareOf(
  row: Named,
): DeviceIdentity & { deviceId: number; organizationId: number; presence: null } {
  const { device_id: deviceId, organization_id: organizationId, organization, device } = row;
  return { deviceId, organizationId, organization, device, presence: null };
}
