import { createHash } from 'node:crypto';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { microsOf, timestampText } from '../drizzle/timestamp-text.ts';

/** A message that was acknowledged and could not be stored as readings. */
export interface QuarantinedMessage {
  readonly quarantineId: string;
  readonly deviceId: number;
  /** Slug; null when the device was deleted since. */
  readonly device: string | null;
  /** Microseconds since 1970. */
  readonly receivedMicros: number;
  readonly topic: string;
  /** Why, as the device was told: a code of the wire contract, `not_stored` or `device_quarantined`. */
  readonly code: string;
  readonly detail: string;
  readonly payload: Buffer;
  readonly editedAt: Date | null;
}

/** Which messages; null does not ask. Times are of receipt, in microseconds since 1970. */
export interface QuarantineFilter {
  readonly deviceId: number | null;
  readonly code: string | null;
  /** First time. */
  readonly fromMicros: number | null;
  /** First time that is no longer asked for. */
  readonly toMicros: number | null;
}

/** In whose name something is done, as `Author` of the registry. */
export interface QuarantineAuthor {
  readonly organizationId: number;
  readonly actor: string;
}

/** Writes to the audit trail in the transaction of the change: `writeAudit` of the registry. */
export type WriteAudit = (
  orm: NodePgDatabase,
  entry: QuarantineAuthor & {
    readonly action: string;
    readonly subject: string;
    readonly change?: Readonly<Record<string, unknown>>;
  },
) => Promise<void>;

/** A row as {@link MESSAGE_COLUMNS} gives it. */
export interface QuarantineRow {
  quarantine_id: string;
  device_id: number;
  device: string | null;
  received_micros: number;
  topic: string;
  code: string;
  detail: string;
  payload: Buffer;
  edited_at: Date | null;
}

/** Columns of a message, of a table or subquery `page` that is joined with `device`. */
export const MESSAGE_COLUMNS = `page.quarantine_id, page.device_id, device.slug AS device,
  ${microsOf('page.received_at')} AS received_micros, page.topic, page.code, page.detail, page.payload,
  page.edited_at`;

/** The message of a row. */
export function messageOf(row: QuarantineRow): QuarantinedMessage {
  return {
    quarantineId: row.quarantine_id,
    deviceId: row.device_id,
    device: row.device,
    receivedMicros: row.received_micros,
    topic: row.topic,
    code: row.code,
    detail: row.detail,
    payload: row.payload,
    editedAt: row.edited_at,
  };
}

/** The conditions of a filter. @param give adds a value and returns its parameter. */
export function filterClauses(
  { deviceId, code, fromMicros, toMicros }: QuarantineFilter,
  give: (value: unknown) => string,
): string {
  const clauses: string[] = [];
  const giveTime = (micros: number): string => `${give(timestampText(micros))}::timestamptz`;
  if (deviceId !== null) clauses.push(`AND device_id = ${give(deviceId)}`);
  if (code !== null) clauses.push(`AND code = ${give(code)}`);
  if (fromMicros !== null) clauses.push(`AND received_at >= ${giveTime(fromMicros)}`);
  if (toMicros !== null) clauses.push(`AND received_at < ${giveTime(toMicros)}`);
  return clauses.join(' ');
}

/** What a message says at this moment, in 16 characters; another one after each change of it. */
export function revisionOf({ topic, payload }: { topic: string; payload: Buffer }): string {
  const hash = createHash('sha256').update(topic, 'utf8').update('\0').update(payload);
  return hash.digest('base64url').slice(0, 16);
}
