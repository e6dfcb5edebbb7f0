import { z } from 'zod';

const UNIT_MS: Readonly<Record<string, number>> = {
  d: 86_400_000,
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
};
const FORM = /^(?:\d{1,12}d)?(?:\d{1,12}h)?(?:\d{1,12}m)?(?:\d{1,12}s)?(?:\d{1,12}ms)?$/;

/**
 * A duration as rules and the API write it, `250ms`, `2s`, `5m`, `1h`, `1d` or several in falling order,
 * as whole milliseconds within bounds.
 */
export function durationMs(minMs: number, maxMs: number) {
  return z
    .string()
    .max(40)
    .transform((text, context) => {
      const ms = parse(text);
      if (ms !== null && ms >= minMs && ms <= maxMs) return ms;
      context.addIssue(
        ms === null
          ? 'must be a duration, a text such as "2s", "5m" or "1h30m"'
          : `must be between ${minMs} ms and ${maxMs} ms`,
      );
      return z.NEVER;
    })
    .describe('A duration: 250ms, 2s, 5m, 1h, 1d, 1h30m.');
}

function parse(text: string): number | null {
  if (text === '' || !FORM.test(text)) return null;
  let ms = 0;
  for (const [, count, unit = ''] of text.matchAll(/(\d+)(ms|[dhms])/g)) {
    ms += Number(count) * (UNIT_MS[unit] ?? 0);
  }
  return ms;
}
