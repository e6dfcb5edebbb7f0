import { createHash } from 'node:crypto';
import {
  CommandBacklogError,
  CommandInvalidError,
  CommandTooBigError,
  IdempotencyKeyError,
} from '../command-errors.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import { findArgumentsFault } from '../firmware-protocol/command-arguments.ts';
import { COMMAND_NAME } from '../firmware-protocol/command.ts';
import type { CommandAuthor, CommandRequest } from './command.ts';
import type { QueuedCommand } from './command-row.ts';
import type { QueueDevice, QueueDraft } from './queue-draft.ts';
import type { HeldQueue } from './queue-store.ts';
import type { Idempotency } from './queue-write.ts';
import { TTL_MS_MAX } from './request-schema.ts';
import { packetBytesMax } from './slot.ts';
import { mayAskFor } from './system-command.ts';

const TTL_MS_MIN = 1000;
const NAME_LENGTH_MAX = 64;
const KEY_LENGTH_MAX = 128;
const READING_CONDITIONS_MAX = 10;

/** Bounds that a request is checked against. */
export interface QueueLimits {
  readonly ttlMs: number;
  readonly backlogMax: number;
}

/**
 * Says no to a request that can be no command whatever the device is. @throws {CommandInvalidError}
 */
export function checkRequest(request: CommandRequest): void {
  const { name, args, ttlMs, origin, precondition } = request;
  if (!COMMAND_NAME.test(name)) throw new CommandInvalidError('the name is not that of a command');
  if (!mayAskFor(origin, name)) {
    throw new CommandInvalidError(`${name} is sent by Puback itself`);
  }
  checkArguments('args', args);
  if (ttlMs !== null && !(ttlMs >= TTL_MS_MIN && ttlMs <= TTL_MS_MAX)) {
    throw new CommandInvalidError(`ttl: from ${TTL_MS_MIN} to ${TTL_MS_MAX} ms`);
  }
  checkText('ref', request.ref, NAME_LENGTH_MAX);
  checkText('replace', request.replaceKey, NAME_LENGTH_MAX);
  checkText('Idempotency-Key', request.idempotencyKey, KEY_LENGTH_MAX);
  if (precondition === null) return;
  checkArguments('precondition', precondition);
  if ((precondition.readings?.length ?? 0) > READING_CONDITIONS_MAX) {
    throw new CommandInvalidError(`precondition: at most ${READING_CONDITIONS_MAX} readings`);
  }
}

/**
 * The idempotency key of a request with what it was used for; null: it has none. @param asked the request
 * as it came: a definition that is changed does not make another one of it.
 */
export function idempotencyOf({ idempotencyKey, ...asked }: CommandRequest): Idempotency {
  if (idempotencyKey === null) return null;
  const hash = createHash('sha256').update(canonical(asked)).digest('hex');
  return { key: idempotencyKey, hash: `\\x${hash}` };
}

/**
 * Puts a command at the end of its device's queue. The slot is filled by who calls. Under an idempotency
 * key that was used before, nothing is put there. @returns the id of the command.
 * @throws {CommandTooBigError} @throws {CommandBacklogError} @throws {IdempotencyKeyError}
 */
export function enqueue(
  { draft, twin, others, awaitingCount }: HeldQueue,
  { author, request, idempotency }: Enqueued,
  limits: QueueLimits,
): { commandId: string; twin: QueuedCommand | null } {
  if (twin !== null) {
    if (twin.requestHash !== idempotency?.hash) throw new IdempotencyKeyError();
    return { commandId: twin.command.commandId, twin: twin.command };
  }
  const command = makeCommand(draft, author, request, limits);
  checkSize(draft.device, command, limits.backlogMax);
  if (command.state === 'queued') supersede(draft, others, command.commandId);
  const waiting = request.needsApproval ? awaitingCount : draft.waiting;
  if (waiting >= limits.backlogMax) {
    throw new CommandBacklogError(draft.device.device, limits.backlogMax);
  }
  draft.add(command);
  const { name, expiresAt, origin } = command;
  draft.audit({
    organizationId: author.organizationId,
    actor: author.actor,
    action: 'command.create',
    subject: subjectOf(command),
    change: { command: name, origin, expiresAt, needsApproval: request.needsApproval },
  });
  return { commandId: command.commandId, twin: null };
}

/** A request in whose name and under which key. */
export interface Enqueued {
  readonly author: CommandAuthor;
  readonly request: CommandRequest;
  readonly idempotency: Idempotency;
}

/** What the audit trail calls a command. */
export function subjectOf({ device, commandId }: QueuedCommand): string {
  return `device/${device}/command/${commandId}`;
}

/** Queued commands give way to a newer one with the same `replace`. */
export function supersede(
  draft: QueueDraft,
  others: readonly QueuedCommand[],
  byCommandId: string,
): void {
  const message = `replaced by ${byCommandId}`;
  for (const other of others) {
    if (other.commandId === byCommandId) continue;
    draft.take(other, 'cancel', { code: 'replaced', message }, { code: 'replaced', msg: message });
  }
}

function makeCommand(
  { device, nowMs }: QueueDraft,
  { actor }: CommandAuthor,
  request: CommandRequest,
  limits: QueueLimits,
): QueuedCommand {
  const { organizationId, organization, deviceId, device: slug } = device;
  const { idempotencyKey: _, needsApproval, ttlMs, isRetrySafe, ...asked } = request;
  // To the full second, as its device sees it: both have the same opinion of when it is over.
  const expiresAt = new Date(Math.ceil((nowMs + (ttlMs ?? limits.ttlMs)) / 1000) * 1000);
  const names = { organizationId, organization, deviceId, device: slug };
  return {
    ...UNTOUCHED,
    ...asked,
    ...names,
    commandId: makeUuidV7(nowMs),
    isRetrySafe: isRetrySafe ?? false,
    state: needsApproval ? 'awaiting_approval' : 'queued',
    createdAt: new Date(nowMs),
    expiresAt,
    actor,
  };
}

/** What a command has before anything has happened to it. */
const UNTOUCHED = {
  wireId: null,
  attempts: 0,
  publishedAt: null,
  sentAt: null,
  startedAt: null,
  endedAt: null,
  progress: null,
  result: null,
  code: null,
  message: null,
  isLate: false,
  approvedBy: null,
  approvedAt: null,
  cancelAskedAt: null,
  boot: null,
} as const;

function checkSize(device: QueueDevice, command: QueuedCommand, waitingMax: number): void {
  const bytes = packetBytesMax(device, command, waitingMax);
  if (bytes > device.packetBytesMax) throw new CommandTooBigError(bytes, device.packetBytesMax);
}

function checkArguments(what: string, value: object): void {
  const fault = findArgumentsFault(JSON.parse(JSON.stringify(value)));
  if (fault !== null) throw new CommandInvalidError(`${what}: ${fault.detail}`);
}

function checkText(what: string, text: string | null, lengthMax: number): void {
  if (text === null) return;
  if (text.length === 0 || text.length > lengthMax || /[\p{Cc}\p{Surrogate}]/u.test(text)) {
    throw new CommandInvalidError(`${what}: from 1 to ${lengthMax} characters, none of control`);
  }
}

/** JSON in which the order of members does not matter. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
}
