import { END_STATES, type Command } from './command.ts';

/**
 * Lets requests wait until a command has ended. What was missed, because another program took the answer, is
 * found when the time is over.
 */
export class Outcomes {
  readonly #waiting = new Map<string, Set<(ended: Command) => void>>();

  /** A command took a step. */
  stepped(command: Command): void {
    if (!END_STATES.has(command.state)) return;
    for (const wake of this.#waiting.get(command.commandId) ?? []) wake(command);
  }

  /** Resolves with the command: at once when it has ended, then, or after so many ms. */
  async of(
    commandId: string,
    read: () => Promise<Command>,
    waitMs: number,
    noLonger?: AbortSignal,
  ): Promise<Command> {
    let timer: NodeJS.Timeout | undefined;
    let wake: (ended: Command) => void = () => undefined;
    let giveUp = (): void => undefined;
    const over = new Promise<Command | null>((resolve) => {
      wake = resolve;
      giveUp = () => resolve(null);
      timer = setTimeout(giveUp, waitMs);
    });
    // Before it is read: a step from here on is not missed.
    this.#add(commandId, wake);
    noLonger?.addEventListener('abort', giveUp);
    try {
      const command = await read();
      if (END_STATES.has(command.state) || noLonger?.aborted === true) return command;
      return (await over) ?? (await read());
    } finally {
      clearTimeout(timer);
      noLonger?.removeEventListener('abort', giveUp);
      this.#remove(commandId, wake);
    }
  }

  #add(commandId: string, wake: (ended: Command) => void): void {
    const waiting = this.#waiting.get(commandId);
    if (waiting === undefined) this.#waiting.set(commandId, new Set([wake]));
    else waiting.add(wake);
  }

  #remove(commandId: string, wake: (ended: Command) => void): void {
    const waiting = this.#waiting.get(commandId);
    waiting?.delete(wake);
    if (waiting?.size === 0) this.#waiting.delete(commandId);
  }
}
