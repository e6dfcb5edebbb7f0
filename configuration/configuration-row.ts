import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import type { DeviceConfiguration, Document, Held } from './configuration.ts';
import type { Cause, ConfigurationFacts, ConfigurationState } from './configuration-step.ts';
import { packetBytes, PACKET_BYTES_STANDARD } from './document-check.ts';

/** The configuration of a device as it is stored, with what decides on its document. */
export interface ConfigurationRow extends ConfigurationFacts {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly publishedVersion: number | null;
  /** JSON Schema of its type; null: anything. */
  readonly schema: Document | null;
  readonly isDrifting: boolean;
}

/** A row that is to be written. */
export interface ConfigurationSave {
  readonly row: Pick<ConfigurationRow, 'deviceId' | 'organizationId'>;
  readonly state: ConfigurationState;
  readonly cause: Cause;
}

interface Columns {
  device_id: number;
  organization_id: number;
  organization: string;
  device: string;
  type: string | null;
  uses_alias: boolean;
  bytes_max: number;
  defaults: Document | null;
  schema: Document | null;
  type_version: number;
  desired: Document | null;
  document: Document | null;
  version: number | null;
  changed_at: Date | null;
  changed_by: string | null;
  made_for_type: string | null;
  made_for_version: number | null;
  held: Held | null;
  reported_version: number | null;
  is_applied: boolean | null;
  reported: Document | null;
  reported_message: string | null;
  reported_at: Date | null;
  differs_since: Date | null;
  published_version: number | null;
  is_drifting: boolean | null;
}

const EPOCH = new Date(0);

/** Whether a device has differed for longer than it may; $1 is the time. Null counts as no. */
export const DRIFTS = `stored.differs_since < $1::timestamptz - greatest(
  interval '15 min', make_interval(secs => 3 * coalesce((presence.hello->>'sleep')::float8, 0)))`;

const COLUMNS = `SELECT device.device_id, device.organization_id, organization.slug AS organization,
  device.slug AS device, device.device_type AS type, coalesce(slot.uses_alias, true) AS uses_alias,
  coalesce((presence.hello->>'mps')::float8, ${PACKET_BYTES_STANDARD}) AS bytes_max,
  type.defaults, type.schema, coalesce(type.version, 0) AS type_version,
  stored.desired, stored.document, stored.version::float8, stored.changed_at, stored.changed_by,
  stored.device_type AS made_for_type, stored.type_version AS made_for_version, stored.held,
  stored.reported_version::float8, stored.is_applied, stored.reported, stored.reported_message,
  stored.reported_at, stored.differs_since, stored.published_version::float8,
  ${DRIFTS} AS is_drifting`;

const MORE = `
  JOIN organization ON organization.organization_id = device.organization_id
  LEFT JOIN configuration_type AS type
    ON type.organization_id = device.organization_id AND type.device_type = device.device_type
  LEFT JOIN command_slot AS slot ON slot.device_id = device.device_id
  LEFT JOIN device_presence AS presence ON presence.device_id = device.device_id`;

/** Reads rows; a device that was never configured has one with version 0. `$1` of the rest is the time. */
export async function readRows(
  client: pg.ClientBase,
  rest: string,
  values: readonly unknown[],
): Promise<ConfigurationRow[]> {
  const text = `${COLUMNS} FROM device
    LEFT JOIN device_configuration AS stored ON stored.device_id = device.device_id ${MORE} ${rest}`;
  const { rows } = await guardStore(client.query<Columns>(text, [...values]));
  return rows.map((row) => rowOf(row));
}

/**
 * Holds devices, so that none is deleted meanwhile; a deletion takes the device before its configuration,
 * and so does everything here. Left out are those that are gone, and those that somebody else is changing or
 * deleting, which takes minutes with years of readings.
 */
export async function holdDevices(
  client: pg.ClientBase,
  deviceIds: readonly number[],
): Promise<number[]> {
  const text = `SELECT device_id FROM device WHERE device_id = ANY($1::int4[])
    ORDER BY device_id FOR KEY SHARE SKIP LOCKED`;
  const { rows } = await guardStore(client.query<{ device_id: number }>(text, [[...deviceIds]]));
  return rows.map((row) => row.device_id);
}

/** Reads and holds the rows of devices, in the order of ids, so that two never wait in a circle. */
export async function lockRows(
  client: pg.ClientBase,
  deviceIds: readonly number[],
  at: Date,
): Promise<ConfigurationRow[]> {
  const text = `${COLUMNS} FROM device_configuration AS stored
    JOIN device ON device.device_id = stored.device_id ${MORE}
    WHERE stored.device_id = ANY($2::int4[]) ORDER BY stored.device_id FOR UPDATE OF stored`;
  const { rows } = await guardStore(client.query<Columns>(text, [at, [...deviceIds]]));
  return rows.map((row) => rowOf(row));
}

/** Makes rows of devices that have none: of version 0, which is never published. */
export async function addRows(
  client: pg.ClientBase,
  deviceIds: readonly number[],
  at: Date,
): Promise<void> {
  const text = `
    INSERT INTO device_configuration (device_id, organization_id, desired, document, version,
                                      changed_at, changed_by, published_version)
    SELECT device_id, organization_id, '{}', '{}', 0, $2, 'puback', 0
    FROM device WHERE device_id = ANY($1::int4[])
      AND NOT EXISTS (SELECT FROM device_configuration AS stored WHERE stored.device_id = device.device_id)
    ORDER BY device_id
    ON CONFLICT DO NOTHING`;
  await guardStore(client.query(text, [[...deviceIds], at]));
}

const SAVE = `
  WITH given AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS given (
      device_id int4, organization_id int4, desired jsonb, document jsonb, version int8,
      changed_at timestamptz, changed_by text, device_type text, type_version int4, held jsonb,
      reported_version int8, is_applied bool, reported jsonb, reported_message text,
      reported_at timestamptz, differs_since timestamptz, cause text)
  ), saved AS (
    UPDATE device_configuration AS stored SET
      desired = given.desired, document = given.document, version = given.version,
      changed_at = given.changed_at, changed_by = given.changed_by,
      device_type = given.device_type, type_version = given.type_version, held = given.held,
      reported_version = given.reported_version, is_applied = given.is_applied,
      reported = given.reported, reported_message = given.reported_message,
      reported_at = given.reported_at, differs_since = given.differs_since
    FROM given
    WHERE stored.device_id = given.device_id AND stored.organization_id = given.organization_id
    RETURNING given.*
  )
  INSERT INTO device_configuration_version (device_id, version, organization_id, desired, document,
                                            cause, created_at, created_by)
  SELECT device_id, version, organization_id, desired, document, cause, changed_at, changed_by
  FROM saved WHERE cause IS NOT NULL`;

/** Writes rows that are held by {@link lockRows}, and their new versions, in one statement. */
export async function saveRows(
  client: pg.ClientBase,
  saves: readonly ConfigurationSave[],
): Promise<void> {
  if (saves.length === 0) return;
  const given = saves.map(({ row, state, cause }) => ({
    device_id: row.deviceId,
    organization_id: row.organizationId,
    desired: state.desired,
    document: state.document,
    version: state.version,
    changed_at: state.changedAt,
    changed_by: state.changedBy,
    device_type: state.madeForType,
    type_version: state.madeForVersion,
    held: state.held,
    reported_version: state.reportedVersion,
    is_applied: state.isApplied,
    reported: state.reported,
    reported_message: state.reportedMessage,
    reported_at: state.reportedAt,
    differs_since: state.differsSince,
    cause,
  }));
  await guardStore(client.query(SAVE, [JSON.stringify(given)]));
}

/** A row as people see it. */
export function configurationOf(row: ConfigurationRow): DeviceConfiguration {
  const { version, reportedVersion, reportedAt } = row;
  const wasChanged = version > 0;
  return {
    device: row.device,
    type: row.type,
    version,
    desired: row.desired,
    document: row.document,
    changedAt: wasChanged ? row.changedAt : null,
    changedBy: wasChanged ? row.changedBy : null,
    reported:
      reportedVersion === null || reportedAt === null
        ? null
        : {
            version: reportedVersion,
            isApplied: row.isApplied === true,
            document: row.reported,
            message: row.reportedMessage,
            at: reportedAt,
          },
    differsSince: row.differsSince,
    isDrifting: row.isDrifting,
    held: row.held,
    isPublished: wasChanged && row.publishedVersion === version,
    packet: {
      bytes: wasChanged ? packetBytes(row, version, row.document) : 0,
      bytesMax: row.bytesMax,
    },
  };
}

function rowOf(row: Columns): ConfigurationRow {
  return {
    deviceId: row.device_id,
    organizationId: row.organization_id,
    organization: row.organization,
    device: row.device,
    usesAlias: row.uses_alias,
    bytesMax: row.bytes_max,
    type: row.type,
    defaults: row.defaults ?? {},
    schema: row.schema,
    typeVersion: row.type_version,
    desired: row.desired ?? {},
    document: row.document ?? {},
    version: row.version ?? 0,
    changedAt: row.changed_at ?? EPOCH,
    changedBy: row.changed_by ?? '',
    madeForType: row.made_for_type,
    madeForVersion: row.made_for_version ?? 0,
    held: row.held,
    reportedVersion: row.reported_version,
    isApplied: row.is_applied,
    reported: row.reported,
    reportedMessage: row.reported_message,
    reportedAt: row.reported_at,
    differsSince: row.differs_since,
    publishedVersion: row.published_version,
    isDrifting: row.is_drifting === true,
  };
}
