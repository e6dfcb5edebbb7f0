import { Buffer } from 'node:buffer';
import { EVENT_NAME, Refusal } from './contract.ts';
import { readJson } from './json-text.ts';
import { SampleReader } from './sample-reader.ts';
import { findStorageFault } from './storable-json.ts';
import type { Decoded } from './telemetry.ts';

/** Largest payload of channel `event/{name}`, in bytes. */
export const EVENT_BYTES_MAX = 2048;

const STAMP_MEMBERS: ReadonlySet<string> = new Set(['ts', 'age', 'up', 'seq']);

/**
 * Decodes a message of channel `event/{name}`: nothing, or JSON. Of an object, `ts`, `age`, `up` and `seq`
 * say when it happened, as in a sample; the rest is kept as it is, any other JSON value whole. Never throws.
 * @returns one sample without points, and the event as its `occurrence`.
 */
export function decodeEvent(name: string, payload: Buffer): Decoded | Refusal {
  if (!EVENT_NAME.test(name)) return new Refusal('bad_name', 'not the name of an event');
  if (payload.length > EVENT_BYTES_MAX) {
    return new Refusal('too_big', `${payload.length} bytes, ${EVENT_BYTES_MAX} allowed`);
  }
  const value = payload.length === 0 ? null : readJson(payload);
  if (value instanceof Refusal) return value;
  const fault = findStorageFault(value);
  if (fault !== null) return fault;
  const { stamp, content } = takeApart(value);
  const reader = new SampleReader();
  const stampFault = reader.readItem(stamp);
  if (stampFault !== null) return stampFault;
  return {
    samples: reader.samples,
    pointCount: 0,
    missing: 0,
    occurrence: { kind: 'event', name, content },
  };
}

/**
 * The JSON that integrators see on `event/{name}`: `ts` in whole milliseconds since 1970, then `seq` where
 * the device gave one, then the members of the device's object. Any other JSON stands under `value`.
 * @param timeMicros the time that it is stored with, in microseconds since 1970.
 */
export function canonicalEvent(
  timeMicros: number,
  seq: number | null,
  content: string | null,
): Buffer {
  let json = `{"ts":${Math.floor(timeMicros / 1000)}`;
  if (seq !== null) json += `,"seq":${seq}`;
  if (content === null) return Buffer.from(`${json}}`);
  if (!content.startsWith('{')) return Buffer.from(`${json},"value":${content}}`);
  return Buffer.from(`${json},${content.slice(1)}`);
}

function takeApart(value: unknown): { stamp: object; content: string | null } {
  if (value === null) return { stamp: {}, content: null };
  if (typeof value !== 'object' || Array.isArray(value)) {
    return { stamp: {}, content: JSON.stringify(value) };
  }
  const isOfStamp = ([key]: [string, unknown]): boolean => STAMP_MEMBERS.has(key);
  const members = Object.entries(value);
  const rest = members.filter((member) => !isOfStamp(member));
  // fromEntries makes a member of its own of `__proto__` too.
  return {
    stamp: Object.fromEntries(members.filter(isOfStamp)),
    content: rest.length === 0 ? null : JSON.stringify(Object.fromEntries(rest)),
  };
}
