import { Buffer } from 'node:buffer';
import pg from 'pg';
import type { Registry as MetricsRegistry } from 'prom-client';
import { CommandNotFoundError } from '../command-errors.ts';
import type { Page } from '../drizzle/page.ts';
import type { TenantDatabase } from '../drizzle/transaction.ts';
import { DeviceNotFoundError, reasonOf } from '../errors.ts';
import type { Ack } from '../firmware-protocol/ack.ts';
import type { SlotCommand } from '../firmware-protocol/command.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type { Logger } from '../log.ts';
import { approve } from './approve.ts';
import type { AuditStatement } from './audit.ts';
import { cancel } from './cancel.ts';
import type {
  AckOutcome,
  AnsweringDevice,
  Command,
  CommandAuthor,
  CommandEvent,
  CommandRequest,
} from './command.ts';
import {
  findOwner,
  getCommand,
  listCommands,
  listEvents,
  publicCommand,
  type QueueOwner,
} from './command-queries.ts';
import { commandOf, type QueuedCommand } from './command-row.ts';
import type {
  CommandJudge,
  CommandPeers,
  CommandQuery,
  Commands,
  CommandWire,
} from './commands.ts';
import { DeviceVoice } from './device-voice.ts';
import { CommandEvents } from './events.ts';
import { HeldAnswers } from './held-answers.ts';
import { Lanes } from './lanes.ts';
import { CommandMetrics } from './metrics.ts';
import { Outcomes } from './outcomes.ts';
import { poll } from './poll.ts';
import type { HeldQueue } from './queue-store.ts';
import { checkRequest, enqueue, idempotencyOf } from './queue.ts';
import { SentNotes, writeSent, type SentNote, type SentRow } from './sent-notes.ts';
import { SlotPublisher } from './slot-publisher.ts';
import { slotTopic } from './slot.ts';
import { Sweeper } from './sweeper.ts';
import { Turns } from './turns.ts';
import { Upkeep } from './upkeep.ts';
import { WaitingCounts } from './waiting-counts.ts';

/** Bounds of commands; the settings `COMMAND_…`. */
export interface CommandLimits {
  /** How long a command that says nothing else may wait for its device. */
  readonly ttlMs: number;
  /** Commands that may wait for a device. */
  readonly backlogMax: number;
  /** How often a command that is safe to repeat is sent again after a reboot in the middle. */
  readonly retriesMax: number;
  /** A command that runs and of which nothing was heard for so long ends as unknown. */
  readonly runMsMax: number;
  /** How long commands are kept after they ended. */
  readonly ageMaxMs: number;
  /** How often slots are compared with the database. */
  readonly sweepMs: number;
  /** Answers of devices that may wait for the database. */
  readonly acksHeldMax: number;
}

/** What {@link createCommands} needs. */
export interface CommandsDeps {
  readonly database: TenantDatabase;
  readonly wire: CommandWire;
  readonly auditStatement: AuditStatement;
  /** Ms since 1970. */
  readonly now: () => number;
  readonly limits: CommandLimits;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
}

/** Commands as people, programs and devices use them, and what keeps them going. */
export interface CommandQueues extends Commands, CommandPeers, CommandJudge {
  /** Begins to expire commands and to compare slots; the first comparison starts at once. */
  start(): void;
  /**
   * Ends when what is under way is committed or given up. Answers that still wait for the database are
   * never resolved: their devices say them again.
   */
  stop(): Promise<void>;
  /** Clears the slot of a device that was deleted. Never rejects. */
  forgetDevice(organization: string, device: string): Promise<void>;
}

/** Transactions at once: the API shares the connections of the pool. */
const TURNS_MAX = 4;

/** Makes the commands of all organizations. Not started. */
export function createCommands(deps: CommandsDeps): CommandQueues {
  return new Queues(deps);
}

/** {@link CommandQueues}, put together from its parts. */
class Queues implements CommandQueues {
  readonly #deps: CommandsDeps;
  readonly #lanes = new Lanes(TURNS_MAX);
  readonly #held: HeldAnswers;
  readonly #metrics: CommandMetrics;
  readonly #publisher: SlotPublisher;
  readonly #events: CommandEvents;
  readonly #turns: Turns;
  readonly #voice: DeviceVoice;
  readonly #sweeper: Sweeper;
  readonly #upkeep: Upkeep;
  readonly #sentNotes: SentNotes;
  readonly #waitingCounts: WaitingCounts;
  readonly #outcomes = new Outcomes();

  constructor(deps: CommandsDeps) {
    this.#deps = deps;
    const { database, wire, now, log, limits, auditStatement } = deps;
    const lanes = this.#lanes;
    this.#held = new HeldAnswers(limits.acksHeldMax, () => this.#metrics.failed());
    this.#metrics = new CommandMetrics(deps.metricsRegistry, () => ({
      acksHeld: this.#held.size,
      acksHeldMax: limits.acksHeldMax,
      stepsUntold: this.#events.size,
    }));
    const metrics = this.#metrics;
    this.#publisher = new SlotPublisher(wire, (topic) => this.#sweeper.suspect(topic));
    const publisher = this.#publisher;
    this.#events = new CommandEvents({ database, wire, log });
    const inDoubt = (): void => {
      this.#events.lookUp();
      this.#sweeper.sweepSoon();
    };
    const shared = { database, lanes, publisher, metrics, now, log };
    const turns = new Turns({ ...shared, auditStatement, events: this.#events, inDoubt });
    this.#turns = turns;
    const { retriesMax, sweepMs } = limits;
    this.#voice = new DeviceVoice({ ...shared, turns, held: this.#held, retriesMax });
    const move = (owner: QueueOwner): Promise<void> => this.#move(owner);
    this.#sweeper = new Sweeper({ ...shared, wire, sweepMs, move });
    this.#upkeep = new Upkeep({ ...shared, turns, ...limits });
    this.#sentNotes = new SentNotes(wire, now, (notes) => this.#writeSent(notes));
    this.#waitingCounts = new WaitingCounts(database, wire);
    turns.onStep((command) => this.#outcomes.stepped(command));
  }

  start(): void {
    this.#events.start();
    this.#sweeper.start();
    this.#upkeep.start();
  }

  async stop(): Promise<void> {
    this.#held.stop();
    await this.#upkeep.stop();
    await this.#sentNotes.drained();
    await this.#sweeper.stop();
    await this.#lanes.drained();
    await this.#events.stop();
    await this.#publisher.drained();
  }

  async enqueue(
    author: CommandAuthor,
    request: CommandRequest,
    asked: CommandRequest = request,
  ): Promise<{ command: Command; isNew: boolean }> {
    checkRequest(request);
    const { device, idempotencyKey, replaceKey, needsApproval, origin } = request;
    const wanted = {
      idempotencyKey,
      replaceKey: needsApproval ? null : replaceKey,
      ...(needsApproval ? { awaiting: true as const } : {}),
      asTenant: true,
    };
    const idempotency = idempotencyOf(asked);
    const { limits } = this.#deps;
    const { organizationId } = author;
    const ask = () =>
      this.#turns.take(
        { organizationId, device },
        wanted,
        (held) => enqueue(held, { author, request, idempotency }, limits),
        idempotency,
      );
    // The key is being used for another device at this moment: the second time that is seen.
    const turn = await ask().catch((error: unknown) => {
      if (isKeyTaken(error)) return ask();
      throw error;
    });
    if (turn === null) throw new DeviceNotFoundError(device);
    const { commandId, twin } = turn.result;
    if (twin === null) this.#metrics.created(origin);
    const command = twin ?? turn.draft.added.get(commandId);
    if (command === undefined) throw new Error('a command that was enqueued is gone');
    return { command: publicCommand(command), isNew: twin === null };
  }

  get(organizationId: number, commandId: string): Promise<Command> {
    return getCommand(this.#deps.database, organizationId, commandId);
  }

  list(query: CommandQuery): Promise<Page<Command>> {
    return listCommands(this.#deps.database, query);
  }

  events(organizationId: number, commandId: string): Promise<readonly CommandEvent[]> {
    return listEvents(this.#deps.database, organizationId, commandId);
  }

  cancel(author: CommandAuthor, commandId: string): Promise<Command> {
    return this.#change(author, commandId, (held, subject) => cancel(held, subject, author));
  }

  approve(author: CommandAuthor, commandId: string): Promise<Command> {
    return this.#change(author, commandId, (held, subject) =>
      approve(held, subject, author, this.#deps.limits),
    );
  }

  outcome(
    organizationId: number,
    commandId: string,
    waitMs: number,
    noLonger?: AbortSignal,
  ): Promise<Command> {
    const read = (): Promise<Command> => this.get(organizationId, commandId);
    return this.#outcomes.of(commandId, read, waitMs, noLonger);
  }

  onChanged(listener: (command: Command, event: CommandEvent) => void): void {
    this.#turns.onStep(listener);
  }

  async settle(
    commandId: string,
    state: 'succeeded' | 'failed',
    code: string,
    message: string,
  ): Promise<void> {
    const owner = await findOwner(this.#deps.database, commandId);
    if (owner === null) return;
    const { deviceId } = owner;
    await this.#turns.take(
      owner,
      { deviceId, commandId, asTenant: false },
      ({ draft, subject }) => {
        const input = state === 'succeeded' ? 'succeed' : 'fail';
        if (subject !== null) draft.take(subject, input, { code, message }, { code, msg: message });
      },
    );
  }

  acknowledge(from: AnsweringDevice, ack: Ack): Promise<AckOutcome> {
    return this.#voice.acknowledge(from, ack);
  }

  greeted(from: AnsweringDevice, hello: Hello, behind?: Promise<void>): Promise<void> {
    return this.#voice.greeted(from, hello, behind);
  }

  sent(from: AnsweringDevice, usesAlias: boolean): void {
    this.#sentNotes.sent(from, usesAlias);
  }

  waiting(from: AnsweringDevice): Promise<number> {
    return this.#waitingCounts.of(from);
  }

  poll(from: AnsweringDevice): Promise<SlotCommand | null> {
    return poll(this.#turns, from);
  }

  async forgetDevice(organization: string, device: string): Promise<void> {
    const topic = slotTopic({ organization, device });
    this.#publisher.publish({ topic, deviceId: null, revision: 0, payload: Buffer.alloc(0) });
    await Promise.resolve();
  }

  async #change(
    author: CommandAuthor,
    commandId: string,
    change: (held: HeldQueue, subject: QueuedCommand) => void | Promise<void>,
  ): Promise<Command> {
    const { organizationId } = author;
    const { device, replaceKey } = await this.get(organizationId, commandId);
    const wanted = { commandId, replaceKey, asTenant: true };
    const turn = await this.#turns.take({ organizationId, device }, wanted, async (held) => {
      if (held.subject === null) throw new CommandNotFoundError(commandId);
      await change(held, held.subject);
      return held.subject;
    });
    if (turn === null) throw new CommandNotFoundError(commandId);
    return publicCommand(turn.draft.current(turn.result));
  }

  async #move(owner: QueueOwner): Promise<void> {
    const { deviceId } = owner;
    await this.#turns.take(owner, { deviceId, asTenant: false }, () => undefined);
  }

  async #writeSent(notes: readonly SentNote[]): Promise<ReadonlySet<number> | null> {
    const { database, log } = this.#deps;
    try {
      const { sent, deviceIds } = await writeSent(database, notes);
      const byDevice = new Map(notes.map((note) => [note.from.deviceId, note]));
      // At once: the step behind it may be committed soon, and is not to be told before it.
      for (const row of sent) {
        const note = byDevice.get(row.row.device_id);
        if (note !== undefined) this.#tellSent(note, row);
      }
      return deviceIds;
    } catch (err) {
      this.#metrics.failed();
      log.warn({ err: reasonOf(err) }, 'commands were sent and it is not noted');
      return null;
    }
  }

  #tellSent({ from, atMs }: SentNote, { row, event_id: commandEventId }: SentRow): void {
    const command = publicCommand(commandOf(row, from));
    const { commandId } = command;
    const occurredAt = new Date(atMs);
    const event = { commandEventId, commandId, occurredAt, state: 'sent' as const, detail: {} };
    this.#turns.told(command, event);
  }
}

function isKeyTaken(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.constraint === 'command_idempotency_key';
}
