import { Buffer } from 'node:buffer';
import { Validator, type Schema } from '@cfworker/json-schema';

/** Largest schema, as compact JSON, in bytes. */
export const SCHEMA_BYTES_MAX = 16_384;
/** Largest schema after every `$ref` was put in its place, in bytes; it bounds the time of a check. */
export const SCHEMA_EXPANDED_BYTES_MAX = 32_768;
/** Deepest nesting of a schema, and of a value that is checked. */
export const SCHEMA_DEPTH_MAX = 16;
/** Most members and items, all levels together, of a value that is checked. */
export const CHECKED_NODES_MAX = 1000;
/** Most places in which a schema, expanded, may ask for unique items: each costs the square of them. */
export const SCHEMA_UNIQUE_MAX = 8;
/** Most faults of a value that are told. */
export const VALUE_FAULTS_MAX = 10;

/** What of a value is not as its schema says. */
export interface ValueFault {
  /** JSON pointer to it; empty: the value itself. */
  readonly path: string;
  /** One line, at most 200 characters. */
  readonly message: string;
}

/**
 * Bytes of a schema, each `$ref` in its place, times members and items of a value that are checked: at
 * worst a tenth of a second, in which nobody else is served.
 */
const CHECK_WORK_MAX = 2_000_000;

/** A schema that values can be checked with, as often as wanted. */
export interface CompiledSchema {
  /** Never throws. @returns no fault: the value is as the schema says; at most VALUE_FAULTS_MAX. */
  validate(value: unknown): ValueFault[];
}

type Kind = 'schema' | 'schemas' | 'named' | 'number' | 'above0' | 'count' | 'boolean';
type Word = Kind | 'words' | 'values' | 'any' | 'note' | 'type' | 'ref';

/** The keywords that are taken: those of JSON Schema 2020-12 that can be checked in bounded time. */
const KEYWORDS: ReadonlyMap<string, Word> = new Map<string, Word>([
  ...of('schema', 'items contains additionalProperties propertyNames not if then else'),
  ...of('schemas', 'prefixItems allOf anyOf oneOf'),
  ...of('named', 'properties dependentSchemas $defs'),
  ...of('number', 'minimum maximum exclusiveMinimum exclusiveMaximum'),
  ...of('above0', 'multipleOf'),
  ...of('count', 'minLength maxLength minItems maxItems minProperties maxProperties'),
  ...of('boolean', 'uniqueItems'),
  ...of('words', 'required'),
  ...of('values', 'enum'),
  ...of('any', 'const'),
  ...of('type', 'type'),
  ...of('ref', '$ref'),
  ...of('note', '$schema $comment title description default examples deprecated'),
  ...of('note', 'readOnly writeOnly'),
]);
const TYPES: ReadonlySet<unknown> = new Set(
  'array boolean integer null number object string'.split(' '),
);
/** What is left out on purpose, with the reason. */
const REFUSED: ReadonlyMap<string, string> = new Map([
  ['pattern', 'a pattern can take for ever; use "enum", "minLength" and "maxLength"'],
  ['patternProperties', 'a pattern can take for ever; use "properties" or "propertyNames"'],
  ['format', 'formats are not checked; use "enum", "minLength" and "maxLength"'],
  ['definitions', 'use "$defs"'],
]);
const DEFINITION = /^#\/\$defs\/([A-Za-z][A-Za-z0-9_-]{0,63})$/;

type Node = Readonly<Record<string, unknown>>;

/** Ends the walk through a schema; never leaves this file. */
class SchemaFault extends Error {}

/**
 * Says why something is no schema that Puback takes: too large, too deep, an unknown or refused keyword, a
 * `$ref` to anything but `#/$defs/{name}` or in a circle. Keywords are those of JSON Schema 2020-12 without
 * patterns, formats and dynamic references. Never throws.
 * @returns null when it is one; else one line with the JSON pointer of the fault.
 */
export function checkSchema(schema: unknown): string | null {
  try {
    cleanSchema(schema);
    return null;
  } catch (error) {
    if (error instanceof SchemaFault) return error.message.slice(0, 300);
    // JSON.stringify of notes that are nested ten thousand levels deep.
    if (error instanceof RangeError) return 'the schema: more levels than can be read';
    throw error;
  }
}

/**
 * Makes a schema ready to check values. Code is neither generated nor fetched.
 * @throws {Error} when it has a fault; ask {@link checkSchema} before.
 */
export function compileSchema(schema: unknown): CompiledSchema {
  const clean = cleanSchema(schema);
  const validator = new Validator(clean, '2020-12', true);
  const { bytes } = expandedCost(clean, isNode(clean['$defs']) ? clean['$defs'] : {});
  return {
    validate(value) {
      const checked = withoutPrototypes(value);
      if (typeof checked === 'string') return [{ path: '', message: checked }];
      if (bytes * countValues(checked.value) > CHECK_WORK_MAX) {
        return [
          { path: '', message: 'more members and items than a schema of this size can check' },
        ];
      }
      try {
        const { valid, errors } = validator.validate(checked.value);
        return valid ? [] : faultsOf(errors);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        return [{ path: '', message: 'the value has more faults than can be told' }];
      }
    },
  };
}

function countValues(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 1;
  return Object.values(value).reduce<number>((count, one) => count + countValues(one), 1);
}

/** A copy of a schema with nothing but keywords that are checked; it shares nothing with the original. */
function cleanSchema(schema: unknown): Schema {
  const root = isNode(schema) ? schema : fail('', 'not an object');
  // Before JSON.stringify, which has no bound of its own: the walk has.
  const clean = cleanNode(root, '', 1);
  const bytes = Buffer.byteLength(JSON.stringify(schema));
  if (bytes > SCHEMA_BYTES_MAX) fail('', `${bytes} bytes, ${SCHEMA_BYTES_MAX} allowed`);
  const cost = expandedCost(clean, isNode(clean['$defs']) ? clean['$defs'] : {});
  if (cost.bytes > SCHEMA_EXPANDED_BYTES_MAX) {
    fail('', `with each "$ref" in its place more than ${SCHEMA_EXPANDED_BYTES_MAX} bytes`);
  }
  if (cost.unique > SCHEMA_UNIQUE_MAX) {
    fail('', `"uniqueItems" more than ${SCHEMA_UNIQUE_MAX} times, each "$ref" counted`);
  }
  return clean as Schema;
}

function cleanNode(node: Node, path: string, depth: number): Node {
  if (depth > SCHEMA_DEPTH_MAX) fail(path, `more than ${SCHEMA_DEPTH_MAX} levels`);
  const clean = bare();
  for (const [keyword, value] of Object.entries(node)) {
    const at = `${path}/${keyword}`;
    const word = KEYWORDS.get(keyword);
    if (word === undefined) {
      fail(at, REFUSED.get(keyword) ?? 'not a keyword of JSON Schema 2020-12 that is checked');
    }
    if (keyword === '$defs' && path !== '') fail(at, '"$defs" stands at the top');
    if (word !== 'note') clean[keyword] = cleanValue(word, value, at, depth);
  }
  return clean;
}

function cleanValue(word: Word, value: unknown, at: string, depth: number): unknown {
  switch (word) {
    case 'schema':
      return cleanSub(value, at, depth);
    case 'schemas':
      if (!Array.isArray(value) || value.length === 0) return fail(at, 'not a list of schemas');
      return value.map((item, index) => cleanSub(item, `${at}/${index}`, depth));
    case 'named':
      return cleanNamed(value, at, depth);
    case 'any':
      return cleanLiteral(value, at);
    case 'values':
      return Array.isArray(value) ? cleanLiteral(value, at) : fail(at, 'not a list of values');
    default: {
      const fault = wordFault(word, value);
      if (fault !== null) fail(at, fault);
      return Array.isArray(value) ? [...value] : value;
    }
  }
}

/** Why the value of a keyword that holds no schema is none; null when it is one. */
function wordFault(word: Word, value: unknown): string | null {
  const isNumber = typeof value === 'number';
  switch (word) {
    case 'number':
      return isNumber ? null : 'not a number';
    case 'above0':
      return isNumber && value > 0 ? null : 'not a number above 0';
    case 'count':
      return Number.isSafeInteger(value) && Number(value) >= 0 ? null : 'not a whole number';
    case 'boolean':
      return typeof value === 'boolean' ? null : 'not true or false';
    case 'words':
      return isList(value, (item) => typeof item === 'string') ? null : 'not a list of names';
    case 'type':
      return isList(Array.isArray(value) ? value : [value], (item) => TYPES.has(item))
        ? null
        : 'not a type of JSON';
    case 'ref':
      return typeof value === 'string' && DEFINITION.test(value)
        ? null
        : 'only "#/$defs/{name}" can be referred to';
    default:
      return null;
  }
}

function cleanSub(value: unknown, at: string, depth: number): unknown {
  if (typeof value === 'boolean') return value;
  return isNode(value) ? cleanNode(value, at, depth + 1) : fail(at, 'not a schema');
}

function cleanNamed(value: unknown, at: string, depth: number): Node {
  if (!isNode(value)) return fail(at, 'not an object of schemas');
  const clean = bare();
  for (const [name, member] of Object.entries(value)) {
    if (at === '/$defs' && !DEFINITION.test(`#/$defs/${name}`)) {
      fail(at, 'names are letters, digits, _ and -');
    }
    clean[name] = cleanSub(member, `${at}/${name}`, depth);
  }
  return clean;
}

function cleanLiteral(value: unknown, at: string): unknown {
  const copy = withoutPrototypes(value);
  return typeof copy === 'string' ? fail(at, copy) : copy.value;
}

/** What a schema is with each reference in its place; a circle is a fault. Each definition counts once. */
function expandedCost(root: Node, definitions: Node): { bytes: number; unique: number } {
  const known = new Map<string, { bytes: number; unique: number }>();
  const open = new Set<string>();
  const costOf = (value: unknown): { bytes: number; unique: number } => {
    if (typeof value !== 'object' || value === null) {
      return { bytes: String(value).length + 3, unique: 0 };
    }
    const sum = { bytes: 2, unique: 0 };
    for (const [key, member] of Object.entries(value)) {
      const cost = key === '$ref' ? costOfDefinition(String(member)) : costOf(member);
      sum.bytes = Math.min(sum.bytes + key.length + cost.bytes, Number.MAX_SAFE_INTEGER / 2);
      sum.unique += cost.unique + (key === 'uniqueItems' && member === true ? 1 : 0);
    }
    return sum;
  };
  const costOfDefinition = (ref: string): { bytes: number; unique: number } => {
    const name = DEFINITION.exec(ref)?.[1] ?? '';
    const before = known.get(name);
    if (before !== undefined) return before;
    if (!Object.hasOwn(definitions, name)) fail('', `"${ref}" is not defined`);
    if (open.has(name)) fail('', `"${ref}" refers to itself`);
    open.add(name);
    const cost = costOf(definitions[name]);
    open.delete(name);
    known.set(name, cost);
    return cost;
  };
  return costOf(root);
}

/**
 * A copy of a JSON value whose objects have no prototype, so that a member called `constructor` is one
 * only where it was written. @returns a text: why it is too large, too deep or no JSON.
 */
function withoutPrototypes(value: unknown): { readonly value: unknown } | string {
  let nodes = 0;
  const copy = (from: unknown, depth: number): unknown => {
    nodes += 1;
    if (nodes > CHECKED_NODES_MAX)
      fail('the value', `more than ${CHECKED_NODES_MAX} members and items`);
    if (depth > SCHEMA_DEPTH_MAX) fail('the value', `more than ${SCHEMA_DEPTH_MAX} levels`);
    if (Array.isArray(from)) return from.map((item) => copy(item, depth + 1));
    if (isNode(from)) {
      const to = bare();
      for (const [key, member] of Object.entries(from)) to[key] = copy(member, depth + 1);
      return to;
    }
    return isScalar(from) ? from : fail('the value', 'not JSON');
  };
  try {
    return { value: copy(value, 1) };
  } catch (error) {
    if (error instanceof SchemaFault) return error.message;
    throw error;
  }
}

/** Keywords whose error only says that there is another one further in. */
const OUTER: ReadonlySet<string> = new Set(
  'properties items prefixItems additionalProperties propertyNames allOf $ref if dependentSchemas'.split(
    ' ',
  ),
);

function faultsOf(
  errors: readonly { instanceLocation: string; keyword: string; error: string }[],
): ValueFault[] {
  const faults = new Map<string, ValueFault>();
  for (const { instanceLocation, keyword, error } of errors) {
    if (faults.size >= VALUE_FAULTS_MAX) break;
    if (OUTER.has(keyword)) continue;
    const path = instanceLocation.replace(/^#/, '').slice(0, 200);
    const message = keyword === 'false' ? 'is not allowed here' : error.slice(0, 200);
    faults.set(`${path} ${message}`, { path, message });
  }
  const [first] = errors;
  if (faults.size > 0 || first === undefined) return [...faults.values()];
  return [{ path: first.instanceLocation.replace(/^#/, ''), message: first.error.slice(0, 200) }];
}

function of(word: Word, keywords: string): [string, Word][] {
  return keywords.split(' ').map((keyword) => [keyword, word]);
}

function bare(): Record<string, unknown> {
  return Object.create(null) as Record<string, unknown>;
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isList(value: unknown, isItem: (item: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every(isItem);
}

function isScalar(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value);
  return value === null || typeof value === 'string' || typeof value === 'boolean';
}

function fail(path: string, reason: string): never {
  throw new SchemaFault(path === '' ? `the schema: ${reason}` : `${path}: ${reason}`);
}
