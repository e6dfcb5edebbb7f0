import { z } from 'zod';
import { UP_MS_MAX } from '../../firmware-protocol/contract.ts';
import type { LogLine } from '../../firmware-protocol/occurrence.ts';
import { parseJson } from './reference-decoder.ts';

const SAFE_TEXT = /^(?!.*(?:\0|\p{Surrogate})).*$/su;

const stampSchema = z.looseObject({
  ts: z.number().optional(),
  age: z.number().min(0).optional(),
  up: z.number().min(0).max(UP_MS_MAX).optional(),
  seq: z.int().min(0).optional(),
});

/** What `decodeEvent` must make of a payload up to 2048 bytes: the content as a value. Null: refused. */
export function referenceEvent(payload: Uint8Array): { content: unknown } | null {
  const parsed = payload.length === 0 ? { json: null } : parseWithProto(payload);
  if (parsed === null || !isStorable(parsed.json, 0)) return null;
  const { json } = parsed;
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return { content: json };
  if (!stampSchema.safeParse(json).success) return null;
  const rest = Object.entries(json).filter(([key]) => !['ts', 'age', 'up', 'seq'].includes(key));
  return { content: rest.length === 0 ? null : Object.fromEntries(rest) };
}

/** An event may have a member of any name. */
function parseWithProto(payload: Uint8Array): { json: unknown } | null {
  const renamed = Buffer.from(payload).toString('latin1').replaceAll('__proto__', '__prot0__');
  return parseJson(Buffer.from(renamed, 'latin1'));
}

function isStorable(value: unknown, depth: number): boolean {
  if (typeof value === 'string') return SAFE_TEXT.test(value);
  if (typeof value !== 'object' || value === null) return true;
  return (
    depth < 8 &&
    Object.entries(value).every(
      ([key, member]) => SAFE_TEXT.test(key) && isStorable(member, depth + 1),
    )
  );
}

/** What `decodeLog` must make of text that is no JSON object. Null: refused. */
export function referenceLog(payload: Uint8Array): LogLine[] | null {
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(payload);
  const lines = text
    .replaceAll('\r\n', '\n')
    .replaceAll('\r', '\n')
    .split('\n')
    .map(withoutColours)
    .map((line) => Array.from(line, printable).join('').trimEnd())
    .filter((line) => line !== '');
  return payload.length > 8192 || lines.length > 128 ? null : lines.map(readLine);
}

/** ESC [ then parameters, then intermediates, then one final character. */
function withoutColours(line: string): string {
  let plain = '';
  for (let at = 0; at < line.length; at += 1) {
    let end = at + 2;
    const skip = (low: string, high: string, most: number): void => {
      for (let left = most; left > 0 && isWithin(line[end], low, high); left -= 1) end += 1;
    };
    if (line.startsWith('\u001b[', at)) {
      skip('0', '?', 32);
      skip(' ', '/', 8);
      if (isWithin(line[end], '@', '~')) {
        at = end;
        continue;
      }
    }
    plain += line[at];
  }
  return plain;
}

function isWithin(char: string | undefined, low: string, high: string): boolean {
  return char !== undefined && char >= low && char <= high;
}

function printable(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  const isControl = (code < 32 && code !== 9) || (code >= 127 && code < 160);
  return isControl ? '\uFFFD' : char;
}

function readLine(line: string): LogLine {
  const plain = { level: null, tag: null, uptimeMs: null, message: cutText(line) };
  const close = line.indexOf(') ');
  const colon = line.indexOf(':', close);
  const level = 'EWIDV'.includes(line[0] ?? ' ') ? (line[0] as LogLine['level']) : null;
  if (level === null || !line.startsWith(' (', 1) || close < 0 || colon < 0) return plain;
  const time = line.slice(3, close);
  const isUptime =
    time.length > 0 && time.length <= 15 && [...time].every((char) => isWithin(char, '0', '9'));
  const isClock =
    time.length >= 8 &&
    time.length <= 15 &&
    [...time].every((char) => '0123456789:.'.includes(char));
  const tag = line.slice(close + 2, colon);
  if ((!isUptime && !isClock) || tag.length === 0 || tag.length > 64) return plain;
  const rest = line.slice(colon + 1);
  return {
    level,
    tag: tag.trim(),
    uptimeMs: isUptime ? Number(time) : null,
    message: cutText(rest.startsWith(' ') ? rest.slice(1) : rest),
  };
}

function cutText(text: string): string {
  const cut = text.slice(0, 1024);
  return text.length > 1024 && /[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut;
}
