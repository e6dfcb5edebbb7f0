import { END_STATES, type Command } from './command.ts';
import type { Commands } from './commands.ts';

/** What {@link CommandWaits} needs. */
export interface CommandWaitsDeps {
  readonly commands: Pick<Commands, 'outcome'>;
  /** Most requests that wait at once. */
  readonly waitsMax: number;
}

/** A wait for the outcome of a command. */
export interface CommandWait {
  readonly command: Command;
  readonly waitMs: number;
  /** Aborted when nobody waits for it any more. */
  readonly gone: AbortSignal;
}

/**
 * Requests that wait for the outcome of their command. They end when it has one, when their time is over,
 * when the client goes away, and when the program stops. There is a bound on how many wait at once: one
 * more is answered at once with the command as it is, which is right at any time.
 */
export class CommandWaits {
  readonly #deps: CommandWaitsDeps;
  readonly #waiting = new Set<AbortController>();
  #refused = 0;
  #isStopped = false;

  constructor(deps: CommandWaitsDeps) {
    this.#deps = deps;
  }

  /** Requests that wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Requests that were answered at once because too many waited. */
  get refused(): number {
    return this.#refused;
  }

  /**
   * The command once it has ended, or as it was last known. @throws {StoreUnavailableError}
   * @throws {CommandNotFoundError} when it is deleted meanwhile, with its device.
   */
  async outcome({ command, waitMs, gone }: CommandWait): Promise<Command> {
    if (END_STATES.has(command.state) || waitMs <= 0 || this.#isStopped || gone.aborted) {
      return command;
    }
    if (this.#waiting.size >= this.#deps.waitsMax) {
      this.#refused += 1;
      return command;
    }
    const noLonger = new AbortController();
    const end = (): void => noLonger.abort();
    const ended = new Promise<Command>((resolve) => {
      noLonger.signal.addEventListener('abort', () => resolve(command));
    });
    gone.addEventListener('abort', end);
    this.#waiting.add(noLonger);
    const { organizationId, commandId } = command;
    const told = this.#deps.commands.outcome(organizationId, commandId, waitMs, noLonger.signal);
    // Counted until nothing of it is left, and not only until the client has gone.
    void told.then(
      () => this.#waiting.delete(noLonger),
      () => this.#waiting.delete(noLonger),
    );
    try {
      return await Promise.race([told, ended]);
    } finally {
      gone.removeEventListener('abort', end);
    }
  }

  /** Ends all waits: each is answered with its command as it was. New ones end at once. */
  stop(): void {
    this.#isStopped = true;
    for (const noLonger of this.#waiting) noLonger.abort();
  }
}
