import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileCel } from '../../rules/condition/cel-program.ts';
import { CelFault } from '../../rules/condition/cel-syntax.ts';
import { conditionSchema } from '../../rules/condition/condition-schema.ts';
import { WatchedCondition } from '../support/condition.ts';

const watch = (cel: string): WatchedCondition => new WatchedCondition({ cel });

function faultOf(expression: string): string {
  try {
    compileCel(expression);
  } catch (error) {
    expect(error).toBeInstanceOf(CelFault);
    return (error as CelFault).message;
  }
  return 'accepted';
}

describe('cel', () => {
  it('compares numbers, booleans and texts, whole numbers as they are written', () => {
    const condition = watch('(temp > 80 || temp * 2 + 1 == 21) && !door && mode in ["auto", "on"]');
    expect(condition.sample(1, { temp: 81, door: false, mode: 'on' })).toBe(2);
    expect(condition.sample(2, { temp: 10 })).toBe(2);
    expect(condition.sample(3, { mode: 'off' })).toBe(0);
    expect(condition.sample(4, { mode: 'auto', door: true })).toBe(0);
  });

  it('names metrics as they are, dots and all', () => {
    const condition = watch('grid.l1.power > 3 && a_b > 1');
    expect(condition.rule.metrics).toEqual(['grid.l1.power', 'a_b']);
    expect(condition.sample(1, { 'grid.l1.power': 4, a_b: 2 })).toBe(2);
    // The names of the library's own things are metrics like others.
    expect(watch('google + int > cel').sample(1, { google: 2, int: 2, cel: 3 })).toBe(2);
  });

  it('divides, and takes a quotient that is no number for what it is', () => {
    expect(watch('a / b > 0.5').sample(1, { a: 2, b: 3 })).toBe(2);
    expect(watch('a / b > 5').sample(1, { a: 0, b: 0 })).toBe(0);
    const condition = watch('a / b > 5');
    expect(condition.sample(1, { a: 1, b: 0 })).toBe(2);
    expect(condition.operands().map(({ value }) => value)).toEqual([true, 1, 0]);
  });

  it('has functions for numbers and texts', () => {
    expect(
      watch('abs(a - b) > 3 && max(a, b) == 9 && min(a, b) == 5').sample(1, { a: 5, b: 9 }),
    ).toBe(2);
    const texts = watch(
      's.startsWith("ab") && s.endsWith("cd") && s.contains("bc") && size(s) == 4',
    );
    expect(texts.sample(1, { s: 'abcd' })).toBe(2);
  });

  it('compares metrics of any kind for equality', () => {
    const condition = watch('a == b');
    expect(condition.sample(1, { a: 'x', b: 'x' })).toBe(2);
    expect(condition.sample(2, { a: true, b: 1 })).toBe(2);
    expect(condition.sample(3, { a: 'x', b: 1 })).toBe(0);
  });

  it('knows what is beside what: a text that is compared with a text', () => {
    expect([...compileCel('a == b && b == c && c == "x" && (d ? e : f) > 2').types]).toEqual([
      ['a', 'string'],
      ['b', 'string'],
      ['c', 'string'],
      ['d', 'bool'],
      ['e', 'double'],
      ['f', 'double'],
    ]);
  });

  it('is unknown while a metric has no reading or one of another kind', () => {
    for (const cel of ['a > 1 || b > 1', '!(a > 1 || b > 1)']) {
      const condition = watch(cel);
      expect(condition.sample(1, { a: 5 })).toBe(0);
      expect(condition.sample(2, { b: 'text' })).toBe(0);
    }
    expect(watch('s == "x"').sample(1, { s: 5 })).toBe(0);
  });

  it('knows the event and the connection', () => {
    const event = watch('event == "door.open" && temp > 5');
    expect(event.rule.events).toEqual(['door.open']);
    event.sample(1, { temp: 6 });
    expect([event.event(2, 'door.open'), event.tick(3)]).toEqual([2, 0]);
    const connection = watch('connection in ["offline", "never"]');
    expect([connection.tick(1), connection.set({ connection: 'never' }).tick(2)]).toEqual([0, 2]);
  });

  it('does not hold when its evaluation ends in an error, and counts that', () => {
    const json = { cel: 'connection == "offline"' };
    for (const when of [json, { not: json }]) {
      const condition = new WatchedCondition(when);
      // No way is known to an error with what the type check lets through; so one is made.
      Object.assign(condition.context, { connection: Symbol('broken') });
      expect(condition.tick(1)).toBe(0);
      expect(condition.counters.celFailures).toBe(1);
    }
  });

  it('says itself and its metrics to people', () => {
    const condition = watch('temp > 80');
    condition.sample(1, { temp: 81 });
    expect(condition.words()).toEqual(['temp > 80 | true | - | holds', 'temp | 81 | - | holds']);
  });
});

describe('what cel refuses (A-13)', () => {
  it.each([
    ['while(1)', 'is not valid: Reserved identifier: while'],
    ['s.matches("(a+)+$")', 'must not call matches with 1 arguments'],
    ['matches(s, "(a+)+$")', 'must not call matches with 2 arguments'],
    ['[1, 2].all(x, x > 0)', 'must not call all with 2 arguments'],
    ['[1].map(x, x).size() > 0', 'must not call map with 2 arguments'],
    ['x.filter(y, true) == x', 'must not call filter with 2 arguments'],
    ['cel.bind(x, 1, x > 0)', 'must not call bind with 3 arguments'],
    ['has(a.b)', 'must not call has with 1 arguments'],
    ['"a" * 1000000 == s', 'is not valid: no such overload: string * double'],
    ['a.constructor > 1', 'must not name constructor'],
    ['constructor == 1', 'must not name constructor'],
    ['a.b.__proto__ == 1', 'must not name __proto__'],
    ['a.prototype.x == 1', 'must not name prototype'],
    ['__proto__ == 1', 'is not valid: Reserved identifier: __proto__'],
    ['a["constructor"] == 1', 'must not use "[]" here'],
    ['a.toString() == "x"', 'must not call toString with 0 arguments'],
    ['hasOwnProperty("x")', 'must not call hasOwnProperty with 1 arguments'],
    ['constructor("x")', 'must not call constructor with 1 arguments'],
    ['event.constructor == 1', 'must not ask for a member of what is no metric'],
    ['{"a": 1}.a == 1', 'is not valid: Exceeded maxMapEntries (0)'],
    ['[a] == [b]', 'must not use "list" here'],
    ['a in [b]', 'must have nothing but literals in a list'],
    ['a in b', 'must have a list of literals after "in"'],
    ['a % 2 == 1', 'must not use "%" here'],
    ['timestamp("x") < timestamp("y")', 'must not call timestamp with 1 arguments'],
    ['dyn(a) > 1', 'must not call dyn with 1 arguments'],
    ['b"abc" == s', 'must not have other literals than numbers, texts, true and false'],
    ['a == null', 'must not have other literals than numbers, texts, true and false'],
    ['a > 1u', 'must not have other literals than numbers, texts, true and false'],
    ['a > 100000000000000000000', 'must not have whole numbers beyond 2^53'],
    ['a > 1e999', 'is not valid: Invalid number: Infinity'],
    ['a + 1', 'must be a condition, it is a double'],
    ['a > "x" && a > 1', 'is not valid: no such overload: string > double'],
    ['event == s', 'event must be compared with a text, or be in a list of texts'],
    ['event + "x" == "y"', 'event must be compared with a text, or be in a list of texts'],
    ['event == "a b"', '"a b" is no event\'s name'],
    ['connection == "gone"', 'connection must be compared with online, sleeping, offline, never'],
    ['seq > 1', '"seq" is no metric\'s name'],
    ['device == "a"', 'device is said by the scope of the rule'],
    ['(a).b > 1', 'must not have parentheses inside of the name a.b'],
    ['', 'is not valid: Unexpected token: EOF'],
    ['a > 1; process.exit()', 'is not valid: Unexpected character: ;'],
  ])('%s', (expression, message) => {
    expect(faultOf(expression)).toBe(message);
  });

  it.each([
    ['a million operands', Array<string>(1_000_000).fill('a').join('+'), 'longer than 1000'],
    ['sixty-five parts', Array<string>(33).fill('a').join('+'), 'maxAstNodes'],
    ['deep parentheses', `${'('.repeat(400)}a${')'.repeat(400)}`, 'maxDepth'],
    ['deep negation', `${'!'.repeat(990)}a`, 'maxAstNodes'],
    ['deep signs', `${'-'.repeat(990)}a > 1`, 'maxAstNodes'],
    ['deep choices', `${'a ? b : '.repeat(100)}c`, 'maxDepth'],
    ['deep members', `a${'.b'.repeat(400)} > 1`, 'maxDepth'],
    ['deep lists', `a in ${'['.repeat(400)}${']'.repeat(400)}`, 'maxDepth'],
    ['a long text', `s == "${'x'.repeat(2000)}"`, 'longer than 1000'],
  ])('%s', (_, expression, message) => {
    const startedAt = performance.now();
    expect(faultOf(expression)).toContain(message);
    expect(performance.now() - startedAt).toBeLessThan(5000);
  });

  it('evaluates the most costly expression that it accepts within a millisecond', () => {
    const most = Array<string>(10).fill('s.contains("aaaaaaaaaaaaaaaaab")').join(' || ');
    const condition = watch(most);
    condition.sample(0, { s: 'a'.repeat(1000) });
    const startedAt = performance.now();
    for (let n = 1; n <= 1000; n += 1) condition.tick(n);
    expect((performance.now() - startedAt) / 1000).toBeLessThan(1);
  });

  it('reaches nothing of an object, whatever its metrics are called', () => {
    for (const name of ['toString', 'valueOf', 'hasOwnProperty', 'length', 'm0']) {
      const condition = watch(`${name} > 1`);
      expect([condition.tick(1), condition.sample(2, { [name]: 2 })]).toEqual([0, 2]);
    }
  });

  it('compiles or refuses any text with a message, and never throws anything else', () => {
    const tokens = fc.constantFrom(
      ...[
        'a',
        'b.c',
        '1',
        '2.5',
        '"x"',
        'true',
        '&&',
        '||',
        '!',
        '==',
        '<',
        '+',
        '-',
        '*',
        '/',
        '%',
      ],
      ...[
        '(',
        ')',
        '[',
        ']',
        '{',
        '}',
        ',',
        '.',
        '?',
        ':',
        'in',
        'event',
        'connection',
        'size',
        'min',
      ],
      ...[
        'matches',
        'all',
        'has',
        'constructor',
        '__proto__',
        '\n',
        ' ',
        '//',
        "'",
        '"',
        '0x',
        'u',
      ],
    );
    const anything = fc.oneof(
      fc.array(tokens, { maxLength: 20 }).map((parts) => parts.join('')),
      fc.array(tokens, { maxLength: 20 }).map((parts) => parts.join(' ')),
      fc.string({ maxLength: 60, unit: 'binary' }),
    );
    const number = fc.double({ noNaN: true });
    fc.assert(
      fc.property(anything, number, number, (expression, a, bc) => {
        const { success } = conditionSchema.safeParse({ cel: expression });
        if (!success) return void (expression.length <= 1000 && faultOf(expression));
        const condition = watch(expression);
        condition.sample(1, { a, 'b.c': bc });
        expect(condition.counters.celFailures).toBe(0);
      }),
      { numRuns: 500 },
    );
  });
});
