import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isGuess, LoginGuard, type LoginGuardLimits } from '../../broker/gate/login-guard.ts';

const LIMITS: LoginGuardLimits = {
  failuresMax: 50,
  banMs: 600_000,
  delayMsMax: 5000,
  rememberedMax: 10_000,
};

function makeGuard(limits: Partial<LoginGuardLimits> = {}) {
  const clock = { ms: 0 };
  const events = { failures: 0, banned: [] as string[] };
  const guard = new LoginGuard(
    { ...LIMITS, ...limits },
    { failed: () => (events.failures += 1), banned: (address) => events.banned.push(address) },
    () => clock.ms,
  );
  return { guard, clock, events };
}

describe('delay of a refusal', () => {
  it('is none for five failures of an address, and then doubles up to the bound', () => {
    const { guard } = makeGuard();
    const delays = Array.from({ length: 13 }, (_, index) =>
      guard.failed('192.0.2.1', null, `guess ${index}`),
    );
    expect(delays).toEqual([0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  });

  it('grows for one key id that is tried from many addresses (A-06)', () => {
    const { guard } = makeGuard();
    const delays = Array.from({ length: 7 }, (_, index) =>
      guard.failed(`192.0.2.${index}`, 'aaaaaaaa', `guess ${index}`),
    );
    expect(delays).toEqual([0, 0, 0, 0, 0, 100, 200]);
  });

  it('shrinks again when nothing fails', () => {
    const { guard, clock } = makeGuard();
    for (let index = 0; index < 10; index += 1) guard.failed('192.0.2.1', 'aaaaaaaa', 'same');
    clock.ms += 60_000;
    expect(guard.failed('192.0.2.1', 'aaaaaaaa', 'same')).toBe(100);
  });
});

describe('ban of an address', () => {
  const guess = ({ guard }: ReturnType<typeof makeGuard>, count: number, address = '192.0.2.1') => {
    for (let index = 0; index < count; index += 1) {
      guard.failed(address, `key${index}`, `guess ${index}`);
    }
  };

  it('comes with the first different guess over the bound, is told once, and expires', () => {
    const made = makeGuard();
    guess(made, 50);
    expect(made.events.banned).toEqual([]);
    made.guard.failed('192.0.2.1', null, 'another');
    expect(made.guard.before('192.0.2.1')).toBe('banned');
    made.guard.failed('192.0.2.1', null, 'still under way');
    expect(made.events.banned).toEqual(['192.0.2.1']);
    expect(made.guard.bannedCount).toBe(1);
    expect(made.guard.before('192.0.2.2')).toBe('ok');
    made.clock.ms += 599_999;
    expect(made.guard.before('192.0.2.1')).toBe('banned');
    made.clock.ms += 1;
    expect(made.guard.before('192.0.2.1')).toBe('ok');
    expect(made.guard.bannedCount).toBe(0);
  });

  it('meets the /64 of an IPv6 address and no other', () => {
    const made = makeGuard();
    for (let index = 0; index < 51; index += 1) {
      made.guard.failed(`2001:db8:1:2::${index.toString(16)}`, null, `guess ${index}`);
    }
    expect(made.guard.before('2001:db8:1:2:ffff::1')).toBe('banned');
    expect(made.guard.before('2001:db8:1:3::1')).toBe('ok');
  });

  it('does not come for a board that tries its one bad key every 5 s for a day', () => {
    const { guard, clock, events } = makeGuard();
    for (let atMs = 0; atMs < 86_400_000; atMs += 5000) {
      clock.ms = atMs;
      guard.failed('192.0.2.1', 'aaaaaaaa', 'the same bad key');
    }
    expect(events.banned).toEqual([]);
  });

  it('comes for one bad key that is tried without a pause (A-07)', () => {
    const { guard, clock, events } = makeGuard();
    let attempts = 0;
    for (; events.banned.length === 0 && attempts < 10_000; attempts += 1) {
      clock.ms += 10;
      guard.failed('192.0.2.1', 'aaaaaaaa', 'the same bad key');
    }
    expect(attempts).toBeLessThan(1100);
  });

  it('comes later where many keys are known, and known keys are forgotten after a day', () => {
    const made = makeGuard();
    for (let index = 0; index < 100; index += 1) made.guard.succeeded('192.0.2.1', `good${index}`);
    guess(made, 250);
    expect(made.events.banned).toEqual([]);
    guess(made, 300);
    expect(made.events.banned).toHaveLength(1);
    made.clock.ms += 24 * 3_600_000 + 1;
    guess(made, 51);
    expect(made.events.banned).toHaveLength(2);
  });

  it('cannot be bought off with one key that logs in again and again', () => {
    const made = makeGuard();
    for (let index = 0; index < 1000; index += 1) made.guard.succeeded('192.0.2.1', 'own');
    guess(made, 70);
    expect(made.events.banned).toHaveLength(1);
  });

  it('never comes when the guard is off', () => {
    const made = makeGuard({ failuresMax: 0 });
    guess(made, 10_000);
    expect(made.guard.failed('192.0.2.1', 'aaaaaaaa', 'x')).toBe(0);
    expect(made.guard.before('192.0.2.1')).toBe('ok');
    expect(made.events.failures).toBe(0);
  });
});

describe('from one address, with the defaults (docs/adr/0013-login-guard.md)', () => {
  /** Seconds until the ban when `boards` bad keys are tried every `everyS`, or null within two days. */
  function banAfterS(boards: number, everyS: number, goodKeys: number): number | null {
    const { guard, clock, events } = makeGuard();
    for (let atMs = 0; atMs < 2 * 86_400_000; atMs += everyS * 1000) {
      clock.ms = atMs;
      // Good boards connect again once a day.
      if (atMs % 86_400_000 < everyS * 1000) {
        for (let index = 0; index < goodKeys; index += 1) guard.succeeded('a', `good${index}`);
      }
      for (let board = 0; board < boards; board += 1) guard.failed('a', null, `bad ${board}`);
      if (events.banned.length > 0) return atMs / 1000;
    }
    return null;
  }

  it.each([
    ['one board, one bad key, every 5 s', 1, 5, 0, null],
    ['ten such boards beside 16 good ones', 10, 5, 16, null],
  ])('%s: never', (_name, boards, everyS, good, after) => {
    expect(banAfterS(boards, everyS, good)).toBe(after);
  });

  it('ten such boards where none was ever let in: not at once', () => {
    expect(banAfterS(10, 5, 0)).toBeGreaterThan(1800);
    expect(banAfterS(10, 5, 0)).toBeLessThan(7200);
  });

  it('one bad key 100 times a second: after about 10 s', () => {
    const seconds = banAfterS(1, 0.01, 0) ?? 0;
    expect(seconds).toBeGreaterThan(5);
    expect(seconds).toBeLessThan(15);
  });
});

describe('memory', () => {
  it('holds no more bans than it may, and the oldest go first', () => {
    const { guard } = makeGuard({ rememberedMax: 3, failuresMax: 1 });
    for (let host = 1; host <= 5; host += 1) {
      for (let index = 0; index < 3; index += 1) {
        guard.failed(`192.0.2.${host}`, `key${index}`, `guess ${index}`);
      }
    }
    expect(guard.bannedCount).toBe(3);
    const verdicts = [1, 2, 3, 4, 5].map((host) => guard.before(`192.0.2.${host}`));
    expect(verdicts).toEqual(['ok', 'ok', 'banned', 'banned', 'banned']);
  });
});

describe('for any history of logins', () => {
  const event = fc.record({
    host: fc.integer({ min: 1, max: 4 }),
    key: fc.integer({ min: 0, max: 80 }),
    isRight: fc.boolean(),
    pauseMs: fc.integer({ min: 0, max: 60_000 }),
  });

  it('a delay is within its bound, only addresses that failed often are banned, and all bans end', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 400 }), (history) => {
        const { guard, clock, events } = makeGuard({ failuresMax: 10 });
        const failures = new Map<string, number>();
        for (const { host, key, isRight, pauseMs } of history) {
          clock.ms += pauseMs;
          const address = `192.0.2.${host}`;
          if (guard.before(address) === 'banned') continue;
          if (isRight) {
            guard.succeeded(address, `key${key}`);
            continue;
          }
          failures.set(address, (failures.get(address) ?? 0) + 1);
          const delayMs = guard.failed(address, `key${key}`, `secret ${key}`);
          expect(delayMs).toBeGreaterThanOrEqual(0);
          expect(delayMs).toBeLessThanOrEqual(5000);
        }
        for (const address of events.banned) expect(failures.get(address)).toBeGreaterThan(10);
        clock.ms += 600_000;
        expect(guard.bannedCount).toBe(0);
      }),
    );
  });
});

describe('a guess', () => {
  it('is a refusal of a key that nobody has, and not one of a key that is right', () => {
    expect(isGuess('key_unknown')).toBe(true);
    expect(isGuess('key_malformed')).toBe(true);
    expect(isGuess('device_disabled')).toBe(false);
    expect(isGuess('identity_mismatch')).toBe(false);
    expect(isGuess('unavailable')).toBe(false);
  });
});
