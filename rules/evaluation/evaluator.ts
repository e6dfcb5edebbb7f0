// HOT PATH: reading and sampleEnd for each sample; bench/rules-evaluation.ts
import { AlertNotRecordedError } from '../../rule-errors.ts';
import type { CompiledRule, ConnectionState } from '../compiled-rule.ts';
import type { DeviceEvaluation } from './device-evaluation.ts';
import type { GoneReason, RuleEvaluatorDeps } from './evaluator-deps.ts';
import { LiveSeries, type HeldReading, type LiveDevice } from './live-device.ts';
import { LiveDevices } from './live-devices.ts';
import { RuleCounters, type RuleGauges } from './metrics.ts';
import type { SilenceChange } from '../no-data/no-data-port.ts';
import { prepareRule } from './prepared-rule.ts';
import { RuleGuard } from './rule-guard.ts';
import { RuleIndex } from './rule-index.ts';
import { RuleTimers } from './rule-timers.ts';
import type { Transition } from '../alert/transition.ts';

/** When a sample was, and when it came; structurally that of ingest. */
export interface SampleTimes {
  readonly timeMicros: number;
  readonly receivedMicros: number;
  /** False of what somebody brings again, or for the first time, of the past. */
  readonly isLive: boolean;
}

/** An event as it was observed: what the device sent with it is JSON text, or null. */
export interface ObservedEvent extends SampleTimes {
  readonly name: string;
  readonly content: string | null;
}

/** What is brought from outside counts as history, and is not evaluated, when it is older than this. */
const HISTORY_MICROS = 600_000_000;
/** A person waits no longer for what was done to be written down. */
const RECORD_MS_MAX = 10_000;

/**
 * Evaluates rules while readings come in: synchronously, in memory, before their COMMIT. Nothing that it
 * does holds up what is stored, and nothing that it meets is thrown.
 *
 * A device is loaded when the first reading comes that a rule looks at; what comes meanwhile waits, within
 * bounds. While too many steps of alerts wait to be written, readings wait in the same way, timers too, and
 * are evaluated in their order afterwards; what is beyond the bounds is left out, and counted.
 */
export class RuleEvaluator {
  readonly counters = new RuleCounters();
  readonly #deps: RuleEvaluatorDeps;
  readonly #index = new RuleIndex();
  readonly #guard: RuleGuard;
  readonly #devices: LiveDevices;
  readonly #timers: RuleTimers;
  #rules: readonly CompiledRule[] = [];
  /** The same as they were given. */
  #given: readonly CompiledRule[] | null = null;
  #goneReason: (ruleId: number) => GoneReason = () => 'rule_disabled';
  /** Organizations whose devices are to be kept in memory, and were not looked up yet. */
  readonly #toFind = new Set<number>();
  #isFinding = false;
  /** The sample under way. */
  readonly #series: LiveSeries[] = [];
  readonly #values: number[] = [];
  readonly #texts: (string | null)[] = [];
  #count = 0;

  constructor(deps: RuleEvaluatorDeps) {
    this.#deps = deps;
    const { limits, log, onSuspend } = deps;
    const { counters } = this;
    this.#guard = new RuleGuard({
      evaluationUsMax: limits.evaluationUsMax,
      counters,
      onSuspend,
      log,
    });
    this.#devices = new LiveDevices({
      ...deps,
      index: this.#index,
      counters,
      emit: (transition) => this.#emit(transition),
      onFailed: (rule, cause) => {
        if (this.#guard.failed(rule, cause)) this.#readmit();
      },
      reasonOf: (ruleId) =>
        this.#guard.isSuspended(ruleId) ? 'rule_suspended' : this.#goneReason(ruleId),
    });
    this.#timers = new RuleTimers({
      devices: this.#devices,
      alertLog: deps.alertLog,
      now: deps.now,
      slackMs: limits.timerSlackMs,
      onSecond: () => this.#everySecond(),
    });
  }

  /** What is shown at each scrape. */
  get gauges(): RuleGauges {
    const meters = this.#rules.map((rule) => prepareRule(rule).meter);
    return {
      rules: this.#index.ruleCount,
      devices: this.#devices.size,
      heldReadings: this.#devices.held.count,
      heldReadingsMax: this.#devices.held.max,
      evaluations: this.#evaluations(),
      slowestSeconds: meters.reduce((slowest, { meanUs }) => Math.max(slowest, meanUs), 0) / 1e6,
      isPaused: this.#deps.alertLog.isFull,
    };
  }

  /**
   * Begins to take timers, and loads devices that are not to wait for a reading: those with open alerts, and
   * those of which something may not have been evaluated before the program ended. Behind the first
   * {@link replaceRules}, and before anybody can connect.
   */
  start(deviceIds: Iterable<number>): void {
    this.loadDevices(deviceIds);
    this.#timers.start();
  }

  /** Loads devices that are not in memory. */
  loadDevices(deviceIds: Iterable<number>): void {
    for (const deviceId of deviceIds) {
      const device = this.#devices.get(deviceId, null);
      if (device.evaluation === null && !device.isLoading) this.#devices.reload(device);
    }
  }

  /** Evaluates nothing more. */
  async stop(): Promise<void> {
    this.#timers.stop();
    await this.#devices.stop();
  }

  /**
   * Exchanges the rules. Of what is the same as before nothing is touched; devices in memory get what has
   * changed within moments, a few at a time. The very array that was given last is left as it is.
   * @param reasonOf why a rule that was there is gone.
   */
  replaceRules(rules: readonly CompiledRule[], reasonOf?: (ruleId: number) => GoneReason): void {
    if (reasonOf !== undefined) this.#goneReason = reasonOf;
    if (rules === this.#given) return;
    this.#given = rules;
    this.#rules = [...rules].sort((one, other) => one.ruleId - other.ruleId);
    this.#readmit();
  }

  /** See `ReadingObserver`. */
  seriesOf(organizationId: number, deviceId: number, metric: string): LiveSeries {
    return new LiveSeries(organizationId, metric, this.#devices.get(deviceId, organizationId));
  }

  /** Hot path. See `ReadingObserver`. */
  reading(series: object, _timeMicros: number, value: number | null, text: string | null): void {
    const live = series as LiveSeries;
    const { device } = live;
    if (live.organization !== device.organization || live.evaluation !== device.evaluation) {
      this.#resolve(live);
    } else if (live.revision !== device.revision) this.#resolve(live);
    if (!live.isWatched) return;
    this.#series[this.#count] = live;
    this.#values[this.#count] = value ?? NaN;
    this.#texts[this.#count] = text;
    this.#count += 1;
  }

  /** Hot path. See `ReadingObserver`. */
  sampleEnd(deviceId: number, sample: SampleTimes): void {
    const count = this.#count;
    const device = this.#series[0]?.device;
    if (count === 0 || device === undefined) return;
    this.#count = 0;
    // Left over from a sample that never ended.
    if (device.deviceId !== deviceId) return;
    device.usedMs = sample.receivedMicros / 1000;
    if (this.#isHistory(sample)) {
      this.#noteHistory(count, sample);
      return;
    }
    this.counters.samples += 1;
    const { evaluation } = device;
    if (evaluation === null || !this.#devices.isReady(device)) {
      this.#hold(device, count, sample);
      return;
    }
    this.#evaluate(device, evaluation, { count, timeMicros: sample.timeMicros });
  }

  /** See `ReadingObserver`. */
  event(
    { organizationId, deviceId }: { readonly organizationId: number; readonly deviceId: number },
    event: ObservedEvent,
  ): void {
    const { name, timeMicros, receivedMicros } = event;
    if (!this.#index.of(organizationId).events.has(name) || this.#isHistory(event)) return;
    const device = this.#devices.get(deviceId, organizationId);
    device.usedMs = receivedMicros / 1000;
    this.counters.samples += 1;
    const content: unknown = event.content === null ? null : JSON.parse(event.content);
    const held = { kind: 'event', event: { name, content, timeMicros }, receivedMicros } as const;
    this.#devices.take(device, held);
  }

  /** See `ReadingObserver`: silence is another one's matter. */
  refused(): void {
    // A message that cannot be stored has no readings.
  }

  /** Notes what the connection of a device is from a time on. */
  setConnection(
    { organizationId, deviceId }: { readonly organizationId: number; readonly deviceId: number },
    connection: ConnectionState,
    atMicros: number,
  ): void {
    const known = this.#devices.find(deviceId);
    if (known === null && !this.#index.of(organizationId).usesConnection) return;
    const device = known ?? this.#devices.get(deviceId, organizationId);
    // What nobody asks for is read when the device is loaded.
    if (device.evaluation === null && !this.#index.of(organizationId).usesConnection) return;
    this.#devices.take(device, { kind: 'connection', connection, atMicros });
  }

  /** Notes that a device is silent, or no longer, for one rule. */
  setSilence({ deviceId, organizationId, ruleId, silence, atMicros }: SilenceChange): void {
    const device = this.#devices.get(deviceId, organizationId);
    this.#devices.take(device, { kind: 'silence', ruleId, silence, atMicros });
  }

  /** To be called when the slug, tags or type of a device have changed, or it is new or gone. */
  deviceChanged(deviceId: number, organizationId: number): void {
    const isKept = this.#index.of(organizationId).isOfTime;
    const device = this.#devices.find(deviceId);
    if (device !== null) this.#devices.reload(device);
    else if (isKept) this.#devices.reload(this.#devices.get(deviceId, organizationId));
  }

  /** To be called when another program has recorded other steps of the device's alerts. */
  deviceDiverged(deviceId: number): void {
    const device = this.#devices.find(deviceId);
    if (device !== null) this.#devices.restart(device);
  }

  /**
   * Ends an alert because a person says so. Resolves when that is written down. While its condition goes on
   * to hold, another alert begins with the next evaluation.
   * @throws {AlertNotRecordedError} it has ended, and will be written down later.
   */
  async resolveByHand(wanted: {
    readonly alertId: string;
    readonly deviceId: number;
  }): Promise<'ended' | 'not held'> {
    const device = this.#devices.find(wanted.deviceId);
    const atMicros = this.#deps.now() * 1000;
    const isEnded = device?.evaluation?.end(wanted.alertId, 'resolved_by_hand', atMicros) === true;
    if (!isEnded || device === null) return 'not held';
    this.#devices.plan(device);
    await this.#recorded(wanted.alertId);
    return 'ended';
  }

  /** Takes timers that are due; runs by itself. */
  tick(): void {
    this.#timers.tick();
  }

  /** The evaluation of a device, to look at; null while it is not in memory. */
  evaluationOf(deviceId: number): DeviceEvaluation | null {
    return this.#devices.find(deviceId)?.evaluation ?? null;
  }

  async #recorded(alertId: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new AlertNotRecordedError(alertId)), RECORD_MS_MAX);
    });
    await Promise.race([this.#deps.alertLog.drain(), late]).finally(() => clearTimeout(timer));
  }

  #resolve(live: LiveSeries): void {
    if (live.device.isForgotten) {
      live.device = this.#devices.get(live.device.deviceId, live.organizationId);
    }
    const { device, metric } = live;
    this.#devices.bringUpToDate(device);
    const organization = (device.organization ??= this.#index.of(live.organizationId));
    live.organization = organization;
    live.evaluation = device.evaluation;
    live.revision = device.revision;
    live.isOfFleet = organization.fleet.isWanted(metric);
    live.handle = device.evaluation?.series(metric) ?? null;
    live.isWatched =
      device.evaluation === null || device.isLoading
        ? organization.metrics.has(metric)
        : live.handle !== null || live.isOfFleet;
  }

  #evaluate(
    device: LiveDevice,
    evaluation: DeviceEvaluation,
    { count, timeMicros }: { count: number; timeMicros: number },
  ): void {
    try {
      for (let index = 0; index < count; index += 1) {
        const live = this.#series[index];
        const value = this.#values[index] ?? NaN;
        if (live === undefined) continue;
        if (live.isOfFleet) this.#devices.noteFleet(live, timeMicros, value);
        if (live.handle !== null) {
          evaluation.reading(live.handle, value, this.#texts[index] ?? null);
        }
      }
      evaluation.sampleEnd(timeMicros);
    } catch (err) {
      this.#devices.failed(device, err);
    }
    this.#devices.plan(device);
  }

  #hold(device: LiveDevice, count: number, { timeMicros, receivedMicros }: SampleTimes): void {
    const readings: HeldReading[] = [];
    for (let index = 0; index < count; index += 1) {
      const metric = this.#series[index]?.metric ?? '';
      const value = this.#values[index] ?? NaN;
      readings.push({ metric, value, text: this.#texts[index] ?? null });
    }
    this.#devices.take(device, { kind: 'sample', timeMicros, receivedMicros, readings });
  }

  #isHistory({ isLive, timeMicros, receivedMicros }: SampleTimes): boolean {
    return !isLive && timeMicros < receivedMicros - HISTORY_MICROS;
  }

  #noteHistory(count: number, { timeMicros }: SampleTimes): void {
    this.counters.leftOut.history += count;
    for (let index = 0; index < count; index += 1) {
      const live = this.#series[index];
      if (live?.organization?.reEvaluated.has(live.metric) !== true) continue;
      const { metric, organizationId, device } = live;
      this.#deps.onLate?.({ deviceId: device.deviceId, organizationId, metric, timeMicros });
    }
  }

  #emit(transition: Transition): void {
    this.counters.transitions += 1;
    this.#deps.alertLog.append(transition);
    const { rules } = this.#index.of(transition.organizationId);
    if (this.#guard.isFlood(transition, rules, this.#deps.now())) this.#readmit();
  }

  /** Has the rules evaluated that are not suspended. */
  #readmit(): void {
    const changed = this.#index.replace(this.#guard.admit(this.#rules));
    if (changed.size === 0) return;
    this.#devices.rulesChanged(changed);
    for (const organizationId of changed) {
      if (this.#index.of(organizationId).isOfTime) this.#toFind.add(organizationId);
    }
    void this.#findDevices();
  }

  /** Rejects never: it is tried again each second. */
  async #findDevices(): Promise<void> {
    if (this.#toFind.size === 0 || this.#isFinding) return;
    this.#isFinding = true;
    const organizationIds = [...this.#toFind];
    this.#toFind.clear();
    try {
      this.loadDevices(await this.#deps.findDevices(organizationIds));
    } catch (err) {
      for (const organizationId of organizationIds) this.#toFind.add(organizationId);
      this.#deps.log.debug({ err }, 'devices of rules not found, will be tried again');
    }
    this.#isFinding = false;
  }

  #everySecond(): void {
    this.counters.leftOut.late = this.#devices.sample.late;
    if (this.#guard.checkCosts(this.#rules)) this.#readmit();
    const evaluatedMicros = this.#devices.evaluatedMicros();
    if (evaluatedMicros !== null) this.#deps.alertLog.noteEvaluated(evaluatedMicros);
    void this.#findDevices();
  }

  #evaluations(): number {
    return this.#rules.reduce((sum, rule) => sum + prepareRule(rule).meter.evaluations, 0);
  }
}
