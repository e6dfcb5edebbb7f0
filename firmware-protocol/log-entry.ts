import { Buffer } from 'node:buffer';
import { Refusal } from './contract.ts';
import type { LogLevel, LogLine } from './occurrence.ts';
import type { Decoded, Sample } from './telemetry.ts';

/** Largest payload of channel `log`, in bytes. */
export const LOG_BYTES_MAX = 8192;
/** Most lines in one message. */
export const LOG_LINES_MAX = 128;
/** What is kept of a line, in UTF-16 units. */
export const LOG_LINE_CHARS_MAX = 1024;
/** What is kept of a tag, in UTF-16 units. */
export const LOG_TAG_CHARS_MAX = 64;

/** Colours and what else a terminal is told, ECMA-48: ESC [ … final byte. */
const ANSI = /\u001b\[[0-?]{0,32}[ -/]{0,8}[@-~]/g;
/** What is neither text nor a tab: replaced by U+FFFD. */
const UNPRINTABLE = /[^\P{Cc}\t]|\p{Surrogate}/gu;
/**
 * A line of ESP-IDF: `E (12345) wifi: text`. The time is milliseconds since boot, or the time of day where
 * the firmware is built so (`E (08:15:30.123) wifi: text`); that has no date and is not read.
 */
const IDF_LINE = /^([EWIDV]) \((?:([0-9]{1,15})|[0-9:.]{8,15})\) ([^:]{1,64}): ?/;
const LEVELS: ReadonlySet<unknown> = new Set<LogLevel>(['E', 'W', 'I', 'D', 'V']);

/**
 * Decodes a message of channel `log`: lines of text, or a JSON object `{"l":"E","tag":"wifi","msg":"…"}`,
 * which may have `up`, milliseconds since boot. Lines as ESP-IDF writes them are taken apart; any other line
 * is a message. Colours go, empty lines are left out, long lines are cut. A text is never refused for what
 * stands in it. Never throws.
 * @returns a sample without points for each line, and the lines as its `occurrence`.
 */
export function decodeLog(payload: Buffer): Decoded | Refusal {
  if (payload.length > LOG_BYTES_MAX) {
    return new Refusal('too_big', `${payload.length} bytes, ${LOG_BYTES_MAX} allowed`);
  }
  const text = payload.toString();
  const single = text.startsWith('{') ? readObject(text) : null;
  if (single instanceof Refusal) return single;
  const lines = single === null ? readLines(text) : [single];
  if (lines.length > LOG_LINES_MAX) {
    return new Refusal('too_many', `more than ${LOG_LINES_MAX} lines`);
  }
  const samples = lines.map((_, index): Sample => sampleAt(lines.length - 1 - index));
  return { samples, pointCount: 0, missing: 0, occurrence: { kind: 'log', lines } };
}

/**
 * The JSON that integrators see on `log`: an object a line, `ts` (whole milliseconds since 1970), `l`,
 * `tag`, `up` and `msg`, what is not known left out; several lines are an array.
 * @param timesMicros the times that the lines are stored with, in microseconds since 1970.
 * @returns null when there is no line.
 */
export function canonicalLog(
  timesMicros: readonly number[],
  lines: readonly LogLine[],
): Buffer | null {
  if (lines.length === 0) return null;
  const seen = lines.map(({ level, tag, uptimeMs, message }, index) => ({
    ts: Math.floor((timesMicros[index] ?? 0) / 1000),
    ...(level === null ? {} : { l: level }),
    ...(tag === null ? {} : { tag }),
    ...(uptimeMs === null ? {} : { up: uptimeMs }),
    msg: message,
  }));
  return Buffer.from(JSON.stringify(seen.length === 1 ? seen[0] : seen));
}

function readLines(text: string): LogLine[] {
  return text
    .split(/\r\n|[\r\n]/)
    .map(plainText)
    .filter((line) => line !== '')
    .map(readLine);
}

function readLine(line: string): LogLine {
  const [head = '', level = null, uptime, tag = null] = IDF_LINE.exec(line) ?? [];
  return {
    level: level as LogLevel | null,
    tag: tag === null ? null : tag.trim(),
    uptimeMs: uptime === undefined ? null : Number(uptime),
    message: cut(line.slice(head.length), LOG_LINE_CHARS_MAX),
  };
}

/** Null when the text is no object with a message: then it is a line like any other. */
function readObject(text: string): LogLine | Refusal | null {
  const value = parse(text);
  if (value === null || typeof value['msg'] !== 'string') return null;
  const { l = null, tag = null, up = null, msg } = value;
  if (l !== null && !LEVELS.has(l)) return new Refusal('bad_type', 'l is none of E, W, I, D, V');
  if (tag !== null && typeof tag !== 'string') return new Refusal('bad_type', 'tag is not a text');
  const isUptime = up === null || (Number.isSafeInteger(up) && Number(up) >= 0);
  if (!isUptime) return new Refusal('bad_type', 'up is not a whole number of milliseconds');
  return {
    level: l as LogLevel | null,
    tag: tag === null ? null : cut(plainText(tag), LOG_TAG_CHARS_MAX),
    uptimeMs: up === null ? null : Number(up),
    message: cut(plainText(msg), LOG_LINE_CHARS_MAX),
  };
}

function parse(text: string): Readonly<Record<string, unknown>> | null {
  try {
    // It begins with a brace: when it parses it is an object.
    return JSON.parse(text) as Readonly<Record<string, unknown>>;
  } catch {
    return null;
  }
}

function plainText(text: string): string {
  return text.replace(ANSI, '').replace(UNPRINTABLE, '\uFFFD').trimEnd();
}

/** Not through the middle of a surrogate pair. */
function cut(text: string, charsMax: number): string {
  if (text.length <= charsMax) return text;
  const last = text.charCodeAt(charsMax - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? charsMax - 1 : charsMax);
}

function sampleAt(fromLast: number): Sample {
  return {
    tsMicros: null,
    ageMs: null,
    upMs: null,
    seq: null,
    isContinued: false,
    fromLast,
    points: [],
  };
}
