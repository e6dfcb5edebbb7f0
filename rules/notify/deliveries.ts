import { setTimeout as delay } from 'node:timers/promises';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { reasonOf, StoreUnavailableError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { Circuits } from './circuit.ts';
import type { NotifyLimits } from './limits.ts';
import type { Round } from './loop.ts';
import type { SendOutcome, Senders } from './message.ts';
import type { NotifyMetrics } from './metrics.ts';
import {
  attempt,
  claimDue,
  judge,
  nextAttemptMs,
  noteCircuit,
  settle,
  type Claim,
  type ClaimRoom,
  type Settled,
} from './retry.ts';
import type { Secrets } from './secrets.ts';

/** What {@link Deliveries} works with. */
export interface DeliveriesParts {
  readonly database: Pick<TenantDatabase, 'pool'>;
  readonly senders: Senders;
  readonly secrets: Secrets;
  readonly limits: NotifyLimits;
  readonly metrics: NotifyMetrics;
  readonly log: Logger;
  readonly now: () => number;
  /** 0 to 1, for the jitter. */
  readonly random: () => number;
  /** An attempt has ended: there is room for another one. */
  readonly onRoom: () => void;
}

const SETTLE_RETRY_MS = 500;

/**
 * Sends messages that are due: bounded in number, in all and for each receiver, so that one that hangs
 * holds up no other. While how an attempt ended cannot be written its place stays taken.
 */
export class Deliveries {
  readonly #parts: DeliveriesParts;
  readonly #circuits = new Circuits();
  readonly #inFlight = new Map<string, Claim>();
  readonly #ends = new Set<Promise<void>>();
  readonly #stopped = new AbortController();

  constructor(parts: DeliveriesParts) {
    this.#parts = parts;
  }

  /** Messages that are being sent. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Receivers that are left alone. */
  get openCircuits(): number {
    return this.#circuits.openAt(this.#parts.now()).length;
  }

  /** Begins to send what is due and has room. @throws {StoreUnavailableError} */
  async round(): Promise<Round> {
    const { database, limits, now } = this.#parts;
    const nowMs = now();
    const room = this.#room(nowMs);
    if (room.claimsMax <= 0) return { isMore: false, nextMs: null };
    const claims = await claimDue(database, limits, room, nowMs);
    for (const claim of claims) this.#begin(claim);
    if (claims.length > 0) return { isMore: true, nextMs: null };
    const nextMs = await nextAttemptMs(database);
    // What is due now and was not claimed waits for room, a circuit or the kill switch.
    const openMs = this.#circuits.nextMs(nowMs);
    const candidates = [nextMs !== null && nextMs > nowMs ? nextMs : null, openMs];
    const known = candidates.filter((each) => each !== null);
    return { isMore: false, nextMs: known.length === 0 ? null : Math.min(...known) };
  }

  /** Gives attempts under way `graceMs` to end, then ends them; they count as failed. */
  async stop(graceMs: number): Promise<void> {
    const ends = Promise.all(this.#ends);
    await Promise.race([ends, delay(graceMs, undefined, { ref: false })]);
    this.#stopped.abort();
    await Promise.race([ends, delay(graceMs, undefined, { ref: false })]);
  }

  #room(nowMs: number): ClaimRoom {
    const { concurrencyMax, receiverConcurrencyMax } = this.#parts.limits;
    const counts = new Map<string, number>();
    for (const { receiverId } of this.#inFlight.values()) {
      counts.set(receiverId, (counts.get(receiverId) ?? 0) + 1);
    }
    const without = this.#circuits.openAt(nowMs);
    const single: string[] = this.#circuits.halfOpen();
    for (const [receiverId, count] of counts) {
      const isFull = count >= receiverConcurrencyMax || this.#circuits.isHalfOpen(receiverId);
      (isFull ? without : single).push(receiverId);
    }
    return {
      claimsMax: concurrencyMax - this.#inFlight.size,
      perReceiverMax: receiverConcurrencyMax,
      withoutReceivers: without,
      singleReceivers: single,
      withoutMessages: [...this.#inFlight.keys()],
    };
  }

  #begin(claim: Claim): void {
    this.#inFlight.set(claim.notificationId, claim);
    const end = this.#deliver(claim).finally(() => {
      this.#inFlight.delete(claim.notificationId);
      this.#ends.delete(end);
      this.#parts.onRoom();
    });
    this.#ends.add(end);
  }

  async #deliver(claim: Claim): Promise<void> {
    const { now, metrics, log } = this.#parts;
    const startMs = performance.now();
    const outcome = await attempt(this.#parts, claim, this.#stopped.signal);
    const seconds = (performance.now() - startMs) / 1000;
    if (!this.#stopped.signal.aborted) {
      noteCircuit(this.#circuits, claim.receiverId, outcome, now());
    }
    const settled = this.#settled(claim, outcome);
    const kind = claim.receiver?.kind;
    if (kind !== undefined) metrics.countAttempt(kind, OUTCOMES[settled.state], seconds);
    if (settled.state === 'dead') {
      const { notificationId, organizationId, receiverId } = claim;
      const fields = { notificationId, orgId: organizationId, receiverId, reason: settled.reason };
      log.warn(fields, 'notification given up');
    }
    await this.#write(claim, settled);
  }

  #settled(claim: Claim, outcome: SendOutcome): Settled {
    const { now, random, limits } = this.#parts;
    const nowMs = now();
    if (outcome.ok) return { state: 'sent', reason: null, at: new Date(nowMs) };
    const verdict = judge(outcome, claim, limits, { nowMs, random: random() });
    const { reason } = outcome;
    return verdict.isDead
      ? { state: 'dead', reason, at: null }
      : { state: 'waiting', reason, at: new Date(verdict.nextMs) };
  }

  /** Until it is written, or the program ends: else what was sent would be sent again. */
  async #write(claim: Claim, settled: Settled): Promise<void> {
    const { database, log } = this.#parts;
    for (;;) {
      try {
        await settle(database, claim, settled);
        return;
      } catch (err) {
        if (!(err instanceof StoreUnavailableError)) {
          log.error({ err: reasonOf(err) }, 'end of a notification not written');
          return;
        }
        if (this.#stopped.signal.aborted) return;
        await delay(SETTLE_RETRY_MS, undefined, { ref: false });
      }
    }
  }
}

const OUTCOMES = { sent: 'sent', waiting: 'failed', dead: 'dead' } as const;
