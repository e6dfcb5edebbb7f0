import { END_STATES, type Command } from './command.ts';

/**
 * Lets requests wait until a command has ended. What was missed, because another program took the answer, is
 * found when the time is over.
 */
export class Outcomes {
  readonly #waiting = new Map<string, Set<() => void>>();

  /** A command took a step. */
  stepped({ commandId, state }: Command): void {
    if (!END_STATES.has(state)) return;
    for (const wake of this.#waiting.get(commandId) ?? []) wake();
  }

  /** Resolves with what `read` returns: at once when it has ended, then, or after so many ms. */
  async of(
    commandId: string,
    read: () => Promise<Command>,
    waitMs: number,
    noLonger?: AbortSignal,
  ): Promise<Command> {
    let timer: NodeJS.Timeout | undefined;
    let wake = (): void => undefined;
    const over = new Promise<void>((resolve) => {
      wake = resolve;
      timer = setTimeout(resolve, waitMs);
    });
    // Before it is read: a step from here on is not missed.
    this.#add(commandId, wake);
    noLonger?.addEventListener('abort', wake);
    try {
      const command = await read();
      if (END_STATES.has(command.state) || noLonger?.aborted === true) return command;
      await over;
      return await read();
    } finally {
      clearTimeout(timer);
      noLonger?.removeEventListener('abort', wake);
      this.#remove(commandId, wake);
    }
  }

  #add(commandId: string, wake: () => void): void {
    const waiting = this.#waiting.get(commandId);
    if (waiting === undefined) this.#waiting.set(commandId, new Set([wake]));
    else waiting.add(wake);
  }

  #remove(commandId: string, wake: () => void): void {
    const waiting = this.#waiting.get(commandId);
    waiting?.delete(wake);
    if (waiting?.size === 0) this.#waiting.delete(commandId);
  }
}
