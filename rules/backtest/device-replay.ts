// HOT PATH: once for each reading of a replay; test/integration/rules-backtest.test.ts
import type { CompiledRule, FleetValues } from '../compiled-rule.ts';
import { DeviceEvaluation } from '../evaluation/device-evaluation.ts';
import type { OpenAlert, RuleDevice } from '../evaluation/device-load.ts';
import type { DeviceSeries } from '../evaluation/device-series.ts';
import type { Transition } from '../alert/transition.ts';
import { timeAt, valueAt, type SeriesBlock } from './history-blocks.ts';
import type { Happening } from './history-happenings.ts';

/** Where a series stands while readings are merged. */
class Cursor {
  readonly block: SeriesBlock;
  readonly handle: DeviceSeries | null;
  index = 0;
  timeMicros: number;

  constructor(block: SeriesBlock, handle: DeviceSeries | null) {
    this.block = block;
    this.handle = handle;
    this.timeMicros = block.count > 0 ? timeAt(block, 0) : Infinity;
  }

  next(): void {
    this.index += 1;
    this.timeMicros = this.index < this.block.count ? timeAt(this.block, this.index) : Infinity;
  }
}

/** What a replay of a device is made with. */
export interface ReplayParts {
  readonly device: RuleDevice;
  readonly rule: CompiledRule;
  readonly emit: (transition: Transition) => void;
  readonly fleet: FleetValues;
  /** Told of each reading that is a number. Null: nobody compares with the fleet. */
  readonly noteFleet: ((device: RuleDevice, metric: string, value: number) => void) | null;
  /** Where it begins: a rule that looks at no readings is looked at from then on. */
  readonly fromMicros: number;
  /** Of a rule that looks for silence: after how long; null while that is not known. */
  readonly silentAfterMicros: number | null;
}

/**
 * A rule for one device over its history: readings, events and its connection in the order of their times,
 * span by span. The code is the one that evaluates live.
 */
export class DeviceReplay {
  /** Readings that were evaluated. */
  readings = 0;
  /** Time of what comes next in this span; Infinity at its end. */
  nextMicros = Infinity;
  readonly #parts: ReplayParts;
  readonly #evaluation: DeviceEvaluation;
  #cursors: Cursor[] = [];
  #happenings: readonly Happening[] = [];
  #happened = 0;
  #lastMicros: number | null = null;

  constructor(parts: ReplayParts) {
    this.#parts = parts;
    const { emit, fleet } = parts;
    this.#evaluation = new DeviceEvaluation(parts.device, [parts.rule], { emit, fleet });
    // What the connection was by then is not in the history.
    if (!parts.rule.usesConnection) this.#evaluation.begin(parts.fromMicros);
  }

  /** Alerts that are pending or firing. */
  get openAlerts(): readonly OpenAlert[] {
    return this.#evaluation.openAlerts;
  }

  /** Begins the next span of time. */
  begin(blocks: readonly SeriesBlock[], happenings: readonly Happening[]): void {
    this.#cursors = blocks.map((block) => new Cursor(block, this.#evaluation.series(block.metric)));
    this.#happenings = happenings;
    this.#happened = 0;
    this.#lookAhead();
  }

  /** Evaluates up to `max` times of the span. @returns false at its end. */
  advance(max: number): boolean {
    for (let count = 0; count < max && this.nextMicros < Infinity; count += 1) this.step();
    return this.nextMicros < Infinity;
  }

  /** Evaluates what is next: all that has one time. */
  step(): void {
    const timeMicros = this.nextMicros;
    this.#noteMessage(timeMicros);
    const evaluation = this.#evaluation;
    let hasReadings = false;
    for (const cursor of this.#cursors) {
      if (cursor.timeMicros !== timeMicros) continue;
      const { block, index, handle } = cursor;
      const value = valueAt(block, index);
      if (handle !== null) {
        evaluation.reading(handle, value, block.texts?.[index] ?? null);
        hasReadings = true;
      }
      this.#parts.noteFleet?.(this.#parts.device, block.metric, value);
      this.readings += 1;
      cursor.next();
    }
    if (hasReadings) evaluation.sampleEnd(timeMicros);
    this.#takeHappenings(timeMicros);
    this.#lookAhead();
  }

  /** Takes the timers that were due before the end of the history. */
  finish(endMicros: number): void {
    const { silentAfterMicros, rule } = this.#parts;
    if (silentAfterMicros !== null && this.#lastMicros !== null) {
      const dueMicros = this.#lastMicros + silentAfterMicros;
      if (dueMicros < endMicros) this.#evaluation.setSilence(rule.ruleId, 'silent', dueMicros);
    }
    this.#evaluation.takeTimers(endMicros);
  }

  #takeHappenings(timeMicros: number): void {
    for (;;) {
      const happening = this.#happenings[this.#happened];
      if (happening === undefined || happening.timeMicros !== timeMicros) return;
      this.#happened += 1;
      if ('event' in happening) {
        const { name, content } = happening.event;
        this.#evaluation.takeEvent({ name, content, timeMicros });
      } else this.#evaluation.setConnection(happening.connection, timeMicros);
    }
  }

  /** Tells the rule of silence before a message, and of its end with it. */
  #noteMessage(timeMicros: number): void {
    const { silentAfterMicros, rule } = this.#parts;
    if (silentAfterMicros === null) return;
    const last = this.#lastMicros;
    this.#lastMicros = timeMicros;
    if (last !== null && timeMicros > last + silentAfterMicros) {
      this.#evaluation.setSilence(rule.ruleId, 'silent', last + silentAfterMicros);
    }
    this.#evaluation.setSilence(rule.ruleId, null, timeMicros);
  }

  #lookAhead(): void {
    let next = this.#happenings[this.#happened]?.timeMicros ?? Infinity;
    for (const { timeMicros } of this.#cursors) if (timeMicros < next) next = timeMicros;
    this.nextMicros = next;
  }
}
