import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { findBlock, type ActionFacts, type ActionLimits } from '../../rules/action/interlock.ts';
import { formatAction, ruleActionSchema } from '../../rules/action/rule-action.ts';

const NOW = Date.parse('2026-11-21T08:00:00Z');
const LIMITS: ActionLimits = { ageMaxMs: 300_000, loopMax: 3 };
const FACTS: ActionFacts = {
  nowMs: NOW,
  stepMs: NOW - 1000,
  sentInHour: 0,
  lastSentMs: null,
  heardMs: NOW - 1000,
  depth: 1,
};
const ACTION = ruleActionSchema.parse({
  command: 'fan',
  args: { on: true },
  maxPerHour: 2,
  minGap: '1m',
  fresh: '5m',
});

function blockOf(facts: Partial<ActionFacts>, over: object = {}): string | null {
  return findBlock({ ...ACTION, ...over }, { ...FACTS, ...facts }, LIMITS)?.block ?? null;
}

describe('an interlock of an action', () => {
  it.each<[string, Partial<ActionFacts>, string | null]>([
    ['nothing in the way', {}, null],
    ['a step as old as is allowed', { stepMs: NOW - 300_000 }, null],
    ['a step that is older', { stepMs: NOW - 300_001 }, 'stale'],
    ['as many commands in a row as are allowed', { depth: 3 }, null],
    ['one more in a row', { depth: 4 }, 'loop'],
    ['one command less in the hour', { sentInHour: 1, lastSentMs: NOW - 60_000 }, null],
    ['all commands of the hour', { sentInHour: 2, lastSentMs: NOW - 600_000 }, 'max_per_hour'],
    ['a command within the gap', { sentInHour: 1, lastSentMs: NOW - 59_999 }, 'min_gap'],
    ['a device heard long ago', { heardMs: NOW - 300_001 }, 'not_fresh'],
    ['a device never heard', { heardMs: null }, 'not_fresh'],
  ])('with %s says %s', (_case, facts, expected) => {
    expect(blockOf(facts)).toBe(expected);
  });

  it('asks for no fresh state when the rule wants none', () => {
    expect(blockOf({ heardMs: null }, { freshMicros: null })).toBeNull();
  });

  it('says why in one line, with numbers', () => {
    const found = findBlock(ACTION, { ...FACTS, lastSentMs: NOW - 2500, sentInHour: 1 }, LIMITS);
    expect(found?.reason).toBe('the last command was 2.5 s ago, 1m wanted');
  });
});

describe('an action of a rule', () => {
  it('has an interlock of each kind unless told otherwise', () => {
    expect(formatAction(ruleActionSchema.parse({ command: 'fan' }))).toEqual({
      on: 'firing',
      command: 'fan',
      args: {},
      device: null,
      ttl: '10m',
      replace: null,
      maxPerHour: 6,
      minGap: '1m',
      fresh: '5m',
      ifReported: null,
      simulate: false,
    });
  });

  it.each([
    [{ command: 'sys.reboot' }, 'command'],
    [{ command: 'Fan' }, 'command'],
    [{ command: 'fan', args: { a: 'x'.repeat(1000) } }, 'args'],
    [{ command: 'fan', ttl: '0s' }, 'ttl'],
    [{ command: 'fan', ttl: '999ms' }, 'ttl'],
    [{ command: 'fan', ttl: '8d' }, 'ttl'],
    [{ command: 'fan', minGap: '25h' }, 'minGap'],
    [{ command: 'fan', maxPerHour: 0 }, 'maxPerHour'],
    [{ command: 'fan', replace: 'a b' }, 'replace'],
    [{ command: 'fan', unknown: 1 }, ''],
  ])('%j is refused at %s', (json, path) => {
    const { success, error } = ruleActionSchema.safeParse(json);
    expect(success).toBe(false);
    expect(error?.issues[0]?.path.join('.')).toBe(path);
  });

  it('comes back as it was written', () => {
    const durations = fc.constantFrom('1s', '30s', '5m', '1h');
    const actions = fc.record({
      on: fc.constantFrom('firing', 'resolved'),
      command: fc.constantFrom('fan', 'relay.2', 'set_point'),
      args: fc.dictionary(fc.string({ maxLength: 8 }), fc.oneof(fc.integer(), fc.boolean())),
      device: fc.constantFrom(null, 'boiler-7'),
      ttl: durations,
      replace: fc.constantFrom(null, 'fan'),
      maxPerHour: fc.integer({ min: 1, max: 3600 }),
      minGap: durations,
      fresh: fc.oneof(fc.constant(null), durations),
      ifReported: fc.constantFrom(null, { mode: 'auto' }),
      simulate: fc.boolean(),
    });
    fc.assert(
      fc.property(actions, (action) => {
        const once = formatAction(ruleActionSchema.parse(action));
        expect(formatAction(ruleActionSchema.parse(once))).toEqual(once);
        const { ttl, minGap, fresh, ...rest } = once;
        const { ttl: _ttl, minGap: _minGap, fresh: _fresh, ...given } = action;
        expect(rest).toEqual(given);
        expect([typeof ttl, typeof minGap, fresh === null]).toEqual([
          'string',
          'string',
          action.fresh === null,
        ]);
      }),
    );
  });
});
