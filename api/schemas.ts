import { z } from 'zod';
import type { AppError } from '../errors.ts';
import { DURATION_HINT, parseDuration } from '../duration.ts';
import { parseMicros } from './time-text.ts';

/** `{device}` in a path. Any text: one that cannot be a name is a device that does not exist. */
export const deviceParams = z.strictObject({
  device: z.string().describe('Name of the device, as in its topics.'),
});

/** A time in a query, as microseconds. */
export const timeText = z
  .string()
  .transform((text, context) => {
    const timeMicros = parseMicros(text);
    if (timeMicros !== null) return timeMicros;
    context.addIssue(
      'must be ISO 8601 with a zone (2026-11-21T08:00:00Z) or milliseconds since 1970',
    );
    return z.NEVER;
  })
  .describe('ISO 8601 with a zone, a date (midnight UTC), or milliseconds since 1970.');

/** The largest page asks for `max` rows; more is an error and not cut in silence. */
export function limitQuery(standard: number, max: number): z.ZodType<number> {
  return z.coerce
    .number()
    .int()
    .min(1)
    .max(max)
    .default(Math.min(standard, max))
    .describe('Most rows of the page.');
}

/** `cursor` of every list. */
export const cursorQuery = z
  .string()
  .max(600)
  .optional()
  .describe('"next" of the page before, with the same filters.');

/** The shape of every list. */
export function pageOf<Row extends z.ZodType>(row: Row): z.ZodType {
  return z.object({
    data: z.array(row),
    next: z.string().nullable().describe('Cursor of the next page; null when this is the last.'),
  });
}

/** A time in an answer. */
export const timeAnswer = z
  .string()
  .meta({ format: 'date-time', description: 'UTC, with three decimals, or six if needed.' });

/** A text that people read: no control characters, no lone surrogates, no white space around. */
export function labelText(charsMax: number): z.ZodType<string> {
  return z
    .string()
    .trim()
    .min(1)
    .max(charsMax)
    .refine((text) => !/\p{Cc}|\p{Cs}/u.test(text), 'must not have control characters');
}

/**
 * The id that a text is.
 * @param NotFound what a text that is no UUID, and so the id of nothing, is answered with.
 */
export function uuidOf(text: string, NotFound: new (id: string) => AppError): string {
  if (!z.uuid().safeParse(text).success) throw new NotFound(text);
  return text;
}

/** A duration, as microseconds. */
export const durationText = z
  .string()
  .transform((text, context) => {
    const micros = parseDuration(text);
    if (micros !== null) return micros;
    context.addIssue(DURATION_HINT);
    return z.NEVER;
  })
  .describe('250ms, 2s, 5m, 1h, 1d.');

/** `true` or `false` in a query. */
export const flagQuery = z
  .enum(['true', 'false'])
  .transform((text) => text === 'true')
  .optional();

/** Some of a closed set in a query, with commas between them. */
export function listQuery<const Value extends string>(values: readonly Value[]) {
  const known: ReadonlySet<string> = new Set(values);
  return z
    .string()
    .max(200)
    .transform((text, context) => {
      const asked = [...new Set(text.split(','))].toSorted();
      const strange = asked.find((value) => !known.has(value));
      if (strange === undefined) return asked as Value[];
      context.addIssue(`must be of ${values.join(', ')}, with commas between`);
      return z.NEVER;
    })
    .optional();
}

/** A text that may be empty and have several lines; no other control characters. */
export function freeText(charsMax: number): z.ZodString {
  return z
    .string()
    .max(charsMax)
    .refine(
      (text) => !/\p{Cc}|\p{Cs}/u.test(text.replaceAll(/[\n\r\t]/g, ' ')),
      'must not have control characters',
    );
}
