import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COMMAND_STATES, END_STATES, type CommandState } from '../../commands/command.ts';
import { step, type CommandInput } from '../../commands/command-state.ts';
import { encodeHead, isSameSlot, readSlot, slotCommand } from '../../commands/slot.ts';
import { holds } from '../../commands/precondition.ts';
import { ProgressGate } from '../../commands/progress-gate.ts';
import { Lanes } from '../../commands/lanes.ts';
import { SlotPublisher } from '../../commands/slot-publisher.ts';
import { FakeWire } from '../support/command-wire.ts';
import { testCommand } from '../support/commands.ts';
import { eventually } from '../support/eventually.ts';

const INPUTS: readonly CommandInput[] = [
  'approve',
  'place',
  'refuse',
  'send',
  'run',
  'ok',
  'err',
  'no',
  'outdated',
  'dup',
  'expire',
  'cancel',
  'lose',
  'repeat',
  'silence',
  'succeed',
  'fail',
];

describe('the states of a command', () => {
  it('never go back from an end, but to what the device says it did [L-11]', () => {
    for (const state of END_STATES) {
      for (const input of INPUTS) {
        const next = step(state, input);
        if (next !== null) expect(['succeeded', 'failed']).toContain(next);
      }
    }
    expect(step('succeeded', 'err')).toBeNull();
    expect(step('failed', 'ok')).toBeNull();
    expect(step('rejected', 'ok')).toBeNull();
    expect(step('expired', 'ok')).toBe('succeeded');
    expect(step('cancelled', 'err')).toBe('failed');
  });

  it('reach the slot through the queue only, and its ends from everywhere else', () => {
    const before = COMMAND_STATES.filter((state) => step(state, 'place') === 'published');
    expect(before).toEqual(['queued']);
    for (const state of COMMAND_STATES) {
      if (END_STATES.has(state)) continue;
      const ends = INPUTS.map((input) => step(state, input)).filter(
        (next) => next !== null && END_STATES.has(next),
      );
      expect(ends.length, state).toBeGreaterThan(0);
    }
  });

  it('end after finitely many inputs that are no retry and no progress', () => {
    const inputs = fc.array(
      fc.constantFrom(...INPUTS.filter((input) => input !== 'repeat' && input !== 'run')),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(inputs, (taken) => {
        let state: CommandState = COMMAND_STATES[0];
        let steps = 0;
        for (const input of taken) {
          const next = step(state, input);
          if (next === null) continue;
          state = next;
          steps += 1;
        }
        expect(steps).toBeLessThanOrEqual(6);
      }),
    );
  });
});

describe('a slot', () => {
  const head = testCommand({ wireId: 1_795_235_440, args: { on: true, b: [1, { c: null }] } });

  it('says id, command, arguments, how many wait, and until when', () => {
    const expiresAt = new Date(1_795_239_040_000);
    const payload = encodeHead({ ...head, args: { on: true }, expiresAt }, 2);
    expect(payload.toString()).toBe(
      '{"id":1795235440,"cmd":"relay","args":{"on":true},"n":2,"exp":1795239040}',
    );
  });

  it('is the same whatever the order of members and however many wait', () => {
    expect(isSameSlot(encodeHead(head, 1), head)).toBe(true);
    expect(
      isSameSlot(encodeHead(head, 7), { ...head, args: { b: [1, { c: null }], on: true } }),
    ).toBe(true);
    expect(isSameSlot(encodeHead(head, 1), { ...head, wireId: 5 })).toBe(false);
    expect(isSameSlot(encodeHead(head, 1), { ...head, args: {} })).toBe(false);
    expect(isSameSlot(encodeHead(head, 1), null)).toBe(false);
    expect(isSameSlot(null, head)).toBe(false);
    expect(isSameSlot(Buffer.alloc(0), null)).toBe(true);
    expect(isSameSlot(Buffer.from('{"id":'), head)).toBe(false);
  });

  it('is read back as it was written', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(), (args, wireId) => {
        const one = { ...head, args, wireId };
        expect(isSameSlot(encodeHead(one, 3), one)).toBe(true);
        expect(readSlot(encodeHead(one, 3))?.id).toBe(slotCommand(one, 3).id);
      }),
    );
  });
});

describe('a precondition', () => {
  const facts = {
    reported: { mode: 'auto', limits: { high: 30 } },
    readings: new Map([
      ['temp', { value: 21.5, timeMs: 1000 }],
      ['door', { value: true, timeMs: 1000 }],
    ]),
  };
  const reading = (metric: string, op: '<' | '==' | '!=', value: number | boolean) => ({
    readings: [{ metric, op, value, ageMaxMs: 500 }],
  });

  it('compares what was reported and what was read last, and fails on what is not known', () => {
    expect(holds({}, facts, 1200)).toBe(true);
    expect(holds({ reported: { limits: { high: 30 } } }, facts, 1200)).toBe(true);
    expect(holds({ reported: { mode: 'manual' } }, facts, 1200)).toBe(false);
    expect(holds({ reported: { toString: 1 } }, facts, 1200)).toBe(false);
    expect(holds({ reported: {} }, { ...facts, reported: null }, 1200)).toBe(true);
    expect(holds({ reported: { mode: 'auto' } }, { ...facts, reported: null }, 1200)).toBe(false);
    expect(holds(reading('temp', '<', 22), facts, 1200)).toBe(true);
    expect(holds(reading('temp', '<', 21.5), facts, 1200)).toBe(false);
    expect(holds(reading('temp', '<', 22), facts, 2000)).toBe(false);
    expect(holds(reading('door', '==', true), facts, 1200)).toBe(true);
    expect(holds(reading('door', '<', 2), facts, 1200)).toBe(false);
    expect(holds(reading('rh', '!=', 3), facts, 1200)).toBe(false);
  });
});

describe('progress', () => {
  it('is worth a step each 5 seconds or 10 percent, and its end always is', () => {
    const gate = new ProgressGate();
    const run = (pct: number) => ({ id: 1, st: 'run' as const, pct });
    expect(gate.passes(7, run(0), 0)).toBe(true);
    gate.stored(7, run(0), 0);
    expect(gate.passes(7, run(9), 1000)).toBe(false);
    expect(gate.passes(8, run(9), 1000)).toBe(true);
    expect(gate.passes(7, run(10), 1000)).toBe(true);
    expect(gate.passes(7, run(1), 5000)).toBe(true);
    expect(gate.passes(7, { id: 1, st: 'ok' }, 1001)).toBe(true);
  });
});

describe('lanes', () => {
  it('keep the order of a device, and run no more than so many at once', async () => {
    const lanes = new Lanes(2);
    const order: string[] = [];
    let running = 0;
    let most = 0;
    const work =
      (name: string, fails = false) =>
      async () => {
        running += 1;
        most = Math.max(most, running);
        await new Promise((resolve) => setTimeout(resolve, 5));
        running -= 1;
        order.push(name);
        if (fails) throw new Error(name);
      };
    const all = [
      lanes.run('a', work('a1', true)),
      lanes.run('a', work('a2')),
      lanes.run('b', work('b1')),
      lanes.run('c', work('c1')),
      lanes.run('a', work('a3')),
    ];
    await Promise.allSettled(all);
    await lanes.drained();
    expect(order.filter((name) => name.startsWith('a'))).toEqual(['a1', 'a2', 'a3']);
    expect(most).toBe(2);
  });
});

describe('the publisher of slots', () => {
  it('never lets an older revision follow a newer one, and says what was not taken', async () => {
    const wire = new FakeWire();
    const failed: string[] = [];
    const publisher = new SlotPublisher(wire, (topic) => failed.push(topic));
    const write = (revision: number, deviceId = 7) =>
      publisher.publish({ topic: 't', deviceId, revision, payload: Buffer.from(`${revision}`) });
    write(1);
    write(3);
    write(2);
    await publisher.drained();
    expect(wire.messages.map(({ payload }) => payload.toString())).toEqual(['1', '3']);
    write(9);
    write(1, 8);
    await publisher.drained();
    expect(wire.kept.get('t')?.toString()).toBe('1');
    wire.mode = 'refuse';
    write(2, 8);
    await eventually('said', () => failed.length === 1);
  });
});
