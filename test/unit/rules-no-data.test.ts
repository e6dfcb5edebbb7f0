import { afterEach, describe, expect, it } from 'vitest';
import { NoDataRun, SECOND, START_MS, StoredFleet } from '../support/no-data.ts';

const MINUTE = 60;
const runs: NoDataRun[] = [];
afterEach(async () => {
  for (const run of runs.splice(0)) await run.noData.stop();
});

/** A run that has been up for an hour. */
async function started(fleet = new StoredFleet()): Promise<NoDataRun> {
  fleet.uptime = { outages: [], upMicros: START_MS * 1000 - 3600 * SECOND };
  const run = new NoDataRun(fleet, START_MS - 3_600_000);
  runs.push(run);
  await run.noData.start();
  run.nowMs = START_MS;
  // The hour is one step of the clock otherwise.
  const stalls = run.noData.gauges.outages;
  for (let ms = START_MS - 3_600_000; ms <= START_MS; ms += 5000) {
    run.nowMs = ms;
    run.noData.tick();
  }
  expect(run.noData.gauges.outages).toBe(stalls);
  return run;
}

describe('missing readings', () => {
  it('are found within two seconds behind the deadline, and carry the deadline as their time', async () => {
    const run = await started();
    await run.watch([1], 5 * MINUTE * SECOND);
    run.connection(1, 'online');
    run.reading(1);
    run.pass(5 * MINUTE);
    expect(run.found).toEqual([]);
    run.pass(2);
    expect(run.found).toEqual([[1, 'silent', 300]]);
    run.pass(3600);
    expect(run.found).toHaveLength(1);
  });

  it('are over with the next reading, once', async () => {
    const run = await started();
    await run.watch([1], 10 * SECOND);
    run.reading(1);
    run.pass(20);
    run.reading(1);
    run.pass(5);
    run.reading(1);
    expect(run.changes.map(({ silence, atMicros }) => [silence, atMicros / SECOND])).toEqual([
      [null, START_MS / 1000],
      ['offline', START_MS / 1000 + 10],
      [null, START_MS / 1000 + 20],
    ]);
    run.pass(9);
    expect(run.silenceOf(1)).toBeNull();
    run.pass(3);
    expect(run.found).toEqual([
      [1, 'offline', 10],
      [1, 'offline', 35],
    ]);
  });

  it('have a deadline of their own for each rule', async () => {
    const run = await started();
    await run.watch([1], 10 * SECOND, 1);
    await run.watch([1], 30 * SECOND, 2);
    run.reading(1);
    await run.watch([1], 30 * SECOND, 3);
    run.pass(12);
    expect([1, 2, 3].map((ruleId) => run.silenceOf(1, ruleId))).toEqual(['offline', null, null]);
    run.pass(20);
    expect([1, 2, 3].map((ruleId) => run.silenceOf(1, ruleId))).toEqual(Array(3).fill('offline'));
    await run.watch([1], 30 * SECOND, 4);
    expect(run.changes.at(-1)).toMatchObject({ ruleId: 4, silence: 'offline' });
    expect(run.noData.gauges.silent.offline).toBe(2);
    run.noData.unwatch(1, 1);
    expect(run.noData.gauges).toMatchObject({ watchedDevices: 1, silent: { offline: 1 } });
    for (const ruleId of [2, 3, 4]) run.noData.unwatch(1, ruleId);
    expect(run.noData.gauges).toMatchObject({ watchedDevices: 0, silent: { offline: 0 } });
  });

  it('are told of again to whoever asks again', async () => {
    const run = await started();
    await run.watch([1], 10 * SECOND);
    run.reading(1);
    run.pass(15);
    await run.watch([1], 10 * SECOND);
    expect(run.changes.map(({ silence }) => silence)).toEqual([null, 'offline', 'offline']);
    expect(run.changes[2]).toEqual(run.changes[1]);
    expect(run.noData.gauges).toMatchObject({ watchedDevices: 1, silent: { offline: 1 } });
  });

  it('are looked for anew when the rule says another time', async () => {
    const run = await started();
    await run.watch([1], 10 * SECOND);
    run.reading(1);
    run.pass(20);
    expect(run.silenceOf(1)).toBe('offline');
    await run.watch([1], 60 * SECOND);
    expect(run.silenceOf(1)).toBeNull();
    run.pass(42);
    expect(run.found).toEqual([
      [1, 'offline', 10],
      [1, 'offline', 60],
    ]);
    await run.watch([1], 30 * SECOND);
    run.pass(1);
    expect(run.changes.at(-1)).toMatchObject({
      silence: 'offline',
      atMicros: START_MS * 1000 + 30 * SECOND,
    });
    expect(run.noData.gauges.silent.offline).toBe(1);
  });

  it('are of three kinds: gone, there without a word, and there with words that say nothing', async () => {
    const run = await started();
    await run.watch([1, 2, 3, 4], 30 * SECOND);
    for (const deviceId of [1, 2, 3, 4]) {
      run.connection(deviceId, 'online');
      run.reading(deviceId);
    }
    run.pass(5);
    run.connection(1, 'offline');
    run.noData.setSleep(4, 600);
    run.connection(4, 'sleeping');
    run.pass(27, () => run.noData.refused(3, run.nowMicros));
    expect(run.found.toSorted(([left], [right]) => left - right)).toEqual([
      [1, 'offline', 30],
      [2, 'silent', 30],
      [3, 'garbage', 30],
      [4, 'silent', 30],
    ]);
  });

  it('are told of again when they become of another kind, and stay missing meanwhile', async () => {
    const run = await started();
    await run.watch([1], 30 * SECOND);
    run.connection(1, 'online');
    run.reading(1);
    run.pass(40);
    run.connection(1, 'offline');
    run.pass(10);
    run.connection(1, 'online');
    run.noData.refused(1, run.nowMicros);
    run.pass(35);
    run.reading(1);
    expect(run.changes.map(({ silence }) => silence)).toEqual([
      null,
      'silent',
      'offline',
      'silent',
      'garbage',
      'silent',
      null,
    ]);
  });

  it('are not garbage when the connection that brought it has ended', async () => {
    const run = await started();
    await run.watch([1, 2], 30 * SECOND);
    run.connection(1, 'online');
    for (const deviceId of [1, 2]) {
      run.reading(deviceId);
      run.noData.refused(deviceId, run.nowMicros);
    }
    run.pass(10);
    run.noData.refused(2, run.nowMicros);
    run.connection(1, 'offline');
    run.pass(22);
    expect(run.found).toEqual([
      [1, 'offline', 30],
      [2, 'garbage', 30],
    ]);
  });

  it('are not missed of a device that has never been heard of', async () => {
    const fleet = new StoredFleet();
    fleet.note(1, {});
    const run = await started(fleet);
    await run.watch([1], 30 * SECOND);
    run.pass(3600);
    expect(run.changes.map(({ silence }) => silence)).toEqual([null]);
    run.connection(1, 'online');
    run.pass(32);
    expect(run.found).toEqual([[1, 'silent', 3630]]);
  });

  it('are not expected of a device that was deleted', async () => {
    const run = await started();
    run.noData.watch({ deviceId: 1, organizationId: 1, ruleId: 1, afterMicros: SECOND });
    await run.settled();
    expect(run.noData.gauges.watchedDevices).toBe(0);
  });

  it('are looked for as presence does of a device that sleeps', async () => {
    const run = await started();
    await run.watch([1], 'auto');
    run.connection(1, 'online');
    run.noData.setSleep(1, 600);
    run.reading(1);
    run.connection(1, 'sleeping');
    run.pass(2.5 * 600 + 60);
    expect(run.found).toEqual([]);
    run.connection(1, 'offline');
    run.pass(2);
    expect(run.found).toEqual([[1, 'offline', 1560]]);
  });

  it('are looked for by the interval that is declared, sooner when it becomes shorter', async () => {
    const run = await started();
    await run.watch([1], 'auto');
    run.noData.declareInterval(1, 600 * SECOND);
    run.reading(1);
    run.pass(10);
    run.noData.declareInterval(1, 20 * SECOND);
    run.pass(52);
    expect(run.found).toEqual([[1, 'offline', 60]]);
  });

  it('have no deadline while too little is known of the device', async () => {
    const run = await started();
    await run.watch([1], 'auto');
    for (let count = 0; count < 20; count += 1) {
      run.reading(1);
      run.pass(10);
    }
    run.pass(7200);
    expect(run.found).toEqual([]);
  });

  it('are looked for by what was learned of the device', async () => {
    const run = await started();
    await run.watch([1], 'auto');
    for (let count = 0; count < 30; count += 1) {
      run.pass(count === 0 ? 0 : 20);
      run.reading(1);
    }
    run.pass(70);
    const [[, kind, at] = [0, 'none', 0]] = run.found;
    expect(kind).toBe('offline');
    expect(Math.abs(at - (29 * 20 + 60))).toBeLessThan(3 * 0.05 * 20 + 0.001);
  });
});

describe('ten thousand devices', () => {
  it('of which a hundred go silent: these are found in time, and no other', async () => {
    const run = await started();
    const devices = Array.from({ length: 10_000 }, (_, index) => ({
      deviceId: index + 1,
      everyMs: 5000 + ((index * 37) % 20) * 1000,
      nextMs: START_MS + 1 + ((index * 7919) % 25_000),
      endMs: index % 100 === 0 ? START_MS + 550_000 + index * 3 : Infinity,
      lastMs: 0,
      seed: index,
    }));
    await run.watch(
      devices.map(({ deviceId }) => deviceId),
      'auto',
    );
    // By the tick behind which they send next.
    const slots: (typeof devices)[] = Array.from({ length: 3300 }, () => []);
    const slotOf = (ms: number): number => Math.ceil((ms - START_MS) / 250);
    for (const device of devices) slots[slotOf(device.nextMs)]?.push(device);
    const lateMs: number[] = [];
    let seen = 0;
    run.pass(800, () => {
      for (const device of slots[slotOf(run.nowMs)] ?? []) {
        if (device.nextMs > device.endMs) continue;
        run.noData.received(device.deviceId, device.nextMs * 1000);
        device.lastMs = device.nextMs;
        // Every message up to a fifth too early or too late.
        device.seed = (Math.imul(device.seed, 1_103_515_245) + 12_345) & 0x7fffffff;
        device.nextMs += device.everyMs * (0.8 + (0.4 * device.seed) / 0x80000000);
        slots[slotOf(device.nextMs)]?.push(device);
      }
      for (; seen < run.changes.length; seen += 1) {
        const change = run.changes[seen];
        if (change !== undefined && change.silence !== null) {
          lateMs.push(run.nowMs - 250 - change.atMicros / 1000);
        }
      }
    });
    const silent = new Set(run.found.map(([deviceId]) => deviceId));
    expect([...silent].toSorted((left, right) => left - right)).toEqual(
      devices.filter(({ endMs }) => endMs < Infinity).map(({ deviceId }) => deviceId),
    );
    expect(run.found).toHaveLength(100);
    expect(Math.max(...lateMs)).toBeLessThanOrEqual(2000);
    for (const [deviceId, , at] of run.found) {
      const device = devices[deviceId - 1];
      const usualS = ((device?.everyMs ?? 0) * 1.2) / 1000;
      const waitedS = at - ((device?.lastMs ?? 0) - START_MS) / 1000;
      expect(waitedS).toBeGreaterThan(3 * usualS * 0.85);
      expect(waitedS).toBeLessThan(3 * usualS * 1.06);
    }
    // Looked at when due, not for every message: about 700 000 came.
    expect(run.noData.gauges.checks).toBeLessThan(300_000);
  });
});
