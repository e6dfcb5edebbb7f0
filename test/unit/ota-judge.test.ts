import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Hello } from '../../firmware-protocol/hello.ts';
import type { OfferedCommand } from '../../ota/ports.ts';
import {
  judgeCommand,
  judgeHello,
  type JudgedUpdate,
  type UpdateStep,
} from '../../ota/update-judge.ts';
import { UPDATE_ENDS } from '../../ota/update.ts';

const BOOTS_MAX = 3;
const update: JudgedUpdate = {
  state: 'installing',
  version: '1.1.0',
  fromVersion: '1.0.0',
  boots: 0,
  bootBefore: 10,
};
const hear = (hello: Hello, more: Partial<JudgedUpdate> = {}): UpdateStep | null =>
  judgeHello({ ...update, ...more }, hello, BOOTS_MAX);
const step = (state: string, more: Partial<OfferedCommand> = {}): OfferedCommand => ({
  ...{ commandId: 'c', name: 'sys.ota', origin: 'update', ref: 'u', state },
  ...{ progress: null, code: null, message: null },
  ...more,
});

describe('a greeting during an update', () => {
  it('with the new version is the only thing that makes it succeed', () => {
    for (const state of ['offered', 'downloading', 'installing'] as const) {
      expect(hear({ fw: '1.1.0', ota: 'valid', boot: 11 }, { state })).toMatchObject({
        state: 'succeeded',
        bootAfter: 11,
      });
    }
    expect(hear({ fw: '1.1.0' })).toMatchObject({ state: 'succeeded' });
  });

  it('of an image that may still be rolled back is no success', () => {
    expect(hear({ fw: '1.1.0', ota: 'pending', boot: 11 })).toEqual({ boots: 1 });
    expect(hear({ fw: '1.1.0', ota: 'new' }, { state: 'downloading' })).toEqual({
      state: 'installing',
    });
    expect(hear({ fw: '1.1.0', ota: 'invalid', boot: 11 })).toMatchObject({ state: 'failed' });
  });

  it('of an image that boots again and again is a crash loop', () => {
    expect(hear({ fw: '1.1.0', ota: 'pending', boot: 13 })).toEqual({ boots: 3 });
    expect(hear({ fw: '1.1.0', ota: 'pending', boot: 14 })).toMatchObject({
      state: 'failed',
      code: 'crash_loop',
    });
    expect(hear({ fw: '1.0.0', boot: 15 })).toMatchObject({
      state: 'rolled_back',
      code: 'crash_loop',
    });
  });

  it('with the old version behind a boot is a rollback', () => {
    const code = 'rolled_back';
    expect(hear({ fw: '1.0.0', boot: 12 })).toMatchObject({ state: 'rolled_back', code });
    // The counter was lost with the flash.
    expect(hear({ fw: '1.0.0', boot: 1 })).toMatchObject({ state: 'rolled_back', code });
    expect(hear({ fw: '0.9.0', boot: 12 })).toMatchObject({ state: 'failed' });
  });

  it('with the old version and without a boot says nothing', () => {
    expect(hear({ fw: '1.0.0', boot: 10 })).toBeNull();
    expect(hear({ fw: '1.0.0' })).toBeNull();
    expect(hear({ fw: '1.0.0', boot: 12 }, { bootBefore: null })).toBeNull();
    expect(hear({})).toBeNull();
  });

  it('before the device has the image moves where boots are counted from', () => {
    const state = 'downloading' as const;
    expect(hear({ fw: '1.0.0', boot: 10 }, { state })).toBeNull();
    expect(hear({ fw: '1.0.0', boot: 12 }, { state })).toEqual({
      fromVersion: '1.0.0',
      bootBefore: 12,
    });
    expect(hear({ fw: '1.0.1' }, { state })).toEqual({ fromVersion: '1.0.1' });
  });
});

describe('a step of the command of an update', () => {
  const judge = (command: OfferedCommand, state: JudgedUpdate['state'] = 'offered') =>
    judgeCommand({ ...update, state }, command);

  it('never makes it succeed, not even an ok', () => {
    expect(judge(step('succeeded'))).toEqual({ state: 'installing' });
    expect(judge(step('running', { progress: 100 }))).toMatchObject({ state: 'installing' });
    fc.assert(
      fc.property(
        fc.constantFrom('queued', 'published', 'sent', 'running', 'succeeded', 'unknown'),
        fc.option(fc.nat({ max: 100 })),
        (state, progress) => {
          expect(judge(step(state, { progress }))?.state).not.toBe('succeeded');
        },
      ),
    );
  });

  it('opens the link when it was sent, and each time that it runs', () => {
    expect(judge(step('sent'))).toEqual({ isHeard: true });
    expect(judge(step('running'))).toEqual({ isHeard: true, state: 'downloading' });
    expect(judge(step('running', { progress: 40 }), 'downloading')).toEqual({ isHeard: true });
  });

  it('ends it with what the device said', () => {
    const failed = step('failed', { code: 'flash', message: 'no room' });
    expect(judge(failed)).toEqual({ state: 'failed', code: 'flash', detail: 'no room' });
    expect(judge(step('rejected', { code: 'unknown' }))).toMatchObject({ code: 'unknown' });
    expect(judge(step('cancelled'), 'downloading')).toMatchObject({ code: 'cancelled' });
    expect(judge(step('expired'))).toMatchObject({ code: 'expired' });
  });

  it('leaves the end to the version where the device may be at work', () => {
    expect(judge(step('failed', { code: 'rebooted' }))).toBeNull();
    expect(judge(step('expired'), 'downloading')).toBeNull();
    expect(judge(step('unknown'))).toEqual({ state: 'installing' });
  });
});

describe('the life of an update', () => {
  it('never goes back but to count boots, and ends once [any order of greetings and steps]', () => {
    const order = ['offered', 'downloading', 'installing'];
    const hello = fc.record(
      {
        fw: fc.constantFrom('1.0.0', '1.1.0', '2.0.0'),
        boot: fc.integer({ min: 8, max: 20 }),
        ota: fc.constantFrom('new', 'pending', 'valid', 'invalid'),
      },
      { requiredKeys: [] },
    ) as fc.Arbitrary<Hello>;
    const command = fc
      .record({
        state: fc.constantFrom('sent', 'running', 'succeeded', 'failed', 'expired', 'unknown'),
        progress: fc.option(fc.nat({ max: 100 })),
      })
      .map(({ state, ...more }) => step(state, more));
    fc.assert(
      fc.property(fc.array(fc.oneof(hello, command), { maxLength: 30 }), (happenings) => {
        let now: JudgedUpdate = { ...update, state: 'offered' };
        for (const happening of happenings) {
          const next =
            'commandId' in happening
              ? judgeCommand(now, happening)
              : judgeHello(now, happening, BOOTS_MAX);
          const state = next?.state ?? now.state;
          if (UPDATE_ENDS.some((end) => end === state)) {
            const isNew = !('commandId' in happening) && happening.fw === update.version;
            if (state === 'succeeded') expect(isNew).toBe(true);
            return;
          }
          expect(order.indexOf(state)).toBeGreaterThanOrEqual(order.indexOf(now.state));
          now = { ...now, ...next, state };
        }
      }),
    );
  });
});
