import pg from 'pg';
import { setTimeout as delay } from 'node:timers/promises';
import type { Fault } from './fault.ts';

const TRY_EVERY_MS = 20;
/** Backends whose client is gone end a moment later. */
const FAILURES_IN_A_ROW = 10;
/** What PostgreSQL says when all connections are taken, or all that ordinary roles may take. */
const TOO_MANY = '53300';

/**
 * Another program takes every connection that the database gives to ordinary roles, and those that
 * Puback had are cut. Those kept for superusers stay free.
 */
export function takeConnections(durationMs: number): Fault {
  return {
    name: 'take-connections',
    durationMs,
    needsServer: true,
    standsAlone: true,
    async apply({ databaseProxy, programDatabaseUrl }) {
      const greedy = new GreedyClient(programDatabaseUrl);
      if (databaseProxy !== null) {
        // Nobody is let in until those that Puback had are taken as well.
        databaseProxy.isRefusing = true;
        databaseProxy.cutAll();
        await greedy.takeUntilNoneIsLeft();
        databaseProxy.isRefusing = false;
      }
      return () => greedy.release();
    },
  };
}

/** Opens connections for as long as there are any. */
export class GreedyClient {
  readonly #url: string;
  readonly #clients: pg.Client[] = [];
  #isReleased = false;
  #taking: Promise<void> = Promise.resolve();

  constructor(url: string) {
    this.#url = url;
  }

  get count(): number {
    return this.#clients.length;
  }

  /**
   * Resolves when the server has had no connection left for this role for a while. Goes on taking what
   * others give back until {@link release}.
   */
  async takeUntilNoneIsLeft(): Promise<void> {
    for (let failures = 0; failures < FAILURES_IN_A_ROW; failures += 1) {
      while (await this.#takeOne()) failures = 0;
      await delay(TRY_EVERY_MS);
    }
    this.#taking = this.#takeUntilReleased();
  }

  async release(): Promise<void> {
    this.#isReleased = true;
    await this.#taking;
    await Promise.all(this.#clients.map((client) => client.end().catch(() => undefined)));
  }

  async #takeUntilReleased(): Promise<void> {
    while (!this.#isReleased) {
      await this.#takeOne();
      await delay(TRY_EVERY_MS);
    }
  }

  /** @returns false when there is none left */
  async #takeOne(): Promise<boolean> {
    const client = new pg.Client({ connectionString: this.#url, application_name: 'greedy' });
    client.on('error', () => undefined);
    try {
      await client.connect();
      this.#clients.push(client);
      return true;
    } catch (error) {
      await client.end().catch(() => undefined);
      const { code = '' } = error as { code?: string };
      // Another fault may be on: a database that is away has no connections to take.
      if (code === TOO_MANY || /^(08|57|ECONN)/.test(code) || code === '') return false;
      throw error;
    }
  }
}
