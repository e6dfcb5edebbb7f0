import type { Registry } from 'prom-client';
import { SessionStoreError, SessionStoreUnusableError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { decodeMessage, encodeMessage, toOutgoing } from './disk-codec.ts';
import { openDiskFile, type DiskFile } from './disk-file.ts';
import { registerStoreMetrics, StoreTotals } from './disk-metrics.ts';
import type { QueueLimits } from './disk-queue.ts';
import { RetainedMessages } from './disk-retained.ts';
import { StoredSessions, type StoredSession } from './disk-sessions.ts';
import { DiskWriter } from './disk-writer.ts';
import type { OutgoingMessage } from '../message.ts';
import type { QueuedMessage, SessionStore, StoredSubscription } from './session-store.ts';

/** Bounds of a session store. */
export interface StoreLimits extends QueueLimits {
  readonly sessionsMax: number;
  /** Sessions without a client are dropped after this time. */
  readonly sessionAgeMaxMs: number;
  readonly retainedMax: number;
  /** Changes that may wait for the disk; 64 MiB when left out. */
  readonly stagedBytesMax?: number;
}

/** What a session store is opened with. */
export interface DiskStoreOptions {
  /** Made when missing. One program at a time may open it. */
  readonly folder: string;
  readonly limits: StoreLimits;
  /** Registry of the metrics `puback_broker_store_*`. */
  readonly metricsRegistry: Registry;
  readonly log: Logger;
}

const STAGED_BYTES_MAX = 64 * 1024 * 1024;
const PRUNE_EVERY_MS = 60_000;

/** The parts of a store; the engine's persistence shares them. */
export interface DiskStoreParts {
  readonly file: DiskFile;
  readonly writer: DiskWriter;
  readonly sessions: StoredSessions;
  readonly retained: RetainedMessages;
  readonly totals: StoreTotals;
}

/**
 * Sessions, queued and retained messages in one LMDB file. What a resolved promise says survives
 * `kill -9` and loss of power; changes that return nothing follow within some milliseconds. While the
 * disk fails, promises reject with SessionStoreError, reads and memory go on, and what was written is
 * tried again each second.
 */
export class DiskStore implements SessionStore {
  readonly parts: DiskStoreParts;
  readonly limits: StoreLimits;
  readonly #writer: DiskWriter;
  readonly #sessions: StoredSessions;
  readonly #retained: RetainedMessages;
  readonly #totals: StoreTotals;
  readonly #pruneTimer: NodeJS.Timeout;
  #onExpired: (clientId: string) => void = () => undefined;
  #closing: Promise<void> | null = null;

  constructor(parts: DiskStoreParts, { limits }: DiskStoreOptions) {
    this.parts = parts;
    this.limits = limits;
    this.#writer = parts.writer;
    this.#sessions = parts.sessions;
    this.#retained = parts.retained;
    this.#totals = parts.totals;
    this.#pruneTimer = setInterval(() => {
      for (const clientId of this.prune(Date.now())) this.#onExpired(clientId);
    }, PRUNE_EVERY_MS).unref();
  }

  /** The listener is told of each session that ends because its client stayed away, from now on. */
  onSessionExpired(listener: (clientId: string) => void): void {
    this.#onExpired = listener;
  }

  /** Drops what is beyond its age, as is done each minute. @returns the clients whose sessions ended. */
  prune(nowMs: number): string[] {
    const expired = [...this.#sessions.all()].filter((session) => this.#isExpired(session, nowMs));
    for (const session of expired) this.#sessions.drop(session);
    this.#totals.sessionsExpired += expired.length;
    for (const { queue } of this.#sessions.all()) queue.dropExpired(nowMs);
    return expired.map(({ clientId }) => clientId);
  }

  sessionIds(): Iterable<string> {
    return this.#sessions.clientIds();
  }

  hasSession(clientId: string): boolean {
    return this.#sessions.find(clientId) !== undefined;
  }

  async openSession(clientId: string): Promise<boolean> {
    if (!this.hasSession(clientId)) {
      if (this.#sessions.size >= this.limits.sessionsMax) {
        this.#totals.sessionsRefused += 1;
        return false;
      }
      this.#sessions.add(clientId);
    }
    await this.#writer.flushed();
    return true;
  }

  touchSession(clientId: string, isConnected: boolean): void {
    const session = this.#sessions.find(clientId);
    if (session !== undefined) this.#sessions.touch(session, isConnected);
  }

  async dropSession(clientId: string): Promise<void> {
    const session = this.#sessions.find(clientId);
    if (session === undefined) return;
    this.#sessions.drop(session);
    await this.#writer.flushed();
  }

  subscriptions(clientId: string): readonly StoredSubscription[] {
    return this.#sessions.find(clientId)?.subscriptions.list() ?? [];
  }

  async addSubscriptions(
    clientId: string,
    subscriptions: readonly StoredSubscription[],
  ): Promise<void> {
    const session = this.#sessions.find(clientId);
    if (session === undefined) return;
    session.subscriptions.add(subscriptions);
    await this.#writer.flushed();
  }

  async removeSubscriptions(clientId: string, filters: readonly string[]): Promise<void> {
    const session = this.#sessions.find(clientId);
    if (session === undefined) return;
    session.subscriptions.remove(filters);
    await this.#writer.flushed();
  }

  requests(clientId: string): readonly StoredSubscription[] {
    return this.#sessions.find(clientId)?.requests.list() ?? [];
  }

  async changeRequests(
    clientId: string,
    added: readonly StoredSubscription[],
    removed: readonly string[],
  ): Promise<void> {
    const session = this.#sessions.find(clientId);
    if (session === undefined) return;
    session.requests.add(added);
    session.requests.remove(removed);
    await this.#writer.flushed();
  }

  async enqueue(clientIds: readonly string[], message: OutgoingMessage): Promise<void> {
    const sessions = clientIds.flatMap((clientId) => this.#sessions.find(clientId) ?? []);
    if (sessions.length === 0) return;
    if (this.#writer.isFull) {
      this.#totals.dropped.disk += sessions.length;
      throw new SessionStoreError('too much waits for the disk');
    }
    const record = encodeMessage(message, Date.now());
    for (const { queue } of sessions) queue.append(record);
    await this.#writer.flushed();
  }

  queued(clientId: string, afterSequence: number, limit: number): QueuedMessage[] {
    const queue = this.#sessions.find(clientId)?.queue;
    if (queue === undefined) return [];
    queue.dropExpired(Date.now());
    return queue.read(afterSequence, limit).map(({ sequence, record, packetId = 0 }) => {
      const message = decodeMessage(record);
      return { ...toOutgoing(message, message.retain), sequence, packetId };
    });
  }

  markSent(clientId: string, sequence: number, packetId: number): void {
    this.#sessions.find(clientId)?.queue.markSent(sequence, packetId);
  }

  removeQueued(clientId: string, sequence: number): void {
    this.#sessions.find(clientId)?.queue.remove(sequence);
  }

  queueSize(clientId: string): { readonly messages: number; readonly bytes: number } {
    const queue = this.#sessions.find(clientId)?.queue;
    return { messages: queue?.messages ?? 0, bytes: queue?.bytes ?? 0 };
  }

  async putRetained(message: OutgoingMessage): Promise<void> {
    if (!this.#retained.put(message)) throw new SessionStoreError('too much waits for the disk');
    await this.#writer.flushed();
  }

  retained(topic: string): OutgoingMessage | null {
    const message = this.#retained.get(topic);
    return message === null ? null : toOutgoing(message, true);
  }

  *retainedMatching(filter: string): Generator<OutgoingMessage> {
    for (const message of this.#retained.matching(filter)) yield toOutgoing(message, true);
  }

  /** @throws {SessionStoreError} when the disk did not take the rest; the files are closed all the same. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#pruneTimer);
    try {
      await this.#writer.close();
    } finally {
      await this.parts.file.close();
    }
  }

  #isExpired(session: StoredSession, nowMs: number): boolean {
    return !session.isConnected && nowMs - session.lastSeenMs > this.limits.sessionAgeMaxMs;
  }
}

/**
 * Opens the store of sessions, queued and retained messages, reads it in, drops what is too old, and
 * registers its metrics.
 * @throws {SessionStoreUnusableError} when the folder cannot be read, is damaged, or of another format.
 */
export async function openDiskStore(options: DiskStoreOptions): Promise<DiskStore> {
  const { folder, limits, log, metricsRegistry } = options;
  const totals = new StoreTotals();
  let file: DiskFile | null = null;
  try {
    file = openDiskFile(folder);
    const writer = new DiskWriter({
      file,
      log,
      stagedBytesMax: limits.stagedBytesMax ?? STAGED_BYTES_MAX,
      onFailure: () => {
        totals.writeFailures += 1;
      },
    });
    const sessions = new StoredSessions(writer, limits, totals);
    const retained = new RetainedMessages(writer, limits.retainedMax, totals);
    sessions.restore();
    retained.restore(file);
    const store = new DiskStore({ file, writer, sessions, retained, totals }, options);
    store.prune(Date.now());
    registerStoreMetrics(metricsRegistry, totals);
    return store;
  } catch (cause) {
    await file?.close();
    throw new SessionStoreUnusableError(folder, cause);
  }
}
