import type pg from 'pg';
import { cutPage, type Page } from '../drizzle/page.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import {
  inOrganization,
  inTransaction,
  type TenantDatabase,
  type Transaction,
} from '../drizzle/transaction.ts';
import { DeviceNotFoundError } from '../errors.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type { ByteRange } from './byte-range.ts';
import type { OfferedCommand } from './ports.ts';
import type { UpdateStep } from './update-judge.ts';
import type { DeviceUpdate, UpdateQuery, UpdateState } from './update.ts';

/** Columns of {@link UpdateRow}. */
export const UPDATE_COLUMNS = `update_id, device_update.organization_id, device_update.device_id,
  device.slug AS device, firmware_id, image.model, image.version, image.byte_count,
  device_update.command_id, device_update.campaign_id, from_version, device_update.state, bytes_sent,
  boots, boot_before::float8, boot_after::float8, device_update.code, detail, device_update.started_at,
  changed_at, active_at, device_update.ended_at`;
/** Where {@link UPDATE_COLUMNS} come from. */
export const UPDATE_FROM = `device_update
  JOIN firmware_image AS image USING (firmware_id)
  JOIN device ON device.device_id = device_update.device_id`;

/** A row of {@link UPDATE_FROM}. */
export interface UpdateRow {
  update_id: string;
  organization_id: number;
  device_id: number;
  device: string;
  firmware_id: string;
  model: string;
  version: string;
  byte_count: number;
  command_id: string | null;
  campaign_id: string | null;
  from_version: string | null;
  state: UpdateState;
  bytes_sent: number;
  boots: number;
  boot_before: number | null;
  boot_after: number | null;
  code: string | null;
  detail: string | null;
  started_at: Date;
  changed_at: Date;
  active_at: Date | null;
  ended_at: Date | null;
}

/** An update that has not ended, with what else is stored of its device and its command. */
export interface OpenUpdate {
  readonly update: DeviceUpdate;
  /** What the device said of itself last, and when; null: nothing. */
  readonly hello: Hello | null;
  readonly helloAt: Date | null;
  /** Null: it is not known, or there is none. */
  readonly command: OfferedCommand | null;
}

const DETAIL_CHARS_MAX = 500;

/** Makes an update of its row. */
export function updateOf(row: UpdateRow): DeviceUpdate {
  return {
    updateId: row.update_id,
    organizationId: row.organization_id,
    deviceId: row.device_id,
    device: row.device,
    firmwareId: row.firmware_id,
    model: row.model,
    version: row.version,
    byteCount: row.byte_count,
    commandId: row.command_id,
    campaignId: row.campaign_id,
    fromVersion: row.from_version,
    state: row.state,
    bytesSent: row.bytes_sent,
    boots: row.boots,
    bootBefore: row.boot_before,
    bootAfter: row.boot_after,
    code: row.code,
    detail: row.detail,
    startedAt: row.started_at,
    changedAt: row.changed_at,
    activeAt: row.active_at,
    endedAt: row.ended_at,
  };
}

/** The table `device_update`. Every function throws {@link StoreUnavailableError}. */
export class UpdateStore {
  readonly #database: TenantDatabase;
  readonly #now: () => number;

  constructor(database: TenantDatabase, now: () => number) {
    this.#database = database;
    this.#now = now;
  }

  /** Null when the organization has none with this id. */
  async find(organizationId: number, updateId: string): Promise<DeviceUpdate | null> {
    const { rows } = await inOrganization(this.#database, organizationId, ({ client }) =>
      client.query<UpdateRow>(
        `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM}
         WHERE device_update.organization_id = $1 AND update_id = $2`,
        [organizationId, updateId],
      ),
    );
    return rows[0] === undefined ? null : updateOf(rows[0]);
  }

  /** Newest first. @throws {DeviceNotFoundError} */
  list({ organizationId, device, limit, after }: UpdateQuery): Promise<Page<DeviceUpdate>> {
    // No row of any device has it, and PostgreSQL cannot hold it.
    if (device.includes('\0')) return Promise.reject(new DeviceNotFoundError(device));
    return inOrganization(this.#database, organizationId, async ({ client }) => {
      const found = await client.query<{ device_id: number }>(
        'SELECT device_id FROM device WHERE organization_id = $1 AND slug = $2',
        [organizationId, device],
      );
      const deviceId = found.rows[0]?.device_id;
      if (deviceId === undefined) throw new DeviceNotFoundError(device);
      const { rows } = await client.query<UpdateRow>(
        `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM}
         WHERE device_update.organization_id = $1 AND device_update.device_id = $2
           AND ($3::uuid IS NULL OR update_id < $3)
         ORDER BY update_id DESC LIMIT $4`,
        [organizationId, deviceId, after, limit + 1],
      );
      return cutPage(rows.map(updateOf), limit);
    });
  }

  /** What a campaign did with these devices. */
  async ofCampaign(
    organizationId: number,
    campaignId: string,
    deviceIds: readonly number[],
  ): Promise<DeviceUpdate[]> {
    const { rows } = await guardStore(
      this.#database.pool.query<UpdateRow>(
        `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM}
         WHERE device_update.organization_id = $1 AND device_update.campaign_id = $2
           AND device_update.device_id = ANY($3)`,
        [organizationId, campaignId, deviceIds],
      ),
    );
    return rows.map(updateOf);
  }

  /**
   * Judges an open update while nobody else does, and writes what the judge says.
   * @param also done in the same transaction when something has changed.
   * @returns the update as it is then; null when there is none or nothing has changed.
   */
  apply(
    key: UpdateKey,
    judge: (update: DeviceUpdate) => UpdateStep | null,
    also?: (transaction: Transaction) => Promise<void>,
  ): Promise<DeviceUpdate | null> {
    const [column, value] =
      'updateId' in key ? ['update_id', key.updateId] : ['device_id', key.deviceId];
    const { organizationId = null } = key;
    const work = async (transaction: Transaction): Promise<DeviceUpdate | null> => {
      const { client } = transaction;
      const { rows } = await client.query<UpdateRow>(
        `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM}
         WHERE device_update.${column} = $1 AND device_update.ended_at IS NULL
           AND ($2::int4 IS NULL OR device_update.organization_id = $2)
         FOR UPDATE OF device_update`,
        [value, organizationId],
      );
      const [row] = rows;
      if (row === undefined) return null;
      const step = judge(updateOf(row));
      if (step === null || Object.keys(step).length === 0) return null;
      await writeStep(client, row.update_id, step, this.#now());
      await also?.(transaction);
      const written = await client.query<UpdateRow>(
        `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM} WHERE update_id = $1`,
        [row.update_id],
      );
      return written.rows[0] === undefined ? null : updateOf(written.rows[0]);
    };
    return organizationId === null
      ? inTransaction(this.#database.pool, work)
      : inOrganization(this.#database, organizationId, work);
  }

  /** Notes the command of an update. @returns whether the update is still open. */
  async link(
    { updateId, organizationId }: Pick<DeviceUpdate, 'updateId' | 'organizationId'>,
    commandId: string,
  ): Promise<boolean> {
    const { rows } = await inOrganization(this.#database, organizationId, ({ client }) =>
      client.query<{ is_open: boolean }>(
        `UPDATE device_update SET command_id = $3 WHERE organization_id = $1 AND update_id = $2
         RETURNING ended_at IS NULL AS is_open`,
        [organizationId, updateId, commandId],
      ),
    );
    return rows[0]?.is_open ?? false;
  }

  /** Forgets an update for which there is no command. */
  async drop(updateId: string): Promise<void> {
    await guardStore(
      this.#database.pool.query(
        'DELETE FROM device_update WHERE update_id = $1 AND command_id IS NULL',
        [updateId],
      ),
    );
  }

  /** Notes that bytes of the image were sent; behind its last byte the device is about to install it. */
  async noteSent(updateId: string, { start, end }: ByteRange): Promise<void> {
    await guardStore(
      this.#database.pool.query(
        `UPDATE device_update AS old SET bytes_sent = sent.bytes, state = sent.state,
           active_at = to_timestamp($4::float8 / 1000),
           changed_at = CASE WHEN old.state = sent.state THEN old.changed_at
                             ELSE to_timestamp($4::float8 / 1000) END
         FROM (
           SELECT update_id, bytes,
                  CASE WHEN bytes >= byte_count AND $3 > $2 THEN 'installing'
                       ELSE 'downloading' END AS state
           FROM (SELECT update_id, byte_count,
                        CASE WHEN $2 <= bytes_sent THEN greatest(bytes_sent, $3)
                             ELSE bytes_sent END AS bytes
                 FROM device_update JOIN firmware_image USING (firmware_id)
                 WHERE update_id = $1) AS counted
         ) AS sent
         WHERE old.update_id = sent.update_id AND old.ended_at IS NULL`,
        [updateId, start, end, this.#now()],
      ),
    );
  }

  /** Devices that have an update which has not ended. */
  async openDevices(): Promise<number[]> {
    const { rows } = await guardStore(
      this.#database.pool.query<{ device_id: number }>(
        'SELECT device_id FROM device_update WHERE ended_at IS NULL',
      ),
    );
    return rows.map((row) => row.device_id);
  }

  /** Open updates in the order of their devices, those behind a device. */
  async openUpdates(afterDevice: number, limit: number): Promise<OpenUpdate[]> {
    const { rows } = await guardStore(
      this.#database.pool.query<OpenRow>(
        `SELECT ${UPDATE_COLUMNS}, presence.hello - 'u' AS hello, presence.hello_at,
                command.command_id AS offered_id, command.state AS command_state,
                command.progress, command.code AS command_code, command.message
         FROM ${UPDATE_FROM}
         LEFT JOIN device_presence AS presence ON presence.device_id = device_update.device_id
         LEFT JOIN command ON command.organization_id = device_update.organization_id
           AND (command.command_id = device_update.command_id
             OR device_update.command_id IS NULL
               AND command.idempotency_key = 'update:' || update_id)
         WHERE device_update.ended_at IS NULL AND device_update.device_id > $1
         ORDER BY device_update.device_id LIMIT $2`,
        [afterDevice, limit],
      ),
    );
    return rows.map(openOf);
  }

  /** Commands of updates that have ended, and were to end with them. */
  async unsettled(limit: number): Promise<DeviceUpdate[]> {
    const { rows } = await guardStore(
      this.#database.pool.query<UpdateRow>(
        `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM}
         JOIN command ON command.command_id = device_update.command_id
         WHERE command.state = 'running' AND device_update.ended_at IS NOT NULL LIMIT $1`,
        [limit],
      ),
    );
    return rows.map(updateOf);
  }
}

/**
 * An update, or that of a device. With an organization it is judged in the name of one, under its role;
 * without by the program for itself.
 */
export type UpdateKey = ({ readonly updateId: string } | { readonly deviceId: number }) & {
  readonly organizationId?: number;
};

interface OpenRow extends UpdateRow {
  hello: Hello | null;
  hello_at: Date | null;
  offered_id: string | null;
  command_state: string | null;
  progress: number | null;
  command_code: string | null;
  message: string | null;
}

function openOf(row: OpenRow): OpenUpdate {
  const { offered_id: commandId, command_state: state } = row;
  const known = { name: 'sys.ota', origin: 'update', ref: row.update_id, progress: row.progress };
  return {
    update: updateOf(row),
    hello: row.hello,
    helloAt: row.hello_at,
    command:
      commandId === null || state === null
        ? null
        : { ...known, commandId, state, code: row.command_code, message: row.message },
  };
}

async function writeStep(
  client: pg.PoolClient,
  updateId: string,
  step: UpdateStep,
  nowMs: number,
): Promise<void> {
  await client.query(
    `UPDATE device_update SET
       changed_at = CASE WHEN state = coalesce($2, state) THEN changed_at ELSE written.at END,
       state = coalesce($2, state),
       code = coalesce($3, code), detail = coalesce($4, detail),
       from_version = coalesce($5, from_version), boots = coalesce($6, boots),
       boot_before = coalesce($7, boot_before), boot_after = coalesce($8, boot_after),
       heard_at = CASE WHEN $9 THEN written.at ELSE heard_at END,
       active_at = CASE WHEN $9 THEN written.at ELSE active_at END,
       ended_at = CASE WHEN $2 IN ('succeeded', 'failed', 'rolled_back') THEN written.at END
     FROM (SELECT to_timestamp($10::float8 / 1000) AS at) AS written
     WHERE update_id = $1`,
    [
      ...[updateId, step.state ?? null, step.code ?? null],
      ...[step.detail?.slice(0, DETAIL_CHARS_MAX) ?? null, step.fromVersion ?? null],
      ...[step.boots ?? null, step.bootBefore ?? null, step.bootAfter ?? null],
      ...[step.isHeard === true, nowMs],
    ],
  );
}
