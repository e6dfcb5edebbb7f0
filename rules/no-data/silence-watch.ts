// HOT PATH: received once for each message with readings
import { DeadlineHeap } from '../../deadline-heap.ts';
import { Cadence } from './cadence.ts';
import type { ConnectionState, Silence } from '../compiled-rule.ts';
import type { NoDataWatch, SilenceListener, StoredActivity } from './no-data-port.ts';
import type { Outages } from './outages.ts';
import {
  afterMicrosOf,
  judgeSilence,
  kindOfSilence,
  mayComeBackUntil,
  silenceDeadline,
  type Patience,
} from './silence-state.ts';
import {
  isSilent,
  newWatchedDevice,
  watchOf,
  type Watch,
  type WatchedDevice,
} from './watched-device.ts';

/** What {@link SilenceWatch} needs. */
export interface SilenceWatchDeps {
  readonly outages: Outages;
  /** How long devices may take to come back to us behind an outage of ours. */
  readonly graceMicros: number;
  readonly onSilence: SilenceListener;
}

/**
 * Devices of which readings are expected, and their deadlines. Without a clock, timers or input of its
 * own: times are given, in microseconds since 1970. A message costs a look-up and a few writes; the heap
 * moves only when a deadline is due by what was known when it was put there.
 */
export class SilenceWatch {
  readonly #deps: SilenceWatchDeps;
  readonly #devices = new Map<number, WatchedDevice>();
  readonly #due = new DeadlineHeap<Watch>();
  readonly #silent: Record<Silence, number> = { offline: 0, silent: 0, garbage: 0 };
  #checks = 0;

  constructor(deps: SilenceWatchDeps) {
    this.#deps = deps;
  }

  /** The devices, by id. */
  get devices(): ReadonlyMap<number, WatchedDevice> {
    return this.#devices;
  }

  /** Deadlines that are missed now, by kind. */
  get silent(): Readonly<Record<Silence, number>> {
    return this.#silent;
  }

  /** Deadlines looked at so far. */
  get checks(): number {
    return this.#checks;
  }

  /**
   * Sets what a rule expects of a device, in place of what it expected before. The rule is told what is
   * known already, again when it expects what it did.
   * @returns true when the device is new, and is to be loaded.
   */
  watch(expected: NoDataWatch, nowMicros: number): boolean {
    const { deviceId, organizationId, ruleId, afterMicros } = expected;
    const known = this.#devices.get(deviceId);
    const device = known ?? newWatchedDevice(deviceId, organizationId);
    if (known === undefined) this.#devices.set(deviceId, device);
    const watch = watchOf(device, afterMicros);
    if (!watch.ruleIds.includes(ruleId)) {
      this.#leave(device, ruleId);
      watch.ruleIds.push(ruleId);
    }
    if (afterMicros === 'auto' && device.cadence === null) {
      device.cadence = new Cadence();
      this.#restoreCadence(device);
    }
    if (watch.told !== undefined) this.#tellRule(watch, ruleId);
    else if (device.isLoaded) this.#begin(watch, nowMicros);
    return known === undefined;
  }

  /** Takes {@link watch} back; the last one lets go of the device. */
  unwatch(deviceId: number, ruleId: number): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined) return;
    this.#leave(device, ruleId);
    if (device.watches.length === 0) this.#devices.delete(deviceId);
  }

  /** Lets go of a device that was deleted. */
  forget(deviceId: number): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined) return;
    for (const watch of device.watches.slice()) this.#drop(watch);
    this.#devices.delete(deviceId);
  }

  /** What is stored of a device, to be laid under what was heard of it meanwhile. */
  loaded(stored: StoredActivity, nowMicros: number): void {
    const device = this.#devices.get(stored.deviceId);
    if (device === undefined || device.isLoaded) return;
    device.isLoaded = true;
    if (!device.isConnectionKnown) {
      device.connection = stored.connection;
      device.connectedMicros = stored.lastContactMicros ?? -Infinity;
      device.connectionMicros = device.connectedMicros;
    }
    device.sinceMicros = Math.max(device.sinceMicros, stored.lastReadingMicros ?? -Infinity);
    if (device.sinceMicros === -Infinity) {
      device.sinceMicros = Math.max(device.connectedMicros, device.refusedMicros);
    }
    if (!device.isSleepKnown) device.sleepS = stored.sleepS;
    device.intervalMicros ??= stored.intervalMicros;
    device.storedCadence = stored.cadence;
    this.#restoreCadence(device);
    for (const watch of device.watches) this.#begin(watch, nowMicros);
  }

  /** Hot path. Notes a message with readings that were accepted. */
  received(deviceId: number, receivedMicros: number): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined) return;
    if (receivedMicros > device.sinceMicros) device.sinceMicros = receivedMicros;
    if (device.isUnsettled) this.#settle(device, receivedMicros);
    const { cadence } = device;
    if (cadence === null) return;
    const { backMicros } = this.#deps.outages;
    if (cadence.heard(receivedMicros, backMicros, device.gapMicrosMax)) this.#learned(device);
  }

  /** Notes a message that could not be stored. */
  refused(deviceId: number, receivedMicros: number): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined) return;
    device.refusedMicros = receivedMicros;
    this.#contacted(device, receivedMicros);
    for (const watch of device.watches) {
      if (watch.isKindCheck) this.#check(watch, receivedMicros);
      else this.#cameBack(watch);
    }
  }

  /** Notes what a connection is now. */
  setConnection(deviceId: number, connection: ConnectionState, atMicros: number): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined) return;
    const isOnline = connection === 'online';
    if (isOnline) device.connectedMicros = atMicros;
    if (device.isConnectionKnown && device.connection === connection) return;
    device.isConnectionKnown = true;
    device.connection = connection;
    device.connectionMicros = atMicros;
    if (isOnline) this.#contacted(device, atMicros);
    for (const watch of device.watches) {
      if (watch.isKindCheck) this.#check(watch, atMicros);
      else if (isOnline) this.#cameBack(watch);
    }
  }

  /** Notes how long a device says that it sleeps between contacts; 0: it is always on. */
  setSleep(deviceId: number, sleepS: number): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined) return;
    device.isSleepKnown = true;
    if (device.sleepS === sleepS) return;
    device.sleepS = sleepS;
    this.#planAuto(device);
  }

  /** Notes the interval in which a device is meant to send readings; null: not declared. */
  declareInterval(deviceId: number, intervalMicros: number | null): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined || device.intervalMicros === intervalMicros) return;
    device.intervalMicros = intervalMicros;
    this.#planAuto(device);
  }

  /**
   * Looks at deadlines that were due before `dueMicros`, at most so many. Not to be called during an
   * outage of ours: it must be known when it ended.
   */
  takeDue(dueMicros: number, nowMicros: number, checksMax: number): void {
    for (let count = 0; count < checksMax; count += 1) {
      const watch = this.#due.takeDue(dueMicros / 1000);
      if (watch === null) return;
      this.#check(watch, nowMicros);
    }
  }

  /** The clock was set back: nothing was heard later than now. */
  rewind(nowMicros: number): void {
    for (const device of this.#devices.values()) {
      device.sinceMicros = Math.min(device.sinceMicros, nowMicros);
      device.connectedMicros = Math.min(device.connectedMicros, nowMicros);
      device.connectionMicros = Math.min(device.connectionMicros, nowMicros);
      device.refusedMicros = Math.min(device.refusedMicros, nowMicros);
      for (const watch of device.watches) if (!watch.isKindCheck) this.#plan(watch);
    }
  }

  #restoreCadence(device: WatchedDevice): void {
    const { cadence, storedCadence } = device;
    if (cadence === null || storedCadence === null) return;
    cadence.restore(storedCadence);
    device.gapMicrosMax = afterMicrosOf('auto', gapsOf(device)) ?? Infinity;
  }

  /** The first verdict of a watch, or its deadline when only that can tell. */
  #begin(watch: Watch, nowMicros: number): void {
    const { device } = watch;
    const afterMicros = afterMicrosOf(watch.afterMicros, gapsOf(device));
    const isFresh = device.sinceMicros + (afterMicros ?? -Infinity) > nowMicros;
    if (watch.told === undefined && (isFresh || device.sinceMicros === -Infinity)) {
      this.#tell(watch, null, nowMicros);
    }
    this.#plan(watch);
  }

  /** A reading has come that changes something. */
  #settle(device: WatchedDevice, receivedMicros: number): void {
    device.isUnsettled = false;
    for (const watch of device.watches) {
      if (watch.told !== null) this.#tell(watch, null, receivedMicros);
      this.#plan(watch);
    }
  }

  /** A device that never sent a reading is expected to, from its first contact on. */
  #contacted(device: WatchedDevice, atMicros: number): void {
    if (!device.isLoaded || device.sinceMicros !== -Infinity) return;
    device.sinceMicros = atMicros;
    for (const watch of device.watches) this.#plan(watch);
  }

  /** Behind an outage of ours a device that is back has no need of the grace. */
  #cameBack(watch: Watch): void {
    if (watch.device.isUnsettled && watch.heapIndex >= 0) this.#plan(watch);
  }

  #learned(device: WatchedDevice): void {
    device.gapMicrosMax = afterMicrosOf('auto', gapsOf(device)) ?? Infinity;
    this.#planAuto(device);
  }

  #planAuto(device: WatchedDevice): void {
    for (const watch of device.watches) {
      if (watch.afterMicros === 'auto' && !watch.isKindCheck) this.#plan(watch);
    }
  }

  /** Puts a watch that is not silent where its deadline is. */
  #plan(watch: Watch): void {
    const { device } = watch;
    const patience = this.#patienceOf(watch);
    if (patience === null || device.sinceMicros === -Infinity) {
      this.#due.remove(watch);
      device.isUnsettled = true;
      return;
    }
    watch.isKindCheck = false;
    const deadlineMicros = silenceDeadline(device, patience);
    // Put off by an outage of ours: the next reading brings it forward.
    if (deadlineMicros > device.sinceMicros + patience.afterMicros) device.isUnsettled = true;
    this.#due.put(watch, deadlineMicros / 1000);
  }

  #check(watch: Watch, nowMicros: number): void {
    this.#checks += 1;
    const { device, told } = watch;
    const patience = this.#patienceOf(watch);
    if (patience === null) return this.#plan(watch);
    // Whether it goes on must wait for the end of an outage.
    if (patience.outages.isDown) return this.#due.put(watch, nowMicros / 1000);
    const verdict = isSilent(watch)
      ? kindOfSilence(device, patience.afterMicros, nowMicros)
      : judgeSilence(device, patience, nowMicros);
    if (verdict.silence === null) return this.#plan(watch);
    watch.isKindCheck = true;
    device.isUnsettled = true;
    const untilMicros = mayComeBackUntil(device, patience);
    if (verdict.silence === 'offline' && told !== 'offline' && nowMicros <= untilMicros) {
      return this.#due.put(watch, untilMicros / 1000);
    }
    if (verdict.silence !== told) {
      const atMicros = isSilent(watch) ? nowMicros : silenceDeadline(device, patience);
      this.#tell(watch, verdict.silence, atMicros);
    }
    if (verdict.nextMicros === Infinity) this.#due.remove(watch);
    else this.#due.put(watch, verdict.nextMicros / 1000);
  }

  #patienceOf({ afterMicros, device }: Watch): Patience | null {
    const { outages, graceMicros } = this.#deps;
    const micros = afterMicrosOf(afterMicros, gapsOf(device));
    return micros === null ? null : { afterMicros: micros, graceMicros, outages };
  }

  #tell(watch: Watch, silence: Silence | null, atMicros: number): void {
    if (isSilent(watch)) this.#silent[watch.told] -= 1;
    if (silence !== null) this.#silent[silence] += 1;
    watch.told = silence;
    watch.toldMicros = atMicros;
    for (const ruleId of watch.ruleIds) this.#tellRule(watch, ruleId);
  }

  #tellRule({ device, told = null, toldMicros }: Watch, ruleId: number): void {
    const { deviceId, organizationId } = device;
    this.#deps.onSilence({
      deviceId,
      organizationId,
      ruleId,
      silence: told,
      atMicros: toldMicros,
    });
  }

  #leave(device: WatchedDevice, ruleId: number): void {
    for (const watch of device.watches.slice()) {
      const place = watch.ruleIds.indexOf(ruleId);
      if (place < 0) continue;
      watch.ruleIds.splice(place, 1);
      if (watch.ruleIds.length === 0) this.#drop(watch);
    }
  }

  #drop(watch: Watch): void {
    this.#due.remove(watch);
    if (isSilent(watch)) this.#silent[watch.told] -= 1;
    const { watches } = watch.device;
    watches.splice(watches.indexOf(watch), 1);
  }
}

function gapsOf({ intervalMicros, sleepS, cadence }: WatchedDevice): {
  readonly intervalMicros: number | null;
  readonly sleepS: number;
  readonly gapP99Micros: number | null;
} {
  return { intervalMicros, sleepS, gapP99Micros: cadence?.gapP99Micros ?? null };
}
