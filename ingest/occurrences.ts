import type pg from 'pg';
import { cutPage, type Page } from '../drizzle/page.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import type { LogLevel } from '../firmware-protocol/occurrence.ts';
import { microsOf, timestampText } from '../drizzle/timestamp-text.ts';

/** An event of a device as it is stored. */
export interface StoredEvent {
  /** Microseconds since 1970. */
  readonly timeMicros: number;
  readonly name: string;
  /** The JSON that the device sent; null when it sent nothing. */
  readonly content: unknown;
  /** Microseconds since 1970. */
  readonly receivedMicros: number;
  /** Where its time comes from: a value of QUALITY in the wire contract. */
  readonly quality: number;
}

/** A line of a device's log as it is stored. */
export interface StoredLogEntry {
  /** Microseconds since 1970. */
  readonly timeMicros: number;
  readonly level: LogLevel | null;
  readonly tag: string | null;
  readonly uptimeMs: number | null;
  readonly message: string;
}

/** What both questions have in common. */
interface OccurrenceQuery {
  readonly organizationId: number;
  readonly deviceId: number;
  /** First microsecond, or null for the beginning. */
  readonly fromMicros: number | null;
  /** First microsecond that is no longer asked for, or null for the end. */
  readonly toMicros: number | null;
  readonly order: 'asc' | 'desc';
  readonly limit: number;
}

/** A question for the events of one device. */
export interface EventsQuery extends OccurrenceQuery {
  readonly name: string | null;
  /** The last event of the page before. */
  readonly after: { readonly timeMicros: number; readonly name: string } | null;
}

/** A question for the log of one device. */
export interface LogQuery extends OccurrenceQuery {
  /** Null: all levels, and lines without one. */
  readonly levels: readonly LogLevel[] | null;
  readonly tag: string | null;
  /** Microseconds of the last line of the page before. */
  readonly after: number | null;
}

/** How long events and log lines are kept. */
export interface OccurrenceBounds {
  /** Since receipt. */
  readonly eventAgeMaxMs: number;
  readonly logAgeMaxMs: number;
}

/** What devices said that is no reading. Every function throws {@link StoreUnavailableError}. */
export interface Occurrences {
  /** One page, by time, and by name within the same microsecond. */
  events(query: EventsQuery): Promise<Page<StoredEvent>>;
  /** One page, by time. */
  logEntries(query: LogQuery): Promise<Page<StoredLogEntry>>;
  /**
   * Deletes what is too old, oldest first, in small transactions. To be called every minute or so.
   * @returns how many rows.
   */
  prune(bounds: OccurrenceBounds): Promise<number>;
}

/** Rows that one statement deletes, so that it stays far below the statement timeout. */
const DELETE_ROWS_MAX = 5000;
/** Statements for one table in one call; what is left waits for the next call. */
const DELETES_MAX = 100;

/** Makes the reading side of events and logs; the writer puts them in. */
export function createOccurrences(database: TenantDatabase): Occurrences {
  const { pool } = database;
  const select = async <Row extends object>(
    organizationId: number,
    { text, values }: Statement,
  ): Promise<Row[]> =>
    inOrganization(
      database,
      organizationId,
      async ({ client }) => (await client.query<Row>(text, values)).rows,
    );
  return {
    async events(query) {
      const rows = await select<StoredEvent>(query.organizationId, eventsStatement(query));
      return cutPage(rows, query.limit);
    },
    async logEntries(query) {
      const rows = await select<StoredLogEntry>(query.organizationId, logStatement(query));
      return cutPage(rows, query.limit);
    },
    async prune({ eventAgeMaxMs, logAgeMaxMs }) {
      const events = await deleteInSteps(
        pool,
        `DELETE FROM event WHERE (device_id, time, name) IN (
           SELECT device_id, time, name FROM event
           WHERE received_at < now() - $1 * interval '1 millisecond'
           ORDER BY received_at LIMIT $2)`,
        eventAgeMaxMs,
      );
      const logEntries = await deleteInSteps(
        pool,
        `DELETE FROM log_entry WHERE (device_id, time) IN (
           SELECT device_id, time FROM log_entry
           WHERE time < now() - $1 * interval '1 millisecond' ORDER BY time LIMIT $2)`,
        logAgeMaxMs,
      );
      return events + logEntries;
    },
  };
}

interface Statement {
  readonly text: string;
  readonly values: unknown[];
}

/** Walks the primary key (device_id, time, name) in the order asked for. */
function eventsStatement(query: EventsQuery): Statement {
  const { values, give, bounds } = beginWhere(query);
  if (query.name !== null) bounds.push(`event.name = ${give(query.name)}`);
  if (query.after !== null) {
    const time = give(timestampText(query.after.timeMicros));
    bounds.push(
      `(event.time, event.name) ${signOf(query)} (${time}::timestamptz, ${give(query.after.name)}::text)`,
    );
  }
  const direction = query.order;
  return {
    text: `SELECT event.name, event.content, event.quality,
             ${microsOf('event.time')} AS "timeMicros",
             ${microsOf('event.received_at')} AS "receivedMicros"
           FROM event WHERE ${bounds.join(' AND ')}
           ORDER BY event.time ${direction}, event.name ${direction} LIMIT $3`,
    values,
  };
}

/** Walks the primary key (device_id, time); what a filter leaves out is read and thrown away. */
function logStatement(query: LogQuery): Statement {
  const { values, give, bounds } = beginWhere(query);
  if (query.levels !== null) bounds.push(`level = ANY(${give(query.levels)}::text[])`);
  if (query.tag !== null) bounds.push(`tag = ${give(query.tag)}`);
  if (query.after !== null) {
    bounds.push(`time ${signOf(query)} ${give(timestampText(query.after))}::timestamptz`);
  }
  return {
    text: `SELECT level, tag, uptime_ms::float8 AS "uptimeMs", message,
             ${microsOf('time')} AS "timeMicros"
           FROM log_entry WHERE ${bounds.join(' AND ')}
           ORDER BY time ${query.order} LIMIT $3`,
    values,
  };
}

function beginWhere(query: OccurrenceQuery) {
  const values: unknown[] = [query.organizationId, query.deviceId, query.limit + 1];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const bounds = ['organization_id = $1', 'device_id = $2'];
  const { fromMicros, toMicros } = query;
  if (fromMicros !== null) bounds.push(`time >= ${give(timestampText(fromMicros))}::timestamptz`);
  if (toMicros !== null) bounds.push(`time < ${give(timestampText(toMicros))}::timestamptz`);
  return { values, give, bounds };
}

function signOf({ order }: OccurrenceQuery): string {
  return order === 'asc' ? '>' : '<';
}

async function deleteInSteps(pool: pg.Pool, text: string, ageMaxMs: number): Promise<number> {
  let deleted = 0;
  for (let step = 0; step < DELETES_MAX; step += 1) {
    const { rowCount } = await guardStore(pool.query(text, [ageMaxMs, DELETE_ROWS_MAX]));
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < DELETE_ROWS_MAX) break;
  }
  return deleted;
}
