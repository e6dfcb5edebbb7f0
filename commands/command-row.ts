import type { Command, CommandOrigin, CommandState, Precondition } from './command.ts';

/** A row of `command` as `to_jsonb` gives it. */
export interface CommandRow {
  readonly command_id: string;
  readonly organization_id: number;
  readonly device_id: number;
  readonly queue_number: number;
  readonly name: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly state: CommandState;
  readonly wire_id: number | null;
  readonly ref: string | null;
  readonly replace_key: string | null;
  readonly is_retry_safe: boolean;
  readonly attempts: number;
  readonly precondition: Precondition | null;
  readonly created_at: string;
  readonly expires_at: string;
  readonly published_at: string | null;
  readonly sent_at: string | null;
  readonly started_at: string | null;
  readonly ended_at: string | null;
  readonly boot: number | null;
  readonly progress: number | null;
  readonly result: unknown;
  readonly code: string | null;
  readonly message: string | null;
  readonly is_late: boolean;
  readonly origin: CommandOrigin;
  readonly actor: string;
  readonly campaign_id: string | null;
  readonly request_hash: string | null;
  readonly approved_by: string | null;
  readonly approved_at: string | null;
  readonly cancel_asked_at: string | null;
}

/** Names that the rows of commands do not carry. */
export interface CommandNames {
  readonly organization: string;
  readonly device: string;
}

/** A command with what only its queue needs to know. */
export interface QueuedCommand extends Command {
  /** Boot of the device in which it began to run; null: not known. */
  readonly boot: number | null;
}

/** Reads a row. */
export function commandOf(row: CommandRow, { organization, device }: CommandNames): QueuedCommand {
  return {
    commandId: row.command_id,
    organizationId: row.organization_id,
    organization,
    deviceId: row.device_id,
    device,
    name: row.name,
    args: row.args,
    state: row.state,
    wireId: row.wire_id,
    ref: row.ref,
    replaceKey: row.replace_key,
    isRetrySafe: row.is_retry_safe,
    attempts: row.attempts,
    precondition: row.precondition,
    createdAt: new Date(row.created_at),
    expiresAt: new Date(row.expires_at),
    publishedAt: dateOf(row.published_at),
    sentAt: dateOf(row.sent_at),
    startedAt: dateOf(row.started_at),
    endedAt: dateOf(row.ended_at),
    progress: row.progress,
    result: row.result,
    code: row.code,
    message: row.message,
    isLate: row.is_late,
    origin: row.origin,
    actor: row.actor,
    campaignId: row.campaign_id,
    approvedBy: row.approved_by,
    approvedAt: dateOf(row.approved_at),
    cancelAskedAt: dateOf(row.cancel_asked_at),
    boot: row.boot,
  };
}

/** What of a command changes after it was made, as `jsonb_to_recordset` reads it. */
export function changedColumns(command: QueuedCommand): Record<string, unknown> {
  return {
    command_id: command.commandId,
    state: command.state,
    wire_id: command.wireId,
    attempts: command.attempts,
    published_at: command.publishedAt,
    sent_at: command.sentAt,
    started_at: command.startedAt,
    ended_at: command.endedAt,
    boot: command.boot,
    progress: command.progress,
    result: command.result,
    code: command.code,
    message: command.message,
    is_late: command.isLate,
    approved_by: command.approvedBy,
    approved_at: command.approvedAt,
    cancel_asked_at: command.cancelAskedAt,
  };
}

/** All of a new command. */
export function newColumns(command: QueuedCommand): Record<string, unknown> {
  return {
    ...changedColumns(command),
    name: command.name,
    args: command.args,
    ref: command.ref,
    replace_key: command.replaceKey,
    is_retry_safe: command.isRetrySafe,
    precondition: command.precondition,
    created_at: command.createdAt,
    expires_at: command.expiresAt,
    origin: command.origin,
    actor: command.actor,
    campaign_id: command.campaignId,
  };
}

function dateOf(text: string | null): Date | null {
  return text === null ? null : new Date(text);
}
