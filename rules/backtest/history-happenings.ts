import { microsOf, timestampText } from '../../drizzle/timestamp-text.ts';
import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import type { ConnectionState } from '../compiled-rule.ts';
import type { BlockQuery } from './history-blocks.ts';

/** What happened to a device beside its readings: an event that it sent, or its connection. */
export type Happening =
  | {
      readonly deviceId: number;
      readonly timeMicros: number;
      readonly event: { readonly name: string; readonly content: unknown };
    }
  | {
      readonly deviceId: number;
      readonly timeMicros: number;
      readonly connection: ConnectionState;
    };

/** What a rule wants to know. */
export interface HappeningQuery extends BlockQuery {
  readonly events: readonly string[];
  readonly isConnectionWanted: boolean;
}

/** Rows that one question gives at most. */
export const HAPPENINGS_MAX = 100_000;

const EVENTS = `
  SELECT device_id, ${microsOf('time')} AS micros, name, content FROM event
  WHERE organization_id = $1 AND device_id = ANY($2::int4[])
    AND time >= $3::timestamptz AND time < $4::timestamptz AND name = ANY($5::text[])
  ORDER BY time LIMIT ${HAPPENINGS_MAX}`;

const CONNECTIONS = `
  SELECT device_id, ${microsOf('occurred_at')} AS micros, kind FROM device_event
  WHERE organization_id = $1 AND device_id = ANY($2::int4[])
    AND occurred_at >= $3::timestamptz AND occurred_at < $4::timestamptz
    AND kind IN ('connect', 'disconnect')
  ORDER BY occurred_at, device_event_id LIMIT ${HAPPENINGS_MAX}`;

/**
 * What happened to some devices, in the order of time. Whether a device slept is not in the history of
 * connections: it counts as offline.
 * @throws {StoreUnavailableError}
 */
export async function readHappenings(
  database: TenantDatabase,
  query: HappeningQuery,
): Promise<Happening[]> {
  const { organizationId, deviceIds, fromMicros, toMicros, events } = query;
  if (events.length === 0 && !query.isConnectionWanted) return [];
  const values = [
    organizationId,
    deviceIds,
    timestampText(fromMicros),
    timestampText(toMicros),
  ] as const;
  return inOrganization(database, organizationId, async ({ client }) => {
    const found: Happening[] = [];
    if (events.length > 0) {
      const { rows } = await client.query<EventRow>(EVENTS, [...values, events]);
      for (const { device_id: deviceId, micros: timeMicros, name, content } of rows) {
        found.push({ deviceId, timeMicros, event: { name, content } });
      }
    }
    if (query.isConnectionWanted) {
      const { rows } = await client.query<ConnectionRow>(CONNECTIONS, [...values]);
      for (const { device_id: deviceId, micros: timeMicros, kind } of rows) {
        const connection = kind === 'connect' ? 'online' : 'offline';
        found.push({ deviceId, timeMicros, connection });
      }
    }
    return found.toSorted((a, b) => a.timeMicros - b.timeMicros);
  });
}

interface EventRow {
  device_id: number;
  micros: number;
  name: string;
  content: unknown;
}

interface ConnectionRow {
  device_id: number;
  micros: number;
  kind: 'connect' | 'disconnect';
}
