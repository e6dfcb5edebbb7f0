import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeviceClock } from '../../firmware-protocol/device-clock.ts';
import {
  newestTimes,
  NO_BASIS,
  resolveTime,
  type ResolvedTime,
} from '../../firmware-protocol/time.ts';

const start = Date.parse('2026-11-21T08:00:00Z') * 1000;
const second = 1_000_000;
const minute = 60 * second;
const hour = 3600 * second;
const limits = { ageMaxMs: 30 * 86_400_000, aheadMaxMs: 300_000 };

interface Message {
  readonly tsMicros?: number;
  readonly upMs?: number;
  readonly receivedMicros: number;
}

/** A live message of one sample, as ingest takes it. */
function receive(clock: DeviceClock, { tsMicros, upMs, receivedMicros }: Message): ResolvedTime {
  const sample = { tsMicros: tsMicros ?? null, ageMs: null, upMs: upMs ?? null, fromLast: 0 };
  const newest = newestTimes([sample]);
  const basis = clock.observe(newest, receivedMicros);
  const resolved = resolveTime(sample, { receivedMicros, basis, newest }, limits);
  if (resolved === 'too_old') throw new Error('too old');
  return resolved;
}

interface Board {
  /** By how much its clock is ahead when it starts. */
  readonly skewMicros: number;
  readonly driftPpm: number;
  /** Mean and maximum of delays, which come exponentially. */
  readonly delayMicros: number;
  readonly everyMicros: number;
  /** A fixed sequence of chances, 0 to 1. */
  readonly seed: number;
}

const DELAY_MICROS_MAX = 5 * second;

/** What a board sends, in order of receipt; `takenMicros` is the truth. */
function* messagesOf({ skewMicros, driftPpm, delayMicros, everyMicros, seed }: Board) {
  let state = seed >>> 0;
  const chance = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  let receivedMicros = 0;
  for (let at = 0; ; at += 1) {
    const elapsed = Math.round((at + chance() / 100) * everyMicros);
    const takenMicros = start + elapsed;
    const delay = Math.min(-Math.log(chance()) * delayMicros, DELAY_MICROS_MAX);
    receivedMicros = Math.max(receivedMicros + 1, takenMicros + Math.round(delay) + 20_000);
    const ts = takenMicros + skewMicros + driftPpm * 1e-6 * elapsed;
    yield { takenMicros, receivedMicros, tsMicros: Math.floor(ts / 1000) * 1000 };
  }
}

/** Sends `messages` and gives the errors of the stored times from message `from` on, in microseconds. */
function errorsOf(board: Board, messages: number, from: number, clock = new DeviceClock()) {
  const errors: number[] = [];
  let sent = 0;
  for (const message of messagesOf(board)) {
    const { timeMicros } = receive(clock, message);
    sent += 1;
    if (sent > from) errors.push(Math.abs(timeMicros - message.takenMicros));
    if (sent === messages) return errors;
  }
  return errors;
}

const wrongClock = {
  skewMicros: 3 * hour,
  driftPpm: 50,
  delayMicros: 50_000,
  everyMicros: second,
  seed: 1,
};

describe('device clock', () => {
  it('brings a device that is 3 h ahead and drifts by 50 ppm within 1 s of the truth, for 12 hours', () => {
    const clock = new DeviceClock();
    const errors = errorsOf(wrongClock, 12 * 3600, 0, clock);
    expect(Math.max(...errors.slice(-11 * 3600))).toBeLessThan(0.35 * second);
    expect(Math.max(...errors)).toBeLessThan(second);
    expect(clock.state).toBe('ahead');
    expect(clock.stored?.driftPpm).toBeCloseTo(50, -1);
  });

  it('is within 1.1 s after 32 messages, whatever the skew, up to 200 ppm and 5 s of delay', () => {
    const board = fc.record({
      skewMicros: fc.integer({ min: 6 * minute, max: 3 * hour }),
      driftPpm: fc.double({ min: -200, max: 200, noNaN: true }),
      delayMicros: fc.integer({ min: 1000, max: second }),
      everyMicros: fc.constantFrom(second, 10 * second, minute),
      seed: fc.nat(),
    });
    const isNear = (one: Board): void => {
      expect(Math.max(...errorsOf(one, 600, 70))).toBeLessThan(1.1 * second);
    };
    fc.assert(fc.property(board, isNear), { numRuns: 60 });
  });

  it('knows of a clock that is behind as much, and believes it all the same', () => {
    const board = fc.record({
      skewMicros: fc.integer({ min: -3 * hour, max: -2 * minute }),
      driftPpm: fc.double({ min: -200, max: 200, noNaN: true }),
      delayMicros: fc.integer({ min: 1000, max: second }),
      everyMicros: fc.constantFrom(second, 10 * second, minute),
      seed: fc.nat(),
    });
    const isKnown = (one: Board): void => {
      const clock = new DeviceClock();
      let sent = 0;
      for (const { tsMicros, takenMicros, receivedMicros } of messagesOf(one)) {
        const resolved = receive(clock, { tsMicros, receivedMicros });
        expect(resolved).toEqual({ timeMicros: tsMicros, quality: 0 });
        sent += 1;
        if (sent < 70) continue;
        const known = (clock.stored?.offsetMs ?? 0) * 1000;
        expect(Math.abs(known - (tsMicros - takenMicros))).toBeLessThan(1.1 * second);
        expect(clock.state).toBe('behind');
        if (sent === 300) break;
      }
    };
    fc.assert(fc.property(board, isKnown), { numRuns: 40 });
  });

  it('leaves a clock alone that is right, or hardly ahead', () => {
    for (const skewMicros of [-second, 0, 1_900_000]) {
      const clock = new DeviceClock();
      errorsOf({ ...wrongClock, skewMicros, driftPpm: 0 }, 1000, 0, clock);
      expect(clock.basis).toBe(NO_BASIS);
      expect(clock.state).toBe('right');
    }
  });

  it('corrects a clock that is ahead by less than the limit: readings are not of the future', () => {
    const clock = new DeviceClock();
    errorsOf({ ...wrongClock, skewMicros: 3 * minute, driftPpm: 0 }, 100, 0, clock);
    expect(clock.basis.offsetMicros).toBeGreaterThan(3 * minute - second);
  });

  it('gives a message that comes again the time that it had', () => {
    const clock = new DeviceClock();
    let sent = 0;
    for (const message of messagesOf(wrongClock)) {
      const first = receive(clock, message);
      sent += 1;
      if (sent < 100) continue;
      for (const lateness of [second, minute, 2 * hour]) {
        const again = { ...message, receivedMicros: message.receivedMicros + lateness };
        const newest = newestTimes([{ ...message, ageMs: null, upMs: null, fromLast: 0 }]);
        const sample = { tsMicros: message.tsMicros, ageMs: null, upMs: null, fromLast: 0 };
        const { receivedMicros } = again;
        const arrival = { receivedMicros, basis: clock.basis, newest };
        expect(resolveTime(sample, arrival, limits)).toEqual(first);
      }
      if (sent === 120) break;
    }
  });

  it('never gives two messages one time, however its correction changes', () => {
    const times = new Set<number>();
    const clock = new DeviceClock();
    const offsets = new Set<number | null>();
    let sent = 0;
    for (const message of messagesOf({ ...wrongClock, driftPpm: 200, everyMicros: 250_000 })) {
      times.add(receive(clock, message).timeMicros);
      offsets.add(clock.basis.offsetMicros);
      sent += 1;
      if (sent === 100_000) break;
    }
    expect(times.size).toBe(sent);
    expect(offsets.size).toBeGreaterThan(15);
  });

  it('believes a clock at once that was set right, and forgets the offset within two minutes', () => {
    const clock = new DeviceClock();
    errorsOf(wrongClock, 3600, 0, clock);
    let sent = 0;
    for (const message of messagesOf({ ...wrongClock, skewMicros: 0, driftPpm: 0 })) {
      const receivedMicros = message.receivedMicros + 2 * hour;
      const tsMicros = message.tsMicros + 2 * hour;
      expect(receive(clock, { tsMicros, receivedMicros })).toEqual({
        timeMicros: tsMicros,
        quality: 0,
      });
      sent += 1;
      if (sent === 120) break;
    }
    expect(clock.basis).toBe(NO_BASIS);
  });

  it('follows a clock that is set while it is watched, by SNTP or to another wrong time', () => {
    const clock = new DeviceClock();
    for (const [at, skewMicros] of [0, 3 * hour, -hour, 20 * minute, 0].entries()) {
      let sent = 0;
      let last: ResolvedTime | null = null;
      for (const message of messagesOf({ ...wrongClock, skewMicros, driftPpm: 0, seed: at })) {
        const back = at * 10 * minute;
        const receivedMicros = message.receivedMicros + back;
        last = receive(clock, { tsMicros: message.tsMicros + back, receivedMicros });
        sent += 1;
        if (sent < 130) continue;
        const believed = skewMicros < 0 ? skewMicros : 0;
        const error = last.timeMicros - message.takenMicros - back - believed;
        expect(Math.abs(error), `to ${skewMicros}`).toBeLessThan(second);
        if (sent === 300) break;
      }
    }
  });

  it('takes what was buffered in an outage for what it is', () => {
    const clock = new DeviceClock();
    errorsOf(wrongClock, 3600, 0, clock);
    const offline = start + 3600 * second;
    const online = offline + hour;
    // An hour of samples, twenty a second, oldest first.
    for (let at = 0; at < 3600; at += 1) {
      const takenMicros = offline + at * second;
      const tsMicros = takenMicros + 3 * hour + 180_000;
      const { timeMicros } = receive(clock, { tsMicros, receivedMicros: online + at * 50_000 });
      expect(Math.abs(timeMicros - takenMicros)).toBeLessThan(second);
    }
  });

  it('is not misled by single messages of another time (D-13)', () => {
    const clock = new DeviceClock();
    let sent = 0;
    for (const message of messagesOf({ ...wrongClock, skewMicros: 0, driftPpm: 0 })) {
      receive(clock, message);
      sent += 1;
      if (sent % 10 === 0) {
        const tsMicros = [4_294_967_295, 1_577_836_900, 1e10][(sent / 10) % 3] ?? 0;
        const receivedMicros = message.receivedMicros + 1;
        clock.observe(
          { tsMicros: tsMicros * second, unsetMicros: null, upMs: null },
          receivedMicros,
        );
      }
      expect(clock.basis).toBe(NO_BASIS);
      if (sent === 2000) break;
    }
    expect(clock.state).toBe('right');
  });

  it('makes nothing of a clock that stands still, or runs a thousand times too fast (D-13)', () => {
    for (const rate of [0, 1000]) {
      const clock = new DeviceClock();
      for (let at = 0; at < 5000; at += 1) {
        const tsMicros = start + 10 * hour + at * second * rate;
        receive(clock, { tsMicros, receivedMicros: start + at * second });
      }
      expect(clock.basis).toBe(NO_BASIS);
    }
  });

  it('starts anew when our own clock is set back, and forward (N-16)', () => {
    const clock = new DeviceClock();
    const board = { ...wrongClock, skewMicros: 0, driftPpm: 0 };
    errorsOf(board, 3600, 0, clock);
    let sent = 0;
    for (const message of messagesOf(board)) {
      const receivedMicros = message.receivedMicros - hour + 3600 * second;
      const resolved = receive(clock, { tsMicros: message.tsMicros + hour, receivedMicros });
      sent += 1;
      // By our clock, which is what counts, the device is an hour ahead now.
      expect(Math.abs(resolved.timeMicros - receivedMicros)).toBeLessThan(5 * second);
      if (sent === 200) break;
    }
    expect(clock.state).toBe('ahead');
    for (const message of messagesOf(board)) {
      const receivedMicros = message.receivedMicros + 2 * hour;
      const tsMicros = message.tsMicros + 2 * hour;
      expect(receive(clock, { tsMicros, receivedMicros }).timeMicros).toBe(tsMicros);
      sent += 1;
      if (sent === 400) break;
    }
    expect(clock.state).toBe('right');
  });

  it('goes on from what was stored, with the same correction', () => {
    const clock = new DeviceClock();
    errorsOf(wrongClock, 7200, 0, clock);
    expect(clock.isUnstored).toBe(true);
    const { stored } = clock;
    if (stored === null) throw new Error('nothing to store');
    clock.markStored(stored);
    expect(clock.isUnstored).toBe(false);
    const restored = new DeviceClock();
    restored.restore(stored);
    expect(restored.basis).toEqual(clock.basis);
    expect(restored.isUnstored).toBe(false);
    expect(restored.stored).toEqual(stored);
    const back = 2 * hour + 6 * hour;
    const tsMicros = start + back + 3 * hour + 400_000 + 1_440_000;
    const resolved = receive(restored, { tsMicros, receivedMicros: start + back + 30_000 });
    expect(resolved.quality).toBe(4);
    expect(Math.abs(resolved.timeMicros - start - back)).toBeLessThan(second);
  });

  it('says nothing of a clock before it is known', () => {
    const clock = new DeviceClock();
    errorsOf(wrongClock, 8, 0, clock);
    expect(clock).toMatchObject({ state: 'unknown', stored: null, isUnstored: false });
  });
});

describe('device clock of a board that only knows its uptime', () => {
  const bootMicros = start - 100 * second;
  const upOf = (micros: number): number => (micros - bootMicros) / 1000;

  it('is anchored by hello', () => {
    const clock = new DeviceClock();
    clock.greet(upOf(start), start + 40_000);
    const takenMicros = start - 30 * second;
    const resolved = receive(clock, { upMs: upOf(takenMicros), receivedMicros: start + 50_000 });
    expect(resolved.quality).toBe(1);
    expect(resolved.timeMicros - takenMicros).toBeGreaterThan(0);
    expect(resolved.timeMicros - takenMicros).toBeLessThan(50_000);
  });

  it('is anchored after a minute of messages without hello, and then dates late ones', () => {
    const clock = new DeviceClock();
    for (let at = 0; at < 70; at += 1) {
      const takenMicros = start + at * second;
      receive(clock, { upMs: upOf(takenMicros), receivedMicros: takenMicros + 30_000 });
    }
    const takenMicros = start + 70 * second;
    const late = receive(clock, {
      upMs: upOf(takenMicros),
      receivedMicros: takenMicros + 8 * second,
    });
    expect(Math.abs(late.timeMicros - takenMicros)).toBeLessThan(50_000);
  });

  it('follows the drift of a week', () => {
    const clock = new DeviceClock();
    clock.greet(upOf(start), start + 30_000);
    for (let at = 1; at <= 7 * 24 * 60; at += 1) {
      const takenMicros = start + at * minute;
      const upMs = Math.round(upOf(start) + at * 60_000 * 1.00005);
      const { timeMicros } = receive(clock, { upMs, receivedMicros: takenMicros + 30_000 });
      expect(Math.abs(timeMicros - takenMicros)).toBeLessThan(second);
    }
  });

  it('dates what was buffered when a hello came first over its connection', () => {
    const clock = new DeviceClock();
    clock.greet(upOf(start), start);
    clock.connected();
    clock.greet(upOf(start + hour), start + hour);
    for (let at = 0; at < 60; at += 1) {
      const takenMicros = start + at * minute;
      const receivedMicros = start + hour + at * 1000;
      const { timeMicros } = receive(clock, { upMs: upOf(takenMicros), receivedMicros });
      expect(Math.abs(timeMicros - takenMicros)).toBeLessThan(1000);
    }
  });

  it.each([
    ['with hello', () => true, 100],
    ['without hello', () => false, 100],
    ['with hello, in a crash loop', () => true, 5],
    ['without hello, in a crash loop', () => false, 5],
    ['with a hello now and then', (boot: number) => boot % 2 === 0, 5],
    ['with a hello now and then, and long boots', (boot: number) => boot % 3 === 0, 100],
  ])('never dates a message of a new boot as of the one before, %s', (_, isGreeting, upSeconds) => {
    const clock = new DeviceClock();
    const times = new Set<number>();
    let sent = 0;
    for (let boot = 0; boot < 30; boot += 1) {
      // It is up again half a second after it crashed, each time from 0.
      const bootedMicros = start + boot * (upSeconds + 0.5) * second;
      clock.connected();
      if (isGreeting(boot)) clock.greet(900, bootedMicros + 930_000);
      for (let at = 1; at < upSeconds; at += 1) {
        const receivedMicros = bootedMicros + at * second + 30_000;
        times.add(receive(clock, { upMs: at * 1000, receivedMicros }).timeMicros);
        sent += 1;
      }
    }
    expect(times.size).toBe(sent);
  });

  it('does not date into the future when the uptime jumps', () => {
    const clock = new DeviceClock();
    clock.greet(upOf(start), start);
    const resolved = receive(clock, { upMs: upOf(start + hour), receivedMicros: start + second });
    expect(resolved.timeMicros - start).toBeLessThan(2 * second);
  });
});
