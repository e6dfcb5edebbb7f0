// HOT PATH: received once for each message with readings
import type { Logger } from '../../log.ts';
import type { ConnectionState } from '../compiled-rule.ts';
import { ConnectionGrace, type ConnectionChange, type DeviceKeys } from './connection-grace.ts';
import { NoDataKeeper } from './no-data-keeper.ts';
import type { NoDataGauges } from './no-data-metrics.ts';
import type {
  CadenceRow,
  LiveConnection,
  NoDataStore,
  NoDataWatch,
  SilenceListener,
  StoredActivity,
} from './no-data-port.ts';
import { Outages } from './outages.ts';
import { SilenceWatch } from './silence-watch.ts';

/** What {@link NoData} needs. */
export interface NoDataDeps {
  readonly store: NoDataStore;
  readonly onSilence: SilenceListener;
  /** Told of connections as rules may know them; see {@link ConnectionGrace}. Must not throw. */
  readonly onConnection: (
    device: DeviceKeys,
    connection: ConnectionState,
    atMicros: number,
  ) => void;
  /** What the broker knows of a connection; null: what is stored is all there is to know. */
  readonly connectionOf: (deviceId: number) => LiveConnection | null;
  /** True while messages may be lost to us, as while the database takes none. Asked each tick. */
  readonly isAway: () => boolean;
  /** Milliseconds since 1970, of the clock that messages are received by. */
  readonly now: () => number;
  /** How long devices may take to come back to us behind an outage of ours. */
  readonly graceMs: number;
  readonly log: Logger;
}

/** What can keep us from hearing devices: the database takes nothing; a listener is closed, as at the end. */
export type OutageCause = 'database' | 'listener';

const TICK_MS = 250;
/** A message that came at the deadline may still be under way within the program. */
const SLACK_MS = 500;
/** A tick that comes so late finds messages behind it that came in time: the next one looks. */
const LATE_MS = 1000;
/** A tick that comes so late was held up by an outage: of the event loop, the machine or its clock. */
const STALL_MS = 5000;
/** Deadlines that one tick looks at; the others wait for the next. */
const CHECKS_MAX = 10_000;

/**
 * Finds devices that send no readings, for rules that look for that: each missed deadline is found once,
 * within two seconds. What is known of a device comes from the database at first, so that a silence goes on
 * over a restart; see {@link SilenceWatch} and, for what is found when, `silenceDeadline`. Silence in
 * an outage of ours does not count. In memory are the devices that are watched.
 */
export class NoData {
  readonly #deps: NoDataDeps;
  readonly #outages = new Outages();
  readonly #watch: SilenceWatch;
  readonly #connections: ConnectionGrace;
  readonly #keeper: NoDataKeeper;
  /** Learned of devices that are watched no more. */
  readonly #left = new Map<number, CadenceRow>();
  #outageCount = 0;
  #writeFailures = 0;
  #tickedMs = 0;
  #isHurried = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: NoDataDeps) {
    this.#deps = deps;
    const { onSilence, onConnection, store, log } = deps;
    const shared = { outages: this.#outages, graceMicros: deps.graceMs * 1000 };
    this.#watch = new SilenceWatch({ ...shared, onSilence });
    this.#connections = new ConnectionGrace({ ...shared, onConnection });
    this.#keeper = new NoDataKeeper({
      store,
      onLoaded: (asked, stored) => this.#loaded(asked, stored),
      unwritten: (isAll) => this.#unwritten(isAll),
      onWritten: (rows) => this.#written(rows),
      uptime: () => ({
        outages: this.#outages.past,
        upMicros: Math.min(this.#nowMicros(), this.#outages.downMicros),
      }),
      onWriteFailed: () => (this.#writeFailures += 1),
      log,
    });
  }

  /** What is shown at each scrape. */
  get gauges(): NoDataGauges {
    return {
      watchedDevices: this.#watch.devices.size,
      silent: this.#watch.silent,
      checks: this.#watch.checks,
      outages: this.#outageCount,
      writeFailures: this.#writeFailures,
    };
  }

  /**
   * Counts the time since the program was up as an outage, and begins to look. To be awaited behind the
   * start of presence and before anybody can connect. @throws {AppError} when the database is away.
   */
  async start(): Promise<void> {
    const { outages, upMicros } = await this.#deps.store.loadUptime();
    for (const { downMicros, backMicros } of outages) this.#outages.add(downMicros, backMicros);
    this.#tickedMs = this.#deps.now();
    this.#addOutage(upMicros ?? -Infinity, this.#tickedMs * 1000);
    this.#keeper.start();
    this.#timer = setInterval(() => this.tick(), TICK_MS);
    this.#timer.unref();
  }

  /** Looks no more, and writes what was learned, as far as it goes. Never rejects. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.platformDown('listener');
    await this.#keeper.stop();
  }

  /**
   * Expects readings of a device for a rule, in place of what the rule expected before. What is known
   * already is told before this returns, also when nothing has changed.
   */
  watch(expected: NoDataWatch): void {
    const { deviceId } = expected;
    if (!this.#watch.watch(expected, this.#nowMicros())) return;
    const live = this.#deps.connectionOf(deviceId);
    if (live !== null) {
      this.#watch.setConnection(deviceId, live.connection, live.sinceMicros);
      if (live.sleepS !== undefined) this.#watch.setSleep(deviceId, live.sleepS);
    }
    this.#keeper.want(deviceId);
  }

  /** Takes {@link watch} back. */
  unwatch(deviceId: number, ruleId: number): void {
    const row = this.#rowOf(deviceId);
    this.#watch.unwatch(deviceId, ruleId);
    if (this.#watch.devices.has(deviceId)) return;
    this.#keeper.forget(deviceId);
    if (row !== null) this.#left.set(deviceId, row);
  }

  /** Lets go of a device that was deleted. */
  forget(deviceId: number): void {
    this.#watch.forget(deviceId);
    this.#connections.forget(deviceId);
    this.#keeper.forget(deviceId);
    this.#left.delete(deviceId);
  }

  /** Hot path. Notes a message with readings that was accepted live. */
  received(deviceId: number, receivedMicros: number): void {
    this.#watch.received(deviceId, receivedMicros);
  }

  /** Notes a message that could not be stored. */
  refused(deviceId: number, receivedMicros: number): void {
    this.#watch.refused(deviceId, receivedMicros);
  }

  /**
   * Notes what the connection of a device has become, in order for each device; each new connection as
   * well. Also of devices that are not watched: it is passed on to `onConnection`.
   */
  connectionChanged(change: ConnectionChange): void {
    this.#watch.setConnection(change.deviceId, change.connection, change.atMicros);
    this.#connections.changed(change);
  }

  /** What a stored connection is to be taken for by rules; see {@link ConnectionGrace.loaded}. */
  loadedConnection(
    device: DeviceKeys,
    connection: ConnectionState,
    sinceMicros: number,
  ): ConnectionState {
    const times = { sinceMicros, nowMicros: this.#nowMicros() };
    return this.#connections.loaded(device, connection, times);
  }

  /** Notes how many seconds a device says that it sleeps between contacts; 0: it is always on. */
  setSleep(deviceId: number, sleepS: number): void {
    this.#watch.setSleep(deviceId, sleepS);
  }

  /** Notes the interval in which a device is meant to send readings; null: none is declared. */
  declareInterval(deviceId: number, intervalMicros: number | null): void {
    this.#watch.declareInterval(deviceId, intervalMicros);
  }

  /** Until {@link platformUp} with the same cause no silence counts. Call it as soon as it is known. */
  platformDown(cause: OutageCause): void {
    this.#outages.begin(cause, this.#nowMicros());
  }

  platformUp(cause: OutageCause): void {
    if (this.#outages.end(cause, this.#nowMicros())) this.#outageCount += 1;
  }

  /** Looks at the deadlines that are due. Runs by itself. */
  tick(): void {
    const { now, isAway } = this.#deps;
    const nowMs = now();
    const passedMs = nowMs - this.#tickedMs;
    this.#tickedMs = nowMs;
    if (isAway()) this.platformDown('database');
    else this.platformUp('database');
    if (passedMs < -STALL_MS) this.#rewind(nowMs * 1000);
    else if (passedMs > STALL_MS) this.#addOutage((nowMs - passedMs) * 1000, nowMs * 1000);
    this.#isHurried = passedMs > LATE_MS && !this.#isHurried;
    if (this.#outages.isDown || this.#isHurried) return;
    this.#connections.tick(nowMs * 1000);
    this.#watch.takeDue((nowMs - SLACK_MS) * 1000, nowMs * 1000, CHECKS_MAX);
  }

  /** Writes what was learned and is worth it. Runs by itself each minute. Never rejects. */
  write(): Promise<void> {
    return this.#keeper.write();
  }

  #nowMicros(): number {
    return this.#deps.now() * 1000;
  }

  #addOutage(downMicros: number, backMicros: number): void {
    this.#outages.add(downMicros, backMicros);
    this.#outageCount += 1;
  }

  #rewind(nowMicros: number): void {
    this.#outages.rewind(nowMicros);
    this.#watch.rewind(nowMicros);
  }

  #loaded(asked: readonly number[], stored: readonly StoredActivity[]): void {
    const nowMicros = this.#nowMicros();
    const found = new Set<number>();
    for (const activity of stored) {
      found.add(activity.deviceId);
      this.#watch.loaded(activity, nowMicros);
    }
    for (const deviceId of asked) if (!found.has(deviceId)) this.#watch.forget(deviceId);
  }

  #unwritten(isAll: boolean): CadenceRow[] {
    const rows = [...this.#left.values()];
    for (const [deviceId, { cadence }] of this.#watch.devices) {
      if (cadence === null || !(isAll ? cadence.isUnwritten : cadence.isDue)) continue;
      const row = this.#rowOf(deviceId);
      if (row !== null) rows.push(row);
    }
    return rows;
  }

  #rowOf(deviceId: number): CadenceRow | null {
    const device = this.#watch.devices.get(deviceId);
    if (device?.cadence?.isUnwritten !== true) return null;
    const { content: sketch, gapP99SoFarMicros: gapP99Micros } = device.cadence;
    return { deviceId, gapP99Micros, sketch, lastReceivedMicros: device.sinceMicros };
  }

  #written(rows: readonly CadenceRow[]): void {
    for (const row of rows) {
      if (this.#left.get(row.deviceId) === row) this.#left.delete(row.deviceId);
      else this.#watch.devices.get(row.deviceId)?.cadence?.markWritten();
    }
  }
}
