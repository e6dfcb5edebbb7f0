import { withLiterals } from '../drizzle/literals.ts';
import type { AuditStatement } from './audit.ts';
import type { CommandEvent } from './command.ts';
import { changedColumns, newColumns } from './command-row.ts';
import type { QueueDraft } from './queue-draft.ts';

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

/** What goes with new commands into their rows; null: they have no key. The hash is of what was asked for. */
export type Idempotency = { readonly key: string; readonly hash: string } | null;

/** The statements that write a draft; the first gives the ids of its steps, in their order. */
export function writeOf(
  draft: QueueDraft,
  idempotency: Idempotency,
  auditStatement: AuditStatement,
): string {
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
  return [text, ...moves, ...draft.auditEntries.map(auditStatement)].join('; ');
}

/** What was written: `rows` are those of the first statement of {@link writeOf}. */
export function writtenOf(
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
