import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalEvent, decodeEvent } from '../../firmware-protocol/event.ts';
import { canonicalLog, decodeLog } from '../../firmware-protocol/log-entry.ts';
import type { EventOccurrence, LogLine } from '../../firmware-protocol/occurrence.ts';
import { isRefusal, type Decoded, type Refusal } from '../../firmware-protocol/telemetry.ts';
import { LogRate } from '../../ingest/log-rate.ts';
import { mutated } from '../support/mutated-bytes.ts';
import { referenceEvent, referenceLog } from '../support/reference-occurrence.ts';
import { slowness } from '../support/slowness.ts';

const ts = 1_795_235_431_857;

function event(payload: string): Decoded | Refusal {
  return decodeEvent('door', Buffer.from(payload));
}
function accepted(outcome: Decoded | Refusal): Decoded {
  if (isRefusal(outcome)) throw new Error(`refused: ${outcome.code} ${outcome.detail}`);
  return outcome;
}
function contentOf(outcome: Decoded | Refusal): string | null {
  return (accepted(outcome).occurrence as EventOccurrence).content;
}
function codeOf(outcome: Decoded | Refusal): string {
  return isRefusal(outcome) ? outcome.code : 'accepted';
}
function linesOf(payload: string | Buffer): readonly LogLine[] {
  const { occurrence } = accepted(decodeLog(Buffer.from(payload)));
  return occurrence?.kind === 'log' ? occurrence.lines : [];
}
function line(message: string, rest: Partial<LogLine> = {}): LogLine {
  return { level: null, tag: null, uptimeMs: null, message, ...rest };
}

describe('an event', () => {
  it('is one sample without points, and its content', () => {
    expect(event(`{"ts":${ts},"seq":7,"open":true,"by":{"card":[1,null]}}`)).toEqual({
      samples: [
        {
          tsMicros: ts * 1000,
          ageMs: null,
          upMs: null,
          seq: 7,
          isContinued: false,
          fromLast: 0,
          points: [],
        },
      ],
      pointCount: 0,
      missing: 0,
      occurrence: { kind: 'event', name: 'door', content: '{"open":true,"by":{"card":[1,null]}}' },
    });
    expect(accepted(event('{"age":500}')).samples[0]?.ageMs).toBe(500);
    expect(accepted(event('{"up":812}')).samples[0]).toMatchObject({ upMs: 812, points: [] });
  });

  it.each([
    ['', null],
    ['null', null],
    ['{}', null],
    [`{"ts":${ts}}`, null],
    ['"long"', '"long"'],
    ['3', '3'],
    ['[1,{"ts":"x"}]', '[1,{"ts":"x"}]'],
    ['{"v":nan}', '{"v":null}'],
    ['{"__proto__":{"a":1}}', '{"__proto__":{"a":1}}'],
    ['{"dt":0,"values":"x","1 name":1}', '{"dt":0,"values":"x","1 name":1}'],
  ])('keeps of %s the content %s', (payload, content) => {
    expect(contentOf(event(payload))).toBe(content);
    expect(Object.keys(Object.prototype)).toEqual([]);
  });

  it.each([
    ['bad_json', '{"open":'],
    ['bad_json', 'open'],
    ['bad_type', '{"ts":"now"}'],
    ['bad_type', '{"age":-1}'],
    ['bad_type', '{"seq":1.5}'],
    ['bad_type', '{"a":"x\\u0000"}'],
    ['bad_type', '{"a\\u0000":1}'],
    ['bad_type', '{"a":["\\ud83d"]}'],
    ['bad_type', '"\\udc00"'],
    ['too_deep', `${'['.repeat(9)}${']'.repeat(9)}`],
    ['too_big', `"${'x'.repeat(2047)}"`],
  ])('answers %s to %s', (code, payload) => {
    expect(codeOf(event(payload))).toBe(code);
  });

  it('may be as large and as deep as its bounds, and needs a good name', () => {
    expect(codeOf(event(`"${'x'.repeat(2046)}"`))).toBe('accepted');
    expect(codeOf(event(`${'['.repeat(8)}${']'.repeat(8)}`))).toBe('accepted');
    for (const name of ['', '1st', 'a b', 'x'.repeat(65)]) {
      expect(codeOf(decodeEvent(name, Buffer.alloc(0)))).toBe('bad_name');
    }
  });

  it.each([
    [null, null, `{"ts":${ts}}`],
    [7, null, `{"ts":${ts},"seq":7}`],
    [null, '{"open":true}', `{"ts":${ts},"open":true}`],
    [7, '{"open":true}', `{"ts":${ts},"seq":7,"open":true}`],
    [null, '"long"', `{"ts":${ts},"value":"long"}`],
    [null, '[1]', `{"ts":${ts},"value":[1]}`],
  ])('is shown with ts: %s %s', (seq, content, shown) => {
    expect(canonicalEvent(ts * 1000 + 999, seq, content).toString()).toBe(shown);
  });

  it('is read as the slow decoder reads it, also with changed bytes', () => {
    const member = fc.oneof(
      fc.constantFrom('ts', 'age', 'seq', 'up', '__proto__', 'constructor', 'open'),
      fc.string({ maxLength: 4 }),
    );
    const value = fc.oneof(
      fc.json({ maxDepth: 9 }),
      fc
        .dictionary(member, fc.jsonValue({ maxDepth: 2 }), { maxKeys: 5 })
        .map((object) => JSON.stringify(object)),
      fc
        .record({ ts: fc.constant(ts), seq: fc.nat(), a: fc.jsonValue() })
        .map((object) => JSON.stringify(object)),
    );
    const payloads = value.map((text) => Buffer.from(text));
    fc.assert(
      fc.property(fc.oneof(payloads, mutated(payloads)), (payload) => {
        fc.pre(payload.length <= 2048);
        const decoded = decodeEvent('door', payload);
        const reference = referenceEvent(payload);
        if (isRefusal(decoded)) expect(reference).toBeNull();
        else {
          const content = contentOf(decoded)?.replaceAll('__proto__', '__prot0__') ?? 'null';
          expect(JSON.parse(content)).toEqual(normal(reference?.content));
          expect(reference).not.toBeNull();
          const shown = canonicalEvent(0, null, contentOf(decoded)).toString();
          expect(() => JSON.parse(shown) as unknown).not.toThrow();
        }
      }),
      { numRuns: 1500 },
    );
  });
});

/** As JSON writes it: no -0, and names in their order. */
function normal(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value ?? null)) as unknown;
}

describe('a log message', () => {
  it('is one line or several, each a sample without points', () => {
    const decoded = accepted(decodeLog(Buffer.from('E (12345) wifi: lost\r\nplain\n\n')));
    expect(decoded.samples.map(({ fromLast, points }) => [fromLast, points])).toEqual([
      [1, []],
      [0, []],
    ]);
    expect(decoded).toMatchObject({ pointCount: 0, missing: 0 });
    expect(decoded.occurrence).toEqual({
      kind: 'log',
      lines: [line('lost', { level: 'E', tag: 'wifi', uptimeMs: 12_345 }), line('plain')],
    });
  });

  it.each<[string, LogLine[]]>([
    ['', []],
    ['\n\r\n  \n', []],
    ['W (1) a b: c: d', [line('c: d', { level: 'W', tag: 'a b', uptimeMs: 1 })]],
    ['I (08:15:30.123) app: up', [line('up', { level: 'I', tag: 'app' })]],
    [
      '\u001b[0;31mE (7) wifi: lost\u001b[0m',
      [line('lost', { level: 'E', tag: 'wifi', uptimeMs: 7 })],
    ],
    ['X (7) wifi: lost', [line('X (7) wifi: lost')]],
    ['E wifi: lost', [line('E wifi: lost')]],
    ['E (7) wifi lost', [line('E (7) wifi lost')]],
    ['E (-7) wifi: lost', [line('E (-7) wifi: lost')]],
    ['E (1234567890123456) a: b', [line('E (1234567890123456) a: b')]],
    ['D (7) a:b', [line('b', { level: 'D', tag: 'a', uptimeMs: 7 })]],
    ['V (7) a:', [line('', { level: 'V', tag: 'a', uptimeMs: 7 })]],
    ['\tat foo', [line('\tat foo')]],
    ['a\u0000b\u0007c\u009bd', [line('a\uFFFDb\uFFFDc\uFFFDd')]],
    ['x'.repeat(1025), [line('x'.repeat(1024))]],
    [`${'x'.repeat(1023)}😀`, [line('x'.repeat(1023))]],
    [
      '{"l":"E","tag":"wifi","up":5,"msg":"lost"}',
      [line('lost', { level: 'E', tag: 'wifi', uptimeMs: 5 })],
    ],
    ['{"msg":"\\u001b[31mlost\\n\\ud83d"}', [line('lost\uFFFD\uFFFD')]],
    ['{"temp":21}', [line('{"temp":21}')]],
    ['{broken', [line('{broken')]],
    ['{"msg":1}', [line('{"msg":1}')]],
    ['[1]', [line('[1]')]],
  ])('gives of %j %j', (payload, lines) => {
    expect(linesOf(payload)).toEqual(lines);
  });

  it('takes any bytes', () => {
    expect(linesOf(Buffer.from([0x61, 0xff, 0xfe, 0x62]))).toEqual([line('a\uFFFD\uFFFDb')]);
  });

  it.each([
    ['bad_type', '{"l":"X","msg":""}'],
    ['bad_type', '{"l":1,"msg":""}'],
    ['bad_type', '{"tag":1,"msg":""}'],
    ['bad_type', '{"up":-1,"msg":""}'],
    ['bad_type', '{"up":1.5,"msg":""}'],
    ['too_many', 'x\n'.repeat(129)],
    ['too_big', 'x'.repeat(8193)],
  ])('answers %s to what breaks a bound', (code, payload) => {
    expect(codeOf(decodeLog(Buffer.from(payload)))).toBe(code);
  });

  it('may be as long as its bounds', () => {
    expect(linesOf('x\n'.repeat(128))).toHaveLength(128);
    expect(codeOf(decodeLog(Buffer.alloc(8192, 'x')))).toBe('accepted');
    const tag = linesOf(`{"tag":"${'t'.repeat(65)}","msg":"m"}`)[0]?.tag;
    expect(tag).toBe('t'.repeat(64));
  });

  it('is shown as an object, or as an array of them', () => {
    const lines = [line('lost', { level: 'E', tag: 'wifi', uptimeMs: 5 }), line('"plain"')];
    expect(canonicalLog([ts * 1000 - 1], lines.slice(0, 1))?.toString()).toBe(
      `{"ts":${ts - 1},"l":"E","tag":"wifi","up":5,"msg":"lost"}`,
    );
    expect(canonicalLog([ts * 1000, ts * 1000 + 1], lines)?.toString()).toBe(
      `[{"ts":${ts},"l":"E","tag":"wifi","up":5,"msg":"lost"},{"ts":${ts},"msg":"\\"plain\\""}]`,
    );
    expect(canonicalLog([], [])).toBeNull();
  });

  it('is read as the slow decoder reads it, also with changed bytes', () => {
    const part = fc.constantFrom(
      ...['E', 'W', ' ', ' (', '12', '08:15:30.123', ') ', 'wifi', ': ', ':', '\n', '\r\n', '\r'],
      ...[
        '\u001b[0;31m',
        '\u001b[',
        '\u001b',
        '[0m',
        'm',
        '\0',
        '\t',
        '\u0085',
        'ü',
        '😀',
        'x'.repeat(600),
      ],
    );
    const texts = fc.oneof(
      fc.array(part, { maxLength: 12 }).map((parts) => parts.join('')),
      fc
        .tuple(fc.constantFrom('E', 'I', 'X'), fc.nat(), fc.string({ maxLength: 6 }), fc.string())
        .map(([level, up, tag, text]) => `${level} (${up}) ${tag}: ${text}`),
      fc.string({ unit: 'binary' }),
    );
    const payloads = texts.map((text) => Buffer.from(text));
    fc.assert(
      fc.property(fc.oneof(payloads, mutated(payloads)), (payload) => {
        fc.pre(payload[0] !== 0x7b);
        const decoded = decodeLog(payload);
        if (isRefusal(decoded)) expect(referenceLog(payload)).toBeNull();
        else expect(linesOf(payload)).toEqual(referenceLog(payload));
      }),
      { numRuns: 1500 },
    );
  });

  it('[I-09] takes no more than 5 ms for the worst of 8 KiB', () => {
    const worst = [
      '\u001b['.repeat(4096),
      '\u001b[0;'.repeat(2048),
      '\n'.repeat(8192),
      'E ('.repeat(2730),
      'E (1) '.repeat(1365),
    ];
    for (const payload of worst.map((text) => Buffer.from(text))) {
      const times = Array.from({ length: 20 }, () => {
        const start = performance.now();
        decodeLog(payload);
        return performance.now() - start;
      });
      expect(Math.min(...times) / slowness()).toBeLessThan(5);
    }
  });
});

describe('the rate of logs', () => {
  const take = (rate: LogRate, qos: 0 | 1, bytes: number, nowMs: number, share = 0) =>
    rate.take({ qos, bytes }, share, nowMs);

  it('lets five seconds’ worth through at once, then drops QoS 0 and holds back QoS 1', () => {
    const rate = new LogRate(1000);
    expect(take(rate, 0, 4000, 0)).toBe('taken');
    expect(take(rate, 0, 1001, 0)).toBe('dropped');
    expect(take(rate, 1, 1500, 0)).toEqual({ waitMs: 500 });
    expect(take(rate, 1, 1500, 500)).toBe('taken');
    expect(take(rate, 0, 1, 500)).toBe('dropped');
  });

  it('drops QoS 0 first when the queue is more than half full', () => {
    const rate = new LogRate(1000);
    expect(take(rate, 0, 10, 0, 0.51)).toBe('dropped');
    expect(take(rate, 1, 10, 0, 0.51)).toBe('taken');
    expect(take(rate, 0, 10, 0, 0.5)).toBe('taken');
  });

  it('is no limit when it is 0', () => {
    expect(take(new LogRate(0), 0, 1e9, 0)).toBe('taken');
  });
});
