import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { compileRule } from '../../rules/compile.ts';
import { conditionSchema, formatCondition } from '../../rules/condition/condition-schema.ts';
import { definitionOf } from '../support/condition.ts';

const schema = z.strictObject({ when: conditionSchema });

function faultsOf(when: unknown): string[] {
  const { error } = schema.safeParse({ when });
  return (error?.issues ?? []).map(({ path, message }) => `${path.join('.')}: ${message}`);
}

const NO_OBJECT =
  'must be a condition, an object such as {"metric":"temp","op":">","value":80} or {"cel":"temp > 80"}';

/** So many conditions around one. */
function nested(depth: number): unknown {
  return depth <= 1 ? { connection: 'offline' } : { not: nested(depth - 1) };
}

const name = fc.constantFrom('temp', 'grid.l1', 'a-b');
const op = fc.constantFrom('>', '>=', '<', '<=', '==', '!=');
const number = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
const span = fc.constantFrom('250ms', '2s', '90s', '5m', '1h', '1d', '31d');
const scale = { times: number, plus: number };
const leaf = fc.oneof(
  fc.record({ metric: name, op, value: number }),
  fc.record({
    metric: name,
    op: fc.constantFrom('==', '!='),
    value: fc.oneof(fc.boolean(), fc.constant('x"y')),
  }),
  fc.record({
    metric: name,
    op: fc.constantFrom('>', '>='),
    value: fc.constant(80),
    clear: fc.constantFrom(75, null),
    deadBand: fc.constantFrom(0.5, null),
    of: fc.constantFrom(null, { n: 2, m: 5 }),
  }),
  fc.record({
    metric: name,
    fn: fc.constantFrom('avg', 'stddev', 'rate', 'p1', 'p95'),
    samples: fc.integer({ min: 2, max: 1000 }),
    op,
    value: number,
  }),
  fc.record({ metric: name, fn: fc.constantFrom('count', 'sum'), window: span, op, value: number }),
  fc.record({ metric: name, stuck: span, within: fc.double({ min: 0, max: 1e9, noNaN: true }) }),
  fc.record({ metric: name, op, other: fc.constant('setpoint'), ...scale }),
  fc.record({ metric: name, op, other: name, ago: span, ...scale }),
  fc.record({
    metric: name,
    op,
    fleet: fc.constantFrom('avg', 'median'),
    tag: fc.constant('hall 3'),
    ...scale,
  }),
  fc.record({ event: fc.constant('door.open'), holds: fc.constantFrom('0s', '10s') }),
  fc.record({ connection: fc.constantFrom('online', 'sleeping', 'offline', 'never') }),
  fc.record({
    schedule: fc.record(
      {
        timeZone: fc.constantFrom('Europe/Berlin', 'UTC'),
        days: fc.subarray(['mon', 'tue', 'sun'], { minLength: 1 }),
        from: fc.constantFrom('00:00', '22:00'),
        to: fc.constantFrom('06:30', '24:00'),
      },
      { requiredKeys: ['timeZone'] },
    ),
    outside: fc.boolean(),
  }),
  fc.record(
    {
      noData: fc.constantFrom('auto', '5m'),
      kinds: fc.constantFrom(['offline'], ['garbage', 'silent']),
    },
    { requiredKeys: ['noData'] },
  ),
  fc.record({ cel: fc.constantFrom('temp > 80', 'a && b == "x"') }),
);
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', maxDepth: 4 },
    leaf,
    fc.record({ all: fc.array(tie('tree'), { minLength: 1, maxLength: 3 }) }),
    fc.record({ any: fc.array(tie('tree'), { minLength: 1, maxLength: 3 }) }),
    fc.record({ not: tie('tree') }),
  ),
}));

describe('conditionSchema', () => {
  it('reads what formatCondition writes, as the same condition, and it compiles', () => {
    fc.assert(
      fc.property(tree, (json) => {
        const { success, data } = conditionSchema.safeParse(json);
        fc.pre(success);
        if (data === undefined) return;
        const written: unknown = JSON.parse(JSON.stringify(formatCondition(data)));
        expect(conditionSchema.parse(written)).toEqual(data);
        expect(formatCondition(conditionSchema.parse(written))).toEqual(written);
        const keys = {
          ruleId: 1,
          publicId: '',
          organizationId: 1,
          version: 1,
          mode: 'shadow',
        } as const;
        const definition = definitionOf(json);
        const rule = compileRule({ ...keys, definition }, { windowSamplesMax: 64 });
        expect(rule.createMemory().length).toBeLessThanOrEqual(81);
      }),
      { numRuns: 300 },
    );
  });

  it('writes no more than was said', () => {
    for (const json of [
      { metric: 'temp', op: '>', value: 80 },
      { metric: 'temp', op: '>', value: 80, clear: 75, deadBand: 0.5, of: { n: 3, m: 5 } },
      { metric: 'temp', window: '5m', fn: 'avg', op: '>', value: 80, clear: 75 },
      { metric: 'temp', samples: 10, fn: 'p95', op: '>', value: 80 },
      { metric: 'temp', stuck: '10m', within: 0.1 },
      { metric: 'temp', op: '>', other: 'setpoint', times: 2, plus: -5 },
      { metric: 'temp', op: '>', other: 'temp', ago: '1d' },
      { metric: 'temp', op: '>', fleet: 'median', tag: 'hall-3' },
      { event: 'door.open', holds: '10s' },
      { connection: 'sleeping' },
      {
        schedule: { timeZone: 'Europe/Berlin', days: ['mon', 'tue'], from: '22:00', to: '06:00' },
        outside: true,
      },
      {
        schedule: {
          timeZone: 'UTC',
          windows: [
            { from: '01:00', to: '02:00' },
            { from: '03:00', to: '04:00' },
          ],
        },
      },
      { noData: '5m' },
      { noData: 'auto', kinds: ['offline', 'garbage'] },
      { all: [{ any: [{ not: { cel: 'temp > 80.0 && rh < 40' } }] }] },
    ]) {
      expect(formatCondition(conditionSchema.parse(json))).toEqual(json);
    }
  });

  it.each([
    [undefined, `when: ${NO_OBJECT}`],
    [[], `when: ${NO_OBJECT}`],
    ['temp > 80', `when: ${NO_OBJECT}`],
    [{}, 'when: must have one of all, any, not, metric, event, connection, schedule, noData, cel'],
    [{ all: [] }, 'when.all: must be a list of at least one condition'],
    [{ not: [nested(1)] }, `when.not: ${NO_OBJECT}`],
    [{ not: nested(1), all: [nested(1)] }, 'when: must have nothing beside all'],
    [{ metric: 'ts', op: '>', value: 1 }, 'when.metric: must be the name of a metric'],
    [{ metric: 'a', op: '>', value: 'x' }, 'when.op: must be == or != here'],
    [{ metric: 'a', op: '>', value: 8, clear: 9 }, 'when.clear: must be below value, 8'],
    [{ metric: 'a', op: '<=', value: 8, clear: 8 }, 'when.clear: must be above value, 8'],
    [{ metric: 'a', op: '==', value: 8, clear: 7 }, 'when.clear: needs >, >=, < or <='],
    [{ metric: 'a', op: '!=', value: 8, deadBand: 1 }, 'when.deadBand: needs >, >=, < or <='],
    [{ metric: 'a', op: '>', value: 8, of: { n: 6, m: 5 } }, 'when.of.n: must be at most m'],
    [{ metric: 'a', op: '==', value: 'x\u0000' }, 'when.value: must not have control characters'],
    [
      { metric: 'a', fn: 'p100', window: '5m', op: '>', value: 1 },
      'when.fn: must be avg, min, max, sum, count, delta, rate, stddev, or a percentile p1 to p99',
    ],
    [
      { metric: 'a', fn: 'avg', op: '>', value: 1 },
      'when.window: must have either window or samples',
    ],
    [
      { metric: 'a', fn: 'avg', samples: 5, window: '5m', op: '>', value: 1 },
      'when.window: must have either window or samples',
    ],
    [
      { metric: 'a', fn: 'count', samples: 5, op: '>', value: 1 },
      'when.samples: must be window: of so many samples there are always as many',
    ],
    [{ metric: 'a', stuck: '0s' }, 'when.stuck: must be 1ms to 31d'],
    [{ metric: 'a', stuck: '32d' }, 'when.stuck: must be 1ms to 31d'],
    [{ metric: 'a', op: '>', other: 'a' }, 'when.other: must be another metric, or have ago'],
    [{ event: 'a b' }, 'when.event: must be the name of an event'],
    [{ noData: 5 }, 'when.noData: must be "auto", or a duration such as "30s" or "5m"'],
    [{ noData: 'soon' }, 'when.noData: must be "auto", or a duration such as "30s" or "5m"'],
    [{ noData: '0s' }, 'when.noData: must be 1s to 31d'],
    [
      { metric: 'a', stuck: 5 },
      'when.stuck: must be a duration, a text such as "2s", "5m" or "1h30m"',
    ],
    [{ noData: '5m', kinds: ['silent', 'silent'] }, 'when.kinds: must not name one twice'],
    [
      { schedule: { timeZone: 'Mars/Base' } },
      'when.schedule.timeZone: must be a time zone such as Europe/Berlin or UTC',
    ],
    [
      { schedule: { timeZone: 'UTC', from: '03:00', to: '03:00' } },
      'when.schedule.to: must be another time than from; a whole day is 00:00 to 24:00',
    ],
    [
      { schedule: { timeZone: 'UTC', windows: [{ from: '25:00' }] } },
      'when.schedule.windows.0.from: must be a time of the day, 00:00 to 24:00',
    ],
    [
      { any: [nested(1), { cel: 'while(1)' }] },
      'when.any.1.cel: is not valid: Reserved identifier: while',
    ],
    [nested(7), 'when.not.not.not.not.not.not: must not be nested deeper than 6'],
    [{ all: Array(32).fill(nested(1)) }, 'when.all.31: there are more than 32 conditions'],
  ])('refuses %j', (when, fault) => {
    expect(faultsOf(when)).toEqual([fault]);
  });

  it('says every fault, each with its path', () => {
    const faults = faultsOf({
      all: [
        { metric: 'a', op: '~', value: 1, more: 2 },
        { not: { any: [{ noData: 'x' }, { connection: 'gone' }] } },
      ],
      extra: 1,
    });
    expect(faults.map((fault) => fault.split(':')[0])).toEqual([
      'when',
      'when.all.0.op',
      'when.all.0',
      'when.all.1.not.any.0.noData',
      'when.all.1.not.any.1.connection',
    ]);
  });

  it('says every fault of a schedule', () => {
    const schedule = { timeZone: 'Mars/Base', days: ['mo'], from: '7', until: '8' };
    const faults = faultsOf({ schedule, outsid: true });
    expect(faults.map((fault) => fault.split(':')[0])).toEqual([
      'when.schedule.timeZone',
      'when.schedule.days.0',
      'when.schedule.from',
      'when.schedule',
      'when',
    ]);
  });

  it('gives a condition as an example that it takes', () => {
    for (const example of NO_OBJECT.match(/\{.*?\}/g) ?? []) {
      expect(faultsOf(JSON.parse(example)), example).toEqual([]);
    }
  });

  it('accepts the deepest and the most that are allowed', () => {
    expect(faultsOf(nested(6))).toEqual([]);
    expect(faultsOf({ all: Array(31).fill(nested(1)) })).toEqual([]);
  });

  it('answers with faults, not with an exception, whatever JSON comes', () => {
    const member = fc.constantFrom(
      'all',
      'any',
      'not',
      'metric',
      'op',
      'value',
      'window',
      'fn',
      'cel',
      'schedule',
    );
    fc.assert(
      fc.property(fc.dictionary(member, fc.oneof(fc.jsonValue(), leaf, fc.array(leaf))), (json) => {
        const { success, error } = conditionSchema.safeParse(json);
        expect(success || (error?.issues.length ?? 0) > 0).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});
