import type { Page } from '../drizzle/page.ts';
import type { Ack } from '../firmware-protocol/ack.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type {
  AckOutcome,
  AnsweringDevice,
  Command,
  CommandAuthor,
  CommandEvent,
  CommandRequest,
  CommandState,
} from './command.ts';

/** Which commands are asked for. Newest first, those after the command `after`. */
export interface CommandQuery {
  readonly organizationId: number;
  /** Slug; null: of all devices. */
  readonly device: string | null;
  /** Null: in any. */
  readonly states: readonly CommandState[] | null;
  readonly limit: number;
  readonly after: string | null;
}

/**
 * What people and programs do with commands. Every function asks for the organization and sees no other,
 * and throws {@link StoreUnavailableError} when the database is away.
 */
export interface Commands {
  /**
   * Puts a command into the queue of its device; when it resolves that is committed, and the slot is
   * about to be published if it was free. Arguments are not checked against a definition here.
   * @param asked the request before a definition has filled it in: its idempotency key stands for that.
   * Left out: the same.
   * @returns the command, and whether it was there already under its idempotency key.
   * @throws {DeviceNotFoundError} @throws {CommandInvalidError} @throws {CommandTooBigError}
   * @throws {CommandBacklogError} @throws {IdempotencyKeyError}
   */
  enqueue(
    author: CommandAuthor,
    request: CommandRequest,
    asked?: CommandRequest,
  ): Promise<{ command: Command; isNew: boolean }>;
  /** @throws {CommandNotFoundError} */
  get(organizationId: number, commandId: string): Promise<Command>;
  list(query: CommandQuery): Promise<Page<Command>>;
  /** Its steps, oldest first; the newest 200. @throws {CommandNotFoundError} */
  events(organizationId: number, commandId: string): Promise<readonly CommandEvent[]>;
  /**
   * Cancels what has not been answered. Of one that runs the device is asked with `sys.cancel`; its
   * answer decides. @throws {CommandNotFoundError} @throws {CommandEndedError}
   */
  cancel(author: CommandAuthor, commandId: string): Promise<Command>;
  /**
   * A second person agrees. @throws {CommandNotFoundError} @throws {CommandNotWaitingError}
   * @throws {ApprovalByAuthorError}
   */
  approve(author: CommandAuthor, commandId: string): Promise<Command>;
  /**
   * Resolves with the command once it has ended, or as it is after so many ms, or when nobody waits for it
   * any more. @throws {CommandNotFoundError}
   */
  outcome(
    organizationId: number,
    commandId: string,
    waitMs: number,
    noLonger?: AbortSignal,
  ): Promise<Command>;
  /** Told after COMMIT of each step, in the order of a command's steps. Must not throw. */
  onChanged(listener: (command: Command, event: CommandEvent) => void): void;
}

/** Ends commands whose outcome something else than the answer of their device tells. */
export interface CommandJudge {
  /**
   * Ends a command; one that has ended stays as it is, and of an id that there is not nothing happens. The
   * slot is freed when it stands there. Resolves after COMMIT. @throws {StoreUnavailableError}
   */
  settle(
    commandId: string,
    state: 'succeeded' | 'failed',
    code: string,
    message: string,
  ): Promise<void>;
}

/** What devices do with commands, and the broker tells. */
export interface CommandPeers {
  /**
   * Takes an answer. Resolves once it is committed; while the database is away it goes on trying, so that
   * the PUBACK waits. Never rejects.
   */
  acknowledge(from: AnsweringDevice, ack: Ack): Promise<AckOutcome>;
  /**
   * A device said hello: its boot counter and the last command that it took. What it answers from now on
   * counts behind that. Never rejects. @param behind what has to be known of it before; never rejects.
   */
  greeted(from: AnsweringDevice, hello: Hello, behind?: Promise<void>): Promise<void>;
  /** What the slot held was written to a connection of the device that reads it. */
  sent(from: AnsweringDevice, usesAlias: boolean): void;
  /** Commands that wait for a device; from memory of the slot when the database is slow or away. */
  waiting(from: AnsweringDevice): Promise<number>;
  /** Head of the queue for a device that polls, counted as sent; null: nothing waits. */
  poll(
    from: AnsweringDevice,
  ): Promise<{ id: number; cmd: string; args: object; n: number; exp: number } | null>;
}

/** How slots and steps reach the broker. */
export interface CommandWire {
  /** Keeps a payload as the retained one of a topic and sends it on; an empty one removes it. */
  publishRetained(topic: string, payload: Buffer): Promise<void>;
  /** Sends a message to who is subscribed to it. */
  publish(topic: string, payload: Buffer): Promise<void>;
  /** What is retained under a topic; null: nothing. */
  retained(topic: string): Buffer | null;
  /** Topics under which something is retained. */
  retainedTopics(filter: string): Iterable<string>;
  /** Whether the device has a connection now that reads its slot. */
  isReading(deviceId: number): boolean;
}
