import { createHash, randomBytes } from 'node:crypto';
import { addressGroup } from './address-group.ts';
import type { ConnectRefusal } from '../principal.ts';

/** Bounds of the guard. */
export interface LoginGuardLimits {
  /** Different wrong guesses from one address within {@link banMs} before it is banned. 0: no guard. */
  readonly failuresMax: number;
  /** How long a ban lasts, and over how long failures are remembered. */
  readonly banMs: number;
  /** Longest wait before a refusal is told; must leave room below the connect deadline. */
  readonly delayMsMax: number;
  /** Addresses, key ids and bans that are remembered, of each; the longest unused are forgotten first. */
  readonly rememberedMax: number;
}

/** What the guard tells: for counts and for the log. */
export interface LoginGuardEvents {
  failed(): void;
  banned(address: string): void;
}

/** Failures that are answered at once: a person who mistypes, a board that is being set up. */
const FREE_FAILURES = 5;
const FIRST_DELAY_MS = 100;
/** A guess that was made from the same address before weighs this much; see {@link LoginGuard}. */
const REPEAT_WEIGHT = 1 / 20;
/** Last different guesses, and key ids that have logged in, that are remembered of an address. */
const GUESSES_MAX = 256;
const KNOWN_KEYS_MAX = 16;
/** Each key id that has logged in from an address raises its bound by this share; at most fivefold. */
const KNOWN_KEY_SHARE = 1 / 4;
/** How long it counts for an address that a device has logged in from it. */
const KNOWN_MS = 24 * 3_600_000;

/** A count that drains by itself. */
interface Leak {
  level: number;
  atMs: number;
}

interface AddressRecord {
  /** Every failure weighs 1: what the delay is made of. */
  readonly attempts: Leak;
  /** Guesses by their weight: what a ban is made of. */
  readonly guesses: Leak;
  readonly lastGuesses: string[];
  readonly knownKeys: string[];
  knownAtMs: number;
}

/** Refusals of a secret that was not known: a guess. With the others the client has shown a right key. */
const GUESSES: ReadonlySet<ConnectRefusal> = new Set(['key_malformed', 'key_unknown']);

/** Whether a refusal is one that {@link LoginGuard.failed} is to hear of. */
export function isGuess(refusal: ConnectRefusal): boolean {
  return GUESSES.has(refusal);
}

/**
 * Counts failed logins by address (IPv6 by /64) and by key id, slows refusals down, and bans addresses for
 * a while. The rule, with F = `failuresMax` and B = `banMs`:
 *
 * - **Delay.** The first five failures of an address or a key id are answered at once, the next after
 *   100 ms, 200 ms, 400 ms and so on up to `delayMsMax`. Only refusals wait: a right key from an address
 *   that is not banned is never slowed down, whatever others have tried with its key id.
 * - **Ban.** A wrong guess weighs 1, or 1/20 when it is one of the last 256 different ones from there: a
 *   board with a bad key says the same again and again, who guesses does not. More than F × (1 + k/4) in B
 *   ban the address for B, where k ≤ 16 is how many different key ids have logged in from there during the
 *   last 24 hours: a plant behind one address is not judged by its worst boards. The sum drains evenly, by
 *   its bound in each B. A ban ends by itself; attempts meanwhile do not reach the guard, and live
 *   connections stay.
 * - A key id is never banned, so nobody can lock out a device by guessing at its key.
 *
 * Secrets are remembered as 48 bits of a salted hash. Everything is bounded by `rememberedMax`.
 */
export class LoginGuard {
  readonly #limits: LoginGuardLimits;
  readonly #events: LoginGuardEvents;
  readonly #now: () => number;
  readonly #salt = randomBytes(16);
  readonly #addresses = new Map<string, AddressRecord>();
  readonly #keyIds = new Map<string, Leak>();
  /** End of each ban; all last equally long, so the first to end stands first. */
  readonly #bans = new Map<string, number>();

  /** @param now monotonic, in ms */
  constructor(limits: LoginGuardLimits, events: LoginGuardEvents, now: () => number) {
    this.#limits = limits;
    this.#events = events;
    this.#now = now;
  }

  /** Addresses that are banned now. */
  get bannedCount(): number {
    this.#endBans();
    return this.#bans.size;
  }

  /** To be asked before anything is read from a connection. */
  before(address: string): 'ok' | 'banned' {
    this.#endBans();
    return this.#bans.has(addressGroup(address)) ? 'banned' : 'ok';
  }

  /**
   * Counts a wrong guess.
   * @param keyId public part of the key, null when it has none
   * @param secret what was given as key, of any shape
   * @returns after how many ms the refusal is to be told
   */
  failed(address: string, keyId: string | null, secret: string): number {
    if (this.#limits.failuresMax === 0) return 0;
    this.#events.failed();
    this.#endBans();
    const group = addressGroup(address);
    const record = this.#recordOf(group);
    const { failuresMax } = this.#limits;
    const attempts = this.#add(record.attempts, 1, failuresMax);
    const banLevel = this.#banLevel(record);
    const guesses = this.#add(record.guesses, this.#weigh(record, secret), banLevel);
    if (guesses > banLevel && !this.#bans.has(group)) this.#ban(group, address);
    const ofKey = keyId === null ? 0 : this.#add(this.#leakOf(keyId), 1, failuresMax);
    return this.#delayMs(Math.max(attempts, ofKey));
  }

  /** Notes that a device has logged in from an address. Failures of others from there stay counted. */
  succeeded(address: string, keyId: string): void {
    if (this.#limits.failuresMax === 0) return;
    const record = this.#recordOf(addressGroup(address));
    const nowMs = this.#now();
    if (nowMs - record.knownAtMs > KNOWN_MS) record.knownKeys.length = 0;
    record.knownAtMs = nowMs;
    if (record.knownKeys.length < KNOWN_KEYS_MAX && !record.knownKeys.includes(keyId)) {
      record.knownKeys.push(keyId);
    }
  }

  #weigh(record: AddressRecord, secret: string): number {
    const mark = this.#mark(secret);
    const at = record.lastGuesses.indexOf(mark);
    if (at >= 0) {
      // The last to be forgotten is the one that was tried last.
      record.lastGuesses.splice(at, 1);
      record.lastGuesses.push(mark);
      return REPEAT_WEIGHT;
    }
    if (record.lastGuesses.push(mark) > GUESSES_MAX) record.lastGuesses.shift();
    return 1;
  }

  #banLevel({ knownKeys, knownAtMs }: AddressRecord): number {
    const known = this.#now() - knownAtMs > KNOWN_MS ? 0 : knownKeys.length;
    return this.#limits.failuresMax * (1 + known * KNOWN_KEY_SHARE);
  }

  #ban(group: string, address: string): void {
    forgetOldest(this.#bans, this.#limits.rememberedMax);
    this.#bans.set(group, this.#now() + this.#limits.banMs);
    this.#events.banned(address);
  }

  #endBans(): void {
    if (this.#bans.size === 0) return;
    const nowMs = this.#now();
    for (const [group, untilMs] of this.#bans) {
      if (untilMs > nowMs) return;
      this.#bans.delete(group);
      // It has a clean slate, but for the keys that were right.
      const record = this.#addresses.get(group);
      if (record !== undefined) record.guesses.level = 0;
    }
  }

  #delayMs(failures: number): number {
    const steps = Math.ceil(failures - FREE_FAILURES);
    if (steps <= 0) return 0;
    return Math.min(this.#limits.delayMsMax, FIRST_DELAY_MS * 2 ** Math.min(steps - 1, 30));
  }

  /** @param drain how much of it drains in `banMs` */
  #add(leak: Leak, weight: number, drain: number): number {
    const nowMs = this.#now();
    const drained = ((nowMs - leak.atMs) * drain) / this.#limits.banMs;
    leak.level = Math.max(0, leak.level - drained) + weight;
    leak.atMs = nowMs;
    return leak.level;
  }

  #recordOf(group: string): AddressRecord {
    const atMs = this.#now();
    return renew(this.#addresses, group, this.#limits.rememberedMax, () => ({
      attempts: { level: 0, atMs },
      guesses: { level: 0, atMs },
      lastGuesses: [],
      knownKeys: [],
      knownAtMs: -Infinity,
    }));
  }

  #leakOf(keyId: string): Leak {
    const atMs = this.#now();
    return renew(this.#keyIds, keyId, this.#limits.rememberedMax, () => ({ level: 0, atMs }));
  }

  /** 48 bits that stand for a secret as long as the program runs. */
  #mark(secret: string): string {
    const hash = createHash('sha256').update(this.#salt).update(secret);
    return hash.digest('base64url').slice(0, 8);
  }
}

/** Finds or makes an entry and puts it at the end, which is the last to be forgotten. */
function renew<T>(entries: Map<string, T>, key: string, max: number, make: () => T): T {
  const known = entries.get(key);
  if (known === undefined) forgetOldest(entries, max);
  else entries.delete(key);
  const entry = known ?? make();
  entries.set(key, entry);
  return entry;
}

/** Makes room for one more. */
function forgetOldest(entries: Map<string, unknown>, max: number): void {
  for (const key of entries.keys()) {
    if (entries.size < max) return;
    entries.delete(key);
  }
}
