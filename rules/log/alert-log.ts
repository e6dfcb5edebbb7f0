import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { AlertLogMetrics } from './alert-log-metrics.ts';
import { AlertWriter, type WrittenTransitions } from './alert-writer.ts';
import { Checkpoint, SettledMark, type Epoch } from './checkpoint.ts';
import { historicalOf } from './historical.ts';
import type { Transition } from '../alert/transition.ts';

/** How much the alert log holds. */
export interface AlertLogLimits {
  /** Transitions that wait, beyond which {@link AlertLog.isFull} holds. */
  readonly queueMax: number;
}

/** What the alert log is made of. */
export interface AlertLogDeps {
  readonly pool: pg.Pool;
  readonly limits: AlertLogLimits;
  readonly metrics: AlertLogMetrics;
  readonly log: Logger;
}

/** Told of transitions behind their COMMIT; must not throw. */
export type CommitListener = (transitions: readonly Transition[]) => void;
/** Told of a device whose alerts another program has recorded otherwise; must not throw. */
export type DivergenceListener = (deviceId: number) => void;

/** Transitions of one transaction. */
const BATCH_TRANSITIONS_MAX = 500;
/** What one sample or one deleted rule makes at once still fits in; beyond it transitions are given up. */
const OVERFLOW_FACTOR = 4;
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 5000;
const CHECKPOINT_MS = 1000;

interface Entry {
  readonly transition: Transition;
  readonly epoch: Epoch;
}

/**
 * The history of alerts: takes transitions from memory and writes them behind evaluation, in their order,
 * many in one transaction. Storing readings never waits for it.
 *
 * While the database is away transitions wait and are tried again. What waits when the program is killed
 * is found again by evaluating what was received behind the checkpoint: it moves only over what is
 * recorded. What the database refuses as such is logged, counted and left out; the others go on.
 */
export class AlertLog {
  readonly #deps: AlertLogDeps;
  readonly #writer: AlertWriter;
  readonly #checkpoint: Checkpoint;
  readonly #mark = new SettledMark();
  #queue: Entry[] = [];
  #underWay: readonly Entry[] = [];
  #isRunning = false;
  #isStopping = false;
  #isAway = false;
  #hasDropped = false;
  #checkpointMicros = 0;
  #isCheckpointMoving = false;
  #timer: NodeJS.Timeout | null = null;
  readonly #commitListeners: CommitListener[] = [];
  readonly #divergenceListeners: DivergenceListener[] = [];
  readonly #idleWaiters: (() => void)[] = [];
  #endBackoff = new AbortController();

  constructor(deps: AlertLogDeps) {
    this.#deps = deps;
    this.#writer = new AlertWriter(deps.pool);
    this.#checkpoint = new Checkpoint(deps.pool);
  }

  /** Begins to move the checkpoint. */
  start(): void {
    this.#timer ??= setInterval(() => void this.#moveCheckpoint(), CHECKPOINT_MS);
  }

  /** Transitions that wait. */
  get size(): number {
    return this.#queue.length + this.#underWay.length;
  }

  /** Whether evaluation is to pause until transitions are written. */
  get isFull(): boolean {
    return this.size >= this.#deps.limits.queueMax;
  }

  /** Whether the last attempt to write found the database away. */
  get isAway(): boolean {
    return this.#isAway;
  }

  /** Where the checkpoint was last moved to; 0 before. Microseconds since 1970. */
  get checkpointMicros(): number {
    return this.#checkpointMicros;
  }

  /**
   * Takes a transition. Synchronous, never throws. Far beyond {@link isFull}, which the caller is to heed,
   * it is given up and counted, and the checkpoint stays so that the next start finds it again.
   */
  append(transition: Transition): void {
    if (this.size >= this.#deps.limits.queueMax * OVERFLOW_FACTOR) {
      this.#giveUp();
      return;
    }
    const { epoch } = this.#mark;
    const recorded = transition.isHistorical ? historicalOf(transition) : transition;
    this.#queue.push({ transition: recorded, epoch });
    epoch.unsettled += 1;
    this.#wake();
  }

  /** Everything received up to then, of every device, has been evaluated and its transitions appended. */
  noteEvaluated(receivedMicros: number): void {
    this.#mark.noteEvaluated(receivedMicros);
  }

  /** Transitions of another program's doing are not told of, nor those of a batch whose COMMIT got no answer. */
  onCommitted(listener: CommitListener): void {
    this.#commitListeners.push(listener);
  }

  /**
   * Another program has an alert open in the place of one of ours, or has ended ours: the device is to be
   * loaded again. Until then what is appended of it is recorded as far as it fits what is on record.
   */
  onDiverged(listener: DivergenceListener): void {
    this.#divergenceListeners.push(listener);
  }

  /** Resolves when nothing waits any more, however long that takes. */
  drain(): Promise<void> {
    if (this.#queue.length > 0) this.#wake();
    if (!this.#isRunning) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /**
   * Writes all that waits, moves the checkpoint and ends. Gives up when the database is away: the next start
   * finds what is missing. May be called twice.
   */
  async stop(): Promise<void> {
    this.#isStopping = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#endBackoff.abort();
    await this.drain();
    if (this.size > 0) {
      this.#deps.log.warn({ transitions: this.size }, 'steps of alerts left to the next start');
      return;
    }
    // Twice: the first look only ends the epoch under way.
    await this.#moveCheckpoint();
    await this.#moveCheckpoint();
  }

  #giveUp(): void {
    this.#mark.noteLoss();
    this.#deps.metrics.dropped('queue_full');
    if (this.#hasDropped) return;
    this.#hasDropped = true;
    const fields = { transitions: this.size };
    this.#deps.log.error(fields, 'too many steps of alerts wait, further ones are given up');
  }

  async #moveCheckpoint(): Promise<void> {
    if (this.#isCheckpointMoving) return;
    const micros = this.#mark.advance();
    if (micros === null || micros <= this.#checkpointMicros) return;
    this.#isCheckpointMoving = true;
    try {
      await this.#checkpoint.move(micros);
      this.#checkpointMicros = micros;
    } catch (err) {
      // The next one is further on.
      this.#deps.log.debug({ err: reasonOf(err) }, 'checkpoint of rules not moved');
    } finally {
      this.#isCheckpointMoving = false;
    }
  }

  #wake(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    // In the next turn: what the same packet or timer still appends goes into the same transaction.
    setImmediate(() => void this.#run());
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0) {
      this.#underWay = this.#queue.slice(0, BATCH_TRANSITIONS_MAX);
      this.#queue = this.#queue.slice(BATCH_TRANSITIONS_MAX);
      const written = await this.#writeUntilDone(this.#underWay.map((entry) => entry.transition));
      if (written === null) break;
      settle(this.#underWay);
      this.#underWay = [];
      this.#tell(written);
    }
    this.#isRunning = false;
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  /** @returns null when it gave up, at the end of the program. */
  async #writeUntilDone(transitions: readonly Transition[]): Promise<WrittenTransitions | null> {
    const startedMs = performance.now();
    for (let attempt = 0; ; attempt += 1) {
      try {
        const written = await this.#writer.write(transitions);
        this.#setAway(null);
        this.#deps.metrics.recorded(
          written.recorded.length,
          (performance.now() - startedMs) / 1000,
        );
        return written;
      } catch (cause) {
        this.#deps.metrics.failed();
        this.#setAway(cause);
        if (this.#isStopping) return null;
        await this.#backOff(attempt);
      }
    }
  }

  async #backOff(attempt: number): Promise<void> {
    const longestMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempt);
    const { signal } = this.#endBackoff;
    const ms = longestMs * (0.5 + Math.random() / 2);
    // Ended early by stop(): one attempt more is made then.
    await delay(ms, null, { signal }).catch(() => undefined);
  }

  #setAway(cause: unknown): void {
    const isAway = cause !== null;
    if (isAway === this.#isAway) return;
    this.#isAway = isAway;
    const { log } = this.#deps;
    if (isAway) log.warn({ err: reasonOf(cause) }, 'steps of alerts not written, trying again');
    else log.info('steps of alerts are written again');
  }

  #tell({ recorded, duplicates, orphans, refused, divergedDevices }: WrittenTransitions): void {
    const { metrics, log } = this.#deps;
    metrics.dropped('duplicate', duplicates);
    metrics.dropped('device_deleted', orphans);
    metrics.dropped('refused', refused.length);
    metrics.diverged(divergedDevices.size);
    for (const { transition, reason } of refused) {
      const { alertId, sequence, ruleId, deviceId } = transition;
      const fields = { alertId, sequence, ruleId, deviceId, err: reasonOf(reason) };
      log.error(fields, 'step of an alert refused by the database, left out');
    }
    if (recorded.length > 0) for (const listener of this.#commitListeners) listener(recorded);
    for (const deviceId of divergedDevices) {
      for (const listener of this.#divergenceListeners) listener(deviceId);
    }
  }
}

function settle(entries: readonly Entry[]): void {
  for (const { epoch } of entries) epoch.unsettled -= 1;
}
