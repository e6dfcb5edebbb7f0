import type { Pool } from 'pg';
import type { Decoded } from '../firmware-protocol/telemetry.ts';
import { Lane, type LaneRates } from './lane.ts';
import type { MetricCatalog, MetricKind } from './metric-catalog.ts';

/** A device without a connection is forgotten after this time; until then its rate limits hold. */
const IDLE_MS_MAX = 600_000;

/**
 * The lanes in memory, one for each device that is connected or was a short while ago. Their number is
 * bounded by the connections and by ten minutes of reconnects.
 */
export class LaneStore {
  readonly #pool: Pool;
  readonly #catalog: MetricCatalog;
  readonly #rates: LaneRates;
  readonly #lanes = new Map<number, Lane>();

  constructor(pool: Pool, catalog: MetricCatalog, rates: LaneRates) {
    this.#pool = pool;
    this.#catalog = catalog;
    this.#rates = rates;
  }

  /** How many lanes are in memory. */
  get size(): number {
    return this.#lanes.size;
  }

  /** The lane of a device for a new connection; give it back with {@link release}. */
  acquire(organizationId: number, deviceId: number): Lane {
    let lane = this.#lanes.get(deviceId);
    if (lane === undefined) {
      lane = new Lane(organizationId, deviceId, this.#rates);
      this.#lanes.set(deviceId, lane);
    }
    lane.connections += 1;
    lane.isClockReported = false;
    return lane;
  }

  /** Tells that a connection no longer uses the lane. */
  release(lane: Lane): void {
    lane.connections -= 1;
    lane.usedAt = performance.now();
  }

  /** Forgets what was not used for ten minutes. To be called now and then. */
  forgetIdle(): void {
    const before = performance.now() - IDLE_MS_MAX;
    for (const [deviceId, lane] of this.#lanes) {
      const isIdle = lane.connections === 0 && lane.waiting.length === 0 && lane.usedAt < before;
      if (isIdle) this.#lanes.delete(deviceId);
    }
  }

  /** Reads the series that the device has. Rejects when the database is away. */
  async load(lane: Lane): Promise<void> {
    const { rows } = await this.#pool.query<{ name: string; metric_id: number; micros: string }>(
      `SELECT metric.name, metric_id, (extract(epoch FROM device_latest.time) * 1000000)::int8 AS micros
       FROM device_latest JOIN metric USING (metric_id) WHERE device_id = $1`,
      [lane.deviceId],
    );
    for (const row of rows) addSlot(lane, row.name, row.metric_id, Number(row.micros));
    lane.isLoaded = true;
  }

  /**
   * The metrics of a message that the lane has no slot for, or null when it has all. Hot path: nothing
   * is allocated then.
   */
  missingMetrics(lane: Lane, decoded: Decoded): Map<string, MetricKind> | null {
    let missing: Map<string, MetricKind> | null = null;
    for (const sample of decoded.samples) {
      for (const point of sample.points) {
        if (lane.slots.has(point.metric)) continue;
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
  async makeSlots(lane: Lane, kinds: ReadonlyMap<string, MetricKind>): Promise<boolean> {
    if (!(await this.#catalog.ensure(lane.organizationId, kinds))) return false;
    for (const name of kinds.keys()) {
      const metricId = this.#catalog.find(lane.organizationId, name);
      if (metricId === undefined) throw new Error(`metric ${name} not in memory`);
      if (!lane.slots.has(name)) addSlot(lane, name, metricId, -Infinity);
    }
    return true;
  }
}

function addSlot(lane: Lane, name: string, metricId: number, timeMicros: number): void {
  lane.slots.set(name, {
    deviceId: lane.deviceId,
    metricId,
    timeMicros,
    value: null,
    text: null,
    receivedMicros: 0,
    quality: 0,
    batch: null,
  });
}
