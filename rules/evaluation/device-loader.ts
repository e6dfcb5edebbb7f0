import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { microsOf } from '../../drizzle/timestamp-text.ts';
import type { Logger } from '../../log.ts';
import type { DeviceLoadMetrics } from './device-load-metrics.ts';
import type { DeviceLoader, LoadRequest, LoadedDevice, OpenAlert } from './device-load.ts';
import type { ConnectionState } from '../compiled-rule.ts';
import { findCatchUp, readHistories } from './device-histories.ts';
import { readEvents } from './event-history.ts';
import type { WantedSeries } from './history-rows.ts';
import { openAlertsOf, settledAlertsOf } from '../log/open-alerts.ts';

/** What the loader is made of. */
export interface DeviceLoaderDeps {
  readonly pool: pg.Pool;
  /** As it was when the program started; null: nothing was evaluated before. */
  readonly startCheckpointMicros: number | null;
  /** As it is now: `AlertLog.checkpointMicros`. */
  readonly checkpointMicros: () => number;
  /** Readings of a window that are kept; older ones are left out. */
  readonly windowSamplesMax: number;
  readonly metrics: DeviceLoadMetrics;
  readonly log: Logger;
}

/** A loader that can also say which devices are not to wait for their next reading. */
export interface StartLoader extends DeviceLoader {
  /**
   * Devices of which something was received that may not have been evaluated before the program ended, and
   * that were not loaded since. To be asked, and all of them loaded, at the start: some send nothing more,
   * and rules that are made later are not for what was received now. @throws {StoreUnavailableError}
   */
  devicesToCatchUp(): Promise<number[]>;
}

/** Devices of one call. */
export const LOAD_DEVICES_MAX = 500;
/** Readings received so shortly before the checkpoint are evaluated again: a step is recorded late (`SETTLE_MICROS`). */
const CHECKPOINT_MARGIN_MICROS = 10_000_000;

/**
 * Makes the loader. A device of which something was received behind the checkpoint of the run before is
 * loaded for the first time with all of that; any other with what was received behind the checkpoint of
 * now, so that what this run has evaluated, or no rule has looked at, is not evaluated.
 */
export function createDeviceLoader(deps: DeviceLoaderDeps): StartLoader {
  /** Not loaded yet in this run; null before it was asked for. */
  let toCatchUp: Set<number> | null = null;
  /** Loaded in this run: their timers were taken since, for as long as they had any. */
  const loaded = new Set<number>();
  const find = async (): Promise<Set<number>> => (toCatchUp ??= await findDevicesToCatchUp(deps));
  return {
    async load(requests) {
      if (requests.length > LOAD_DEVICES_MAX) throw new RangeError('too many devices at a time');
      const behind = await find();
      const start = deps.startCheckpointMicros ?? Infinity;
      const now = deps.checkpointMicros() || start;
      const devices = await loadDevices(deps, requests, {
        received: (deviceId) => (behind.has(deviceId) ? start : now) - CHECKPOINT_MARGIN_MICROS,
        ticked: (deviceId) => (loaded.has(deviceId) ? now : start) - CHECKPOINT_MARGIN_MICROS,
      });
      for (const { deviceId } of requests) {
        behind.delete(deviceId);
        loaded.add(deviceId);
      }
      return devices;
    },
    devicesToCatchUp: async () => [...(await find())],
  };
}

/** Walks over all of `device_latest`, once for each start. */
async function findDevicesToCatchUp({
  pool,
  startCheckpointMicros,
}: DeviceLoaderDeps): Promise<Set<number>> {
  if (startCheckpointMicros === null) return new Set();
  const { rows } = await guardStore(
    pool.query<{ device_id: number }>(
      `SELECT device_id FROM device_latest WHERE received_at > to_timestamp($1::float8 / 1000000.0)
       UNION SELECT device_id FROM event WHERE received_at > to_timestamp($1::float8 / 1000000.0)`,
      [startCheckpointMicros - CHECKPOINT_MARGIN_MICROS],
    ),
  );
  return new Set(rows.map((row) => row.device_id));
}

/** Up to where a device was evaluated, microseconds since 1970; Infinity: nothing ever was, nor is to be. */
interface EvaluatedUntil {
  /** Time of receipt of its readings and events. */
  readonly received: (deviceId: number) => number;
  /** Event time of its ticks. */
  readonly ticked: (deviceId: number) => number;
}

async function loadDevices(
  deps: DeviceLoaderDeps,
  requests: readonly LoadRequest[],
  { received: unevaluatedFrom, ticked }: EvaluatedUntil,
): Promise<LoadedDevice[]> {
  const { pool } = deps;
  const ids = requests.map(({ deviceId }) => deviceId);
  const [devices, open] = await Promise.all([findDevices(pool, ids), openAlertsOf(pool, ids)]);
  const series = await findSeries(deps, requests, unevaluatedFrom);
  const catchUp = await findCatchUp(pool, series);
  const events = await readEvents(
    pool,
    requests.map((request) => ({
      request,
      unevaluatedMicros: unevaluatedFrom(request.deviceId),
      catchUpFromMicros: catchUp.get(request.deviceId) ?? Infinity,
    })),
  );
  for (const [deviceId, { unevaluatedFromMicros }] of events) {
    const from = Math.min(catchUp.get(deviceId) ?? Infinity, unevaluatedFromMicros);
    if (from < Infinity) catchUp.set(deviceId, from);
  }
  const settled = await settledAlertsOf(pool, settledFrom(ids, catchUp, ticked));
  const histories = await readHistories(deps, series, catchUp);
  const openOf = groupOpen(open);
  return devices.map(({ device, ...connection }) => ({
    device,
    ...connection,
    open: openOf.get(device.deviceId) ?? [],
    history: histories.get(device.deviceId) ?? [],
    events: events.get(device.deviceId)?.events ?? [],
    catchUpFromMicros: catchUp.get(device.deviceId) ?? Infinity,
    tickedMicros: tickedOrUnknown(ticked(device.deviceId)),
    settled: settled.get(device.deviceId) ?? [],
  }));
}

/** From where on a device takes steps that may be on record. */
function settledFrom(
  ids: readonly number[],
  catchUp: ReadonlyMap<number, number>,
  ticked: (deviceId: number) => number,
): Map<number, number> {
  const from = new Map<number, number>();
  for (const id of ids) {
    const first = Math.min(catchUp.get(id) ?? Infinity, ticked(id));
    if (first < Infinity) from.set(id, first);
  }
  return from;
}

function tickedOrUnknown(tickedMicros: number): number {
  return tickedMicros === Infinity ? -Infinity : tickedMicros;
}

interface DeviceRow {
  device_id: number;
  organization_id: number;
  slug: string;
  tags: string[];
  device_type: string | null;
  connection: ConnectionState;
  connection_micros: number | null;
}

type ConnectedDevice = Pick<LoadedDevice, 'device' | 'connection' | 'connectionMicros'>;

async function findDevices(pool: pg.Pool, ids: readonly number[]): Promise<ConnectedDevice[]> {
  const { rows } = await guardStore(
    pool.query<DeviceRow>(
      `SELECT device.device_id, device.organization_id, device.slug, device.tags, device.device_type,
         coalesce(device_presence.state, 'never') AS connection,
         ${microsOf('device_presence.since')} AS connection_micros
       FROM device LEFT JOIN device_presence ON device_presence.device_id = device.device_id
       WHERE device.device_id = ANY($1)`,
      [ids],
    ),
  );
  return rows.map((row) => ({
    device: {
      deviceId: row.device_id,
      organizationId: row.organization_id,
      slug: row.slug,
      tags: row.tags,
      type: row.device_type,
    },
    connection: row.connection,
    connectionMicros: row.connection_micros ?? 0,
  }));
}

interface SeriesRow {
  device_id: number;
  metric_id: number;
  name: string;
  kind: string;
  history_micros: number;
  samples: number;
  time_micros: number;
  received_micros: number;
  value: number | null;
  text_value: string | null;
}

/** The series that rules look at. Requests of one organization share their metrics: they are named once. */
async function findSeries(
  { pool, windowSamplesMax }: DeviceLoaderDeps,
  requests: readonly LoadRequest[],
  unevaluatedFrom: (deviceId: number) => number,
): Promise<WantedSeries[]> {
  const groups = new Map<LoadRequest['metrics'], number>();
  const asked = new Map<number, LoadRequest>();
  for (const request of requests) {
    if (!groups.has(request.metrics)) groups.set(request.metrics, groups.size);
    asked.set(request.deviceId, request);
  }
  const devices = [...asked.values()].map(({ deviceId, metrics }) => ({
    device_id: deviceId,
    of: groups.get(metrics),
  }));
  const wanted = [...groups].flatMap(([metrics, of]) =>
    [...metrics].map(([name, { historyMicros, historySamples = 0 }]) => ({
      of,
      name,
      history_micros: historyMicros,
      samples: Math.min(Math.max(historySamples, 1), windowSamplesMax),
    })),
  );
  const { rows } = await guardStore(
    pool.query<SeriesRow>(
      `SELECT latest.device_id, latest.metric_id, metric.name, metric.kind, wanted.history_micros,
         wanted.samples, ${microsOf('latest.time')} AS time_micros,
         ${microsOf('latest.received_at')} AS received_micros, latest.value, latest.text_value
       FROM jsonb_to_recordset($1::jsonb) AS asked (device_id int4, "of" int4)
       JOIN device ON device.device_id = asked.device_id
       JOIN device_latest AS latest ON latest.device_id = asked.device_id
       JOIN metric ON metric.metric_id = latest.metric_id
         AND metric.organization_id = device.organization_id
       JOIN jsonb_to_recordset($2::jsonb) AS wanted
         ("of" int4, name text, history_micros float8, samples int4)
         ON wanted."of" = asked."of" AND wanted.name = metric.name`,
      [JSON.stringify(devices), JSON.stringify(wanted)],
    ),
  );
  return rows.map((row) => seriesOf(row, asked.get(row.device_id), unevaluatedFrom(row.device_id)));
}

function seriesOf(
  row: SeriesRow,
  request: LoadRequest | undefined,
  unevaluatedMicros: number,
): WantedSeries {
  const receivedBeforeMicros = request?.receivedBeforeMicros ?? Infinity;
  const isByReceipt = receivedBeforeMicros !== Infinity;
  return {
    deviceId: row.device_id,
    metricId: row.metric_id,
    metric: row.name,
    isText: row.kind === 'text',
    historyMicros: row.history_micros,
    samplesBefore: row.samples,
    latest: {
      timeMicros: row.time_micros,
      receivedMicros: row.received_micros,
      value: row.value,
      text: row.text_value,
    },
    beforeMicros: isByReceipt ? Infinity : (request?.beforeMicros ?? Infinity),
    receivedBeforeMicros,
    unevaluatedMicros,
  };
}

function groupOpen(open: readonly OpenAlert[]): Map<number, OpenAlert[]> {
  const grouped = new Map<number, OpenAlert[]>();
  for (const alert of open) {
    const ofDevice = grouped.get(alert.deviceId);
    if (ofDevice === undefined) grouped.set(alert.deviceId, [alert]);
    else ofDevice.push(alert);
  }
  return grouped;
}
