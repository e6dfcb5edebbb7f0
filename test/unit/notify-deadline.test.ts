import { getEventListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Deadline } from '../../rules/notify/deadline.ts';
import { attempt } from '../../rules/notify/retry.ts';
import { Secrets } from '../../rules/notify/secrets.ts';
import { fakeSenders } from '../support/notify.ts';

describe('a deadline', () => {
  it('aborts when its time is over, and says so', async () => {
    const deadline = new Deadline(new AbortController().signal, 5);
    expect([deadline.signal.aborted, deadline.isOver]).toEqual([false, false]);
    await delay(30);
    expect([deadline.signal.aborted, deadline.isOver]).toEqual([true, true]);
  });

  it('aborts with the outer signal and its reason, also with one that is aborted already', () => {
    const outer = new AbortController();
    const early = new Deadline(outer.signal, 10_000);
    outer.abort(new Error('stopped'));
    const late = new Deadline(outer.signal, 10_000);
    for (const deadline of [early, late]) {
      expect(deadline.signal.reason).toMatchObject({ message: 'stopped' });
      expect(deadline.isOver).toBe(false);
      deadline.release();
    }
  });

  it('leaves nothing at the outer signal when it is released', async () => {
    const outer = new AbortController().signal;
    const deadline = new Deadline(outer, 5);
    deadline.release();
    expect(getEventListeners(outer, 'abort')).toEqual([]);
    await delay(30);
    expect(deadline.isOver).toBe(false);
  });
});

describe('an attempt', () => {
  it('leaves nothing at the signal that lives as long as the program [O-04]', async () => {
    const stopped = new AbortController().signal;
    const parts = {
      senders: fakeSenders(() => Promise.resolve({ ok: true })),
      secrets: new Secrets([Buffer.alloc(32)]),
      limits: { attemptTimeoutMs: 10_000 },
    };
    const settings = { url: 'https://example.com/' };
    const claim = {
      organizationId: 1,
      receiverId: 'x',
      receiver: { name: 'x', kind: 'webhook', settings, secret: null, secretKeyId: null },
      message: {} as Parameters<typeof attempt>[1]['message'],
    } as const;
    for (let count = 0; count < 3; count += 1) {
      expect(await attempt(parts, claim, stopped)).toEqual({ ok: true });
    }
    expect(getEventListeners(stopped, 'abort')).toEqual([]);
    const kept = Object.getOwnPropertySymbols(stopped).filter((each) =>
      String(each).includes('ependant'),
    );
    expect(kept.map((each) => Reflect.get(stopped, each) as unknown)).toEqual(
      kept.map(() => undefined),
    );
  });
});
