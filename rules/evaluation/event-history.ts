import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { microsOf } from '../../drizzle/timestamp-text.ts';
import type { LoadRequest, StoredEvent } from './device-load.ts';

/** Events of a device that are read, the last ones. */
export const EVENTS_MAX = 200;

/** What is read of the events of one device. */
export interface EventQuery {
  readonly request: LoadRequest;
  /** Received later, an event may not have been evaluated. */
  readonly unevaluatedMicros: number;
  /** Event time from which all is evaluated again; Infinity: from nowhere. */
  readonly catchUpFromMicros: number;
}

/** Events of a device, and the time of the first that may not have been evaluated; Infinity without. */
export interface EventHistory {
  readonly events: StoredEvent[];
  unevaluatedFromMicros: number;
}

interface EventRow {
  device_id: number;
  name: string;
  time_micros: number;
  received_micros: number;
  content: unknown;
}

/**
 * The events of devices that rules wait for, in order of time: as far back as they may hold, and those that
 * may not have been evaluated. @throws {StoreUnavailableError}
 */
export async function readEvents(
  pool: pg.Pool,
  queries: readonly EventQuery[],
): Promise<Map<number, EventHistory>> {
  const asked = queries.filter(({ request }) => (request.events?.size ?? 0) > 0);
  const histories = new Map<number, EventHistory>();
  if (asked.length === 0) return histories;
  const { rows } = await guardStore(
    pool.query<EventRow>(SELECT, [JSON.stringify(asked.map(rowOf))]),
  );
  const unevaluated = new Map(
    asked.map(({ request, unevaluatedMicros }) => [request.deviceId, unevaluatedMicros]),
  );
  for (const row of rows) {
    const { device_id: deviceId, name, time_micros: timeMicros, content } = row;
    let history = histories.get(deviceId);
    if (history === undefined) {
      history = { events: [], unevaluatedFromMicros: Infinity };
      histories.set(deviceId, history);
    }
    history.events.push({ name, timeMicros, content });
    if (row.received_micros <= (unevaluated.get(deviceId) ?? Infinity)) continue;
    history.unevaluatedFromMicros = Math.min(history.unevaluatedFromMicros, timeMicros);
  }
  return histories;
}

/** JSON has no Infinity: null is far in the future there. */
function rowOf({ request, unevaluatedMicros, catchUpFromMicros }: EventQuery): object {
  const { deviceId, events, receivedBeforeMicros } = request;
  return {
    device_id: deviceId,
    names: [...(events?.keys() ?? [])],
    history_micros: Math.max(0, ...(events?.values() ?? [])),
    unevaluated: unevaluatedMicros,
    catch_up: catchUpFromMicros,
    received_before: receivedBeforeMicros ?? null,
  };
}

/** By the primary key of a device, which has few events that count. */
const SELECT = `
  SELECT asked.device_id, found.name, ${microsOf('found.time')} AS time_micros,
    ${microsOf('found.received_at')} AS received_micros, found.content
  FROM jsonb_to_recordset($1::jsonb) AS asked (device_id int4, names text[], history_micros float8,
    unevaluated float8, catch_up float8, received_before float8)
  CROSS JOIN LATERAL (
    SELECT min(event.time) AS time FROM event
    WHERE event.device_id = asked.device_id AND event.name = ANY(asked.names)
      AND event.received_at > to_timestamp(asked.unevaluated / 1000000.0)
  ) AS behind
  CROSS JOIN LATERAL (
    SELECT name, time, received_at, content FROM event
    WHERE event.device_id = asked.device_id AND event.name = ANY(asked.names)
      AND event.received_at < coalesce(to_timestamp(asked.received_before / 1000000.0), 'infinity')
      AND event.time >= least(now(), behind.time, to_timestamp(asked.catch_up / 1000000.0))
        - asked.history_micros / 1000000.0 * interval '1 second'
    ORDER BY event.time DESC LIMIT ${EVENTS_MAX}
  ) AS found
  ORDER BY asked.device_id, found.time`;
