import { randomUUID } from 'node:crypto';
import type { CommandArguments } from '../firmware-protocol/command-arguments.ts';
import { decodeCommandArguments } from '../firmware-protocol/command-arguments.ts';
import { DEVICE_NAME, Refusal, type RefusalCode } from '../firmware-protocol/contract.ts';
import {
  readCommandTopic,
  REFUSED_COMMANDS,
  type CommandRights,
  type CommandTopic,
} from '../firmware-protocol/integrator-command.ts';
import {
  CommandBacklogError,
  CommandInvalidError,
  CommandTooBigError,
  CommandUndefinedError,
} from '../command-errors.ts';
import { AppError, DeviceNotFoundError, reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { commandRequest } from './command.ts';
import type { CommandDesk } from './command-desk.ts';

/** An integrator, as its key says. */
export interface CommandingIntegrator extends CommandRights {
  readonly organizationId: number;
  /** Public part of the key; stands as actor in the audit trail. */
  readonly keyId: string;
}

/** What its connection is told of a publication. */
export interface PublicationCallbacks {
  /** It is committed, or refused for good: acknowledge it. Called once, or never. */
  readonly onStored: () => void;
  /** After `take` said false: the next one may be read. */
  readonly onRoom: () => void;
  /** It was refused, for the history of the connection; before `onStored`. */
  readonly onRefused?: ((code: RefusalCode, detail: string) => void) | undefined;
}

/** What {@link IntegratorCommands} needs. */
export interface IntegratorCommandsDeps {
  readonly desk: Pick<CommandDesk, 'enqueue'>;
  /** Sends a message to who is subscribed to it. */
  readonly publish: (topic: string, payload: Buffer) => Promise<void>;
  /** Most publications that may wait for the database, of all connections. */
  readonly waitingMax: number;
  readonly log: Logger;
}

/** Publications that are being enqueued at once: the pool's connections are shared with the API. */
const AT_ONCE_MAX = 4;
/** Between attempts while the database is away, and as much again by chance. */
const RETRY_MS = 200;

interface Publication {
  readonly integrator: CommandingIntegrator;
  readonly asked: CommandTopic;
  readonly args: CommandArguments;
  readonly callbacks: PublicationCallbacks;
}

/**
 * Commands that integrators publish to `v1/{organization}/{device}/do/{command}[/{ref}]`. Those for one
 * device are enqueued one after another in the order in which they came. One is acknowledged once it is
 * committed, and tried again while the database is away; one that is refused is acknowledged too, counted,
 * and told on `v1/{organization}/{device}/cmd/refused`. At least once: an integrator that
 * loses its connection before the PUBACK publishes again, and the command is queued twice.
 */
export class IntegratorCommands {
  readonly #deps: IntegratorCommandsDeps;
  /** By device; the first of each is being enqueued, or is next. */
  readonly #queues = new Map<string, Publication[]>();
  /** Devices whose turn it is, in order; each has a queue. */
  readonly #ready: string[] = [];
  #waiting = 0;
  #atOnce = 0;
  readonly #refused = new Map<RefusalCode, number>();
  #isStopped = false;
  readonly #pauses = new Set<() => void>();
  readonly #held: Publication[] = [];

  constructor(deps: IntegratorCommandsDeps) {
    this.#deps = deps;
  }

  /** Publications that wait for the database. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Refused ones, by reason. */
  get refused(): ReadonlyMap<RefusalCode, number> {
    return this.#refused;
  }

  /**
   * Takes a publication. Never throws, and keeps it in any case.
   * @returns false when too many wait: nothing should be read from the connection before `onRoom`.
   */
  take(
    integrator: CommandingIntegrator,
    { topic, payload }: { readonly topic: string; readonly payload: Buffer },
    callbacks: PublicationCallbacks,
  ): boolean {
    const asked = readCommandTopic(topic, integrator);
    const args = asked instanceof Refusal ? asked : decodeCommandArguments(payload);
    if (asked instanceof Refusal || args instanceof Refusal) {
      const refusal = asked instanceof Refusal ? asked : (args as Refusal);
      this.#refuse(integrator, refusedOf(topic, refusal), callbacks);
      return true;
    }
    if (this.#isStopped) return true;
    const isFull = this.#waiting >= this.#deps.waitingMax;
    const publication = { integrator, asked, args, callbacks };
    this.#waiting += 1;
    if (isFull) this.#held.push(publication);
    this.#append(publication);
    return !isFull;
  }

  /** Enqueues nothing more. What was not acknowledged is published again by who published it. */
  stop(): void {
    this.#isStopped = true;
    for (const end of this.#pauses) end();
    this.#queues.clear();
    this.#ready.length = 0;
    this.#held.length = 0;
    this.#waiting = 0;
  }

  #append(publication: Publication): void {
    const key = keyOf(publication);
    const queue = this.#queues.get(key);
    if (queue !== undefined) {
      queue.push(publication);
      return;
    }
    this.#queues.set(key, [publication]);
    this.#ready.push(key);
    this.#work();
  }

  #work(): void {
    while (this.#atOnce < AT_ONCE_MAX && !this.#isStopped) {
      const key = this.#ready.shift();
      if (key === undefined) return;
      const first = this.#queues.get(key)?.[0];
      if (first === undefined) continue;
      this.#atOnce += 1;
      void this.#enqueue(first).finally(() => {
        this.#atOnce -= 1;
        this.#done(key);
        this.#work();
      });
    }
  }

  /** The device's turn is over: the others come first. */
  #done(key: string): void {
    if (this.#isStopped) return;
    const queue = this.#queues.get(key);
    queue?.shift();
    this.#waiting -= 1;
    if (queue === undefined || queue.length === 0) this.#queues.delete(key);
    else this.#ready.push(key);
    while (this.#waiting <= this.#deps.waitingMax / 2) {
      const held = this.#held.shift();
      if (held === undefined) return;
      held.callbacks.onRoom();
    }
  }

  /** Until it is stored or refused; never rejects. */
  async #enqueue(publication: Publication): Promise<void> {
    const { integrator, asked, args, callbacks } = publication;
    const { organizationId, keyId: actor } = integrator;
    const { device, command, ref } = asked;
    // Of a COMMIT whose answer was lost nobody knows: asked for again it must not be a second command.
    const idempotencyKey = `mqtt:${randomUUID()}`;
    const request = commandRequest(device, command, { args, ref, idempotencyKey, origin: 'mqtt' });
    while (!this.#isStopped) {
      try {
        await this.#deps.desk.enqueue({ organizationId, actor }, request);
        callbacks.onStored();
        return;
      } catch (error) {
        if (!(error instanceof AppError)) {
          this.#deps.log.error({ err: error }, 'command of an integrator not enqueued');
        }
        const refusal = refusalOf(error);
        if (refusal !== null) {
          this.#refuse(integrator, { ...asked, ...refusal }, callbacks);
          return;
        }
      }
      await this.#pause();
    }
  }

  #refuse(
    { organization }: CommandingIntegrator,
    { device, command, ref, code, detail, word }: Refused,
    { onRefused, onStored }: PublicationCallbacks,
  ): void {
    this.#refused.set(code, (this.#refused.get(code) ?? 0) + 1);
    onRefused?.(code, detail);
    // Who may not command a device tells nobody of it but its own history.
    if (code === 'forbidden' || !DEVICE_NAME.test(device)) {
      onStored();
      return;
    }
    const topic = `v1/${organization}/${device}/cmd/${REFUSED_COMMANDS}`;
    const told = { cmd: command, ...(ref === null ? {} : { ref }), code: word, msg: detail };
    // Acknowledged behind it, so that nobody is refused faster than it can be told.
    void this.#deps
      .publish(topic, Buffer.from(JSON.stringify(told)))
      .catch((error: unknown) => {
        this.#deps.log.warn({ reason: reasonOf(error) }, 'refused command not told');
      })
      .then(onStored);
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, RETRY_MS * (1 + Math.random()));
      this.#pauses.add(end);
      if (this.#isStopped) end();
    });
  }
}

/** What is told of a refused publication. */
interface Refused extends CommandTopic {
  readonly code: RefusalCode;
  readonly detail: string;
  /** The code as integrators are told: that of the API's error in lower case, or of the refusal. */
  readonly word: string;
}

const TOLD_CHARS_MAX = 64;

/** Of a topic that could not be read, as far as it is one. */
function refusedOf(topic: string, { code, detail }: Refusal): Refused {
  const [, , device = '', , command = '', ref = null] = topic.split('/');
  const cut = (text: string): string => text.slice(0, TOLD_CHARS_MAX);
  return {
    device,
    command: cut(command),
    ref: ref === null ? null : cut(ref),
    code,
    detail,
    word: code,
  };
}

/** Why a command will never be taken as it is; null: it may be later. */
function refusalOf(error: unknown): Pick<Refused, 'code' | 'detail' | 'word'> | null {
  if (!(error instanceof AppError)) {
    // As a request is answered with 500: what would fail for ever would also stop all behind it.
    return {
      code: 'bad_type',
      detail: 'an unexpected error; the log tells more',
      word: 'internal',
    };
  }
  if (error.retryable && !(error instanceof CommandBacklogError)) return null;
  return {
    code: codeOf(error),
    detail: error.message.slice(0, 500),
    word: error.code.toLowerCase(),
  };
}

function codeOf(error: AppError): RefusalCode {
  if (error instanceof CommandBacklogError) return 'quota';
  if (error instanceof CommandTooBigError) return 'too_big';
  if (error instanceof CommandUndefinedError || error instanceof DeviceNotFoundError) {
    return 'bad_name';
  }
  return error instanceof CommandInvalidError ? 'bad_type' : 'forbidden';
}

function keyOf({ integrator, asked }: Publication): string {
  return `${integrator.organizationId}/${asked.device}`;
}
