import { Buffer } from 'node:buffer';
import { isDeepStrictEqual } from 'node:util';
import {
  encodeSlotCommand,
  publishPacketBytes,
  SLOT_ID_MAX,
  slotPacketBytesMax,
  type SlotCommand,
} from '../firmware-protocol/command.ts';
import { aliasTopic, canonicalTopic } from '../firmware-protocol/topics.ts';
import type { Command, Precondition } from './command.ts';
import type { CommandNames, QueuedCommand } from './command-row.ts';
import type { QueueDevice, QueueDraft } from './queue-draft.ts';

/** What the next command for a slot is looked up with. */
export interface PlacingSource {
  /** Queued ones behind the last that the draft has read. */
  readonly more: (draft: QueueDraft) => Promise<readonly QueuedCommand[]>;
  /** Whether a precondition holds now. */
  readonly holds: (draft: QueueDraft, precondition: Precondition) => Promise<boolean>;
}

const SLOT = 'in/cmd';
/** No id that leaves fewer than these for the device is taken over from what it says. */
const IDS_LEFT_MIN = 1_000_000;

/** Commands that one transaction ends on the way to the next head. */
const ENDED_MAX = 200;

/** The slot's topic, as everybody but the device spells it. */
export function slotTopic(names: CommandNames): string {
  return canonicalTopic(names, SLOT);
}

/** The largest packet that a command can become for this device, in bytes. */
export function packetBytesMax(
  device: QueueDevice,
  command: Pick<Command, 'name' | 'args' | 'expiresAt'>,
  waitingMax: number,
): number {
  return slotPacketBytesMax(spelledTopic(device), wireForm(command), waitingMax);
}

/**
 * Fills an empty slot with the head of the queue. Those on the way to it whose time is over, whose
 * precondition does not hold or that the device cannot receive end: the queue always moves on.
 * @returns whether it is done; if not, two hundred have ended and the next turn goes on.
 */
export async function placeHead(draft: QueueDraft, source: PlacingSource): Promise<boolean> {
  let ended = 0;
  while (draft.slot.head === null && draft.queuedCount > 0) {
    if (ended === ENDED_MAX) return false;
    if (draft.next === null) {
      draft.read(await source.more(draft));
    } else {
      await placeOrEnd(draft, draft.next, source);
      ended += 1;
    }
  }
  return true;
}

/** What the slot of a draft says; zero length when nothing waits. */
export function slotPayload({ slot: { head }, waiting }: QueueDraft): Buffer {
  return head === null ? Buffer.alloc(0) : encodeHead(head, waiting);
}

/** What the slot says of its command. */
export function encodeHead(head: Command, waiting: number): Buffer {
  return encodeSlotCommand(slotCommand(head, waiting));
}

/** A command as its device sees it. */
export function slotCommand(head: Command, waiting: number): SlotCommand {
  return { id: head.wireId ?? 0, ...wireForm(head), n: waiting };
}

/**
 * Whether a retained payload says what the table says. How many wait is not looked at: the slot is not
 * published again for that, as its device would answer again.
 */
export function isSameSlot(retained: Buffer | null, head: Command | null): boolean {
  if (retained === null || retained.length === 0) return head === null;
  if (head === null) return false;
  const found = readSlot(retained);
  if (found === null) return false;
  const wanted = slotCommand(head, 0);
  return isDeepStrictEqual(
    { ...found, n: 0 },
    // As it looks once it has been JSON.
    JSON.parse(JSON.stringify(wanted)),
  );
}

/** Reads a slot that was published; null when it is empty or none. */
export function readSlot(retained: Buffer | null): SlotCommand | null {
  if (retained === null || retained.length === 0) return null;
  try {
    return JSON.parse(retained.toString()) as SlotCommand;
  } catch {
    return null;
  }
}

/**
 * Takes over what the device says of the ids that it has seen: after a restore of an old backup it knows
 * more of them than the table. One that would leave none is not believed.
 */
export function healLastId(draft: QueueDraft, last: number | undefined): void {
  if (last !== undefined && last <= SLOT_ID_MAX - IDS_LEFT_MIN) draft.heal(last);
}

/**
 * The device says which packets it can receive by now. One that it cannot must not stay in the slot: some
 * clients drop it without a word, others close the connection, again and again. What it says it has taken
 * already has an outcome that nobody will know.
 */
export function fitHead(draft: QueueDraft, packetBytesMax: number, lastTaken = 0): void {
  draft.describe({ packetBytesMax });
  const { head } = draft.slot;
  if (head === null) return;
  const payload = encodeHead(head, draft.waiting);
  const refusal = findOversize(draft.device, payload.length);
  if (refusal === null) return;
  const { code, message } = refusal;
  const isTaken = lastTaken >= (head.wireId ?? 0);
  draft.take(head, isTaken ? 'dup' : 'refuse', refusal, { code, msg: message });
}

async function placeOrEnd(
  draft: QueueDraft,
  next: QueuedCommand,
  source: PlacingSource,
): Promise<void> {
  const { nowMs, slot } = draft;
  if (next.expiresAt.getTime() <= nowMs) {
    draft.take(next, 'expire');
    return;
  }
  const refusal = await findRefusal(draft, next, source);
  if (refusal !== null) {
    draft.take(next, 'refuse', refusal, { code: refusal.code, msg: refusal.message });
    return;
  }
  const wireId = Math.min(SLOT_ID_MAX, Math.max(slot.lastId + 1, Math.floor(nowMs / 1000)));
  draft.heal(wireId);
  const publishedAt = new Date(nowMs);
  draft.take(next, 'place', { wireId, publishedAt, sentAt: null, attempts: next.attempts + 1 });
}

async function findRefusal(
  draft: QueueDraft,
  next: QueuedCommand,
  source: PlacingSource,
): Promise<{ readonly code: string; readonly message: string } | null> {
  const { device, slot } = draft;
  if (slot.lastId >= SLOT_ID_MAX) {
    return { code: 'ids_exhausted', message: 'the device has used up all ids of commands' };
  }
  const { precondition } = next;
  if (precondition !== null && !(await source.holds(draft, precondition))) {
    return { code: 'precondition_failed', message: 'its precondition did not hold' };
  }
  const payload = encodeSlotCommand({ ...wireForm(next), id: SLOT_ID_MAX, n: draft.waiting });
  return findOversize(device, payload.length);
}

function findOversize(
  device: QueueDevice,
  payloadBytes: number,
): { readonly code: string; readonly message: string } | null {
  const bytes = publishPacketBytes(spelledTopic(device), payloadBytes);
  if (bytes <= device.packetBytesMax) return null;
  return {
    code: 'too_big',
    message: `a packet of ${bytes} bytes, the device takes ${device.packetBytesMax}`,
  };
}

function wireForm(command: Pick<Command, 'name' | 'args' | 'expiresAt'>) {
  const exp = Math.floor(command.expiresAt.getTime() / 1000);
  return { cmd: command.name, args: command.args, exp };
}

function spelledTopic(device: QueueDevice): string {
  return device.usesAlias ? aliasTopic(SLOT) : slotTopic(device);
}
