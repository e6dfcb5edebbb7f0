import pg from 'pg';
import {
  inTransactionBetween,
  type LastStatements,
  type TenantDatabase,
  type Transaction,
} from '../drizzle/transaction.ts';
import { CLIENT_PACKET_BYTES_DEFAULT } from '../firmware-protocol/command.ts';
import type { AuditStatement } from './audit.ts';
import type { CommandEvent, Precondition } from './command.ts';
import { commandOf, type CommandRow, type QueuedCommand } from './command-row.ts';
import { holds, type DeviceFacts, type NewestReading } from './precondition.ts';
import { QueueDraft, type QueueDevice } from './queue-draft.ts';
import { writeOf, writtenOf, type Idempotency } from './queue-write.ts';
import { placeHead, type PlacingSource } from './slot.ts';

/** Whose queue, and what of it beside the slot and those that wait for it. */
export interface QueueWanted {
  readonly organizationId: number;
  /** One of these three names the device. */
  readonly deviceId?: number;
  readonly device?: string;
  /** Its command is the subject. */
  readonly commandId?: string;
  /** The command with this id in the slot is the subject. */
  readonly wireId?: number;
  readonly idempotencyKey?: string | null;
  /** Others: queued ones with this key. */
  readonly replaceKey?: string | null;
  /** Others: at most 500 whose time is over by then. */
  readonly overdueAt?: Date;
  /** Others: those that run. */
  readonly running?: true;
  /** Count those that wait for approval. */
  readonly awaiting?: true;
  /** Whether it is done in the name of the organization, under its role. */
  readonly asTenant: boolean;
}

/** A queue that was taken hold of. */
export interface HeldQueue {
  readonly transaction: Transaction;
  readonly draft: QueueDraft;
  readonly subject: QueuedCommand | null;
  /** The command with the idempotency key, and the hash of its request in hexadecimal. */
  readonly twin: { readonly command: QueuedCommand; readonly requestHash: string | null } | null;
  readonly others: readonly QueuedCommand[];
  readonly awaitingCount: number;
}

/** What was committed. */
export interface QueueTurn<T> {
  readonly result: T;
  readonly draft: QueueDraft;
  /** Whether the slot has what it can have; if not, another turn has to go on. */
  readonly isDone: boolean;
  /** Revision of the slot; null: it was not changed. */
  readonly revision: number | null;
  readonly events: readonly CommandEvent[];
}

/** What {@link takeTurn} works with. */
export interface QueueStoreParts {
  readonly database: TenantDatabase;
  readonly auditStatement: AuditStatement;
}

interface LockedQueue {
  readonly deviceId: number;
  readonly device: string;
  readonly organization: string;
  readonly hello: { readonly mps: number | null; readonly boot: number | null } | null;
  readonly slot: {
    readonly last_id: number;
    readonly revision: number;
    readonly uses_alias: boolean;
    readonly boot: number | null;
  };
  readonly head: CommandRow | null;
  readonly queued: readonly CommandRow[];
  readonly queuedCount: number;
  readonly subject: CommandRow | null;
  readonly twin: CommandRow | null;
  readonly others: readonly CommandRow[] | null;
  readonly awaitingCount: number | null;
}

/** Queued ones that are read at a time. */
const QUEUED_MAX = 20;

/**
 * Takes hold of a queue, lets `decide` change it in memory, fills the slot when it is free, and writes
 * all of it: two ways to the server. Null: there is no such device or command.
 * @throws {StoreUnavailableError} and what `decide` throws, then nothing has changed.
 */
export async function takeTurn<T>(
  { database, auditStatement }: QueueStoreParts,
  wanted: QueueWanted,
  nowMs: number,
  decide: (held: HeldQueue) => T | Promise<T>,
  idempotency: Idempotency = null,
): Promise<QueueTurn<T> | null> {
  const { organizationId, asTenant } = wanted;
  const asked = JSON.stringify({ ...wanted, queuedMax: QUEUED_MAX });
  const lock = `SELECT command_queue_lock(${pg.escapeLiteral(asked)}::jsonb) AS locked`;
  const work = async (
    transaction: Transaction,
    [row]: readonly { readonly locked: LockedQueue | null }[],
  ): Promise<LastStatements<QueueTurn<T> | null>> => {
    const locked = row?.locked ?? null;
    if (locked === null) return { text: null, result: () => null };
    const held = heldQueue(transaction, locked, wanted, nowMs);
    const result = await decide(held);
    const { draft } = held;
    const isDone = await placeHead(draft, placingSource(transaction));
    const text = draft.isChanged ? writeOf(draft, idempotency, auditStatement) : null;
    return { text, result: (rows) => ({ result, draft, isDone, ...writtenOf(draft, rows) }) };
  };
  return inTransactionBetween(database, asTenant ? organizationId : null, lock, work);
}

function heldQueue(
  transaction: Transaction,
  locked: LockedQueue,
  wanted: QueueWanted,
  nowMs: number,
): HeldQueue {
  const { organization, device, slot, hello } = locked;
  const names = { organization, device };
  const read = (row: CommandRow): QueuedCommand => commandOf(row, names);
  const queueDevice: QueueDevice = {
    ...names,
    organizationId: wanted.organizationId,
    deviceId: locked.deviceId,
    packetBytesMax: hello?.mps ?? CLIENT_PACKET_BYTES_DEFAULT,
    usesAlias: slot.uses_alias,
  };
  const head = locked.head === null ? null : read(locked.head);
  const sight = {
    device: queueDevice,
    slot: {
      lastId: slot.last_id,
      head,
      revision: slot.revision,
      boot: slot.boot ?? hello?.boot ?? null,
    },
    queued: locked.queued.map(read),
    queuedCount: locked.queuedCount,
  };
  const { subject, twin, others, awaitingCount } = locked;
  return {
    transaction,
    draft: new QueueDraft(sight, nowMs),
    subject: subject === null ? null : read(subject),
    twin: twin === null ? null : { command: read(twin), requestHash: twin.request_hash },
    others: (others ?? []).map(read),
    awaitingCount: awaitingCount ?? 0,
  };
}

function placingSource({ client }: Transaction): PlacingSource {
  return {
    async more({ device, readCount }) {
      const { rows } = await client.query<{ row: CommandRow }>(
        `SELECT to_jsonb(one) AS row
         FROM (SELECT * FROM command WHERE device_id = $1 AND state = 'queued'
               ORDER BY queue_number OFFSET $2 LIMIT $3) AS one`,
        [device.deviceId, readCount, QUEUED_MAX],
      );
      return rows.map(({ row }) => commandOf(row, device));
    },
    async holds({ device, nowMs }, precondition) {
      return holds(precondition, await readFacts(client, device.deviceId, precondition), nowMs);
    },
  };
}

async function readFacts(
  client: Transaction['client'],
  deviceId: number,
  { readings = [] }: Precondition,
): Promise<DeviceFacts> {
  const { rows } = await client.query<{
    reported: Record<string, unknown> | null;
    readings: Record<string, NewestReading> | null;
  }>(
    `SELECT
       (SELECT reported FROM device_configuration WHERE device_id = $1) AS reported,
       (SELECT jsonb_object_agg(metric.name, jsonb_build_object(
          'timeMs', extract(epoch FROM latest.time) * 1000,
          'value', CASE metric.kind
            WHEN 'bool' THEN to_jsonb(latest.value <> 0)
            WHEN 'text' THEN to_jsonb(latest.text_value)
            ELSE to_jsonb(latest.value) END))
        FROM device_latest AS latest JOIN metric USING (metric_id)
        WHERE latest.device_id = $1 AND metric.name = ANY($2)) AS readings`,
    [deviceId, readings.map(({ metric }) => metric)],
  );
  const [row] = rows;
  return {
    reported: row?.reported ?? null,
    readings: new Map(Object.entries(row?.readings ?? {})),
  };
}
