import { z } from 'zod';
import { DURATION_HINT, parseDuration } from '../duration.ts';

/**
 * A duration as rules and the API write it, `250ms`, `2s`, `5m`, `1h`, `1d` or several in falling order,
 * as whole milliseconds within bounds.
 */
export function durationMs(minMs: number, maxMs: number) {
  return z
    .string()
    .max(40)
    .transform((text, context) => {
      const micros = parseDuration(text);
      const ms = micros === null ? NaN : micros / 1000;
      if (ms >= minMs && ms <= maxMs) return ms;
      context.addIssue(
        micros === null ? DURATION_HINT : `must be between ${minMs} ms and ${maxMs} ms`,
      );
      return z.NEVER;
    })
    .describe('A duration: 250ms, 2s, 5m, 1h, 1d, 1h30m.');
}
