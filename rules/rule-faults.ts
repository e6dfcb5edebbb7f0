import { z } from 'zod';

/** Faults of one value that are told; more are left out. */
const FAULTS_MAX = 50;

/** Something that does not hold, and where: a path with dots. */
export interface RuleFault {
  readonly path: string;
  readonly message: string;
}

/** A strict object that tells, of a member that it does not have, those that it has. */
export function strictObject<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  const known = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: ({ code }) =>
      code === 'unrecognized_keys' ? `is not known here; known are ${known}` : undefined,
  });
}

/** What is wrong with a value, in the order of its members, in words that do not quote it. */
export function faultsOf(error: Pick<z.ZodError, 'issues'>): RuleFault[] {
  return error.issues.flatMap((issue) => faultsOfIssue(issue, [])).slice(0, FAULTS_MAX);
}

function faultsOfIssue(issue: z.core.$ZodIssue, above: readonly PropertyKey[]): RuleFault[] {
  const path = [...above, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      path: [...path, key.slice(0, 64)].map(String).join('.'),
      message: isOfZod(issue.message) ? 'is not known here' : issue.message,
    }));
  }
  // A union that says itself what it is needs no look at its alternatives.
  const isSaid = issue.code === 'invalid_union' && !isOfZod(issue.message);
  if (issue.code !== 'invalid_union' || isSaid || issue.errors.length === 0) {
    return [{ path: path.map(String).join('.'), message: messageOf(issue) }];
  }
  // Of the alternatives the one that came furthest is the one that was meant.
  const furthest = issue.errors.toSorted((one, other) => depthOf(other) - depthOf(one))[0] ?? [];
  return furthest.flatMap((inner) => faultsOfIssue(inner, path));
}

function depthOf(issues: readonly z.core.$ZodIssue[]): number {
  return Math.max(0, ...issues.map(({ path }) => path.length)) - issues.length / 1000;
}

/** Whether a schema has no words of its own for a fault. */
function isOfZod(message: string): boolean {
  return /^(?:Too (?:small|big)|Invalid|Unrecognized key)/.test(message);
}

function messageOf(issue: z.core.$ZodIssue): string {
  if (!isOfZod(issue.message)) return issue.message;
  switch (issue.code) {
    case 'too_small':
      if (issue.minimum === 1 && unitOf(issue.origin) !== '') return 'must not be empty';
      return `must be at least ${issue.minimum}${unitOf(issue.origin)}`;
    case 'too_big':
      return `must be at most ${issue.maximum}${unitOf(issue.origin)}`;
    case 'invalid_value':
      return `must be one of ${issue.values.join(', ')}`;
    case 'invalid_type':
      return issue.message.endsWith('received undefined')
        ? 'is missing'
        : `must be ${KINDS[issue.expected] ?? `a ${issue.expected}`}`;
    case 'invalid_format':
      return FORMATS[issue.format] ?? 'has not the form that is asked for';
    case 'invalid_key':
      return issue.issues[0] === undefined ? issue.message : messageOf(issue.issues[0]);
    default:
      return issue.message;
  }
}

const KINDS: Readonly<Partial<Record<string, string>>> = {
  string: 'a text',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};

const FORMATS: Readonly<Partial<Record<string, string>>> = {
  uuid: 'must be an id, a UUID',
  url: 'must be a URL',
  email: 'must be a mail address',
};

function unitOf(origin: string): string {
  if (origin === 'string') return ' characters long';
  return origin === 'array' ? ' items long' : '';
}
