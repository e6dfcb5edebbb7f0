import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { z } from 'zod';
import type { Transaction } from '../drizzle/transaction.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';

const CHANNEL = 'puback_revoked';
const QUARANTINE_CHANNEL = 'puback_quarantined';
const RECONNECT_MS_MIN = 100;
const RECONNECT_MS_MAX = 2000;
/** How often the connection is tried; a dead one is noticed after this and the timeout below. */
const HEARTBEAT_MS = 5000;
const HEARTBEAT_TIMEOUT_MS = 5000;

/**
 * Which keys are no longer valid: one key, all keys of a device, or all of an organization. With
 * `isRestored` the opposite: a device or an organization is let in again.
 */
export interface Revocation {
  readonly keyId?: string | undefined;
  readonly deviceId?: number | undefined;
  readonly organizationId?: number | undefined;
  readonly isRestored?: boolean | undefined;
  /** Names of the device of `deviceId`, when it was deleted. */
  readonly deleted?: DeletedDevice | undefined;
}

/** A device that is no more. */
export interface DeletedDevice {
  readonly organizationId: number;
  readonly organization: string;
  readonly device: string;
}

/** A device was put into quarantine as a whole, or let out of it. Its connection stays. */
export interface QuarantineChange {
  readonly deviceId: number;
  readonly isQuarantined: boolean;
}

/** Where revocations find their database. */
export interface RevocationsOptions {
  readonly url: string;
  /** Bound of a connect. */
  readonly timeoutMs: number;
  readonly log: Logger;
}

const messageSchema = z.object({
  origin: z.string(),
  keyId: z.string().optional(),
  deviceId: z.number().int().optional(),
  organizationId: z.number().int().optional(),
  isRestored: z.boolean().optional(),
  deleted: z
    .object({ organizationId: z.number().int(), organization: z.string(), device: z.string() })
    .optional(),
});

const quarantineSchema = z.object({
  origin: z.string(),
  deviceId: z.number().int(),
  isQuarantined: z.boolean(),
});

/**
 * Tells who must know that keys are no longer valid, and which devices are in quarantine: in this program at once, in every other
 * program on the same database through LISTEN and NOTIFY, within milliseconds of COMMIT.
 *
 * It listens on a connection of its own. While that is lost nothing is heard from other programs;
 * when it is back, those told by {@link onRecheck} look at everything again.
 */
export class Revocations {
  readonly #options: RevocationsOptions;
  readonly #origin = randomUUID();
  readonly #revokedListeners = new Set<(revocation: Revocation) => void>();
  readonly #restoredListeners = new Set<() => void>();
  readonly #recheckListeners = new Set<() => void>();
  readonly #quarantineListeners = new Set<(change: QuarantineChange) => void>();
  #client: pg.Client | null = null;
  #timer: NodeJS.Timeout | undefined;
  #reconnectMs = RECONNECT_MS_MIN;
  #isStopped = true;

  constructor(options: RevocationsOptions) {
    this.#options = options;
  }

  /**
   * Begins to listen. To be called before the first key is verified.
   * @throws {StoreUnavailableError} when the database is away.
   */
  async start(): Promise<void> {
    this.#isStopped = false;
    await guardStore(this.#connect());
  }

  /** Ends the connection; what this program does itself is still told. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    this.#client = null;
    await client?.end();
  }

  /** Whether other programs are heard at this moment. */
  get isListening(): boolean {
    return this.#client !== null;
  }

  /** Live connections of these keys must end. @returns a function that stops it. Must not throw. */
  onRevoked(listener: (revocation: Revocation) => void): () => void {
    this.#revokedListeners.add(listener);
    return () => this.#revokedListeners.delete(listener);
  }

  /** Keys are let in again. @returns a function that stops it. Must not throw. */
  onRestored(listener: () => void): () => void {
    this.#restoredListeners.add(listener);
    return () => this.#restoredListeners.delete(listener);
  }

  /** A device goes into or out of quarantine. @returns a function that stops it. Must not throw. */
  onQuarantineChanged(listener: (change: QuarantineChange) => void): () => void {
    this.#quarantineListeners.add(listener);
    return () => this.#quarantineListeners.delete(listener);
  }

  /** Something of the above may have been missed. @returns a function that stops it. Must not throw. */
  onRecheck(listener: () => void): () => void {
    this.#recheckListeners.add(listener);
    return () => this.#recheckListeners.delete(listener);
  }

  /** Part one of a change, in its transaction: other programs are told when it commits. */
  async announce({ client }: Transaction, revocation: Revocation): Promise<void> {
    const message = JSON.stringify({ origin: this.#origin, ...revocation });
    await client.query('SELECT pg_notify($1, $2)', [CHANNEL, message]);
  }

  /** Part two, after COMMIT: this program is told, before the function returns. */
  tell(revocation: Revocation): void {
    if (revocation.isRestored === true) for (const listener of this.#restoredListeners) listener();
    else for (const listener of this.#revokedListeners) listener(revocation);
  }

  /** As {@link announce}, of a device's quarantine. */
  async announceQuarantine({ client }: Transaction, change: QuarantineChange): Promise<void> {
    const message = JSON.stringify({ origin: this.#origin, ...change });
    await client.query('SELECT pg_notify($1, $2)', [QUARANTINE_CHANNEL, message]);
  }

  /** As {@link tell}, of a device's quarantine. */
  tellQuarantine(change: QuarantineChange): void {
    for (const listener of this.#quarantineListeners) listener(change);
  }

  async #connect(): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#options.url,
      connectionTimeoutMillis: this.#options.timeoutMs,
      query_timeout: HEARTBEAT_TIMEOUT_MS,
      keepAlive: true,
      application_name: 'puback revocations',
    });
    client.on('error', (error) => this.#lose(client, error));
    client.on('end', () => this.#lose(client, 'connection ended'));
    client.on('notification', ({ channel, payload }) => this.#receive(channel, payload ?? ''));
    try {
      await client.connect();
      await client.query(`LISTEN ${CHANNEL}; LISTEN ${QUARANTINE_CHANNEL}`);
    } catch (error) {
      // The error that matters is the first; ending a connection that never was cannot add to it.
      void client.end().catch(() => undefined);
      throw error;
    }
    if (this.#isStopped) return client.end();
    this.#client = client;
    this.#reconnectMs = RECONNECT_MS_MIN;
    this.#schedule(HEARTBEAT_MS, () => this.#beat(client));
  }

  async #beat(client: pg.Client): Promise<void> {
    try {
      await client.query('SELECT 1');
      if (this.#client === client) this.#schedule(HEARTBEAT_MS, () => this.#beat(client));
    } catch (error) {
      this.#lose(client, error);
    }
  }

  /** Called once or more for each connection that ends; only the first call counts. */
  #lose(client: pg.Client, cause: unknown): void {
    if (this.#client !== client) return;
    this.#client = null;
    this.#options.log.warn({ reason: reasonOf(cause) }, 'revocation listener lost');
    void client.end().catch(() => undefined);
    this.#schedule(this.#reconnectMs, () => this.#reconnect());
  }

  async #reconnect(): Promise<void> {
    try {
      await this.#connect();
      if (this.#isStopped) return;
      this.#options.log.info('revocation listener is back');
      for (const listener of this.#recheckListeners) listener();
    } catch (error) {
      this.#options.log.debug({ reason: reasonOf(error) }, 'revocation listener cannot connect');
      this.#reconnectMs = Math.min(RECONNECT_MS_MAX, this.#reconnectMs * 2);
      this.#schedule(this.#reconnectMs, () => this.#reconnect());
    }
  }

  #schedule(delayMs: number, work: () => Promise<void>): void {
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => void work(), delayMs);
    this.#timer.unref();
  }

  #receive(channel: string, payload: string): void {
    const told = parseJson(payload);
    if (channel === QUARANTINE_CHANNEL) {
      const change = quarantineSchema.safeParse(told);
      if (!change.success) this.#recheck();
      else if (change.data.origin !== this.#origin) this.tellQuarantine(change.data);
      return;
    }
    const message = messageSchema.safeParse(told);
    if (!message.success) {
      this.#recheck();
      return;
    }
    const { origin, ...revocation } = message.data;
    if (origin !== this.#origin) this.tell(revocation);
  }

  #recheck(): void {
    this.#options.log.warn('revocation that cannot be read; everything is checked again');
    for (const listener of this.#recheckListeners) listener();
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
