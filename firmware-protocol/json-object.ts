import { Buffer } from 'node:buffer';
import { z } from 'zod';
import { Refusal } from './contract.ts';
import { readJson } from './json-text.ts';
import { findStorageFault } from './storable-json.ts';

/**
 * Reads a small JSON object of a device and checks it. Never throws. Unknown members are ignored, null
 * counts as not said. What stands inside of members can be stored as jsonb, and nests 8 levels at most.
 * @param bytesMax largest payload.
 */
export function readObject<S extends z.ZodType>(
  payload: Buffer,
  schema: S,
  bytesMax: number,
): z.output<S> | Refusal {
  if (payload.length > bytesMax) {
    return new Refusal('too_big', `${payload.length} bytes, ${bytesMax} allowed`);
  }
  const value = readJson(payload);
  if (value instanceof Refusal) return value;
  // Before the schema looks at it: that goes down to any depth.
  const fault = findInnerFault(value);
  if (fault !== null) return fault;
  const read = schema.safeParse(withoutNulls(value));
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  const member = issue?.path.map(String).join('.') ?? '';
  if (issue?.message === 'too_big') return new Refusal('too_big', `${member}: too long`);
  const detail =
    issue?.code === 'custom' ? issue.message : `${member || 'payload'}: ${issue?.message ?? ''}`;
  return new Refusal('bad_type', detail);
}

/** A text of a device, cut to so many bytes of UTF-8 at a character's end; control characters are spaces. */
export function shortText(bytesMax: number) {
  return z.string().transform((text) => cutText(text, bytesMax));
}

function cutText(text: string, bytesMax: number): string {
  const clean = text.replaceAll(/[\p{Cc}\p{Surrogate}]/gu, ' ');
  if (Buffer.byteLength(clean) <= bytesMax) return clean;
  const cut = Buffer.from(clean).subarray(0, bytesMax).toString('utf8');
  return cut.replace(/\ufffd+$/, '');
}

/** The texts of the object itself are left to its schema, which may mend them. */
function findInnerFault(value: unknown): Refusal | null {
  if (typeof value !== 'object' || value === null) return null;
  const inner = Object.values(value).filter((member) => typeof member === 'object');
  for (const member of inner) {
    const fault = findStorageFault(member, 1);
    if (fault !== null) return fault;
  }
  return null;
}

/** An object without its members that are null, which count as not said; anything else as it is. */
export function withoutNulls(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== null));
}
