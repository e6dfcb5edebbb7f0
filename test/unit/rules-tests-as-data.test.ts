import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RuleInvalidError } from '../../rule-errors.ts';
import type { Condition } from '../../rules/condition/condition.ts';
import { reportFailure, reportTotal } from '../../rules/rule-test/rule-test-report.ts';
import {
  NotationFault,
  parseConnections,
  parseSeries,
  parseSilences,
  parseStates,
  STEPS_MAX,
  type ExpectedState,
} from '../../rules/rule-test/rule-test-notation.ts';
import { runRuleTest } from '../../rules/rule-test/rule-test-run.ts';
import { parseRuleTests, type RuleTest } from '../../rules/rule-test/rule-test-schema.ts';

const FOLDER = fileURLToPath(new URL('../rules/', import.meta.url));
const FILES = readdirSync(FOLDER).filter((name) => name.endsWith('.yaml'));
const testsOf = (file: string): RuleTest[] =>
  parseRuleTests(readFileSync(`${FOLDER}${file}`, 'utf8'));
const ALL = FILES.flatMap((file) => testsOf(file).map((test) => ({ file, test })));

/** The smallest file, with parts of it replaced. */
function fileOf(test: object, rule: object = {}, top: object = {}): string {
  return JSON.stringify({
    rules: [
      { name: 'hot', severity: 'high', when: { metric: 'temp', op: '>', value: 80 }, ...rule },
    ],
    tests: [{ name: 'a test', series: { temp: '20 85' }, expect: 'inactive firing', ...test }],
    ...top,
  });
}

function faultsOf(yaml: string): string[] {
  try {
    parseRuleTests(yaml);
    return [];
  } catch (error) {
    if (!(error instanceof RuleInvalidError)) throw error;
    return error.faults.map(({ path, message }) => `${path}: ${message}`);
  }
}

describe.each(FILES)('test/rules/%s', (file) => {
  it.each(testsOf(file).map((test) => [test.name, test] as const))('%s', (_name, test) => {
    const failures = runRuleTest(test)
      .filter(({ isPassed }) => !isPassed)
      .map((result) => reportFailure(file, result));
    expect(failures.join('\n')).toBe('');
  });
});

describe('the tests as data', () => {
  it('fail when any one of the states that they expect is another', () => {
    const inverted = (state: ExpectedState): ExpectedState => ({
      phase: state?.phase === 'inactive' ? 'firing' : 'inactive',
      severity: null,
    });
    let broken = 0;
    for (const { test } of ALL) {
      for (const [rule, states] of test.expected) {
        const step = states.findLastIndex((state) => state !== null);
        const wrong = states.map((state, index) => (index === step ? inverted(state) : state));
        const expected = new Map([...test.expected, [rule, wrong]]);
        const results = runRuleTest({ ...test, expected });
        expect(results.find((result) => result.rule === rule)?.isPassed, test.name).toBe(false);
        broken += 1;
      }
      if (test.transitions === undefined) continue;
      const more = [
        ...test.transitions,
        { at: 0, to: 'firing' as const, rule: test.rules[0]?.name },
      ];
      const results = runRuleTest({ ...test, transitions: more as RuleTest['transitions'] });
      expect(
        results.every(({ isPassed }) => isPassed),
        test.name,
      ).toBe(false);
    }
    expect(broken).toBeGreaterThan(80);
  });

  it('use every kind of condition, every operator and every function of a window', () => {
    const conditions = ALL.flatMap(({ test }) =>
      test.rules.flatMap((rule) =>
        [rule.when, ...rule.levels.map(({ when }) => when)].flatMap(everyPart),
      ),
    );
    const used = (of: (condition: Condition) => unknown): string[] =>
      [...new Set(conditions.map(of))]
        .filter((each) => typeof each === 'string')
        .toSorted((one, other) => (one < other ? -1 : 1));
    expect(used(({ kind }) => kind)).toEqual(
      [
        'all any cel compare compareFleet compareMetric connection event noData not schedule stuck',
        'window',
      ]
        .join(' ')
        .split(' '),
    );
    const opOf = (condition: Condition): unknown =>
      condition.kind === 'compare' ? condition.op : null;
    expect(used(opOf)).toEqual(['!=', '<', '<=', '==', '>', '>=']);
    const fnOf = (condition: Condition): unknown =>
      condition.kind === 'window' ? condition.fn : null;
    expect(used(fnOf)).toEqual('avg count delta max min p50 p95 rate stddev sum'.split(' '));
    const fleetOf = (condition: Condition): unknown =>
      condition.kind === 'compareFleet' ? condition.fn : null;
    expect(used(fleetOf)).toEqual(['avg', 'max', 'median', 'min']);
    const policies = new Set(ALL.flatMap(({ test }) => test.rules.map(({ late }) => late)));
    expect([...policies].toSorted()).toEqual(['current-only', 'ignore', 're-evaluate']);
  });

  it('come out the same each time that they are run', () => {
    for (const { test } of ALL) expect(runRuleTest(test)).toEqual(runRuleTest(test));
  });
});

describe('a file of rule tests', () => {
  it('may be as small as this', () => {
    const [test] = parseRuleTests(fileOf({}));
    expect(test === undefined ? [] : runRuleTest(test)).toMatchObject([
      { test: 'a test', rule: 'hot', isPassed: true },
    ]);
  });

  it('is what docs/rules.md and the help of the tool show', () => {
    const page = readFileSync(new URL('../../docs/rules.md', import.meta.url), 'utf8');
    const [, example = ''] = /```yaml\n(interval:.*?)```/s.exec(page) ?? [];
    const tool = readFileSync(new URL('../../bench/rules.ts', import.meta.url), 'utf8');
    const [, help = ''] = /\n( {2}interval:.*?)\n\nExit/s.exec(tool) ?? [];
    for (const text of [example, help]) {
      const results = parseRuleTests(text).flatMap((test) => runRuleTest(test));
      expect(results).toMatchObject([{ isPassed: true }]);
    }
  });

  it.each([
    ['expects nothing', { expect: undefined }, 'expects nothing'],
    ['expects nothing in particular', { expect: '_*2' }, 'expects nothing'],
    ['expects too little', { expect: 'inactive' }, '1 states for 2 values'],
    ['names a rule that there is not', { expect: { cold: '_ firing' } }, 'there is no rule cold'],
    ['has a state that there is not', { expect: 'inactive fired' }, 'fired is no state'],
    ['has a severity that there is not', { expect: '_ firing:bad' }, 'firing:bad is no state'],
    ['has a severity of nothing', { expect: 'inactive:high firing' }, 'is no state'],
    ['has a value that there is not', { series: { temp: '20 hot' } }, 'hot is no value'],
    ['has a stale value', { series: { temp: '20 stale' } }, 'a reading holds until the next one'],
    ['has a member that there is not', { serie: {} }, 'is not known here'],
    ['has no name', { name: '' }, 'tests.0.name'],
    ['has a time that is none', { states: [{ at: '3', state: 'firing' }] }, 'must be a duration'],
    ['has a metric that cannot be', { series: { 'a b': '1 2' } }, 'series.a b'],
    ['has no interval', { interval: '0s' }, 'must be more than 0'],
    ['has no start', { start: 'yesterday' }, 'tests.0.start'],
    [
      'asks of a rule that there is not',
      { states: [{ at: '1s', rule: 'x', state: 'firing' }] },
      'no rule x',
    ],
  ])('is refused when a test %s', (_name, test, fault) => {
    expect(faultsOf(fileOf(test)).join('\n')).toContain(fault);
  });

  it('is refused with every fault of a rule, by its path', () => {
    expect(faultsOf(fileOf({}, { severity: 'bad', for: '2x' }))).toEqual([
      expect.stringMatching(/^rules\.0\.severity: /),
      expect.stringMatching(/^rules\.0\.for: must be a duration/),
    ]);
  });

  it('is refused when two rules have one name, or it is not said which is meant', () => {
    const rule = (name: string): object => ({
      name,
      severity: 'high',
      when: { metric: 'temp', op: '>', value: 80 },
    });
    const twice = fileOf({}, {}, { rules: [rule('a'), rule('a')] });
    expect(faultsOf(twice).join()).toContain('two rules have the name a');
    const two = fileOf({}, {}, { rules: [rule('a'), rule('b')] });
    expect(faultsOf(two).join()).toContain('must name the rule');
    const none = fileOf({}, {}, { rules: [] });
    expect(faultsOf(none).join()).toContain('there is no rule to be tested');
  });

  it.each([
    ['tests: [', 'Flow sequence'],
    ['a: 1\na: 2', 'Map keys must be unique'],
    ['- 1', ': '],
    ['', ': '],
    [`x: ${'a'.repeat(1_000_001)}`, 'must not be longer'],
  ])('is refused when it is not YAML, or not of its shape: %.20s', (yaml, fault) => {
    expect(faultsOf(yaml).join('\n')).toContain(fault);
  });

  it('is refused when its aliases grow beyond all measure', () => {
    const lines = ['a0: &a0 [x, x]'];
    for (let at = 1; at < 30; at += 1) lines.push(`a${at}: &a${at} [*a${at - 1}, *a${at - 1}]`);
    expect(faultsOf(lines.join('\n')).join('\n')).toContain('alias');
  });

  it('tells what differs, with what came in and a few rows around it', () => {
    const [test] = parseRuleTests(fileOf({ series: { temp: '20x9 85' }, expect: 'inactive*11' }));
    const [result] = test === undefined ? [] : runRuleTest(test);
    const text = result === undefined ? '' : reportFailure('a.yaml', result);
    expect(text).toContain('FAILED a.yaml: a test\n  rule hot: 1 of 11 differ');
    expect(text).toMatch(/> 10s +temp=85 +inactive +firing:high\n/);
    expect(text).toContain('…');
    expect(text.split('\n').length).toBeLessThan(12);
    expect(reportTotal(result === undefined ? [] : [result], 1)).toBe(
      '1 test in 1 file: 1 FAILED\n',
    );
  });

  it('cannot bring a command for the terminal into what it tells', () => {
    const [test] = parseRuleTests(
      fileOf({ name: 'x', series: { temp: '"\\u001b[2J" 85' }, expect: 'firing inactive' }),
    );
    const text = (test === undefined ? [] : runRuleTest(test))
      .map((result) => reportFailure('a.yaml', result))
      .join('');
    expect(text).toContain('FAILED');
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });
});

describe('the notation of a series', () => {
  it.each([
    ['', []],
    ['1 2.5 -3 1e3', [1, 2.5, -3, 1000]],
    ['1x4', [1, 1, 1, 1, 1]],
    ['1*4', [1, 1, 1, 1]],
    ['1+2x3', [1, 3, 5, 7]],
    ['-2+4x3', [-2, 2, 6, 10]],
    ['10-1.5x2', [10, 8.5, 7]],
    ['_ 1 _x2', [null, 1, null, null]],
    ['_*2', [null, null]],
    ['truex1 false', [true, true, false]],
    ['"a b"*2 "c\\"d"', ['a b', 'a b', 'c"d']],
    ['0x2', [0, 0, 0]],
    ['1*0 2', [2]],
  ])('%s', (notation, values) => {
    expect(parseSeries(notation)).toEqual(values);
  });

  it.each([
    'x3',
    '1x',
    '1**2',
    '1x-2',
    'NaN',
    'Infinity',
    '"open',
    '1+2',
    '1x9999999',
    `1*${STEPS_MAX + 1}`,
    `1*${STEPS_MAX} 1`,
    '0b1',
  ])('refuses %s', (notation) => {
    expect(() => parseSeries(notation)).toThrow(NotationFault);
  });

  it('never gives NaN, and never throws anything but a fault', () => {
    const parsers = [parseSeries, parseStates, parseConnections, parseSilences];
    const text = fc.string({ unit: fc.constantFrom(...'012x*+-_ "\\.etrufaslinopdgc:') });
    fc.assert(
      fc.property(text, fc.constantFrom(...parsers), (notation, parse) => {
        try {
          for (const value of parse(notation)) expect(value).not.toBeNaN();
        } catch (error) {
          expect(error).toBeInstanceOf(NotationFault);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

function everyPart(condition: Condition): Condition[] {
  if (condition.kind === 'not') return [condition, ...everyPart(condition.of)];
  if (condition.kind !== 'all' && condition.kind !== 'any') return [condition];
  return [condition, ...condition.of.flatMap(everyPart)];
}
