import { numberKey, readNumberKey } from './disk-codec.ts';
import type { StoreTotals } from './disk-metrics.ts';
import { StoredQueue, type QueueLimits } from './disk-queue.ts';
import type { DiskWriter } from './disk-writer.ts';
import type { StoredSubscription } from './session-store.ts';

/** Tables of the store by the first letter of their keys; a session's number follows. */
const TABLE = {
  session: 'S',
  subscription: 'F',
  request: 'A',
  message: 'Q',
  packetId: 'P',
} as const;
/** Letter and number. */
const PREFIX_CHARS = 5;

interface NumberedSubscription extends StoredSubscription {
  readonly number: number;
}

/** Filters of one session in one table, in memory and on disk. */
class StoredFilters {
  readonly #writer: DiskWriter;
  /** Start of their keys; a number follows. */
  readonly #prefix: string;
  readonly #filters = new Map<string, NumberedSubscription>();
  #nextNumber = 1;

  constructor(writer: DiskWriter, prefix: string) {
    this.#writer = writer;
    this.#prefix = prefix;
  }

  list(): StoredSubscription[] {
    return Array.from(this.#filters.values(), ({ filter, qos }) => ({ filter, qos }));
  }

  /** Takes up what was read at the start. */
  restore(number: number, value: Buffer): void {
    const filter = value.toString('utf8', 7);
    this.#filters.set(filter, { filter, qos: value[0] === 0 ? 0 : 1, number });
    this.#nextNumber = Math.max(this.#nextNumber, number + 1);
  }

  add(subscriptions: readonly StoredSubscription[]): void {
    for (const { filter, qos } of subscriptions) {
      const number = this.#filters.get(filter)?.number ?? this.#nextNumber;
      this.#nextNumber = Math.max(this.#nextNumber, number + 1);
      this.#filters.set(filter, { filter, qos, number });
      this.#writer.put(this.#prefix + numberKey(number), encodeFlagged(qos, filter));
    }
  }

  remove(filters: Iterable<string>): void {
    for (const filter of filters) {
      const known = this.#filters.get(filter);
      if (known === undefined) continue;
      this.#filters.delete(filter);
      this.#writer.remove(this.#prefix + numberKey(known.number));
    }
  }

  clear(): void {
    this.remove([...this.#filters.keys()]);
  }
}

/** A persistent session: its subscriptions are in memory, its messages on disk. */
export class StoredSession {
  readonly clientId: string;
  readonly number: number;
  readonly queue: StoredQueue;
  readonly subscriptions: StoredFilters;
  readonly requests: StoredFilters;
  isConnected = false;
  lastSeenMs = 0;

  constructor(clientId: string, number: number, queue: StoredQueue, writer: DiskWriter) {
    this.clientId = clientId;
    this.number = number;
    this.queue = queue;
    this.subscriptions = new StoredFilters(writer, TABLE.subscription + numberKey(number));
    this.requests = new StoredFilters(writer, TABLE.request + numberKey(number));
  }
}

/** All persistent sessions. Keys on disk hold a number in place of the client id, which may be long. */
export class StoredSessions {
  readonly #writer: DiskWriter;
  readonly #limits: QueueLimits;
  readonly #totals: StoreTotals;
  readonly #byClientId = new Map<string, StoredSession>();
  #nextNumber = 1;

  constructor(writer: DiskWriter, limits: QueueLimits, totals: StoreTotals) {
    this.#writer = writer;
    this.#limits = limits;
    this.#totals = totals;
  }

  /** Reads in what is on disk, once: about a second for half a million queued messages. */
  restore(): void {
    const byNumber = new Map<number, StoredSession>();
    for (const { key, value } of this.#writer.scan(TABLE.session)) {
      const session = this.#create(value.toString('utf8', 7), readNumberKey(key, 1));
      session.lastSeenMs = value.readUIntBE(1, 6);
      byNumber.set(session.number, session);
      // Its client was there when the program died: its time away begins now.
      if (value[0] === 1) this.touch(session, false);
    }
    const found = (key: string) => byNumber.get(readNumberKey(key, 1));
    for (const table of ['subscription', 'request'] as const) {
      for (const { key, value } of this.#writer.scan(TABLE[table])) {
        const filters = found(key)?.[`${table}s`];
        if (filters === undefined) this.#writer.remove(key);
        else filters.restore(readNumberKey(key, PREFIX_CHARS), value);
      }
    }
    for (const { key, value } of this.#writer.scan(TABLE.message)) {
      const session = found(key);
      if (session === undefined) this.#writer.remove(key);
      else session.queue.restore(key, value.length);
    }
    for (const { key, value } of this.#writer.scan(TABLE.packetId)) {
      const isKnown = found(key)?.queue.restorePacketId(key, value.readUInt16BE());
      if (isKnown !== true) this.#writer.remove(key);
    }
  }

  get size(): number {
    return this.#byClientId.size;
  }

  clientIds(): Iterable<string> {
    return this.#byClientId.keys();
  }

  all(): Iterable<StoredSession> {
    return this.#byClientId.values();
  }

  find(clientId: string): StoredSession | undefined {
    return this.#byClientId.get(clientId);
  }

  add(clientId: string): StoredSession {
    const session = this.#create(clientId, this.#nextNumber);
    session.lastSeenMs = Date.now();
    this.#save(session);
    return session;
  }

  drop(session: StoredSession): void {
    session.queue.clear();
    session.subscriptions.clear();
    session.requests.clear();
    this.#writer.remove(TABLE.session + numberKey(session.number));
    this.#byClientId.delete(session.clientId);
    this.#totals.sessions = this.#byClientId.size;
  }

  touch(session: StoredSession, isConnected: boolean): void {
    session.isConnected = isConnected;
    session.lastSeenMs = Date.now();
    this.#save(session);
  }

  #create(clientId: string, number: number): StoredSession {
    const suffix = numberKey(number);
    const queue = new StoredQueue({
      writer: this.#writer,
      messagePrefix: TABLE.message + suffix,
      packetIdPrefix: TABLE.packetId + suffix,
      limits: this.#limits,
      totals: this.#totals,
    });
    const session = new StoredSession(clientId, number, queue, this.#writer);
    this.#byClientId.set(clientId, session);
    this.#nextNumber = Math.max(this.#nextNumber, number + 1);
    this.#totals.sessions = this.#byClientId.size;
    return session;
  }

  #save(session: StoredSession): void {
    const value = encodeFlagged(session.isConnected ? 1 : 0, session.clientId, session.lastSeenMs);
    this.#writer.put(TABLE.session + numberKey(session.number), value);
  }
}

/** A byte, a time (6 bytes) and a text. */
function encodeFlagged(flag: number, text: string, timeMs = 0): Buffer {
  const value = Buffer.allocUnsafeSlow(7 + Buffer.byteLength(text));
  value[0] = flag;
  value.writeUIntBE(timeMs, 1, 6);
  value.write(text, 7);
  return value;
}
