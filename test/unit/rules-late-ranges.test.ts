import { describe, expect, it } from 'vitest';
import { LateRanges } from '../../rules/log/late-ranges.ts';

const LIMITS = { devicesMax: 3, quietMs: 5000, longestMs: 20_000 };

/** Ranges on a clock that the test moves. */
class Noted {
  nowMs = 1000;
  readonly ranges = new LateRanges(() => this.nowMs, LIMITS);

  note(deviceId: number, timeMicros: number, metric = 'temp'): void {
    this.ranges.note({ deviceId, organizationId: 1, metric, timeMicros });
  }
}

describe('late readings of a device', () => {
  it('are one range, from the first to the last time, once it has been quiet for a while', () => {
    const noted = new Noted();
    noted.note(7, 300);
    noted.nowMs += 4999;
    noted.note(7, 100, 'setpoint');
    noted.note(7, 200);
    noted.nowMs += 4999;
    expect(noted.ranges.takeDue()).toBeNull();
    noted.nowMs += 2;
    expect(noted.ranges.takeDue()).toEqual({
      deviceId: 7,
      organizationId: 1,
      metrics: new Set(['temp', 'setpoint']),
      fromMicros: 100,
      toMicros: 300,
    });
    expect(noted.ranges.takeDue()).toBeNull();
    expect(noted.ranges.size).toBe(0);
  });

  it('that never cease are looked at after the longest wait', () => {
    const noted = new Noted();
    const startedMs = noted.nowMs;
    let taken = null;
    for (let time = 0; taken === null && time < 100; time += 1) {
      noted.note(7, time);
      noted.nowMs += 1000;
      taken = noted.ranges.takeDue();
    }
    expect(taken).toMatchObject({ fromMicros: 0, toMicros: 20 });
    expect(noted.nowMs - startedMs).toBe(LIMITS.longestMs + 1000);
  });

  it('of more devices than are held are counted and left out, those of known ones are not', () => {
    const noted = new Noted();
    for (const deviceId of [1, 2, 3, 4, 5, 1]) noted.note(deviceId, 10);
    expect(noted.ranges.size).toBe(3);
    expect(noted.ranges.dropped).toBe(2);
    noted.ranges.forget(2);
    noted.ranges.forget(99);
    noted.note(4, 10);
    expect(noted.ranges.dropped).toBe(2);
    noted.nowMs += LIMITS.quietMs + 1;
    const due = [1, 2, 3].map(() => noted.ranges.takeDue()?.deviceId);
    expect(new Set(due)).toEqual(new Set([1, 3, 4]));
    expect(noted.ranges.takeDue()).toBeNull();
  });
});
