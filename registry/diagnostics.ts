import type pg from 'pg';
import { cutPage, type Page } from '../drizzle/page.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { plainAddress, type DeviceEventKind } from './device-event-row.ts';

/** An event of a connection as it is stored. */
export interface StoredDeviceEvent {
  readonly deviceEventId: string;
  /** Slug; null when no device stands behind it, or when it was deleted since. */
  readonly device: string | null;
  readonly kind: DeviceEventKind;
  readonly code: string;
  readonly detail: string;
  /** Equal events that it stands for. */
  readonly count: number;
  readonly occurredAt: Date;
  readonly lastOccurredAt: Date;
  readonly address: string;
  readonly keyId: string | null;
  readonly connectionNumber: number | null;
}

/** How often something was refused or broke in the last 24 hours. */
export interface RefusalCount {
  readonly code: string;
  readonly count: number;
  readonly lastAt: Date;
}

/** What is known of a device's connection. */
export interface StoredPresence {
  readonly state: 'online' | 'sleeping' | 'offline';
  readonly since: Date;
  readonly lastContactAt: Date;
  readonly address: string;
  readonly connectionNumber: number;
  /** Members of the last `hello`; `{}` before the first. */
  readonly hello: Readonly<Record<string, unknown>>;
  readonly helloAt: Date | null;
}

/** Why a device, or an address, does not do what it should. */
export interface Diagnostics {
  /** Null: the device has never connected. */
  findPresence(deviceId: number): Promise<StoredPresence | null>;
  /** Messages of a device in quarantine. */
  countQuarantined(deviceId: number): Promise<number>;
  /** The last 24 hours of a device, the latest first; among its newest 10 000 rows. */
  countForDevice(deviceId: number): Promise<RefusalCount[]>;
  /** One page of a device, newest first. */
  listForDevice(query: {
    organizationId: number;
    deviceId: number;
    limit: number;
    /** Id of the last event of the page before. */
    after: string | null;
  }): Promise<Page<StoredDeviceEvent>>;
  /**
   * The last 24 hours of an address, as {@link listForAddress} sees it, the latest first; among its
   * newest 10 000 rows.
   */
  countForAddress(query: { organizationId: number; address: string }): Promise<RefusalCount[]>;
  /**
   * One page of an address, newest first: events of the organization, and those that belong to
   * nobody. Of the latter neither the key id nor the detail is told: whoever connects with
   * another's key id writes them.
   */
  listForAddress(query: {
    organizationId: number;
    address: string;
    limit: number;
    after: string | null;
  }): Promise<Page<StoredDeviceEvent>>;
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createDiagnostics({ pool }: { readonly pool: pg.Pool }): Diagnostics {
  const events = async (where: string, values: readonly unknown[], limit: number) => {
    const { rows } = await guardStore(
      pool.query<EventRow>(`${SELECT_EVENTS} ${where}`, [...values, limit + 1]),
    );
    return cutPage(rows.map(eventOf), limit);
  };
  const counts = async (where: string, values: readonly unknown[]) => {
    const text = SELECT_COUNTS.replace('-- where', where);
    const { rows } = await guardStore(pool.query<RefusalCount>(text, [...values]));
    return rows;
  };
  return {
    findPresence: (deviceId) => findPresence(pool, deviceId),
    async countQuarantined(deviceId) {
      const text = 'SELECT count(*)::int4 AS count FROM quarantine WHERE device_id = $1';
      const { rows } = await guardStore(pool.query<{ count: number }>(text, [deviceId]));
      return rows[0]?.count ?? 0;
    },
    countForDevice: (deviceId) => counts('device_id = $1', [deviceId]),
    listForDevice: ({ organizationId, deviceId, limit, after }) =>
      events(
        `WHERE device_event.device_id = $1 AND device_event.organization_id = $2
           AND ($3::uuid IS NULL OR device_event_id < $3)
         ORDER BY device_event_id DESC LIMIT $4`,
        [deviceId, organizationId, after],
        limit,
      ),
    countForAddress: ({ organizationId, address }) =>
      counts('address = $1 AND (organization_id = $2 OR organization_id IS NULL)', [
        plainAddress(address),
        organizationId,
      ]),
    listForAddress: ({ organizationId, address, limit, after }) =>
      events(
        `WHERE address = $1
           AND (device_event.organization_id = $2 OR device_event.organization_id IS NULL)
           AND ($3::uuid IS NULL OR device_event_id < $3)
         ORDER BY device_event_id DESC LIMIT $4`,
        [plainAddress(address), organizationId, after],
        limit,
      ),
  };
}

const SELECT_EVENTS = `
  SELECT device_event_id, device.slug AS device, kind, code, count, occurred_at, last_occurred_at,
         address, connection_number,
         CASE WHEN device_event.organization_id IS NULL THEN '' ELSE detail END AS detail,
         CASE WHEN device_event.organization_id IS NULL THEN NULL ELSE key_id END AS key_id
  FROM device_event LEFT JOIN device USING (device_id)`;

/** What is everyday, a connect or a DISCONNECT or a stop of the server, is no refusal. */
const SELECT_COUNTS = `
  SELECT code, sum(count)::float8 AS count, max(last_occurred_at) AS "lastAt"
  FROM (SELECT code, kind, count, last_occurred_at FROM device_event
        WHERE -- where
        ORDER BY device_event_id DESC LIMIT 10000) AS newest
  WHERE last_occurred_at > now() - interval '24 hours' AND kind <> 'connect'
    AND code NOT IN ('client_left', 'shutdown')
  GROUP BY code ORDER BY "lastAt" DESC, code LIMIT 100`;

interface EventRow {
  device_event_id: string;
  device: string | null;
  kind: DeviceEventKind;
  code: string;
  detail: string;
  count: number;
  occurred_at: Date;
  last_occurred_at: Date;
  address: string;
  key_id: string | null;
  connection_number: string | null;
}

function eventOf(row: EventRow): StoredDeviceEvent {
  return {
    deviceEventId: row.device_event_id,
    device: row.device,
    kind: row.kind,
    code: row.code,
    detail: row.detail,
    count: row.count,
    occurredAt: row.occurred_at,
    lastOccurredAt: row.last_occurred_at,
    address: row.address,
    keyId: row.key_id,
    connectionNumber: row.connection_number === null ? null : Number(row.connection_number),
  };
}

async function findPresence(pool: pg.Pool, deviceId: number): Promise<StoredPresence | null> {
  const { rows } = await guardStore(
    pool.query<StoredPresence>(
      `SELECT state, since, last_contact_at AS "lastContactAt", address, hello,
              connection_number::float8 AS "connectionNumber", hello_at AS "helloAt"
       FROM device_presence WHERE device_id = $1`,
      [deviceId],
    ),
  );
  return rows[0] ?? null;
}
