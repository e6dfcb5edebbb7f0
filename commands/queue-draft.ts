import type { AuditEntry } from './audit.ts';
import type { CommandEventDetail } from './command.ts';
import type { QueuedCommand } from './command-row.ts';
import { step, type CommandInput } from './command-state.ts';

/** The device whose queue it is. */
export interface QueueDevice {
  readonly organizationId: number;
  readonly organization: string;
  readonly deviceId: number;
  readonly device: string;
  /** Largest packet that it can receive, in bytes. */
  readonly packetBytesMax: number;
  /** Whether it spells its topics `v1/me/…`. */
  readonly usesAlias: boolean;
}

/** The slot of a device as it is stored. */
export interface SlotState {
  /** Highest id that is known to have been used. */
  lastId: number;
  head: QueuedCommand | null;
  readonly revision: number;
  /** Boot counter that the device said last; null: never. */
  boot: number | null;
}

/** What a queue is like when it is taken hold of. */
export interface QueueSight {
  readonly device: QueueDevice;
  readonly slot: SlotState;
  /** The first ones that wait for the slot, in order. */
  readonly queued: readonly QueuedCommand[];
  /** All of them. */
  readonly queuedCount: number;
}

/** A step that is to be recorded. */
export interface DraftedStep {
  readonly commandId: string;
  readonly state: QueuedCommand['state'];
  readonly detail: CommandEventDetail;
}

/** A change of the columns of a command. */
export type CommandPatch = Partial<Omit<QueuedCommand, 'commandId' | 'state'>>;

const ENDS: ReadonlySet<CommandInput> = new Set([
  'ok',
  'err',
  'no',
  'outdated',
  'dup',
  'refuse',
  'expire',
  'cancel',
  'lose',
  'silence',
  'succeed',
  'fail',
]);

/**
 * What is to become of the queue of a device in one transaction: every change of it goes through here,
 * first in memory, then as one statement. Knows nothing of SQL.
 */
export class QueueDraft {
  #device: QueueDevice;
  readonly slot: SlotState;
  readonly nowMs: number;
  readonly steps: DraftedStep[] = [];
  readonly auditEntries: AuditEntry[] = [];
  readonly added = new Map<string, QueuedCommand>();
  readonly changed = new Map<string, QueuedCommand>();
  /** From the front, as far as they have been read. */
  #queued: QueuedCommand[];
  /** How many behind these have not been read. */
  #unread: number;
  /** Those that came to stand behind the unread ones. */
  #tail: QueuedCommand[] = [];
  #readCount: number;
  #isSlotChanged = false;
  readonly #firsts: string[] = [];
  readonly #before: {
    readonly headId: string | null;
    readonly lastId: number;
    readonly boot: number | null;
  };

  constructor({ device, slot, queued, queuedCount }: QueueSight, nowMs: number) {
    this.#device = device;
    this.slot = { ...slot };
    this.nowMs = nowMs;
    this.#queued = [...queued];
    this.#readCount = queued.length;
    this.#unread = queuedCount - queued.length;
    const { head, lastId, boot } = slot;
    this.#before = { headId: head?.commandId ?? null, lastId, boot };
  }

  get device(): QueueDevice {
    return this.#device;
  }

  /** Commands that wait: those of the queue and that in the slot. */
  get waiting(): number {
    return this.queuedCount + (this.slot.head === null ? 0 : 1);
  }

  /** How many wait for the slot. */
  get queuedCount(): number {
    return this.#queued.length + this.#unread + this.#tail.length;
  }

  /** The next one for the slot; null when it has to be read first, or there is none. */
  get next(): QueuedCommand | null {
    return this.#queued[0] ?? null;
  }

  /** How many of those that were queued have been read. */
  get readCount(): number {
    return this.#readCount;
  }

  /** Whether something else stands in the slot than before. */
  get isSlotChanged(): boolean {
    return this.#isSlotChanged || this.#before.headId !== (this.slot.head?.commandId ?? null);
  }

  /** Whether there is anything to write. */
  get isChanged(): boolean {
    const { lastId, boot } = this.#before;
    return (
      this.isSlotChanged ||
      this.steps.length > 0 ||
      this.changed.size > 0 ||
      lastId !== this.slot.lastId ||
      boot !== this.slot.boot
    );
  }

  /** Queued ones that follow those that have been read; none: there are no more. */
  read(more: readonly QueuedCommand[]): void {
    // One that had to leave before it was read must not stand in the queue again.
    const fresh = more.filter(({ commandId }) => !this.changed.has(commandId));
    this.#queued.push(...fresh);
    this.#readCount += more.length;
    this.#unread = more.length === 0 ? 0 : Math.max(this.#unread - fresh.length, 0);
    if (this.#unread === 0) this.#queued.push(...this.#tail.splice(0));
  }

  /** A new command, at the end of the queue unless it waits for approval. */
  add(command: QueuedCommand): void {
    this.added.set(command.commandId, command);
    this.#record(command, {});
    if (command.state === 'queued') this.#enqueue(command);
  }

  /** A new command that is to be sent before all that wait. */
  addFirst(command: QueuedCommand): void {
    this.added.set(command.commandId, command);
    this.#firsts.push(command.commandId);
    this.#record(command, {});
    this.#enqueue(command, true);
  }

  /** New commands that stand before all others. */
  get firsts(): Iterable<string> {
    return this.#firsts;
  }

  /** The command as it is by now. */
  current(command: QueuedCommand): QueuedCommand {
    const { commandId } = command;
    return this.added.get(commandId) ?? this.changed.get(commandId) ?? command;
  }

  /**
   * Takes a step; see {@link step}. The slot and the queue follow. @returns the command behind it, or null
   * when it stays as it is.
   */
  take(
    stale: QueuedCommand,
    input: CommandInput,
    patch: CommandPatch = {},
    detail: CommandEventDetail = {},
  ): QueuedCommand | null {
    const command = this.current(stale);
    const state = step(judgedState(command), input);
    if (state === null) return null;
    const ended = ENDS.has(input) ? { endedAt: new Date(this.nowMs) } : {};
    const after = { ...command, ...ended, ...patch, state };
    this.#leave(command);
    if (state === 'queued') this.#enqueue(after, input === 'repeat');
    if (state === 'published' || state === 'sent') this.slot.head = after;
    this.#put(after);
    this.#record(after, detail);
    return after;
  }

  /** Changes a command that takes no step, and that no subscriber has to know of. */
  amend(stale: QueuedCommand, patch: CommandPatch): QueuedCommand {
    const after = { ...this.current(stale), ...patch };
    this.#put(after);
    if (this.slot.head?.commandId === after.commandId) this.slot.head = after;
    return after;
  }

  /** What the device says of itself by now. */
  describe(device: Partial<Pick<QueueDevice, 'packetBytesMax'>>): void {
    this.#device = { ...this.#device, ...device };
  }

  /** Puts a change of this draft into the audit trail. */
  audit(entry: AuditEntry): void {
    this.auditEntries.push(entry);
  }

  /** The device is known to have used an id. */
  heal(id: number): void {
    if (id > this.slot.lastId) this.slot.lastId = id;
  }

  /** What stands in the slot is to be published anew though it is the same command. */
  touchSlot(): void {
    this.#isSlotChanged = true;
  }

  #leave({ commandId, state }: QueuedCommand): void {
    if (this.slot.head?.commandId === commandId) this.slot.head = null;
    if (state !== 'queued') return;
    const isOther = (one: QueuedCommand): boolean => one.commandId !== commandId;
    const before = this.queuedCount;
    this.#queued = this.#queued.filter(isOther);
    this.#tail = this.#tail.filter(isOther);
    if (this.queuedCount === before) this.#unread = Math.max(this.#unread - 1, 0);
  }

  #enqueue(command: QueuedCommand, isFirst = false): void {
    if (isFirst) this.#queued.unshift(command);
    else if (this.#unread > 0) this.#tail.push(command);
    else this.#queued.push(command);
  }

  #put(command: QueuedCommand): void {
    const { commandId } = command;
    if (this.added.has(commandId)) this.added.set(commandId, command);
    else this.changed.set(commandId, command);
  }

  #record({ commandId, state }: QueuedCommand, detail: CommandEventDetail): void {
    this.steps.push({ commandId, state, detail });
  }
}

/** Failed because of a reboot is what Puback thinks: the device may know better. */
function judgedState({ state, code }: QueuedCommand): QueuedCommand['state'] {
  return state === 'failed' && code === 'rebooted' ? 'unknown' : state;
}
