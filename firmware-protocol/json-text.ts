// HOT PATH: once per message; nearly all of it is JSON.parse
import { isUtf8, type Buffer } from 'node:buffer';
import { Refusal } from './contract.ts';
import { findJsonFault } from './json-fault.ts';

/** Deepest nesting of brackets that is parsed at all. An accepted payload needs six at most. */
export const DEPTH_MAX = 8;
/** Most commas outside strings that are parsed at all. An accepted payload needs about 5000 at most. */
const COMMAS_MAX = 8000;
/** Below this size even the worst payload parses in well under a millisecond. Bytes. */
const SCAN_FROM_BYTES = 4096;

/**
 * The text of a payload.
 * @returns a {@link Refusal} when the bytes are not UTF-8.
 */
export function readText(payload: Buffer): string | Refusal {
  const text = payload.toString();
  // A broken sequence decodes to U+FFFD; a payload may also hold that character itself.
  if (text.includes('\uFFFD') && !isUtf8(payload)) {
    return new Refusal('bad_json', 'the payload is not UTF-8');
  }
  return text;
}

/**
 * Parses a payload as JSON. When that fails, the bare words `nan`, `inf` and `infinity` (any case, with or
 * without `-`: what printf makes of such a float) are read as null. Never throws; linear in the size.
 * @returns the value (duplicate members: the last one stands), or a {@link Refusal}.
 */
export function readJson(payload: Buffer): unknown {
  if (payload.length > SCAN_FROM_BYTES) {
    const fault = findStructureFault(payload);
    if (fault !== null) return fault;
  }
  const text = readText(payload);
  if (typeof text !== 'string') return text;
  try {
    return JSON.parse(text);
  } catch {
    return readRepaired(text);
  }
}

/** Whether a text is what C prints for a float that has no number: nan, inf or infinity. */
export function isMissingWord(text: string): boolean {
  const length = text.length;
  if (length < 3 || length > 9) return false;
  const first = text.charCodeAt(0) | 0x20;
  // '-' keeps its code under the mask: 0x2d.
  if (first !== 0x6e && first !== 0x69 && first !== 0x2d) return false;
  return isWord(first === 0x2d ? text.slice(1) : text);
}

function isWord(text: string): boolean {
  const word = text.toLowerCase();
  return word === 'nan' || word === 'inf' || word === 'infinity';
}

function readRepaired(text: string): unknown {
  const repaired = repair(text);
  if (repaired !== text) {
    try {
      return JSON.parse(repaired);
    } catch {
      // Still not JSON: the fault is looked for in the text as it came.
    }
  }
  return new Refusal('bad_json', findJsonFault(text));
}

/**
 * Puts `null` where a missing word stands outside strings. Wherever else it stood, the text stays bad, as
 * it does with more such words than values are allowed.
 */
function repair(text: string): string {
  let repaired = '';
  let copied = 0;
  let at = 0;
  let words = 0;
  while (at < text.length && words <= COMMAS_MAX) {
    const char = text.charCodeAt(at);
    if (char === 0x22) {
      at = endOfString(text, at);
    } else if (isLetter(char)) {
      const start = at > copied && text.charCodeAt(at - 1) === 0x2d ? at - 1 : at;
      while (at < text.length && isLetter(text.charCodeAt(at))) at += 1;
      if (at - start <= 9 && isMissingWord(text.slice(start, at))) {
        repaired += `${text.slice(copied, start)}null`;
        copied = at;
        words += 1;
      }
    } else at += 1;
  }
  return repaired + text.slice(copied);
}

function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length) {
    const char = text.charCodeAt(at);
    if (char === 0x22) return at + 1;
    at += char === 0x5c ? 2 : 1;
  }
  return at;
}

function isLetter(char: number): boolean {
  const lower = char | 0x20;
  return lower >= 0x61 && lower <= 0x7a;
}

/** Refuses what is too deep or too long to be accepted, before JSON.parse builds anything of it. */
function findStructureFault(payload: Buffer): Refusal | null {
  let depth = 0;
  let commas = 0;
  let isString = false;
  for (let at = 0; at < payload.length; at += 1) {
    const byte = payload[at];
    if (isString) {
      if (byte === 0x5c) at += 1;
      else if (byte === 0x22) isString = false;
    } else if (byte === 0x22) isString = true;
    else if (byte === 0x2c) commas += 1;
    else if (byte === 0x5b || byte === 0x7b) depth += 1;
    else if (byte === 0x5d || byte === 0x7d) depth -= 1;
    if (depth > DEPTH_MAX) return new Refusal('too_deep', `more than ${DEPTH_MAX} levels at ${at}`);
    if (commas > COMMAS_MAX) return new Refusal('too_many', `more than ${COMMAS_MAX} members`);
  }
  return null;
}
