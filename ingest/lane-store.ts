import type { Pool } from 'pg';
import type { StoredClock } from '../firmware-protocol/device-clock.ts';
import { firstResidue } from '../firmware-protocol/time.ts';
import type { Decoded } from '../firmware-protocol/telemetry.ts';
import { BootSequence } from './boot-sequence.ts';
import { DeviceLane, type DeviceRates } from './device-lane.ts';
import { Lane } from './lane.ts';
import type { MetricCatalog, MetricKind } from './metric-catalog.ts';
import { parseRanges } from './sequence-ranges.ts';
import { SequenceWindow } from './sequence-window.ts';
import { SharedRates, type SharedRate } from './shared-rate.ts';
import type { PendingSequence } from './spool/pending-sequences.ts';

/** The rates that ingest lets through; 0 is no limit. */
export interface Rates extends DeviceRates {
  /** Messages of all devices of an organization. */
  readonly organizationMessagesPerSecond?: number;
  /** Messages of all connections from one remote address. */
  readonly addressMessagesPerSecond?: number;
}

/** What lanes are made with. */
export interface LaneStoreParts {
  readonly pool: Pool;
  readonly catalog: MetricCatalog;
  readonly rates: Rates;
  /** Added to where between the milliseconds times of receipt begin, so that two stores differ. */
  readonly residueOffset: number;
  /** Whether what comes was received before: what is stored of a boot is kept apart then. */
  readonly isReplay: boolean;
  /** What of a device is stored, but not yet in the database. */
  readonly pendingSequences?: ((deviceId: number) => readonly PendingSequence[]) | undefined;
  /** Of a replay: the numbers that were stored when the live lane of the device was loaded. */
  readonly loadedNumbers?: ((deviceId: number) => readonly PendingSequence[]) | undefined;
}

/** A device without a connection is forgotten after this time; until then its rate limits hold. */
const IDLE_MS_MAX = 600_000;

/**
 * The lanes in memory, one for each device that is connected or was a short while ago. Their number is
 * bounded by the connections and by ten minutes of reconnects.
 */
export class LaneStore {
  readonly #pool: Pool;
  readonly #catalog: MetricCatalog;
  readonly #rates: DeviceRates;
  readonly #organizationRates: SharedRates<number>;
  readonly #addressRates: SharedRates<string>;
  readonly #pendingSequences: (deviceId: number) => readonly PendingSequence[];
  readonly #loadedNumbers: (deviceId: number) => readonly PendingSequence[];
  readonly #residueOffset: number;
  readonly #isReplay: boolean;
  readonly #quarantined = new Set<number>();
  readonly #lanes = new Map<number, DeviceLane>();

  constructor(parts: LaneStoreParts) {
    const { pool, catalog, rates, residueOffset, isReplay, pendingSequences } = parts;
    this.#isReplay = isReplay;
    this.#pool = pool;
    this.#catalog = catalog;
    this.#rates = rates;
    this.#residueOffset = residueOffset;
    this.#pendingSequences = pendingSequences ?? (() => []);
    this.#loadedNumbers = parts.loadedNumbers ?? (() => []);
    this.#organizationRates = new SharedRates(rates.organizationMessagesPerSecond ?? 0, 'quota');
    this.#addressRates = new SharedRates(rates.addressMessagesPerSecond ?? 0, 'rate');
  }

  /** How many lanes are in memory. */
  get size(): number {
    return this.#lanes.size;
  }

  /** The devices whose lanes are in memory. */
  get devices(): Iterable<DeviceLane> {
    return this.#lanes.values();
  }

  /** The lane of a new connection; give it back with {@link release}. */
  acquire(organizationId: number, deviceId: number, address: string): Lane {
    let device = this.#lanes.get(deviceId);
    if (device === undefined) {
      device = new DeviceLane(organizationId, deviceId, this.#rates, this.#residue());
      device.isQuarantined = this.#quarantined.has(deviceId);
      // A copy of what waits in the spool is known as one before the device can be looked up.
      recall(device, this.#pendingSequences(deviceId));
      this.#lanes.set(deviceId, device);
    }
    device.connections += 1;
    const shared: (SharedRate | null)[] = [
      address === '' ? null : this.#addressRates.acquire(address),
      this.#organizationRates.acquire(organizationId),
    ];
    return new Lane(
      device,
      shared.filter((rate) => rate !== null),
    );
  }

  /** Tells that a connection has ended. */
  release({ device, sharedRates }: Lane): void {
    const nowMs = performance.now();
    for (const used of [device, ...sharedRates]) {
      used.connections -= 1;
      used.usedAt = nowMs;
    }
  }

  /** Notes that a device was put into quarantine, or let out of it, for now and when it comes again. */
  setQuarantined(deviceId: number, isQuarantined: boolean): void {
    if (isQuarantined) this.#quarantined.add(deviceId);
    else this.#quarantined.delete(deviceId);
    const device = this.#lanes.get(deviceId);
    if (device !== undefined) device.isQuarantined = isQuarantined;
  }

  /** Notes that a number of a boot is stored by others, where the device is in memory. */
  noteNumber(deviceId: number, boot: number, seq: number): void {
    this.#lanes.get(deviceId)?.sequenceOf(boot).others.add(seq);
  }

  /**
   * The numbers of a device that were stored when it was loaded, if messages of it waited in the spool
   * then: copies of them may wait there too, while live messages get far ahead.
   */
  numbersAtLoad(deviceId: number): readonly PendingSequence[] {
    return this.#lanes.get(deviceId)?.numbersAtLoad ?? [];
  }

  /** Forgets what was not used for ten minutes. To be called now and then. */
  forgetIdle(): void {
    const nowMs = performance.now();
    for (const [deviceId, device] of this.#lanes) {
      if (device.isEmpty && nowMs - device.usedAt > IDLE_MS_MAX) this.#lanes.delete(deviceId);
    }
    this.#organizationRates.forgetIdle(nowMs);
    this.#addressRates.forgetIdle(nowMs);
  }

  /** Reads what is stored of the device, once. Rejects when the database is away. */
  load(device: DeviceLane): Promise<void> {
    if (device.isLoaded) return Promise.resolve();
    device.loading ??= this.#load(device).finally(() => {
      device.loading = null;
    });
    return device.loading;
  }

  /**
   * The metrics of a message that the lane has no slot for, or null when it has all. Hot path: nothing
   * is allocated then.
   */
  missingMetrics({ slots }: DeviceLane, decoded: Decoded): Map<string, MetricKind> | null {
    let missing: Map<string, MetricKind> | null = null;
    for (const sample of decoded.samples) {
      for (const point of sample.points) {
        if (slots.has(point.metric)) continue;
        missing ??= new Map();
        missing.set(point.metric, point.kind);
      }
    }
    return missing;
  }

  /**
   * Looks metrics up, or makes them, and gives the lane their slots.
   * @returns false when the organization has too many metrics; the lane gets none then.
   */
  async makeSlots(lane: DeviceLane, kinds: ReadonlyMap<string, MetricKind>): Promise<boolean> {
    if (!(await this.#catalog.ensure(lane.organizationId, kinds))) return false;
    for (const name of kinds.keys()) {
      const metricId = this.#catalog.find(lane.organizationId, name);
      if (metricId === undefined) throw new Error(`metric ${name} not in memory`);
      if (!lane.slots.has(name)) addSlot(lane, name, metricId, -Infinity);
    }
    return true;
  }

  /** What was received may be of a device that was deleted since. */
  async #exists({ deviceId, organizationId }: DeviceLane): Promise<boolean> {
    const { rowCount } = await this.#pool.query(
      'SELECT FROM device WHERE device_id = $1 AND organization_id = $2',
      [deviceId, organizationId],
    );
    return rowCount === 1;
  }

  #keepSequence(device: DeviceLane, row: SequenceRow): void {
    const boot = Number(row.boot);
    const stored = SequenceWindow.restore(parseRanges(row.received));
    if (this.#isReplay) {
      noteOthers(device, { boot, seqs: stored.recent() });
      return;
    }
    const sequence = new BootSequence(device, boot, stored);
    if (device.hasSpooled) device.numbersAtLoad.push({ boot, seqs: stored.recent() });
    sequence.hasForgotten = row.forgotten !== '0';
    device.keep(sequence);
  }

  /** Anew for each device: the wall clock may have been set back since the last one. */
  #residue(): number {
    return (firstResidue(Date.now() - performance.now()) + this.#residueOffset) % 1000;
  }

  /** The series of the device, the numbers of its last boots, and what is known of its clock. */
  async #load(device: DeviceLane): Promise<void> {
    // Asked first: what is drained meanwhile is then in either answer, or in both.
    const pending = this.#pendingSequences(device.deviceId);
    device.hasSpooled = pending.length > 0;
    device.numbersAtLoad.length = 0;
    const { rows } = await this.#pool.query<LoadRow>(LOAD, [device.deviceId]);
    if (this.#isReplay) device.isGone = !(await this.#exists(device));
    for (const row of rows) {
      if (row.name !== null) addSlot(device, row.name, row.metric_id, Number(row.micros));
      else if (row.boot !== null) this.#keepSequence(device, row);
      else device.clock.restore(row.clock);
    }
    recall(device, pending);
    for (const loaded of this.#loadedNumbers(device.deviceId)) noteOthers(device, loaded);
    device.isLoaded = true;
  }
}

/** What was acknowledged and is not in the database yet counts as stored. */
function recall(device: DeviceLane, pending: readonly PendingSequence[]): void {
  for (const { boot, seqs } of pending) {
    const sequence = device.sequenceOf(boot);
    for (const seq of seqs) sequence.addStored(seq);
  }
}

function noteOthers(device: DeviceLane, { boot, seqs }: PendingSequence): void {
  const { others } = device.sequenceOf(boot);
  for (const seq of seqs) others.add(seq);
}

const LOAD = `
  SELECT metric.name, metric_id, (extract(epoch FROM device_latest.time) * 1000000)::int8 AS micros,
         NULL::int8 AS boot, NULL AS received, NULL::int8 AS forgotten, NULL::jsonb AS clock
  FROM device_latest JOIN metric USING (metric_id) WHERE device_id = $1
  UNION ALL
  (SELECT NULL, NULL, NULL, boot, received::text, forgotten, NULL FROM (
    SELECT boot, received, forgotten, last_at FROM device_sequence WHERE device_id = $1
    ORDER BY last_at DESC LIMIT 3
  ) AS newest ORDER BY last_at)
  UNION ALL
  SELECT NULL, NULL, NULL, NULL, NULL, NULL, jsonb_build_object(
    'offsetMs', offset_ms, 'driftPpm', drift_ppm, 'samples', samples,
    'measuredMicros', (extract(epoch FROM measured_at) * 1000000)::int8)
  FROM device_clock WHERE device_id = $1`;

interface SequenceRow {
  readonly name: null;
  readonly boot: string;
  readonly received: string;
  readonly forgotten: string;
}

/** A series; without `name` the numbers of a boot; without both a clock. */
type LoadRow =
  | { name: string; metric_id: number; micros: string }
  | SequenceRow
  | { name: null; boot: null; clock: StoredClock };

function addSlot(lane: DeviceLane, name: string, metricId: number, timeMicros: number): void {
  lane.slots.set(name, {
    deviceId: lane.deviceId,
    metricId,
    timeMicros,
    value: null,
    text: null,
    receivedMicros: 0,
    quality: 0,
    batch: null,
    observed: null,
  });
}
