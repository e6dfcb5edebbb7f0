import { z } from 'zod';
import { SEVERITIES } from '../severity.ts';

/** Most matchers of a route or a silence. */
const MATCHERS_MAX = 16;
const VALUES_MAX = 100;

const text = z
  .string()
  .max(256)
  .refine((value) => !/\p{Cc}|\p{Cs}/u.test(value), 'must not have control characters');

/** A name of a label in a matcher or of a group. */
export const labelName = z
  .string()
  .regex(
    /^[A-Za-z_][A-Za-z0-9_]{0,63}$/,
    'must be a label: letters, digits and _, no digit first, 64 at most',
  );

/** One matcher as the API has it. There are no regular expressions: they could take for ever. */
export const matcherSchema = z.discriminatedUnion(
  'op',
  [
    z.strictObject({ label: labelName, op: z.enum(['=', '!=', 'prefix']), value: text }),
    z.strictObject({
      label: labelName,
      op: z.literal('in'),
      values: z.array(text).min(1).max(VALUES_MAX),
    }),
  ],
  { error: ({ code }) => (code === 'invalid_union' ? 'must be =, !=, prefix or in' : undefined) },
);

/** Matchers as the API has them; all must hold, so that none match every alert. */
export const matchersSchema = z
  .array(matcherSchema)
  .max(MATCHERS_MAX)
  .describe(
    'All must hold: {"label","op":"=" | "!=" | "prefix","value"} or {"label","op":"in","values"}. Labels are those of the rule, and alertname, device, device_type, severity, tag.',
  );

/**
 * Matchers that somebody gives: none that can never hold for its severity. Stored ones are read by
 * {@link matchersSchema}.
 */
export const givenMatchersSchema = matchersSchema.superRefine((matchers, context) => {
  for (const [index, matcher] of matchers.entries()) {
    if (matcher.label !== 'severity' || mayHold(matcher)) continue;
    const path = [index, matcher.op === 'in' ? 'values' : 'value'];
    const message = `must be a severity, or it never holds: ${SEVERITIES.join(', ')}`;
    context.addIssue({ code: 'custom', path, message });
  }
});

/** What one label must be. `!=` holds also where the label is missing. */
export type Matcher = z.output<typeof matcherSchema>;

/** What matchers look at. */
export interface Labelled {
  readonly labels: Readonly<Record<string, string>>;
  /** Of the device: values of the label `tag`, which has as many as the device has tags. */
  readonly tags: readonly string[];
}

/** Whether all matchers hold; also when there are none. */
export function matchesAll(matchers: readonly Matcher[], subject: Labelled): boolean {
  return matchers.every((matcher) => matches(matcher, subject));
}

function mayHold(matcher: Matcher): boolean {
  const known: readonly string[] = SEVERITIES;
  switch (matcher.op) {
    case '=':
      return known.includes(matcher.value);
    case '!=':
      return true;
    case 'prefix':
      return known.some((severity) => severity.startsWith(matcher.value));
    case 'in':
      return matcher.values.every((value) => known.includes(value));
  }
}

function matches(matcher: Matcher, { labels, tags }: Labelled): boolean {
  const own = Object.hasOwn(labels, matcher.label) ? labels[matcher.label] : undefined;
  const values = matcher.label === 'tag' && own === undefined ? tags : [own ?? ''];
  switch (matcher.op) {
    case '=':
      return values.includes(matcher.value);
    case '!=':
      return !values.includes(matcher.value);
    case 'prefix':
      return values.some((value) => value.startsWith(matcher.value));
    case 'in':
      return values.some((value) => matcher.values.includes(value));
  }
}
