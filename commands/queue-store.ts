import pg from 'pg';
import {
  inTransactionBetween,
  type LastStatements,
  type TenantDatabase,
  type Transaction,
} from '../drizzle/transaction.ts';
import { CLIENT_PACKET_BYTES_DEFAULT } from '../firmware-protocol/command.ts';
import type { CommandEvent, Precondition } from './command.ts';
import {
  changedColumns,
  commandOf,
  newColumns,
  type CommandRow,
  type QueuedCommand,
} from './command-row.ts';
import { holds, type DeviceFacts, type NewestReading } from './precondition.ts';
import { QueueDraft, type QueueDevice } from './queue-draft.ts';
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

const CHANGED = `changed AS (
  UPDATE command SET
    state = x.state, wire_id = x.wire_id, attempts = x.attempts, published_at = x.published_at,
    sent_at = x.sent_at, started_at = x.started_at, ended_at = x.ended_at, boot = x.boot,
    progress = x.progress, result = x.result, code = x.code, message = x.message,
    is_late = x.is_late, approved_by = x.approved_by, approved_at = x.approved_at,
    cancel_asked_at = x.cancel_asked_at
  FROM jsonb_to_recordset($3::jsonb) AS x (
    command_id uuid, state text, wire_id int8, attempts int2, published_at timestamptz,
    sent_at timestamptz, started_at timestamptz, ended_at timestamptz, boot int8, progress int2,
    result jsonb, code text, message text, is_late bool, approved_by text, approved_at timestamptz,
    cancel_asked_at timestamptz)
  WHERE command.command_id = x.command_id AND command.organization_id = $1
)`;
const ADDED = `added AS (
  INSERT INTO command (
    command_id, organization_id, device_id, name, args, state, wire_id, ref, replace_key,
    is_retry_safe, attempts, precondition, created_at, expires_at, published_at, ended_at, code,
    message, origin, actor, campaign_id, idempotency_key, request_hash)
  SELECT command_id, $1, $2, name, args, state, wire_id, ref, replace_key, is_retry_safe, attempts,
    precondition, created_at, expires_at, published_at, ended_at, code, message, origin, actor,
    campaign_id, idempotency_key, request_hash::bytea
  FROM jsonb_to_recordset($4::jsonb) AS x (
    command_id uuid, name text, args jsonb, state text, wire_id int8, ref text, replace_key text,
    is_retry_safe bool, attempts int2, precondition jsonb, created_at timestamptz,
    expires_at timestamptz, published_at timestamptz, ended_at timestamptz, code text, message text,
    origin text, actor text, campaign_id uuid, idempotency_key text, request_hash text)
)`;
const SLOT = `slot AS (
  UPDATE command_slot SET
    last_id = $6, head_command_id = $7, boot = $8, revision = revision + $9
  WHERE device_id = $2 AND organization_id = $1
)`;
const EVENTS = `INSERT INTO command_event (command_id, organization_id, device_id, occurred_at, state, detail)
  SELECT x."commandId", $1, $2, $10::timestamptz, x.state, x.detail
  FROM ROWS FROM (
    jsonb_to_recordset($5::jsonb) AS ("commandId" uuid, state text, detail jsonb)
  ) WITH ORDINALITY AS x ("commandId", state, detail, place)
  ORDER BY x.place
  RETURNING command_event_id`;
const WRITE = `WITH ${CHANGED}, ${ADDED}, ${SLOT} ${EVENTS}`;
const TO_THE_FRONT = `UPDATE command SET queue_number = coalesce(
    (SELECT min(queue_number) - 1 FROM command WHERE device_id = $1 AND state = 'queued'),
    queue_number)
  WHERE command_id = $2`;

/** What goes with new commands into their rows. */
export type Idempotency = { readonly key: string; readonly hash: string } | null;

/**
 * Takes hold of a queue, lets `decide` change it in memory, fills the slot when it is free, and writes
 * all of it: two ways to the server. Null: there is no such device or command.
 * @throws {StoreUnavailableError} and what `decide` throws, then nothing has changed.
 */
export async function takeTurn<T>(
  database: TenantDatabase,
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
    const text = draft.isChanged ? writeOf(draft, idempotency) : null;
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

/** The statements that write a draft; the first gives the ids of its steps, in their order. */
function writeOf(draft: QueueDraft, idempotency: Idempotency): string {
  const { device, slot, nowMs, steps } = draft;
  const shared = {
    idempotency_key: idempotency?.key ?? null,
    request_hash: idempotency?.hash ?? null,
  };
  const added = [...draft.added.values()].map((one) => ({ ...newColumns(one), ...shared }));
  const text = withLiterals(WRITE, [
    device.organizationId,
    device.deviceId,
    JSON.stringify([...draft.changed.values()].map(changedColumns)),
    JSON.stringify(added),
    JSON.stringify(steps),
    slot.lastId,
    slot.head?.commandId ?? null,
    slot.boot,
    draft.isSlotChanged ? 1 : 0,
    new Date(nowMs).toISOString(),
  ]);
  const moves = [...draft.firsts].map((one) => withLiterals(TO_THE_FRONT, [device.deviceId, one]));
  return [text, ...moves].join('; ');
}

function writtenOf(
  draft: QueueDraft,
  rows: readonly unknown[],
): { revision: number | null; events: CommandEvent[] } {
  const { slot, nowMs, steps, isChanged, isSlotChanged } = draft;
  if (!isChanged) return { revision: null, events: [] };
  const ids = rows as readonly { readonly command_event_id: string }[];
  const occurredAt = new Date(nowMs);
  const events = steps.map((taken, place) => ({
    ...taken,
    commandEventId: Number(ids[place]?.command_event_id),
    occurredAt,
  }));
  return { revision: isSlotChanged ? slot.revision + 1 : null, events };
}

/** A statement with its values in the places of `$1` and so on. */
function withLiterals(text: string, values: readonly (string | number | null)[]): string {
  return text.replaceAll(/\$(\d+)/g, (_, place: string) => {
    const value = values[Number(place) - 1] ?? null;
    if (value === null) return 'NULL';
    return typeof value === 'number' ? String(value) : pg.escapeLiteral(value);
  });
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
