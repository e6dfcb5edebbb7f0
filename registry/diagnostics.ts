import { cutPage, type Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import { isCorrection } from '../firmware-protocol/device-clock.ts';
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

/** What is known of the clock that a device's `ts` come from. */
export interface KnownClock {
  /** Milliseconds that it is ahead of the server's; behind: below 0. */
  readonly offsetMs: number;
  /** How fast that grows, in millionths; null while too little is known. */
  readonly driftPpm: number | null;
  /** Whether times are corrected by it. */
  readonly isCorrected: boolean;
  /** Messages that say so. */
  readonly samples: number;
  readonly measuredAt: Date;
}

/** A device by its id, and whose it is. */
export interface DeviceOfOrganization {
  readonly organizationId: number;
  readonly deviceId: number;
}

/** Why a device, or an address, does not do what it should. */
export interface Diagnostics {
  /** Null: the device has never connected. */
  findPresence(device: DeviceOfOrganization): Promise<StoredPresence | null>;
  /** Null: its clock is not known, or not yet. */
  findClock(device: DeviceOfOrganization): Promise<KnownClock | null>;
  /** Messages of a device in quarantine. */
  countQuarantined(device: DeviceOfOrganization): Promise<number>;
  /** The last 24 hours of a device, the latest first; among its newest 10 000 rows. */
  countForDevice(device: DeviceOfOrganization): Promise<RefusalCount[]>;
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
export function createDiagnostics(database: TenantDatabase): Diagnostics {
  const select = <Row extends object>(
    organizationId: number,
    text: string,
    values: readonly unknown[],
  ): Promise<Row[]> =>
    inOrganization(
      database,
      organizationId,
      async ({ client }) => (await client.query<Row>(text, [...values])).rows,
    );
  const events = async (
    {
      organizationId,
      limit,
      after,
    }: { organizationId: number; limit: number; after: string | null },
    where: string,
    of: number | string,
  ) => {
    const rows = await select<EventRow>(
      organizationId,
      `${SELECT_EVENTS} WHERE ${where} AND ($3::uuid IS NULL OR device_event_id < $3)
       ORDER BY device_event_id DESC LIMIT $4`,
      [of, organizationId, after, limit + 1],
    );
    return cutPage(rows.map(eventOf), limit);
  };
  const counts = (organizationId: number, where: string, of: number | string) =>
    select<RefusalCount>(organizationId, SELECT_COUNTS.replace('-- where', where), [
      of,
      organizationId,
    ]);
  return {
    async findPresence({ organizationId, deviceId }) {
      const values = [deviceId, organizationId];
      const [row] = await select<StoredPresence>(organizationId, SELECT_PRESENCE, values);
      return row ?? null;
    },
    async findClock({ organizationId, deviceId }) {
      const values = [deviceId, organizationId];
      const [row] = await select<ClockRow>(organizationId, SELECT_CLOCK, values);
      if (row === undefined) return null;
      const { offsetMs } = row;
      return { ...row, offsetMs: Math.round(offsetMs), isCorrected: isCorrection(offsetMs) };
    },
    async countQuarantined({ organizationId, deviceId }) {
      const values = [deviceId, organizationId];
      const [row] = await select<{ count: number }>(organizationId, COUNT_QUARANTINED, values);
      return row?.count ?? 0;
    },
    countForDevice: ({ organizationId, deviceId }) => counts(organizationId, OF_DEVICE, deviceId),
    listForDevice: ({ deviceId, ...page }) => events(page, OF_DEVICE, deviceId),
    countForAddress: ({ organizationId, address }) =>
      counts(organizationId, OF_ADDRESS, plainAddress(address)),
    listForAddress: ({ address, ...page }) => events(page, OF_ADDRESS, plainAddress(address)),
  };
}

const OF_DEVICE = 'device_event.device_id = $1 AND device_event.organization_id = $2';
const OF_ADDRESS = `device_event.address = $1
  AND (device_event.organization_id = $2 OR device_event.organization_id IS NULL)`;

const COUNT_QUARANTINED = `SELECT count(*)::int4 AS count FROM quarantine
  WHERE device_id = $1 AND organization_id = $2`;

const SELECT_PRESENCE = `
  SELECT state, since, last_contact_at AS "lastContactAt", address, hello,
         connection_number::float8 AS "connectionNumber", hello_at AS "helloAt"
  FROM device_presence WHERE device_id = $1 AND organization_id = $2`;

const SELECT_CLOCK = `
  SELECT offset_ms AS "offsetMs", drift_ppm AS "driftPpm", samples, measured_at AS "measuredAt"
  FROM device_clock WHERE device_id = $1 AND organization_id = $2`;

type ClockRow = Omit<KnownClock, 'isCorrected'>;

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
