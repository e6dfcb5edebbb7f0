import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RuleInvalidError } from '../../rule-errors.ts';
import {
  ANNOTATION_CHARS_MAX,
  findTemplateFault,
  renderAnnotation,
  type AnnotationInputs,
} from '../../rules/alert/annotation.ts';
import { DURATION_MICROS_MAX, formatDuration, parseDuration } from '../../duration.ts';
import { formatRule, parseRule } from '../../rules/rule-schema.ts';

const RULE = {
  name: 'boiler too hot',
  severity: 'critical',
  scope: { devices: ['first'] },
  when: { metric: 'temp', op: '>', value: 80, clear: 75 },
  for: '2s',
  keepFiringFor: '0s',
  annotations: { summary: '{{device}} is at {{value}} °C' },
};

function faultsOf(change: object): Record<string, string> {
  try {
    parseRule({ ...RULE, ...change });
    return {};
  } catch (error) {
    if (!(error instanceof RuleInvalidError)) throw error;
    return Object.fromEntries(error.faults.map(({ path, message }) => [path, message]));
  }
}

const hot = (value: number): object => ({ metric: 'temp', op: '>', value });

describe('a duration', () => {
  it.each([
    ['250ms', 250_000],
    ['2s', 2_000_000],
    ['5m', 300_000_000],
    ['1h', 3_600_000_000],
    ['1d', 86_400_000_000],
    ['1h30m', 5_400_000_000],
    ['1d2h3m4s5ms', 93_784_005_000],
    ['0s', 0],
    ['366d', DURATION_MICROS_MAX],
  ])('%s is %d µs', (text, micros) => {
    expect(parseDuration(text)).toBe(micros);
  });

  it.each(['', ' ', '2', 's', '2 s', '-2s', '+2s', '1.5s', '2S', '30m1h', '1h1h', '2s ', '1e3s'])(
    '%j is none',
    (text) => {
      expect(parseDuration(text)).toBeNull();
    },
  );

  it.each(['367d', '8785h', '999999999999d', '9999999999999ms'])('%s is too long', (text) => {
    expect(parseDuration(text)).toBeNull();
  });

  it('is the same after it was written and read', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: DURATION_MICROS_MAX / 1000 }), (ms) => {
        expect(parseDuration(formatDuration(ms * 1000))).toBe(ms * 1000);
      }),
    );
  });

  it('is written in the largest unit that is exact', () => {
    expect([90_000_000, 3_600_000_000, 1000, 0, 61_000_000].map(formatDuration)).toEqual([
      '90s',
      '1h',
      '1ms',
      '0s',
      '61s',
    ]);
  });

  it('is read in no time, whatever it is', () => {
    const began = performance.now();
    expect(parseDuration(`${'1'.repeat(100_000)}x`)).toBeNull();
    expect(performance.now() - began).toBeLessThan(2000);
  });
});

describe('an annotation', () => {
  const inputs: AnnotationInputs = {
    device: 'boiler-1',
    rule: 'too hot',
    severity: 'high',
    value: 85.30000000000001,
    labels: { site: 'north' },
    metric: (name) => ({ temp: 85.3, door: true, state: '{{device}}' })[name] ?? null,
  };

  it.each([
    ['{{device}} is at {{value}} °C', 'boiler-1 is at 85.3 °C'],
    ['{{ rule }}/{{severity}}', 'too hot/high'],
    ['{{metric temp}} {{metric  door }} {{metric none}}', '85.3 true none'],
    ['{{label site}} {{label none}}', 'north {{label none}}'],
    ['{{metric state}}', '{{device}}'],
    ['{{label constructor}}{{label __proto__}}', '{{label constructor}}{{label __proto__}}'],
    ['{{what}} {device}', '{{what}} {device}'],
    ['$& $1', '$& $1'],
  ])('%s', (template, text) => {
    expect(renderAnnotation(template, inputs)).toBe(text);
  });

  it('does not take a value for a pattern', () => {
    expect(renderAnnotation('{{value}}', { ...inputs, value: '$& $` $1' })).toBe('$& $` $1');
  });

  it('is cut to what is allowed, and not through a character', () => {
    const text = renderAnnotation('x{{value}}', { ...inputs, value: '🔥'.repeat(1000) });
    expect(text).toHaveLength(ANNOTATION_CHARS_MAX);
    expect(text.endsWith('🔥…')).toBe(true);
    expect(text).not.toMatch(/\p{Surrogate}/u);
  });

  it('shows numbers as people write them', () => {
    const shown = [0.1 + 0.2, 1e21, -0, 123456789012, NaN, Infinity].map((value) =>
      renderAnnotation('{{value}}', { ...inputs, value }),
    );
    expect(shown).toEqual(['0.3', '1e+21', '0', '123456789012', 'none', 'none']);
  });

  it('tells what in it is not known', () => {
    const names = { metrics: ['temp'], labels: { site: '' } };
    expect(findTemplateFault('{{metric temp}} {{label site}} {{value}}', names)).toBeNull();
    expect(findTemplateFault('{{metric rh}}', names)).toContain('does not look at this metric');
    expect(findTemplateFault('{{label toString}}', names)).toContain('does not have this label');
    expect(findTemplateFault('{{valeu}}', names)).toContain('{{valeu}}: must be device, value');
    expect(findTemplateFault('{{value}', names)).toContain('without its counterpart');
    expect(findTemplateFault('value}}', names)).toContain('without its counterpart');
  });
});

describe('a rule', () => {
  it('is read with its defaults', () => {
    expect(parseRule(RULE)).toEqual({
      name: 'boiler too hot',
      description: '',
      mode: 'enabled',
      severity: 'critical',
      scope: { devices: ['first'] },
      when: {
        kind: 'compare',
        metric: 'temp',
        op: '>',
        value: 80,
        clear: 75,
        deadBand: null,
        of: null,
      },
      levels: [],
      forMicros: 2_000_000,
      keepFiringForMicros: 0,
      late: 'current-only',
      allowedLatenessMicros: 0,
      groupBy: null,
      labels: {},
      annotations: { summary: '{{device}} is at {{value}} °C' },
      suppressedBy: [],
      noiseBudgetPerDay: null,
      actions: [],
    });
  });

  it('is the same after it was written and read', () => {
    const full = {
      ...RULE,
      mode: 'shadow',
      severity: 'low',
      levels: [{ severity: 'high', when: { any: [hot(90), { noData: 'auto' }] } }],
      keepFiringFor: '1h30m',
      late: 're-evaluate',
      allowedLateness: '10s',
      groupBy: 'program',
      scope: { tags: ['hall 3'], types: ['boiler'] },
      labels: { site: 'north' },
      suppressedBy: [{ rule: 'gateway down', device: 'gw-1' }, { rule: 'site down' }],
      noiseBudgetPerDay: 5,
    };
    for (const rule of [RULE, full]) {
      const definition = parseRule(rule);
      const written: unknown = JSON.parse(JSON.stringify(formatRule(definition)));
      expect(parseRule(written)).toEqual(definition);
    }
  });

  it('is refused with every fault at once, each with its path', () => {
    expect(
      faultsOf({
        name: '',
        severity: 'bad',
        when: { metric: 'temp', op: '=>', value: 80 },
        levels: [{ severity: 'high', when: { all: [] } }],
        for: '2 seconds',
        more: 1,
        scope: { device: ['x'] },
      }),
    ).toMatchObject({
      name: expect.any(String) as string,
      severity: expect.any(String) as string,
      'when.op': expect.any(String) as string,
      'levels.0.when.all': expect.any(String) as string,
      for: expect.stringContaining('must be a duration') as string,
      more: expect.stringMatching(
        /^is not known here; known are name, .*, noiseBudgetPerDay, actions$/,
      ) as string,
      'scope.device': 'is not known here; known are devices, tags, types',
    });
  });

  it('is refused in words that say what is asked for', () => {
    expect(
      faultsOf({
        for: 30,
        when: { metric: 'temp', op: '>', value: 80, until: 75 },
        levels: [{ severity: 'critical', when: { all: [hot(1)], beside: 1 } }],
        suppressedBy: [{ rule: '' }],
        scope: 'all',
      }),
    ).toEqual({
      for: 'must be a duration, a text such as "2s", "5m" or "1h30m"',
      'when.until': 'is not known here; known are metric, op, value, clear, deadBand, of',
      'levels.0.when.beside': 'must have nothing beside all',
      'suppressedBy.0.rule': 'must not be empty',
      scope: 'must be an object',
    });
  });

  it.each([
    [null, ''],
    ['a text', ''],
    [[], ''],
    [{}, 'name'],
  ])('is refused when it is %j', (json, path) => {
    expect(() => parseRule(json)).toThrow(RuleInvalidError);
    try {
      parseRule(json);
    } catch (error) {
      expect((error as RuleInvalidError).faults.map((one) => one.path)).toContain(path);
    }
  });

  it.each([
    ['name', { name: 'x'.repeat(101) }],
    ['name', { name: ' x' }],
    ['name', { name: 'a\u0000b' }],
    ['name', { name: '\ud800' }],
    ['description', { description: 'x'.repeat(2001) }],
    ['for', { for: '31d' }],
    ['for', { for: 2 }],
    ['allowedLateness', { allowedLateness: '25h' }],
    ['levels.0.severity', { levels: [{ severity: 'critical', when: hot(1) }] }],
    [
      'levels.1.severity',
      {
        severity: 'low',
        levels: [
          { severity: 'high', when: hot(1) },
          { severity: 'high', when: hot(2) },
        ],
      },
    ],
    ['levels', { levels: Array.from({ length: 5 }, () => ({ severity: 'high', when: hot(1) })) }],
    ['scope.devices', { scope: { devices: [] } }],
    ['scope.devices', { scope: { devices: ['a', 'a'] } }],
    ['scope.tags', { scope: { tags: Array.from({ length: 1001 }, (_, tag) => `t${tag}`) } }],
    ['scope.devices.0', { scope: { devices: ['no slug'] } }],
    ['groupBy', { groupBy: 'a b' }],
    [
      'labels',
      { labels: Object.fromEntries(Array.from({ length: 17 }, (_, at) => [`l${at}`, 'x'])) },
    ],
    ['labels.0x', { labels: { '0x': 'x' } }],
    ['labels.__x', { labels: { __x: 'x' } }],
    ['labels.site', { labels: { site: 'x'.repeat(201) } }],
    ['annotations.summary', { annotations: { summary: '{{metric rh}}' } }],
    ['annotations.summary', { annotations: { summary: 'x'.repeat(501) } }],
    ['suppressedBy.0.device', { suppressedBy: [{ rule: 'x', device: 'no slug' }] }],
    ['suppressedBy', { suppressedBy: Array.from({ length: 17 }, () => ({ rule: 'x' })) }],
    ['noiseBudgetPerDay', { noiseBudgetPerDay: -1 }],
    ['noiseBudgetPerDay', { noiseBudgetPerDay: 1.5 }],
    ['when', { when: undefined }],
  ])('is refused for %s of %j', (path, change) => {
    expect(Object.keys(faultsOf(change))).toContain(path);
  });

  it('has no more conditions and metrics than allowed, over all its levels', () => {
    const many = (count: number): object => ({ any: Array.from({ length: count }, () => hot(1)) });
    expect(faultsOf({ when: many(31) })).toEqual({});
    const levels = [{ severity: 'critical', when: many(15) }];
    expect(faultsOf({ severity: 'low', when: many(15), levels })).toEqual({});
    expect(faultsOf({ severity: 'low', when: many(16), levels })).toEqual({
      when: 'the rule has 33 conditions, 32 allowed',
    });
    const metrics = (count: number): object => ({
      any: Array.from({ length: count }, (_, at) => ({ metric: `m${at}`, op: '>', value: 1 })),
    });
    expect(faultsOf({ when: metrics(16) })).toEqual({});
    expect(faultsOf({ when: metrics(17) })).toEqual({
      when: 'the rule looks at 17 metrics, 16 allowed',
    });
  });

  it('takes no prototype from what it is given', () => {
    const json: unknown = JSON.parse(
      '{"name":"x","severity":"low","when":{"connection":"offline"},"labels":{"__proto__":"x"}}',
    );
    const { labels } = parseRule(json);
    expect(Object.getPrototypeOf(labels)).toBe(Object.prototype);
    expect(Object.keys(labels)).toEqual([]);
  });

  it('throws nothing but a fault, whatever it is given', () => {
    const members = fc.constantFrom(...Object.keys({ ...RULE, levels: 0, labels: 0, late: 0 }));
    fc.assert(
      fc.property(members, fc.jsonValue(), (member, value) => {
        try {
          const definition = parseRule({ ...RULE, [member]: value });
          expect(parseRule(formatRule(definition))).toEqual(definition);
        } catch (error) {
          expect(error).toBeInstanceOf(RuleInvalidError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
