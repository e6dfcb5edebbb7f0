import { timingSafeEqual } from 'node:crypto';
import type pg from 'pg';
import { isUnavailable } from '../drizzle/sqlstate.ts';
import { parseKey, secretHash, type ParsedKey } from '../firmware-protocol/keys.ts';
import type { Logger } from '../log.ts';
import { KeyLookup, type KeyRecord } from './key-lookup.ts';
import type { DevicePrincipal, KeyRefusal, KeyVerdict, Principal } from './principal.ts';
import type { Revocation, Revocations } from './revocations.ts';

/** About 400 bytes each. Keys beyond it, least recently used first, are read from SQL again. */
const CACHED_KEYS_MAX = 50_000;
const CACHED_REFUSALS_MAX = 10_000;
/**
 * A refusal is remembered this long, so that a board with a dead key does not cost a query a
 * second.
 */
const REFUSAL_MS = 10_000;
/**
 * Lookups that a revocation overtakes are done again; more of them in a row than this is no chance.
 */
const ATTEMPTS_MAX = 10;

/** What the verifier needs. */
export interface KeyVerifierDeps {
  readonly pool: pg.Pool;
  readonly revocations: Revocations;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Told of every key that was accepted. */
  readonly onUsed: (keyId: string) => void;
  /**
   * Commits the first use of a key that takes the place of another. Does nothing when it was used, revoked
   * or has expired meanwhile. @throws {StoreUnavailableError}
   */
  readonly activate: (principal: DevicePrincipal) => Promise<void>;
  /** Told of every use of a key whose place another has taken. */
  readonly onRetiringUsed: (principal: DevicePrincipal) => void;
  /** Told of every verdict, for metrics. */
  readonly onVerdict: (verdict: 'accepted' | KeyRefusal) => void;
}

/**
 * Says whom a key speaks for. Known keys are answered from memory in microseconds, others with one
 * query. A revocation takes its keys out of memory, and a lookup that it overtook is repeated:
 * nothing that was read before a revocation is believed after it.
 */
export class KeyVerifier {
  readonly #deps: KeyVerifierDeps;
  readonly #lookup: KeyLookup;
  /** Valid keys; the order of insertion is that of use. */
  readonly #accepted = new Map<string, KeyRecord>();
  readonly #refused = new Map<string, { record: KeyRecord | null; expiresAt: number }>();
  /** Counts revocations, so that a lookup knows whether one came while it was under way. */
  #generation = 0;

  constructor(deps: KeyVerifierDeps) {
    this.#deps = deps;
    this.#lookup = new KeyLookup(deps.pool);
    deps.revocations.onRevoked((revocation) => this.#forget(revocation));
    deps.revocations.onRestored(() => this.#forgetRefusals());
    deps.revocations.onRecheck(() => this.#forgetAll());
  }

  /** Checks a key. Never rejects: a database that is away is the refusal `unavailable`. */
  async verify(keyText: string): Promise<KeyVerdict> {
    const parsed = parseKey(keyText);
    const verdict = parsed === null ? refusal('malformed') : await this.#judgeKnown(parsed);
    this.#deps.onVerdict(verdict.ok ? 'accepted' : verdict.reason);
    if (verdict.ok) this.#noteUse(verdict.principal);
    return verdict;
  }

  #noteUse(principal: Principal): void {
    this.#deps.onUsed(principal.keyId);
    if (principal.kind !== 'device' || principal.expiresAt === null) return;
    this.#deps.onRetiringUsed(principal);
  }

  async #judgeKnown(parsed: ParsedKey): Promise<KeyVerdict> {
    const remembered = this.#recall(parsed.publicId);
    if (remembered !== undefined) return this.#judge(parsed, remembered);
    try {
      const record = await this.#read(parsed.publicId);
      if (record === undefined) return refusal('unavailable');
      const verdict = this.#judge(parsed, record);
      if (!verdict.ok || record?.isPending !== true) return verdict;
      return await this.#judgeFirstUse(parsed, verdict.principal);
    } catch (err) {
      if (!isUnavailable(err)) this.#deps.log.error({ err }, 'key lookup failed');
      return refusal('unavailable');
    }
  }

  /** The first use is committed before anybody is let in with it; what the key is then is read anew. */
  async #judgeFirstUse(parsed: ParsedKey, principal: Principal): Promise<KeyVerdict> {
    if (principal.kind !== 'device') return refusal('unavailable');
    await this.#deps.activate(principal);
    const record = await this.#read(parsed.publicId);
    if (record === undefined) return refusal('unavailable');
    const verdict = this.#judge(parsed, record);
    return verdict.ok && record?.isPending === true ? refusal('unavailable') : verdict;
  }

  /** The secret is compared first: only who has it learns that a key was revoked. */
  #judge(parsed: ParsedKey, record: KeyRecord | null): KeyVerdict {
    if (record === null || record.principal.kind !== parsed.kind) return refusal('unknown');
    if (!timingSafeEqual(secretHash(parsed.secret), record.secretHash)) return refusal('unknown');
    const { principal } = record;
    if (record.fault !== null) return { ...refusal(record.fault), principal };
    // Looked at each time, since a record stays in memory past the time of its key.
    if (hasExpired(principal, this.#deps.now())) return { ...refusal('expired'), principal };
    return { ok: true, principal };
  }

  /** What is in memory: a record, null for a key known not to exist, undefined for nothing. */
  #recall(keyId: string): KeyRecord | null | undefined {
    const accepted = this.#accepted.get(keyId);
    if (accepted !== undefined) {
      this.#accepted.delete(keyId);
      this.#accepted.set(keyId, accepted);
      return accepted;
    }
    const refused = this.#refused.get(keyId);
    if (refused === undefined) return undefined;
    if (refused.expiresAt > performance.now()) return refused.record;
    this.#refused.delete(keyId);
    return undefined;
  }

  /** From SQL, not older than the last revocation; undefined when revocations came all the time. */
  async #read(keyId: string): Promise<KeyRecord | null | undefined> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const generation = this.#generation;
      const record = await this.#lookup.find(keyId);
      if (generation === this.#generation) {
        this.#remember(keyId, record);
        return record;
      }
    }
    return undefined;
  }

  #remember(keyId: string, record: KeyRecord | null): void {
    // Its first use may be noted by another program, which tells nobody.
    if (record?.isPending === true) return;
    if (record !== null && record.fault === null) {
      evictOldest(this.#accepted, CACHED_KEYS_MAX);
      this.#accepted.set(keyId, record);
      return;
    }
    evictOldest(this.#refused, CACHED_REFUSALS_MAX);
    this.#refused.set(keyId, { record, expiresAt: performance.now() + REFUSAL_MS });
  }

  #forget(revocation: Revocation): void {
    this.#generation += 1;
    if (revocation.keyId !== undefined) {
      this.#accepted.delete(revocation.keyId);
      this.#refused.delete(revocation.keyId);
      return;
    }
    for (const [keyId, record] of this.#accepted) {
      if (isAbout(revocation, record.principal)) this.#accepted.delete(keyId);
    }
  }

  /** They are few, and a device that is enabled again must be let in at once. */
  #forgetRefusals(): void {
    this.#generation += 1;
    this.#refused.clear();
  }

  #forgetAll(): void {
    this.#generation += 1;
    this.#accepted.clear();
    this.#refused.clear();
  }
}

/** Whether a revocation ends the rights of a principal. */
export function isAbout(revocation: Revocation, principal: Principal): boolean {
  if (revocation.keyId !== undefined) return revocation.keyId === principal.keyId;
  if (revocation.deviceId !== undefined) {
    return principal.kind === 'device' && principal.deviceId === revocation.deviceId;
  }
  return revocation.organizationId === principal.organizationId;
}

function hasExpired(principal: Principal, nowMs: number): boolean {
  if (principal.kind === 'admin' || principal.expiresAt === null) return false;
  return principal.expiresAt <= nowMs;
}

function refusal(reason: KeyRefusal): KeyVerdict & { ok: false } {
  return { ok: false, reason };
}

function evictOldest(map: Map<string, unknown>, max: number): void {
  if (map.size < max) return;
  const oldest = map.keys().next();
  if (!oldest.done) map.delete(oldest.value);
}
