import { describe, expect, it } from 'vitest';
import { INACTIVE } from '../../rules/alert/alert.ts';
import {
  operandWords,
  STEP_WORDS_MAX,
  stepWords,
  type ExplainedStep,
} from '../../rules/explain/step-words.ts';
import { lastAlertWords } from '../../rules/explain/last-alert.ts';
import { toldWords } from '../../rules/explain/told-words.ts';
import { valueWords } from '../../rules/explain/value-words.ts';
import { SUPPRESSIONS } from '../../rules/notify/group-state.ts';
import type { TransitionReason } from '../../rules/alert/transition.ts';

const T = Date.parse('2026-11-21T12:00:00Z') * 1000;
const S = 1_000_000;
const TEMP = {
  name: 'temp',
  value: 85.25,
  timeMicros: T,
  against: '> 80 until <= 75',
  holds: true,
};

function step(given: Partial<ExplainedStep>, timers: object = {}): ExplainedStep {
  const detail = {
    operands: [TEMP],
    operandsCut: 0,
    value: 85.25,
    timers: { ...INACTIVE, level: 0 as const, ...timers },
    occurrences: 2,
  };
  return {
    from: 'inactive',
    to: 'pending',
    severity: 'critical',
    reason: 'condition_holds',
    atMicros: T,
    detail,
    timing: { forMicros: 2 * S, keepFiringForMicros: 60 * S },
    ...given,
  };
}

describe('a step in words', () => {
  it('says what began to hold, with the values it was held against', () => {
    expect(stepWords(step({}))).toBe(
      'pending as critical: the condition began to hold at 2026-11-21 12:00:00.000Z; it fires once it has held for 2s. temp was 85.25 at 2026-11-21 12:00:00.000Z (> 80 until <= 75: yes).',
    );
  });

  it('says how long the condition had held when it fired', () => {
    const fired = step(
      { from: 'pending', to: 'firing', reason: 'for_elapsed', atMicros: T + 2 * S },
      { activeAt: T },
    );
    expect(stepWords(fired)).toContain(
      'had held since 2026-11-21 12:00:00.000Z, for 2s; "for" is 2s',
    );
  });

  it('says since when it has not held while it is kept firing, and when that is over', () => {
    const cleared = step(
      { from: 'firing', to: 'firing', reason: 'condition_cleared' },
      { clearSince: T },
    );
    expect(stepWords(cleared)).toContain(
      'has not held since 2026-11-21 12:00:00.000Z; it is resolved when that has lasted 1m',
    );
    const ended = step({ from: 'firing', to: 'inactive', reason: 'keep_firing_for_elapsed' });
    expect(stepWords(ended)).toMatch(/^resolved: the condition had not held for 1m/);
  });

  it('has words for every reason, without a gap', () => {
    const reasons: TransitionReason[] = [
      'condition_holds',
      'for_elapsed',
      'severity_raised',
      'severity_lowered',
      'condition_cleared',
      'keep_firing_for_elapsed',
      'fired_again',
      'level_changed',
      'no_data',
      'resolved_by_hand',
      'rule_changed',
      'rule_disabled',
      'rule_deleted',
      'rule_suspended',
      'out_of_scope',
    ];
    for (const reason of reasons) {
      for (const timing of [null, { forMicros: 0, keepFiringForMicros: 0 }]) {
        const words = stepWords(step({ reason, timing }));
        expect(words, reason).not.toMatch(/undefined|null|NaN/);
        expect(words.length).toBeGreaterThan(30);
      }
    }
  });

  it('is at most 1 000 characters long', () => {
    const operands = Array.from({ length: 16 }, () => ({ ...TEMP, name: 'm'.repeat(80) }));
    const { detail } = step({});
    const words = stepWords(step({ detail: { ...detail, operands } }));
    expect(words).toHaveLength(STEP_WORDS_MAX);
  });

  it('says of an operand without a value that there was none', () => {
    expect(operandWords({ ...TEMP, value: null, timeMicros: null, holds: false })).toBe(
      'temp had no value (> 80 until <= 75: no)',
    );
  });

  it('shortens numbers to six digits that count, and quotes texts', () => {
    expect([valueWords(1 / 3), valueWords(12), valueWords('open'), valueWords(true)]).toEqual([
      '0.333333',
      '12',
      '"open"',
      'true',
    ]);
  });
});

describe('who was told, in words', () => {
  const SENT = {
    notificationId: '',
    receiver: 'duty',
    kind: 'alert',
    state: 'sent',
    reason: null,
    by: null,
    attempts: 1,
    createdMicros: T,
    sentMicros: T + S,
  };

  it('says who was told and when, and what still waits or was given up', () => {
    expect(toldWords(SENT)).toBe('2026-11-21 12:00:01.000Z: duty was told.');
    expect(toldWords({ ...SENT, kind: 'digest' })).toMatch(/duty was told, in a digest\.$/);
    const failing = { ...SENT, sentMicros: null, reason: 'status 503', attempts: 2 };
    expect(toldWords({ ...failing, state: 'waiting' })).toBe(
      '2026-11-21 12:00:00.000Z: duty is to be told, after 2 attempts so far: status 503.',
    );
    expect(toldWords({ ...failing, state: 'dead', attempts: 1 })).toContain(
      'duty could not be told, after 1 attempt: status 503',
    );
  });

  it('says that nobody was told because there is no route, and who silenced the others', () => {
    const held = { ...SENT, state: 'suppressed', sentMicros: null };
    expect(toldWords({ ...held, receiver: null, reason: 'no_route' })).toBe(
      '2026-11-21 12:00:00.000Z: nobody was told, because no notification route matches the alert.',
    );
    expect(toldWords({ ...held, reason: 'silenced', by: 'silence 7' })).toContain(
      'duty was not told, because a silence matches the alert (silence 7).',
    );
  });

  it('has words for every way in which an alert is held back', () => {
    for (const reason of SUPPRESSIONS) {
      const words = toldWords({ ...SENT, state: 'suppressed', reason });
      expect(words, reason).not.toMatch(/_|undefined|null/);
    }
  });

  it('says of the last alert whether it was firing at the time in question', () => {
    const alert = { alertId: 'id', firedMicros: T, resolvedMicros: T + 5 * S };
    expect(lastAlertWords(alert, T + S)).toMatch(
      /^It did fire: .* since 2026-11-21 12:00:00\.000Z/,
    );
    expect(lastAlertWords(alert, T + 9 * S)).toMatch(
      /^It fired last at 2026-11-21 12:00:00\.000Z and was resolved at 2026-11-21 12:00:05\.000Z/,
    );
    expect(lastAlertWords({ ...alert, resolvedMicros: null }, T + 9 * S)).toContain('It did fire');
  });
});
