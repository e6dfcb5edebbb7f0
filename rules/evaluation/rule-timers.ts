import type { RuleEvaluatorDeps } from './evaluator-deps.ts';
import type { LiveDevices } from './live-devices.ts';

/** What {@link RuleTimers} works with. */
export interface RuleTimersParts {
  readonly devices: LiveDevices;
  readonly alertLog: Pick<RuleEvaluatorDeps['alertLog'], 'isFull'>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** `RULE_TIMER_SLACK_MS` */
  readonly slackMs: number;
  /** Called each second. */
  readonly onSecond: () => void;
}

const TICK_MS = 100;
const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
/** Timers hold up nothing else for longer than this at a time. */
const SLICE_MS = 20;
/** Behind the start devices are given so long to come back with what they have measured meanwhile. */
const START_GRACE_MS = 3000;

/** The wall clock of rules: takes timers that no reading has taken, and what else is done now and then. */
export class RuleTimers {
  readonly #parts: RuleTimersParts;
  #timer: NodeJS.Timeout | undefined;
  #startedMs = 0;
  #secondMs = 0;
  #minuteMs = 0;
  #isBehind = false;

  constructor(parts: RuleTimersParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#startedMs = this.#parts.now();
    this.#timer = setInterval(() => this.tick(), TICK_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#isBehind = false;
  }

  /** Runs by itself. */
  tick(): void {
    const { devices, onSecond, now } = this.#parts;
    const nowMs = now();
    devices.resume();
    this.#takeDue(nowMs);
    // A clock that was set back begins anew.
    if (Math.abs(nowMs - this.#secondMs) >= SECOND_MS) {
      this.#secondMs = nowMs;
      onSecond();
    }
    if (Math.abs(nowMs - this.#minuteMs) >= MINUTE_MS) {
      this.#minuteMs = nowMs;
      devices.forgetIdle();
    }
  }

  #takeDue(nowMs: number): void {
    const { devices, alertLog, slackMs } = this.#parts;
    this.#isBehind = false;
    if (nowMs < this.#startedMs + START_GRACE_MS) return;
    const startedMs = performance.now();
    while (!alertLog.isFull) {
      const device = devices.due.takeDue(nowMs);
      if (device === null) return;
      devices.takeTimers(device, (nowMs - slackMs) * 1000);
      if (performance.now() - startedMs > SLICE_MS) {
        this.#isBehind = true;
        setImmediate(() => {
          if (this.#isBehind) this.#takeDue(nowMs);
        });
        return;
      }
    }
  }
}
