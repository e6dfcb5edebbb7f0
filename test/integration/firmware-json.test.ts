import fc from 'fast-check';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKey, parseKey } from '../../firmware-protocol/keys.ts';
import { canCompile, compileWithCore, exchange, SANITIZED } from '../support/firmware.ts';

const hasGcc = canCompile('gcc', SANITIZED, 'JSON of the C core');
const RUNS = 400;

let folder: string;
let program: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-core-json-'));
  if (hasGcc) program = await compileWithCore(folder, 'fp_drive');
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

type Path = readonly (string | number)[];

/** Texts that C can hold: no U+0000, no halves of surrogate pairs. */
const text = fc.string({ unit: 'binary' }).filter((value) => !value.includes('\0'));
const name = text.filter((value) => value !== '__proto__');
const number = fc.oneof(
  fc.double({ noNaN: true, min: -1e290, max: 1e290 }),
  fc.float({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.tuple(fc.integer({ min: -999_999, max: 999_999 }), fc.nat(4)).map(([n, e]) => n / 10 ** e),
);
const document = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    number,
    fc.boolean(),
    text,
    fc.array(tie('value'), { maxLength: 6 }),
    fc.dictionary(name, tie('value'), { maxKeys: 6, noNullPrototype: true }),
  ),
})).value;

const hex = (value: string): string => Buffer.from(value).toString('hex') || '=';
const bitsOf = (value: number): string => {
  const buffer = Buffer.alloc(8);
  buffer.writeDoubleBE(value);
  return buffer.toString('hex');
};
const numberOf = (bits: string): number => Buffer.from(bits, 'hex').readDoubleBE();

/** The calls that write a value. */
function writing(value: unknown, member: string | null): string[] {
  const key = member === null ? '-' : hex(member);
  if (typeof value === 'number') return [`N ${key} ${bitsOf(value)}`];
  if (typeof value === 'boolean') return [`B ${key} ${value ? 1 : 0}`];
  if (typeof value === 'string') return [`S ${key} ${hex(value)}`];
  if (Array.isArray(value))
    return [`A ${key}`, ...value.flatMap((item) => writing(item, null)), 'a'];
  const members = Object.entries(value as object);
  return [`O ${key}`, ...members.flatMap(([of, item]) => writing(item, of)), 'o'];
}

/** Every scalar of a value with the way to it. */
function leaves(value: unknown, path: Path = []): { path: Path; value: unknown }[] {
  if (typeof value !== 'object' || value === null) return [{ path, value }];
  const isList = Array.isArray(value);
  return Object.entries(value).flatMap(([key, item]) =>
    leaves(item, [...path, isList ? Number(key) : key]),
  );
}

/** Whether a number came back: exactly when it is whole or of few digits, else as far as digits go. */
function isSame(given: number, back: number): boolean {
  if (Object.is(given, back) || given === back) return true;
  if (Math.abs(given) < 1e-290) return Math.abs(back) < 1e-289;
  const error = Math.abs(given - back) / Math.abs(given);
  if (Math.fround(given) === given && Math.fround(back) === given) return true;
  // Floats below the normal ones have fewer digits than the writer takes for theirs.
  if (Math.abs(given) < 1.2e-38 && Math.fround(given) === given) return error < 1e-7;
  return error <= 2e-15 * (1 + Math.abs(Math.log10(Math.abs(given))));
}

function expectSame(back: unknown, given: unknown): void {
  if (typeof given === 'number') {
    expect(typeof back).toBe('number');
    if (!isSame(given, back as number)) expect(back).toBe(given);
  } else if (typeof given === 'object' && given !== null) {
    expect(Object.keys(back as object)).toEqual(Object.keys(given));
    for (const [key, item] of Object.entries(given)) {
      expectSame((back as Record<string, unknown>)[key], item);
    }
  } else {
    expect(back).toBe(given);
  }
}

describe.skipIf(!hasGcc)('JSON of the C core', () => {
  it('is read by JSON.parse as what was written', async () => {
    const documents = fc.sample(document, RUNS);
    const lines = documents.flatMap((value) => ['w 150000', ...writing(value, null), 'E']);
    const printed = await exchange(program, lines);
    expect(printed).toHaveLength(documents.length);
    for (const [index, value] of documents.entries()) {
      expectSame(JSON.parse(Buffer.from(printed[index] ?? '', 'hex').toString()), value);
    }
  });

  it('of JSON.stringify is read as what it says', async () => {
    const documents = fc.sample(document, RUNS);
    const wanted: unknown[] = [];
    const lines = documents.flatMap((value) =>
      leaves(value).map((leaf) => {
        wanted.push(leaf.value);
        const type = { number: 'num', string: 'str', boolean: 'bool' }[
          typeof leaf.value as 'number'
        ];
        const path = leaf.path.map((step) =>
          typeof step === 'number' ? ` [${step}` : ` .${Buffer.from(step).toString('hex')}`,
        );
        return `R ${hex(JSON.stringify(value))} ${type}${path.join('')}`;
      }),
    );
    const printed = await exchange(program, lines);
    expect(printed).toHaveLength(wanted.length);
    for (const [index, value] of wanted.entries()) {
      const back = printed[index] ?? '';
      if (typeof value === 'number') expectSame(numberOf(back), value);
      else if (typeof value === 'boolean') expect(back).toBe(String(value));
      else expect(Buffer.from(back, 'hex').toString()).toBe(value);
    }
  });

  it('of a tool that escapes everything but ASCII is read as what it says', async () => {
    const texts = fc.sample(text, RUNS);
    const escaped = texts.map((value) =>
      JSON.stringify(value).replaceAll(
        /[^\x00-\x7f]/g,
        (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
      ),
    );
    const printed = await exchange(
      program,
      escaped.map((json) => `R ${hex(json)} str`),
    );
    expect(printed).toEqual(texts.map((value) => Buffer.from(value).toString('hex')));
  });

  it('that was cut off anywhere has no members', async () => {
    const whole = '{"id":5,"cmd":"relay","args":{"on":true,"x":[1,2.5e-3,"\\u00e9"]},"n":1}';
    const cuts = Array.from({ length: whole.length }, (_, end) => whole.slice(0, end));
    const lines = cuts.map((cut) => `R ${hex(cut)} raw .${hex('id')}`);
    expect(new Set(await exchange(program, lines))).toEqual(new Set(['absent']));
  });

  it.each([
    ['1e3', 'i64', 'no'],
    ['-9223372036854775807', 'i64', '-9223372036854775807'],
    ['9223372036854775808', 'i64', 'no'],
    ['4294967295', 'u32', '4294967295'],
    ['4294967296', 'u32', 'no'],
    ['-1', 'u32', 'no'],
    ['"5"', 'u32', 'no'],
    ['1.5', 'i64', 'no'],
    ['--1', 'num', 'no'],
    ['1.', 'num', 'no'],
    ['1e', 'num', 'no'],
    ['.5', 'num', 'no'],
    ['truth', 'bool', 'no'],
    ['"\\u0000"', 'str', 'no'],
    ['"\\ud800"', 'str', 'no'],
    ['"\\udc00"', 'str', 'no'],
    ['"\\ud83d\\ud83d"', 'str', 'no'],
    ['"\\ud83d\\u0041"', 'str', 'no'],
    ['"\\ud83d\\n"', 'str', 'no'],
    ['"\\ud83d\\u"', 'str', 'no'],
    ['"\\ud83d\\ude00"', 'str', 'f09f9880'],
    ['"\\uDBFF\\uDFFF"', 'str', 'f48fbfbf'],
    ['"\\x"', 'str', 'no'],
    ['{"a":1}}', 'ok', 'no'],
    ['[1,]', 'ok', 'no'],
    ['[1 2]', 'ok', 'no'],
    ['{"a"}', 'ok', 'no'],
    ['{1:2}', 'ok', 'no'],
    ['[}', 'ok', 'no'],
    ['', 'ok', 'no'],
    [' [ ] ', 'ok', 'yes'],
    [`${'['.repeat(32)}${']'.repeat(32)}`, 'ok', 'yes'],
    [`${'['.repeat(33)}${']'.repeat(33)}`, 'ok', 'no'],
  ])('%s read as %s is %s', async (json, type, wanted) => {
    expect(await exchange(program, [`R ${hex(json)} ${type}`])).toEqual([wanted]);
  });

  it.each([
    [21.5, '21.5'],
    [Math.fround(21.1), '21.1'],
    [Math.fround(0.1), '0.1'],
    [0.1 + 0.2, '0.30000000000000004'],
    [1_795_235_431_857, '1795235431857'],
    [1_234_567.875, '1234567.875'],
    [-0.000_05, '-0.00005'],
    [1e-7, '1e-7'],
    [1e21, '1e21'],
    [0, '0'],
    [Number.NaN, 'null'],
    [Number.POSITIVE_INFINITY, 'null'],
    [9_007_199_254_740_991, '9007199254740991'],
  ])('the number %d is written as %s', async (value, wanted) => {
    const [printed = ''] = await exchange(program, ['w 64', `N - ${bitsOf(value)}`, 'E']);
    expect(Buffer.from(printed, 'hex').toString()).toBe(wanted);
  });

  it('is UTF-8 whatever bytes a text has', async () => {
    const bytes = fc
      .uint8Array({ minLength: 1, maxLength: 12 })
      .map((all) => Buffer.from(all.map((byte) => byte || 1)));
    const texts = fc.sample(bytes, RUNS);
    const lines = texts.flatMap((value) => ['w 300', `S - ${value.toString('hex')}`, 'E']);
    const decoder = new TextDecoder('utf-8', { fatal: true });
    const printed = await exchange(program, lines);
    for (const [index, value] of texts.entries()) {
      const json = decoder.decode(Buffer.from(printed[index] ?? '', 'hex'));
      const wanted = new TextDecoder().decode(value);
      if (!wanted.includes('\uFFFD')) expect(JSON.parse(json)).toBe(wanted);
      else expect(JSON.parse(json)).toContain('?');
    }
  });
});

describe.skipIf(!hasGcc)('the key check of the C core', () => {
  it('takes what the registry made, and what has one character changed it takes no more than that', async () => {
    const keys = Array.from(
      { length: 200 },
      (_, index) => makeKey(index % 2 ? 'device' : 'claim').key,
    );
    const changed = keys.map((key, index) => {
      const at = index % key.length;
      return `${key.slice(0, at)}${key[at] === 'x' ? 'y' : 'x'}${key.slice(at + 1)}`;
    });
    const other = [makeKey('admin').key, makeKey('integrator').key, '', 'pbd_', `${keys[0]}x`];
    const all = [...keys, ...changed, ...other];
    const printed = await exchange(
      program,
      all.map((key) => `K ${hex(key)}`),
    );
    const isForBoards = (key: string): boolean => /^pb[dc]_/.test(key) && parseKey(key) !== null;
    expect(printed).toEqual(all.map((key) => (isForBoards(key) ? 'yes' : 'no')));
  });
});

describe.skipIf(!hasGcc)('the backoff of the C core', () => {
  it('doubles up to five minutes, and is a minute at least after CONNACK 4 and 5', async () => {
    const random = fc.sample(fc.integer({ min: 0, max: 0xffff_ffff }), 300);
    for (const connack of [0, 3, 4, 5]) {
      for (const attempt of [0, 1, 5, 9, 40]) {
        const printed = await exchange(
          program,
          random.map((bits) => `T ${attempt} ${connack} ${bits}`),
        );
        const waits = printed.map(Number);
        const least = connack >= 4 ? 60_000 : 0;
        const most = Math.min(300_000, least + 1000 * 2 ** Math.min(attempt, 20));
        expect(Math.min(...waits)).toBeGreaterThanOrEqual(least);
        expect(Math.max(...waits)).toBeLessThanOrEqual(most);
        expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan((most - least) / 2);
      }
    }
  });
});
