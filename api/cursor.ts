import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { CursorInvalidError } from '../errors.ts';

const CURSOR_CHARS_MAX = 600;

/**
 * Writes where a page ended, for the client to hand back. It is bound to the question: used with
 * other filters it is refused, because its rows would not follow on what the client has.
 * @param filters everything that decides which rows there are and in what order; not the limit.
 * @param place the last row of the page.
 */
export function writeCursor(filters: readonly unknown[], place: readonly unknown[]): string {
  return Buffer.from(JSON.stringify([fingerprint(filters), ...place])).toString('base64url');
}

/**
 * Reads a cursor. What it holds is checked like any input: whoever makes one up gets rows that he
 * could have asked for anyway, or an error.
 * @param place the schema of what {@link writeCursor} was given.
 * @throws {CursorInvalidError} when it was not made for this question.
 */
export function readCursor<Place extends z.ZodTuple>(
  filters: readonly unknown[],
  place: Place,
  cursor: string,
): z.output<Place> {
  const [madeFor, ...rest] = decode(cursor);
  const parsed = place.safeParse(rest);
  if (madeFor !== fingerprint(filters) || !parsed.success) throw new CursorInvalidError();
  return parsed.data;
}

function decode(cursor: string): unknown[] {
  if (cursor.length > CURSOR_CHARS_MAX) throw new CursorInvalidError();
  try {
    const decoded: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    if (Array.isArray(decoded) && !decoded.some(hasNul)) return decoded;
  } catch {
    throw new CursorInvalidError();
  }
  throw new CursorInvalidError();
}

/** PostgreSQL's text cannot hold it, so that no row has it. */
function hasNul(value: unknown): boolean {
  return typeof value === 'string' && value.includes('\0');
}

function fingerprint(filters: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(filters)).digest('base64url').slice(0, 11);
}
