import { Buffer } from 'node:buffer';
import { ARGUMENTS_DEPTH_MAX } from './command.ts';
import { Refusal } from './contract.ts';
import { findJsonFault } from './json-fault.ts';
import { readText } from './json-text.ts';
import { findStorageFault } from './storable-json.ts';

/** Largest arguments of a command, as compact JSON and as a payload of `do/…`, in bytes. */
export const ARGUMENTS_BYTES_MAX = 4096;
/** Most members and items of them, all levels together. */
export const ARGUMENTS_VALUES_MAX = 512;

/** Arguments of a command: a JSON object. */
export type CommandArguments = Readonly<Record<string, unknown>>;

/**
 * Says why a JSON value cannot be the arguments of a command: no object, nested deeper than
 * {@link ARGUMENTS_DEPTH_MAX}, too large, a number that is none of JSON, a text that no database holds, or
 * a member called `__proto__`. Never throws, and never goes deeper than that bound.
 * @returns null when it can be.
 */
export function findArgumentsFault(value: unknown): Refusal | null {
  if (!isObject(value)) return new Refusal('bad_type', 'the arguments must be a JSON object');
  const count = { values: 0 };
  const fault = findFault(value, 1, count);
  if (fault !== null) return fault;
  const bytes = Buffer.byteLength(JSON.stringify(value));
  if (bytes <= ARGUMENTS_BYTES_MAX) return null;
  return new Refusal('too_big', `arguments of ${bytes} bytes, ${ARGUMENTS_BYTES_MAX} allowed`);
}

/**
 * Reads the payload of `do/{command}`: the arguments as a JSON object, or nothing at all for `{}`. Never
 * throws. Other than of devices, bare words such as `nan` are no JSON.
 */
export function decodeCommandArguments(payload: Buffer): CommandArguments | Refusal {
  if (payload.length === 0) return {};
  if (payload.length > ARGUMENTS_BYTES_MAX) {
    return new Refusal('too_big', `${payload.length} bytes, ${ARGUMENTS_BYTES_MAX} allowed`);
  }
  const text = readText(payload);
  if (text instanceof Refusal) return text;
  const value = parse(text);
  if (value instanceof Refusal) return value;
  return findArgumentsFault(value) ?? (value as CommandArguments);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return new Refusal('bad_json', findJsonFault(text));
  }
}

function findFault(value: object, depth: number, count: { values: number }): Refusal | null {
  if (depth > ARGUMENTS_DEPTH_MAX) {
    return new Refusal('too_deep', `arguments nested deeper than ${ARGUMENTS_DEPTH_MAX} levels`);
  }
  const members = Object.entries(value);
  count.values += members.length;
  if (count.values > ARGUMENTS_VALUES_MAX) {
    return new Refusal('too_many', `more than ${ARGUMENTS_VALUES_MAX} members and items`);
  }
  for (const [name, member] of members) {
    if (name === '__proto__') return new Refusal('bad_name', 'no member may be called __proto__');
    const fault =
      findStorageFault(name) ??
      (typeof member === 'object' && member !== null
        ? findFault(member, depth + 1, count)
        : findScalarFault(member));
    if (fault !== null) return fault;
  }
  return null;
}

function findScalarFault(value: unknown): Refusal | null {
  if (typeof value === 'string') return findStorageFault(value);
  const isJson =
    value === null || typeof value === 'boolean' || (typeof value === 'number' && isFinite(value));
  return isJson ? null : new Refusal('bad_type', 'a number that is too large, or no JSON');
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
