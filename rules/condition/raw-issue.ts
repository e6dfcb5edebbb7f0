import type { z } from 'zod';

/** A fault that one schema found, as a fault of the schema around it, further down by a path. */
export function rawIssue(
  issue: z.core.$ZodIssue,
  above: readonly PropertyKey[],
  input: unknown,
): z.core.$ZodRawIssue {
  return { ...issue, path: [...above, ...issue.path], input } as z.core.$ZodRawIssue;
}
