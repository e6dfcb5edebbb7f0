import type { Registry as MetricsRegistry } from 'prom-client';
import { guardStore } from '../../drizzle/sqlstate.ts';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { Deliveries } from './deliveries.ts';
import { flushDue, nextFlushMs } from './flush.ts';
import type { NotifyLimits } from './limits.ts';
import { Loop } from './loop.ts';
import type { Senders } from './message.ts';
import { NotifyMetrics } from './metrics.ts';
import { takeOutbox } from './outbox.ts';
import { pruneNotifications } from './pruning.ts';
import { buryOld } from './retry.ts';
import type { Secrets } from './secrets.ts';

/** What {@link Notifier} works with. */
export interface NotifierParts {
  readonly database: Pick<TenantDatabase, 'pool'>;
  readonly senders: Senders;
  readonly secrets: Secrets;
  readonly limits: NotifyLimits;
  readonly registry: MetricsRegistry;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** 0 to 1; Math.random when left out. */
  readonly random?: () => number;
  /** Longest time without a look at the tables; a second when left out. */
  readonly pollMs?: number;
}

const POLL_MS = 1000;
const KEEP_MS = 15_000;
const STOP_GRACE_MS = 3000;
const OUTBOX_COUNTED_MAX = 10_000;

/**
 * Tells people of alerts: takes steps out of the outbox, puts alerts into groups, decides on groups that
 * are due, and sends. What stands between two of these is in the database: a program that is killed, or a
 * second one, goes on from there. A message may be sent twice only when a program is killed between the
 * answer of its receiver and the write of it; it has the same id then.
 */
export class Notifier {
  readonly #parts: NotifierParts;
  readonly #metrics: NotifyMetrics;
  readonly #deliveries: Deliveries;
  readonly #loops: { outbox: Loop; flush: Loop; send: Loop; keep: Loop };
  #outboxSteps = 0;
  #waitingMessages = 0;
  #prunedMs = 0;

  constructor(parts: NotifierParts) {
    this.#parts = parts;
    const { now, log, pollMs = POLL_MS } = parts;
    this.#metrics = new NotifyMetrics(parts.registry, () => this.#queues());
    this.#deliveries = new Deliveries({
      ...parts,
      metrics: this.#metrics,
      random: parts.random ?? Math.random,
      onRoom: () => this.#loops.send.wake(),
    });
    const shared = { now, log, pollMs };
    this.#loops = {
      outbox: new Loop({ ...shared, name: 'outbox', work: () => this.#outboxRound() }),
      flush: new Loop({ ...shared, name: 'groups', work: () => this.#flushRound() }),
      send: new Loop({ ...shared, name: 'sending', work: () => this.#deliveries.round() }),
      keep: new Loop({ ...shared, name: 'keeping', pollMs: KEEP_MS, work: () => this.#keep() }),
    };
  }

  /** Begins; what was left over is taken up first. */
  start(): void {
    for (const loop of Object.values(this.#loops)) loop.start();
  }

  /** Something may be to do: to be called when steps of alerts are written, and when routes change. */
  wake(): void {
    this.#loops.outbox.wake();
    this.#loops.flush.wake();
    this.#loops.send.wake();
  }

  /** Takes nothing more, gives what is being sent three seconds, and ends. What is left stays stored. */
  async stop(): Promise<void> {
    await Promise.all(Object.values(this.#loops).map((loop) => loop.stop()));
    await this.#deliveries.stop(STOP_GRACE_MS);
  }

  #queues() {
    return {
      outboxSteps: this.#outboxSteps,
      waitingMessages: this.#waitingMessages,
      inFlightMessages: this.#deliveries.inFlight,
      openCircuits: this.#deliveries.openCircuits,
    };
  }

  async #outboxRound() {
    const parts = { ...this.#parts, metrics: this.#metrics };
    const taken = await takeOutbox(parts, this.#parts.now());
    if (taken > 0) this.#loops.flush.wake();
    return { isMore: taken > 0, nextMs: null };
  }

  async #flushRound() {
    const { database, now } = this.#parts;
    const flushed = await flushDue({ ...this.#parts, metrics: this.#metrics }, now());
    if (flushed > 0) this.#loops.send.wake();
    if (flushed > 0) return { isMore: true, nextMs: null };
    return { isMore: false, nextMs: await nextFlushMs(database) };
  }

  /** Counts what waits, gives up what is too old, and deletes what is past. */
  async #keep() {
    const { database, limits, now, log } = this.#parts;
    const nowMs = now();
    const { rows } = await guardStore(
      database.pool.query<{ steps: number; messages: number }>(
        `SELECT (SELECT count(*) FROM (
                   SELECT FROM alert_transition WHERE notified_at IS NULL LIMIT $1) AS steps
                )::int4 AS steps,
                (SELECT count(*) FROM notification WHERE state = 'waiting')::int4 AS messages`,
        [OUTBOX_COUNTED_MAX],
      ),
    );
    this.#outboxSteps = rows[0]?.steps ?? 0;
    this.#waitingMessages = rows[0]?.messages ?? 0;
    const buried = await buryOld(database, limits.ageMaxMs, nowMs);
    if (buried > 0) log.warn({ notifications: buried }, 'notifications given up: too old');
    if (nowMs - this.#prunedMs >= 3_600_000) {
      this.#prunedMs = nowMs;
      await pruneNotifications(database, limits.historyMaxMs, nowMs).catch((err: unknown) => {
        log.warn({ err: reasonOf(err) }, 'notifications not pruned, will be tried again');
      });
    }
    return { isMore: false, nextMs: null };
  }
}
