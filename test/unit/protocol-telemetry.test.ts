import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeData,
  decodeScalar,
  isRefusal,
  type Decoded,
  type Refusal,
} from '../../firmware-protocol/telemetry.ts';
import { METRIC_NAME, RESERVED_MEMBERS, VALUE_MAX } from '../../firmware-protocol/contract.ts';
import { isMetricName } from '../../firmware-protocol/metric-name.ts';
import { referenceData, referenceScalar } from '../support/reference-decoder.ts';
import { slowness } from '../support/slowness.ts';

const ts = 1_795_235_431_857;

function data(payload: string | object): Decoded | Refusal {
  return decodeData(Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload)));
}
function accepted(outcome: Decoded | Refusal): Decoded {
  if (isRefusal(outcome)) throw new Error(`refused: ${outcome.code} ${outcome.detail}`);
  return outcome;
}
/** One string for each sample: its metrics and values, as a person would write them. */
function values(outcome: Decoded | Refusal): string[] {
  return accepted(outcome).samples.map(({ points }) =>
    points.map((p) => `${p.metric}=${p.kind === 'text' ? p.text : p.value}`).join(' '),
  );
}
function codeOf(outcome: Decoded | Refusal): string {
  return isRefusal(outcome) ? outcome.code : 'accepted';
}
/** The fastest of five runs in milliseconds, so that a busy machine does not fail the test. */
function millisecondsOf(run: () => unknown): number {
  const times = Array.from({ length: 20 }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  });
  return Math.min(...times) / slowness();
}

describe('a sample', () => {
  it('gives one point for each metric, typed', () => {
    expect(data('{"temp":21.5,"door":"open","ok":true,"off":false}')).toEqual({
      samples: [
        {
          tsMicros: null,
          ageMs: null,
          upMs: null,
          seq: null,
          isContinued: false,
          fromLast: 0,
          points: [
            { metric: 'temp', kind: 'number', value: 21.5, text: null },
            { metric: 'door', kind: 'text', value: null, text: 'open' },
            { metric: 'ok', kind: 'bool', value: 1, text: null },
            { metric: 'off', kind: 'bool', value: 0, text: null },
          ],
        },
      ],
      pointCount: 4,
      missing: 0,
    });
  });

  it('carries ts, age and seq, in whatever order they stand', () => {
    const [sample] = accepted(data(`{"temp":1,"seq":1234,"ts":${ts},"age":500}`)).samples;
    expect(sample).toMatchObject({ tsMicros: ts * 1000, ageMs: 500, seq: 1234 });
  });

  it.each([
    ['whole seconds', 1_795_235_431, 1_795_235_431_000_000],
    ['seconds with fractions', 1_795_235_431.857_25, 1_795_235_431_857_250],
    ['milliseconds', 1_795_235_431_857, 1_795_235_431_857_000],
    ['the last seconds, year 5138', 99_999_999_999, Number.MAX_SAFE_INTEGER],
    ['the first milliseconds', 1e11, 1e14],
    ['uptime', 0, 0],
    ['a clock below zero', -1.5, -1_500_000],
    ['beyond any calendar', 1e300, Number.MAX_SAFE_INTEGER],
  ])('reads a ts in %s', (_, given, tsMicros) => {
    expect(accepted(data({ ts: given, temp: 1 })).samples[0]?.tsMicros).toBe(tsMicros);
  });

  it('flattens objects to three levels with dots', () => {
    expect(values(data('{"bme":{"t":21,"p":{"hpa":1013}},"v":3}'))).toEqual([
      'bme.t=21 bme.p.hpa=1013 v=3',
    ]);
    expect(codeOf(data('{"a":{"b":{"c":{"d":1}}}}'))).toBe('too_deep');
  });

  it('may set its metrics apart under values, as ThingsBoard firmware does', () => {
    expect(values(data(`{"ts":${ts},"values":{"temp":21.5,"bme":{"t":1}}}`))).toEqual([
      'temp=21.5 bme.t=1',
    ]);
    expect(codeOf(data('{"values":{"temp":1},"rh":2}'))).toBe('bad_type');
    expect(codeOf(data('{"values":[1]}'))).toBe('bad_type');
  });

  it('may hold nothing', () => {
    expect(accepted(data('{}'))).toMatchObject({ pointCount: 0, missing: 0 });
    expect(accepted(data('[]'))).toEqual({ samples: [], pointCount: 0, missing: 0 });
    expect(accepted(data('{"ts":1,"a":{}}'))).toMatchObject({ pointCount: 0, missing: 0 });
  });

  it('leaves out what is missing, and counts it', () => {
    const text =
      '{"a":null,"b":nan,"c":NaN,"d":-inf,"e":   inf,"f":-nan,"g":Infinity,"h":"nan","i":1}';
    expect(values(data(text))).toEqual(['i=1']);
    expect(accepted(data(text)).missing).toBe(8);
  });

  it('keeps such words inside strings and names', () => {
    expect(values(data('{"nan":nan,"inf":"a nan, \\"nan\\": inf","x":nan}'))).toEqual([
      'inf=a nan, "nan": inf',
    ]);
  });

  it('is refused whole when one member is bad', () => {
    expect(codeOf(data('{"temp":21.5,"_x":1}'))).toBe('bad_name');
    expect(codeOf(data('[{"temp":21.5},{"temp":[1]}]'))).toBe('bad_series');
  });

  it.each([
    ['bad_name', '{"1st":1}'],
    ['bad_name', '{"":1}'],
    ['bad_name', '{"a b":1}'],
    ['bad_name', '{"ä":1}'],
    ['bad_name', '{"_a":1}'],
    ['bad_name', '{"$a":1}'],
    ['bad_name', '{"a":{"$":1}}'],
    ['bad_name', `{"${'x'.repeat(65)}":1}`],
    ['bad_name', `{"${'x'.repeat(40)}":{"${'y'.repeat(24)}":1}}`],
    ['bad_name', '{"a.b":1,"a":{"b":2}}'],
    ['bad_name', '{"values":{"ts":1}}'],
    ['bad_type', '{"ts":"1795235431857","temp":1}'],
    ['bad_type', '{"ts":null,"temp":1}'],
    ['bad_type', '{"ts":1e999,"temp":1}'],
    ['bad_type', '{"age":-1,"temp":1}'],
    ['bad_type', '{"seq":1.5,"temp":1}'],
    ['bad_type', '{"seq":-1,"temp":1}'],
    ['bad_type', '{"seq":9007199254740992,"temp":1}'],
    ['bad_type', '21.5'],
    ['bad_type', '"on"'],
    ['bad_type', 'null'],
    ['bad_type', 'nan'],
    ['bad_type', '[1,2]'],
    ['bad_type', '[[{"a":1}]]'],
    ['bad_type', '{"a":"x\\u0000"}'],
    ['bad_type', '{"a":"\\ud83d"}'],
    ['bad_type', '{"a":"\\ude00\\ud83d"}'],
    ['too_big', `{"a":"${'x'.repeat(257)}"}`],
    ['too_big', `{"a":"${'é'.repeat(129)}"}`],
  ])('answers %s to %s', (code, payload) => {
    expect(codeOf(data(payload))).toBe(code);
  });

  it.each([
    `{"${'x'.repeat(64)}":1}`,
    `{"a":"${'x'.repeat(256)}"}`,
    `{"a":"${'é'.repeat(128)}"}`,
    '{"a":"\\ud83d\\ude00 \\uFFFD"}',
    '{"a":"\uFFFD"}',
    '{"seq":9007199254740991,"a":1}',
    '{"a.b-c_d":1}',
    ' \r\n\t{ "a" : 1 } ',
  ])('accepts %s', (payload) => {
    expect(accepted(data(payload)).pointCount).toBe(1);
  });
});

describe('a batch', () => {
  it('keeps the order and counts each sample from the end', () => {
    const decoded = accepted(data(`[{"ts":${ts},"a":1},{"values":{"a":2}},{"age":5,"a":3}]`));
    expect(values(decoded)).toEqual(['a=1', 'a=2', 'a=3']);
    expect(decoded.samples.map((sample) => sample.fromLast)).toEqual([2, 1, 0]);
    expect(decoded.samples.map((sample) => sample.ageMs)).toEqual([null, null, 5]);
  });

  it('may hold series', () => {
    expect(values(data('[{"dt":10,"a":[1,2]},{"a":3}]'))).toEqual(['a=1', 'a=2', 'a=3']);
  });

  it('has at most 500 samples, 64 metrics each and 2000 values, missing ones included', () => {
    const sample = (metrics: number, value: unknown = 1) =>
      Object.fromEntries(Array.from({ length: metrics }, (_, i) => [`m${i}`, value]));
    const batch = (samples: number, metrics: number) => Array(samples).fill(sample(metrics));
    expect(accepted(data(batch(500, 4))).pointCount).toBe(2000);
    expect(codeOf(data(batch(501, 1)))).toBe('too_many');
    expect(codeOf(data(batch(500, 5)))).toBe('too_many');
    expect(accepted(data(sample(64))).pointCount).toBe(64);
    expect(codeOf(data(sample(65)))).toBe('too_many');
    expect(codeOf(data(sample(65, null)))).toBe('too_many');
    expect(codeOf(data([...batch(31, 64), sample(17)]))).toBe('too_many');
  });
});

describe('a series', () => {
  const text = `{"ts":${ts},"seq":7,"dt":1000,"temp":[21.5,21.6,null],"rh":[48,nan,49]}`;

  it('gives one sample for each place, dt apart', () => {
    const decoded = accepted(data(text));
    expect(values(decoded)).toEqual(['temp=21.5 rh=48', 'temp=21.6', 'rh=49']);
    expect(decoded).toMatchObject({ pointCount: 4, missing: 2 });
    expect(decoded.samples.map((sample) => sample.tsMicros)).toEqual([
      ts * 1000,
      (ts + 1000) * 1000,
      (ts + 2000) * 1000,
    ]);
    expect(decoded.samples.map((sample) => sample.seq)).toEqual([7, 7, 7]);
  });

  it('counts age down from its first sample, and below zero', () => {
    const { samples } = accepted(data('{"age":1500,"dt":1000,"temp":[1,2,3]}'));
    expect(samples.map((sample) => sample.ageMs)).toEqual([1500, 500, -500]);
  });

  it('ends at receipt without ts and age', () => {
    const { samples } = accepted(data('{"dt":0.5,"temp":[1,2,3]}'));
    expect(samples.map((sample) => sample.ageMs)).toEqual([1, 0.5, 0]);
  });

  it('takes texts, bools, nested names, values apart, and dt after the arrays', () => {
    expect(values(data('{"a":{"b":[true,"x"]},"dt":1}'))).toEqual(['a.b=1', 'a.b=x']);
    expect(values(data('{"values":{"a":[1,2]},"dt":1}'))).toEqual(['a=1', 'a=2']);
    expect(values(data('{"dt":1,"a":[1],"b":null}'))).toEqual(['a=1']);
  });

  it('may be empty', () => {
    expect(data('{"dt":1000,"temp":[],"rh":[]}')).toEqual({
      samples: [],
      pointCount: 0,
      missing: 0,
    });
    expect(data('{"dt":1000}')).toEqual({ samples: [], pointCount: 0, missing: 0 });
  });

  it.each([
    ['bad_series', '{"dt":1000,"temp":[1,2],"rh":[1]}'],
    ['bad_series', '{"dt":1000,"temp":[1,2],"rh":3}'],
    ['bad_series', '{"dt":1000,"temp":21.5}'],
    ['bad_series', '{"temp":[1,2]}'],
    ['bad_series', '{"values":{"temp":[1,2]}}'],
    ['bad_type', '{"dt":0,"temp":[1]}'],
    ['bad_type', '{"dt":-1,"temp":[1]}'],
    ['bad_type', '{"dt":"1000","temp":[1]}'],
    ['bad_type', '{"dt":1000,"temp":[[1]]}'],
    ['bad_type', '{"dt":1000,"temp":[{"a":1}]}'],
    ['bad_name', '{"dt":1000,"_x":[1]}'],
    ['bad_name', '{"dt":1,"a.b":[1],"a":{"b":[2]}}'],
    ['too_deep', '{"dt":1,"a":{"b":{"c":{"d":[1]}}}}'],
    ['too_many', `{"dt":1,"a":[${'1,'.repeat(500)}1]}`],
    [
      'too_many',
      `{"dt":1${[1, 2, 3, 4, 5].map((n) => `,"a${n}":[${'1,'.repeat(400)}1]`).join('')}}`,
    ],
  ])('answers %s to %s', (code, payload) => {
    expect(codeOf(data(payload))).toBe(code);
  });
});

describe('one value on its own topic', () => {
  const scalar = (payload: string) => decodeScalar('temp', Buffer.from(payload));

  it.each([
    ['21.5', 'temp=21.5'],
    [' -3e2\n', 'temp=-300'],
    ['true', 'temp=1'],
    ['false', 'temp=0'],
    ['"open"', 'temp=open'],
    ['ON', 'temp=ON'],
    ['open ', 'temp=open '],
    ['21.5 C', 'temp=21.5 C'],
    ['007', 'temp=007'],
    ['"12"', 'temp=12'],
    ['{oops', 'temp={oops'],
    ['größer', 'temp=größer'],
  ])('reads %j', (payload, expected) => {
    expect(values(scalar(payload))).toEqual([expected]);
  });

  it.each([
    '',
    'null',
    'nan',
    'NaN',
    '   nan',
    '-inf',
    'Infinity',
    '"nan"',
    '1e999',
    '-1.1e290',
    ' null ',
  ])('counts %j as missing', (payload) => {
    expect(scalar(payload)).toMatchObject({ pointCount: 0, missing: 1 });
  });

  it.each([
    ['bad_type', '{"a":1}'],
    ['bad_type', '[1]'],
    ['bad_type', 'a\0b'],
    ['bad_type', '"\\u0000"'],
    ['bad_json', '\uFEFF21.5'],
    ['too_big', 'x'.repeat(257)],
    ['too_big', '1'.repeat(3000)],
  ])('answers %s to %j', (code, payload) => {
    expect(codeOf(scalar(payload))).toBe(code);
  });

  it('is refused when the bytes are not UTF-8 or the metric is not a name', () => {
    expect(codeOf(decodeScalar('temp', Buffer.from([0x4f, 0xff])))).toBe('bad_json');
    for (const metric of ['ts', 'values', '_x', '', 'a/b', '__proto__']) {
      expect(codeOf(decodeScalar(metric, Buffer.from('1')))).toBe('bad_name');
    }
  });
});

describe('payloads that are meant to hurt', () => {
  it.each([
    ['truncated', '{"temp":21.5'],
    ['trailing bytes', '{"temp":21.5}x'],
    ['a second document', '{"temp":1}{"temp":2}'],
    ['a byte order mark', '\uFEFF{"temp":1}'],
    ['UTF-16', Buffer.from('{"temp":1}', 'utf16le')],
    ['UTF-16 with its mark', Buffer.from('\uFEFF{"temp":1}', 'utf16le')],
    ['UTF-8 that is broken', Buffer.from([0x7b, 0x22, 0x61, 0x22, 0x3a, 0x22, 0xc3, 0x22, 0x7d])],
    ['UTF-8 of a surrogate', Buffer.from('7b2261223a22eda080227d', 'hex')],
    ['nothing', ''],
    ['a NUL', '\0'],
    ['JSON5', "{temp:1,'a':2,}"],
    ['a comment', '{"a":1}//'],
  ])('[I-09] answers bad_json to %s', (_, payload) => {
    const bytes = Buffer.from(payload as string);
    expect(codeOf(decodeData(bytes))).toBe('bad_json');
    expect(millisecondsOf(() => decodeData(bytes))).toBeLessThan(5);
  });

  it('[I-09] lets the last of duplicate members stand, as JSON.parse does', () => {
    expect(values(data('{"a":1,"a":2}'))).toEqual(['a=2']);
  });

  it('[I-09] says where a text stops being JSON', () => {
    const detail = (text: string) => (data(text) as Refusal).detail;
    expect(detail('{"temp":n}')).toBe('Unexpected token n at 8');
    expect(detail('{"temp":nan,"rh":x}')).toBe('Unexpected token x at 17');
    expect(detail('{"temp":21.5')).toBe('Unexpected end at 12');
    expect(detail('{"temp":1,}')).toBe('Unexpected token } at 10');
    expect(detail('{"temp" 1}')).toBe('Unexpected token 1 at 8');
    expect(detail('[1 2]')).toBe('Unexpected token 2 at 3');
    expect(detail('[1]]')).toBe('Unexpected token ] at 3');
    expect(detail('{"a":"x\n"}')).toBe('Unfinished or bad string at 5');
    expect(detail('{"a":01}')).toBe('Unexpected token 1 at 6');
    expect(detail('\x1b[31m')).toBe('Unexpected token U+001b at 0');
    expect(detail('')).toBe('the payload is empty');
  });

  it.each([
    ['100 000 arrays deep', '['.repeat(100_000), 'too_deep'],
    ['100 000 objects deep', '{"a":'.repeat(100_000), 'too_deep'],
    ['100 000 deep and closed', '['.repeat(100_000) + ']'.repeat(100_000), 'too_deep'],
    [
      '100 000 keys',
      `{${Array.from({ length: 100_000 }, (_, i) => `"k${i}":1`).join(',')}}`,
      'too_many',
    ],
    ['a string of 1 MB', `{"a":"${'x'.repeat(1_000_000)}"}`, 'too_big'],
    ['an unfinished string of 1 MB', `{"a":"${'\\"'.repeat(500_000)}`, 'bad_json'],
    ['1 MB of nan', `[${'nan '.repeat(250_000)}`, 'bad_json'],
    ['1 MB of letters', 'n'.repeat(1_000_000), 'bad_json'],
    ['1 MB of quotes', '"'.repeat(1_000_001), 'bad_json'],
    ['1 MB of digits', `{"a":${'1'.repeat(1_000_000)}`, 'bad_json'],
  ])('[I-10] refuses %s in under 20 ms, at the default size and above it', (_, text, code) => {
    const payload = Buffer.from(text);
    expect(codeOf(decodeData(payload))).toBe('too_big');
    expect(codeOf(decodeData(payload, 16_777_216))).toBe(code);
    expect(millisecondsOf(() => decodeData(payload, 16_777_216))).toBeLessThan(20);
    const cut = payload.subarray(0, 65_536);
    expect(isRefusal(decodeData(cut))).toBe(true);
    expect(millisecondsOf(() => decodeData(cut))).toBeLessThan(20);
  });

  it('[I-10] accepts the largest message that the limits allow', () => {
    const nested = (i: number) => ({
      ts: ts + i,
      age: 1,
      seq: i,
      values: { a: { b: { c: 1, d: 2 } } },
    });
    const batch = JSON.stringify(Array.from({ length: 500 }, (_, i) => nested(i)));
    expect(accepted(data(batch)).pointCount).toBe(1000);
  });

  it('[I-11] treats the names of JavaScript as ordinary ones or refuses them', () => {
    expect(codeOf(data('{"__proto__":{"polluted":1}}'))).toBe('bad_name');
    expect(codeOf(data('{"a":{"__proto__":{}}}'))).toBe('bad_name');
    expect(codeOf(data('{"dt":1,"a":{"__proto__":[1]}}'))).toBe('bad_name');
    expect(codeOf(data('{"__proto__":{}}'))).toBe('bad_name');
    expect(codeOf(data('{"values":{"__proto__":1}}'))).toBe('bad_name');
    expect(values(data('{"constructor":1,"toString":2,"hasOwnProperty":{"prototype":3}}'))).toEqual(
      ['constructor=1 toString=2 hasOwnProperty.prototype=3'],
    );
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('[I-15] takes numbers as they are written and never makes one of a string', () => {
    expect(accepted(data('{"a":1e999,"b":-1e999}'))).toMatchObject({ pointCount: 0, missing: 2 });
    expect(values(data('{"a":"12","b":true,"c":null,"d":9007199254740993}'))).toEqual([
      'a=12 b=1 d=9007199254740992',
    ]);
    const [first, second] = accepted(data('{"a":"12","b":-0}')).samples[0]?.points ?? [];
    expect(first).toMatchObject({ kind: 'text', value: null });
    expect(second).toMatchObject({ kind: 'number', value: -0 });
  });

  it('shows of a hostile name no more than 40 printable characters', () => {
    const { detail } = data(`{"\\u001b[31m\\n${'x'.repeat(5000)}":1}`) as Refusal;
    expect(detail).toMatch(/^[\x20-\x7e]{1,100}$/);
  });
});

describe('the decoder and the zod contract', () => {
  const names = fc.constantFrom(
    ...[
      'a',
      'b',
      'temp',
      'a.b',
      'b.',
      'a-b_c9',
      'constructor',
      '__proto__',
      '_x',
      '$x',
      '',
      '1',
      'ü',
    ],
    ...['ts', 'age', 'up', 'dt', 'seq', 'values', 'x'.repeat(64), 'y'.repeat(65)],
  );
  const good = fc.constantFrom('a', 'b', 'temp', 'rh', 'a.b', 'constructor', 'b-c_9');
  const leaf = fc.oneof(
    fc.double({ noNaN: true }),
    fc.integer(),
    fc.boolean(),
    fc.constantFrom(
      null,
      'nan',
      '-inf',
      'open',
      '',
      'x\0',
      '\ud800',
      'é'.repeat(128),
      'z'.repeat(257),
    ),
    fc.string({ unit: 'binary', maxLength: 5 }),
  );
  const sane = fc.oneof(
    fc.double({ noNaN: true }),
    fc.constantFrom(VALUE_MAX, -VALUE_MAX, beyond(VALUE_MAX), -1.7e308),
    fc.boolean(),
    fc.constantFrom(null, 'nan', 'on'),
  );
  const stamp = fc.record(
    {
      ts: fc.oneof(
        fc.constantFrom(0, -0, -5.5, 1e11, ts, 1e300, ts / 1000),
        fc.double({ noNaN: true }),
      ),
      age: fc.oneof(fc.constantFrom(0, 59_000, -1), fc.double({ min: 0, noNaN: true })),
      up: fc.oneof(
        { weight: 9, arbitrary: fc.double({ min: 0, max: 1e12, noNaN: true }) },
        { weight: 1, arbitrary: fc.constantFrom(-1, 1e13) },
      ),
      seq: fc.constantFrom(0, 1, 2 ** 53 - 1, 2 ** 53, -1, 1.5),
    },
    { requiredKeys: [] },
  );
  const metrics = fc.oneof(
    { weight: 3, arbitrary: fc.dictionary(good, sane, { maxKeys: 4 }) },
    { weight: 1, arbitrary: fc.dictionary(good, fc.dictionary(good, sane, { maxKeys: 3 })) },
  );
  const columns = fc
    .integer({ min: 0, max: 4 })
    .chain((length) =>
      fc.dictionary(
        good,
        fc.oneof(
          { weight: 20, arbitrary: fc.array(sane, { minLength: length, maxLength: length }) },
          { weight: 1, arbitrary: fc.array(sane, { maxLength: 4 }) },
          { weight: 1, arbitrary: sane },
        ),
      ),
    );
  const step = fc.constantFrom({ dt: 1000 }, { dt: 0.25 }, { dt: 1e308 }, { dt: 0 }, {});
  const merged = (...parts: fc.Arbitrary<object>[]) =>
    fc.tuple(...parts).map((all) => Object.assign({}, ...all) as object);
  const wrap = (part: fc.Arbitrary<object>) => part.map((inner) => ({ values: inner }));
  const item = fc.oneof(
    merged(stamp, metrics),
    merged(metrics, stamp),
    merged(stamp, wrap(metrics)),
    merged(stamp, step, columns),
    merged(columns, step, stamp),
    merged(stamp, step, wrap(columns)),
  );
  const wild = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(names, tie('value'), { maxKeys: 4, noNullPrototype: true }),
    ),
  })).value;
  const payloads = fc
    .oneof(item, fc.array(item, { maxLength: 4 }), fc.dictionary(names, leaf), wild)
    .map((payload) => JSON.stringify(payload));
  const cut = fc.tuple(
    payloads,
    fc.nat(60),
    fc.constantFrom('nan', 'inf', '', ',', '"', '1e999', 'x'),
  );
  const broken = cut.map(([text, at, word]) => {
    const place = text.length === 0 ? 0 : at % text.length;
    return text.slice(0, place) + word + text.slice(place + 1);
  });
  const printed = payloads.map((text) => text.replaceAll('null', '-nan'));

  it('agree on every generated payload', () => {
    let taken = 0;
    fc.assert(
      fc.property(fc.oneof(payloads, printed, broken), (text) => {
        const payload = Buffer.from(text);
        const decoded = decodeData(payload);
        const expected = referenceData(payload);
        if (expected === null) expect(isRefusal(decoded)).toBe(true);
        else expect(decoded).toEqual(expected);
        taken += expected === null ? 0 : 1;
      }),
      { numRuns: 5000 },
    );
    expect(taken).toBeGreaterThan(500);
  });

  it('agree on which numbers are stored, and a sum of those never overflows', () => {
    const edge = fc.constantFrom(VALUE_MAX, beyond(VALUE_MAX), 1e289, Number.MAX_VALUE, 5e-324);
    const numbers = fc.oneof(
      fc.double(),
      edge,
      edge.map((value) => -value),
    );
    fc.assert(
      fc.property(numbers, (value) => {
        const text = JSON.stringify(value);
        const isStored = Math.abs(value) <= VALUE_MAX;
        const counts = { pointCount: isStored ? 1 : 0, missing: isStored ? 0 : 1 };
        const series = data(`{"dt":1000,"a":[${text}]}`);
        for (const read of [
          data(`{"a":${text}}`),
          series,
          decodeScalar('temp', Buffer.from(text)),
        ]) {
          expect(read).toMatchObject(counts);
        }
      }),
    );
    expect(VALUE_MAX * 1e18).toBeLessThan(Infinity);
  });

  it('agree on every generated scalar', () => {
    const words = fc.constantFrom(
      'nan',
      ' nan ',
      '-INF',
      '1e999',
      '"nan"',
      '" nan"',
      '-',
      '0x1',
      '\uFEFF1',
    );
    const scalars = fc.oneof(
      fc.json({ maxDepth: 1 }),
      fc.string({ unit: 'binary', maxLength: 100 }),
      fc.double().map(String),
      words,
    );
    fc.assert(
      fc.property(scalars, (text) => {
        const payload = Buffer.from(text);
        const decoded = decodeScalar('temp', payload);
        const expected = referenceScalar('temp', payload);
        if (expected === null) expect(isRefusal(decoded)).toBe(true);
        else expect(decoded).toEqual(expected);
      }),
      { numRuns: 2000 },
    );
  });

  it('agree on what a metric may be called', () => {
    const near = fc.string({
      unit: fc.constantFrom(...Array.from('aZ09_.-@[`{/:é\0 ')),
      maxLength: 5,
    });
    const long = fc.integer({ min: 60, max: 68 }).map((length) => 'm'.repeat(length));
    fc.assert(
      fc.property(fc.oneof(near, long, fc.constantFrom(...RESERVED_MEMBERS)), (name) => {
        const isReserved = (RESERVED_MEMBERS as readonly string[]).includes(name);
        expect(isMetricName(name)).toBe(METRIC_NAME.test(name) && !isReserved);
      }),
      { numRuns: 2000 },
    );
  });

  it('agree on random bytes, and never throw', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc
        .string({
          unit: fc.constantFrom(...Array.from('{}[]",:\\-.0123eEnaiftrue \n')),
          maxLength: 60,
        })
        .map((text) => Buffer.from(text)),
    );
    fc.assert(
      fc.property(bytes, (drawn) => {
        const payload = Buffer.from(drawn);
        const decoded = decodeData(payload);
        expect(isRefusal(decoded)).toBe(referenceData(payload) === null);
        expect(isRefusal(decodeScalar('a', payload))).toBe(referenceScalar('a', payload) === null);
        if (isRefusal(decoded)) expect(decoded.detail).toMatch(/^.{1,100}$/u);
      }),
      { numRuns: 2500 },
    );
  });
});

/** The next double away from zero. */
function beyond(value: number): number {
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, value);
  bits.setBigUint64(0, bits.getBigUint64(0) + 1n);
  return bits.getFloat64(0);
}
