import type { Quality } from '../firmware-protocol/contract.ts';
import type { Occurrence } from '../firmware-protocol/occurrence.ts';

/** An event or some log lines with the times that they are stored with. */
export interface DatedOccurrence {
  readonly occurrence: Occurrence;
  /** Microseconds since 1970: of an event one, of a log one for each line. */
  readonly timesMicros: readonly number[];
  readonly quality: Quality;
}

/** What of a message makes rows of `event` and `log_entry`. */
export interface OccurrenceMessage {
  readonly dated: DatedOccurrence | null;
  readonly lane: {
    readonly device: { readonly organizationId: number; readonly deviceId: number };
  };
  readonly receivedMicros: number;
}

/** The rows of both tables that some messages make, as the statements' JSON parameters want them. */
export interface OccurrenceRows {
  readonly events: object[];
  readonly logEntries: object[];
}

/** Collects the rows; messages without an occurrence make none. */
export function occurrenceRows(messages: readonly OccurrenceMessage[]): OccurrenceRows {
  const rows: OccurrenceRows = { events: [], logEntries: [] };
  for (const message of messages) {
    if (message.dated === null) continue;
    const { occurrence } = message.dated;
    if (occurrence.kind === 'event') {
      rows.events.push(eventRow(message, message.dated, occurrence));
    } else addLogRows(rows.logEntries, message, message.dated, occurrence);
  }
  return rows;
}

/**
 * Each takes the JSON of its rows as its only parameter. Rows whose key is there already are skipped, so
 * that a batch may be written again. Microseconds as float8: exact until the year 2255, and so is the time
 * that PostgreSQL rounds to.
 */
export const OCCURRENCE_STATEMENTS = {
  event: `INSERT INTO event
      (device_id, time, name, organization_id, content, received_at, quality)
    SELECT device_id, to_timestamp(time_micros / 1000000.0), name, organization_id, content::jsonb,
      to_timestamp(received_micros / 1000000.0), quality
    FROM jsonb_to_recordset($1::jsonb) AS occurrence (device_id int4, time_micros float8, name text,
      organization_id int4, content text, received_micros float8, quality int2)
    ON CONFLICT DO NOTHING`,
  log_entry: `INSERT INTO log_entry
      (device_id, time, organization_id, level, tag, uptime_ms, message)
    SELECT device_id, to_timestamp(time_micros / 1000000.0), organization_id, level, tag, uptime_ms,
      message
    FROM jsonb_to_recordset($1::jsonb) AS occurrence (device_id int4, time_micros float8,
      organization_id int4, level text, tag text, uptime_ms int8, message text)
    ON CONFLICT DO NOTHING`,
} as const;

function eventRow(
  { lane, receivedMicros }: OccurrenceMessage,
  { timesMicros, quality }: DatedOccurrence,
  { name, content }: Extract<Occurrence, { kind: 'event' }>,
): object {
  return {
    device_id: lane.device.deviceId,
    time_micros: timesMicros[0],
    name,
    organization_id: lane.device.organizationId,
    content,
    received_micros: receivedMicros,
    quality,
  };
}

function addLogRows(
  rows: object[],
  { lane }: OccurrenceMessage,
  { timesMicros }: DatedOccurrence,
  { lines }: Extract<Occurrence, { kind: 'log' }>,
): void {
  for (const [index, { level, tag, uptimeMs, message }] of lines.entries()) {
    rows.push({
      device_id: lane.device.deviceId,
      time_micros: timesMicros[index],
      organization_id: lane.device.organizationId,
      level,
      tag,
      uptime_ms: uptimeMs,
      message,
    });
  }
}
