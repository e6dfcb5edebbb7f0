import { DeadlineHeap } from '../../deadline-heap.ts';
import type { CompiledRule } from '../compiled-rule.ts';
import { DeviceEvaluation, type EvaluationParts } from './device-evaluation.ts';
import type { LoadedDevice, LoadRequest } from './device-load.ts';
import { DeviceLoads } from './device-loads.ts';
import { DeviceSlices, SLICE_MS } from './device-slices.ts';
import { SampleReadings } from './device-series.ts';
import type { RuleEvaluatorDeps } from './evaluator-deps.ts';
import {
  earliestMicros,
  firstReceivedMicros,
  firstTimeMicros,
  HeldReadings,
  withoutHeld,
} from './held-readings.ts';
import { evaluateHeld, LiveDevice, type Held, type LiveSeries } from './live-device.ts';
import type { RuleCounters } from './metrics.ts';
import { endOfOrphan } from './orphan-alert.ts';
import { prepareRule } from './prepared-rule.ts';
import { isSameList, type RuleIndex } from './rule-index.ts';
import { SilenceWatches } from '../no-data/silence-watches.ts';
import type { Transition, TransitionReason } from '../alert/transition.ts';

/** What {@link LiveDevices} works with. */
export interface LiveDevicesParts extends Pick<
  RuleEvaluatorDeps,
  'loader' | 'alertLog' | 'noData' | 'onLate' | 'now' | 'limits' | 'log'
> {
  readonly index: RuleIndex;
  readonly counters: RuleCounters;
  readonly emit: (transition: Transition) => void;
  readonly onFailed: (rule: CompiledRule, cause: unknown) => void;
  /** Why a rule that an organization has no more is not evaluated. */
  readonly reasonOf: (ruleId: number) => TransitionReason;
}

/** A device that has sent nothing for so long is let go of, unless something of it is open. */
const IDLE_MS_MAX = 600_000;
/** The checkpoint stays behind by `allowedLateness`, and by no more than this: rules may be younger. */
const LATENESS_MICROS_MAX = 60_000_000;

/**
 * The devices in memory, with their evaluations: loaded when they are heard of, given other rules when
 * those change, let go of when nothing of them is open. What comes meanwhile waits.
 */
export class LiveDevices {
  readonly due = new DeadlineHeap<LiveDevice>();
  readonly held: HeldReadings;
  readonly sample = new SampleReadings();
  readonly #parts: LiveDevicesParts;
  readonly #devices = new Map<number, LiveDevice>();
  readonly #loads: DeviceLoads;
  readonly #silences: SilenceWatches;
  /** Their rules may have changed. */
  readonly #toExchange = new DeviceSlices((device) => this.#exchangeOf(device));
  /** What waits of them is to be evaluated; but not while too many steps of alerts wait to be written. */
  readonly #paused = new DeviceSlices(
    (device) => this.#release(device),
    () => !this.#parts.alertLog.isFull,
  );
  #isStopped = false;

  constructor(parts: LiveDevicesParts) {
    this.#parts = parts;
    const { loader, counters, log } = parts;
    this.held = new HeldReadings(parts.limits.deviceReadingsHeldMax, counters);
    this.#silences = new SilenceWatches(parts.noData);
    this.#loads = new DeviceLoads({
      loader,
      requestOf: (device) => this.#requestOf(device),
      onLoaded: (...answer) => this.#loaded(...answer),
      counters,
      log,
    });
  }

  /** Devices in memory. */
  get size(): number {
    return this.#devices.size;
  }

  find(deviceId: number): LiveDevice | null {
    return this.#devices.get(deviceId) ?? null;
  }

  /** The device; it is loaded when there is something of it to evaluate. */
  get(deviceId: number, organizationId: number | null): LiveDevice {
    let device = this.#devices.get(deviceId);
    if (device === undefined) {
      device = new LiveDevice(deviceId);
      device.usedMs = this.#parts.now();
      this.#devices.set(deviceId, device);
    }
    if (organizationId !== null) device.organization ??= this.#parts.index.of(organizationId);
    return device;
  }

  /** Whether a device can evaluate something right now. Hot path. */
  isReady(device: LiveDevice): boolean {
    const { evaluation, held, isLoading } = device;
    return evaluation !== null && held === null && !isLoading && !this.#parts.alertLog.isFull;
  }

  /** Has something of a device evaluated, now or once it can be. */
  take(device: LiveDevice, item: Held): void {
    this.bringUpToDate(device);
    if (this.isReady(device)) {
      this.#evaluate(device, item);
      return;
    }
    this.held.hold(device, item);
    if (device.isLoading) return;
    if (device.evaluation === null) this.#load(device);
    else this.#pause(device);
  }

  /** Loads a device, again if it is in memory: its row may have changed. What comes of it waits. */
  reload(device: LiveDevice): void {
    this.#load(device);
  }

  /** Has the rules of a device exchanged before anything else is evaluated of it, if they are to be. */
  bringUpToDate(device: LiveDevice): void {
    if (this.#toExchange.delete(device)) this.#exchangeOf(device);
  }

  /** Forgets what was evaluated of a device and loads it as it is on record. */
  restart(device: LiveDevice): void {
    device.evaluation = null;
    this.due.remove(device);
    this.#load(device);
  }

  /** Goes on with what waited for steps of alerts to be written, as far as there is room for more. */
  resume(): void {
    this.#paused.run();
  }

  /** Gives the devices of some organizations the rules that they have now. Takes a while. */
  rulesChanged(organizationIds: ReadonlySet<number>): void {
    for (const device of this.#devices.values()) {
      const organizationId = device.organization?.organizationId;
      if (organizationId === undefined || !organizationIds.has(organizationId)) continue;
      device.organization = this.#parts.index.of(organizationId);
      this.#toExchange.add(device);
    }
    this.#toExchange.runLater();
  }

  /** Notes when a timer of a device is due. Hot path: most have none, or the same as before. */
  plan(device: LiveDevice): void {
    const nextMicros = device.evaluation?.nextDeadline ?? Infinity;
    if (nextMicros === Infinity) {
      if (device.heapIndex >= 0) this.due.remove(device);
      return;
    }
    const atMs = nextMicros / 1000 + this.#parts.limits.timerSlackMs;
    if (device.heapIndex < 0 || device.deadlineMs !== atMs) this.due.put(device, atMs);
  }

  /** Takes timers of a device that were due before a time; what waits to be evaluated is first. */
  takeTimers(device: LiveDevice, untilMicros: number): void {
    if (!this.isReady(device)) return;
    try {
      device.evaluation?.takeTimers(untilMicros);
    } catch (err) {
      this.failed(device, err);
    }
    this.plan(device);
  }

  /** Notes a value for comparisons with the fleet. */
  noteFleet({ device, metric }: LiveSeries, timeMicros: number, value: number): void {
    const { evaluation, organization } = device;
    if (evaluation !== null) organization?.fleet.put(evaluation.device, metric, timeMicros, value);
  }

  /** Notes that something of a device could not be evaluated, which is a fault of ours. */
  failed({ deviceId }: LiveDevice, err: unknown): void {
    // What is left of the sample is not to be found by the next one.
    this.sample.clear();
    this.#parts.counters.faults += 1;
    this.#parts.log.error({ err, deviceId }, 'readings not evaluated');
  }

  /** Lets go of devices that nothing was heard of for a while. To be called now and then. */
  forgetIdle(): void {
    if (this.#parts.alertLog.isAway) return;
    const beforeMs = this.#parts.now() - IDLE_MS_MAX;
    for (const device of this.#devices.values()) {
      if (device.usedMs < beforeMs && this.#isIdle(device)) this.#forget(device);
    }
  }

  /** Everything received up to then, in microseconds since 1970, was evaluated; null: that is not known. */
  evaluatedMicros(): number | null {
    // What waits for its order, or to be recorded as pending, would not be found again from later on.
    const waitsMicros = Math.min(this.#parts.index.latenessMicros, LATENESS_MICROS_MAX);
    let until = (this.#parts.now() - this.#parts.limits.timerSlackMs) * 1000 - waitsMicros;
    for (const device of [...this.#loads.all, ...this.#paused.all]) {
      const first = firstReceivedMicros(device);
      // Of one that is loaded for its own sake it is not known what was received.
      if (first === Infinity && device.evaluation === null) return null;
      until = Math.min(until, first - 1);
    }
    return until;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#toExchange.stop();
    this.#paused.stop();
    await this.#loads.stop();
  }

  #load(device: LiveDevice): void {
    // What comes meanwhile waits, of whatever metric: it may have other rules then.
    device.revision += 1;
    this.#loads.want(device);
  }

  #requestOf(device: LiveDevice): LoadRequest {
    const { deviceId, organization } = device;
    const received = firstReceivedMicros(device);
    const { metrics, events } = organization ?? this.#parts.index.ofAll();
    return {
      deviceId,
      beforeMicros: firstTimeMicros(device),
      ...(received === Infinity ? {} : { receivedBeforeMicros: received }),
      metrics,
      events,
    };
  }

  #loaded(device: LiveDevice, loaded: LoadedDevice | null, request: LoadRequest): void {
    if (this.#isStopped) return;
    if (loaded === null) {
      this.#forget(device);
      return;
    }
    const organization = this.#parts.index.of(loaded.device.organizationId);
    const isOutdated =
      device.organization !== null &&
      (request.metrics !== organization.metrics || request.events !== organization.events);
    device.organization = organization;
    if (isOutdated) {
      this.#load(device);
      return;
    }
    try {
      this.#takeUp(device, loaded);
    } catch (err) {
      this.failed(device, err);
    }
    this.#release(device);
  }

  #takeUp(device: LiveDevice, loaded: LoadedDevice): void {
    const { index, now } = this.#parts;
    const rules = index.of(loaded.device.organizationId).of(loaded.device);
    device.revision += 1;
    if (device.evaluation !== null) {
      index.of(loaded.device.organizationId).fleet.remove(device.deviceId);
      device.evaluation.device = loaded.device;
      const history = withoutHeld(loaded.history, device);
      this.#exchange(device, device.evaluation, { rules, history });
      return;
    }
    const evaluation = new DeviceEvaluation(loaded.device, rules, this.#evaluationParts(loaded));
    device.evaluation = evaluation;
    for (const open of evaluation.load(loaded)) {
      const reason = this.#reasonOf(loaded.device.organizationId, open.ruleId);
      this.#parts.emit(endOfOrphan(open, loaded.device, reason, now() * 1000));
    }
    this.#begin(device, evaluation);
  }

  /** Behind its load, or an exchange of its rules. */
  #begin(device: LiveDevice, evaluation: DeviceEvaluation): void {
    // Not behind what waits: it would be late.
    evaluation.begin(Math.min(this.#parts.now() * 1000, earliestMicros(device)));
    this.#silences.follow(device, evaluation);
    this.plan(device);
  }

  #evaluationParts({ device: { organizationId } }: LoadedDevice): EvaluationParts {
    const { index, emit, onLate, onFailed } = this.#parts;
    return {
      emit,
      onFailed,
      onLate: onLate ?? (() => undefined),
      sample: this.sample,
      fleet: {
        value: (fn, tag, metric) => index.of(organizationId).fleet.value(fn, tag, metric),
      },
    };
  }

  #evaluate(device: LiveDevice, item: Held): void {
    const { evaluation } = device;
    if (evaluation === null) return;
    try {
      this.#noteFleetOf(device, evaluation, item);
      evaluateHeld(evaluation, item);
    } catch (err) {
      this.failed(device, err);
    }
    this.plan(device);
  }

  #noteFleetOf({ organization }: LiveDevice, { device }: DeviceEvaluation, item: Held): void {
    if (item.kind !== 'sample' || organization === null) return;
    for (const { metric, value } of item.readings) {
      organization.fleet.put(device, metric, item.timeMicros, value);
    }
  }

  #pause(device: LiveDevice): void {
    this.#paused.add(device);
    this.#paused.runLater();
  }

  /** What takes too long goes on in a later turn. */
  #release(device: LiveDevice): void {
    const { alertLog } = this.#parts;
    const untilMs = performance.now() + SLICE_MS;
    const isReady = (): boolean =>
      !device.isLoading &&
      device.evaluation !== null &&
      !alertLog.isFull &&
      performance.now() < untilMs;
    const isEmpty = this.held.release(device, isReady, (item) => this.#evaluate(device, item));
    if (!isEmpty && !device.isLoading) this.#pause(device);
    if (device.evaluation !== null) this.plan(device);
  }

  #exchangeOf(device: LiveDevice): void {
    const { evaluation, organization } = device;
    if (this.#isStopped || evaluation === null || organization === null || device.isLoading) return;
    const rules = organization.of(evaluation.device);
    if (isSameList(evaluation.rules, rules)) return;
    const known = new Set(evaluation.rules);
    const isNewToIt = (rule: CompiledRule): boolean =>
      !known.has(rule) && (rule.historyMicros > 0 || rule.historySamples > 0 || needsMore(rule));
    const needsMore = (rule: CompiledRule): boolean =>
      prepareRule(rule).metrics.some((metric) => !evaluation.knows(metric));
    if (rules.some(isNewToIt)) this.#load(device);
    else this.#exchange(device, evaluation, { rules, history: [] });
  }

  #exchange(
    device: LiveDevice,
    evaluation: DeviceEvaluation,
    { rules, history }: { rules: readonly CompiledRule[]; history: LoadedDevice['history'] },
  ): void {
    const { organizationId } = evaluation.device;
    device.revision += 1;
    try {
      evaluation.replaceRules(rules, {
        atMicros: this.#parts.now() * 1000,
        reasonOf: (ruleId) => this.#reasonOf(organizationId, ruleId),
        history,
      });
    } catch (err) {
      this.failed(device, err);
    }
    this.#begin(device, evaluation);
  }

  #reasonOf(organizationId: number, ruleId: number): TransitionReason {
    const { index, reasonOf } = this.#parts;
    const isThere = index.of(organizationId).rules.some((rule) => rule.ruleId === ruleId);
    return isThere ? 'out_of_scope' : reasonOf(ruleId);
  }

  #isIdle({ evaluation, held, isLoading, watchedRules }: LiveDevice): boolean {
    if (held !== null || isLoading || watchedRules.length > 0) return false;
    return evaluation?.isBusy !== true;
  }

  #forget(device: LiveDevice): void {
    this.held.drop(device);
    this.due.remove(device);
    this.#paused.delete(device);
    this.#toExchange.delete(device);
    this.#silences.leave(device);
    device.organization?.fleet.remove(device.deviceId);
    device.isForgotten = true;
    device.organization = null;
    device.evaluation = null;
    this.#devices.delete(device.deviceId);
  }
}
