import { afterEach, describe, expect, it } from 'vitest';
import { StoreUnavailableError } from '../../errors.ts';
import type { ConnectionState } from '../../rules/compiled-rule.ts';
import { NoDataRun, SECOND, START_MS, StoredFleet } from '../support/no-data.ts';

const GRACE_S = 330;
const MINUTE = 60;
const runs: NoDataRun[] = [];
afterEach(async () => {
  for (const run of runs.splice(0)) await run.noData.stop();
});

async function startedAt(fleet: StoredFleet, seconds: number): Promise<NoDataRun> {
  const run = new NoDataRun(fleet, START_MS + seconds * 1000, GRACE_S * 1000);
  runs.push(run);
  await run.noData.start();
  return run;
}

/** A program that has been up for long, with these devices online and heard at the start. */
async function running(
  fleet: StoredFleet,
  deviceIds: readonly number[],
  afterSeconds: number,
): Promise<NoDataRun> {
  fleet.uptime = { outages: [], upMicros: START_MS * 1000 };
  const run = await startedAt(fleet, 0);
  await run.watch(deviceIds, afterSeconds * SECOND);
  for (const deviceId of deviceIds) {
    run.connection(deviceId, 'online');
    run.reading(deviceId);
  }
  return run;
}

/** Writes that the program is up, as each minute. */
async function beat(run: NoDataRun): Promise<void> {
  await run.noData.write();
}

describe('a restart [L-06]', () => {
  it('L-06 finds a device that went silent meanwhile once, at its deadline behind the restart', async () => {
    const fleet = new StoredFleet();
    const before = await running(fleet, [1], 10 * MINUTE);
    before.pass(60);
    await beat(before);
    await before.crash();

    const after = await startedAt(fleet, 30 * MINUTE);
    await after.watch([1], 10 * MINUTE * SECOND);
    after.pass(10 * MINUTE);
    expect(after.changes).toEqual([]);
    after.pass(2);
    expect(after.found).toEqual([[1, 'offline', 40 * MINUTE]]);
    after.pass(3600);
    expect(after.changes).toHaveLength(1);
  });

  it('L-06 makes no storm: of devices that come back within the grace none is found', async () => {
    const fleet = new StoredFleet();
    const ids = Array.from({ length: 500 }, (_, index) => index + 1);
    const before = await running(fleet, ids, 10);
    before.pass(5);
    await beat(before);
    await before.crash();

    const after = await startedAt(fleet, 3600);
    await after.watch(ids, 10 * SECOND);
    // Full jitter up to 300 s, as firmware backs off; the first reading 5 s behind the connection.
    let step = 0;
    after.pass(400, () => {
      step += 1;
      const second = step / 4;
      for (const id of ids) {
        const backAt = (id * 7919) % 300;
        if (second === backAt) after.connection(id, 'online');
        if (second > backAt && (second - backAt) % 5 === 0) after.reading(id);
      }
    });
    expect(after.found).toEqual([]);
    expect(new Set(after.changes.map(({ deviceId }) => deviceId)).size).toBe(500);
  });

  it('L-06 finds those that are not back behind the grace, and says nothing of them before', async () => {
    const fleet = new StoredFleet();
    const before = await running(fleet, [1, 2], 10);
    before.pass(5);
    await beat(before);
    await before.crash();

    const after = await startedAt(fleet, 3600);
    await after.watch([1, 2], 10 * SECOND);
    after.pass(100);
    after.connection(2, 'online');
    after.pass(GRACE_S - 100);
    expect(after.found).toEqual([[2, 'silent', 3600 + 110]]);
    after.pass(2);
    expect(after.found).toEqual([
      [2, 'silent', 3600 + 110],
      [1, 'offline', 3600 + GRACE_S],
    ]);
  });

  it('L-06 goes on with a silence that was found before, at the same time as then', async () => {
    const fleet = new StoredFleet();
    const before = await running(fleet, [1, 2], 60);
    before.connection(1, 'offline');
    before.pass(100);
    expect(new Set(before.found.map(([id]) => id))).toEqual(new Set([1, 2]));
    await beat(before);
    await before.crash();

    const after = await startedAt(fleet, 110);
    await after.watch([1, 2], 60 * SECOND);
    after.pass(50);
    // Whether it is offline or only silent shows when it comes back, or does not: no verdict until then.
    expect(after.changes).toEqual([]);
    after.connection(2, 'online');
    expect(after.found).toEqual([[2, 'silent', 60]]);
    after.pass(GRACE_S);
    expect(after.found).toEqual([
      [2, 'silent', 60],
      [1, 'offline', 60],
    ]);
    after.reading(1);
    expect(after.silenceOf(1)).toBeNull();
  });

  it('L-06 does not take a connection that comes before the device is loaded for a reading', async () => {
    const fleet = new StoredFleet();
    const before = await running(fleet, [1], 60);
    before.pass(100);
    await beat(before);
    await before.crash();

    const after = await startedAt(fleet, 110);
    after.noData.watch({ deviceId: 1, organizationId: 1, ruleId: 1, afterMicros: 60 * SECOND });
    after.connection(1, 'online');
    after.noData.refused(1, after.nowMicros);
    await after.settled();
    after.pass(1);
    expect(after.changes.map(({ silence }) => silence)).toEqual(['garbage']);
    expect(after.found).toEqual([[1, 'garbage', 60]]);
  });

  it('counts from the first contact of a device that never sent a reading', async () => {
    const run = await running(new StoredFleet(), [], 60);
    run.noData.watch({ deviceId: 9, organizationId: 1, ruleId: 1, afterMicros: 60 * SECOND });
    run.pass(10);
    run.connection(9, 'online');
    await run.watch([9], 60 * SECOND, 2);
    run.pass(62);
    expect(run.found.map(([, kind, at]) => [kind, at])).toEqual([
      ['silent', 70],
      ['silent', 70],
    ]);
  });

  it('gives no verdict of a device that is overdue until the grace is over: an alert stays', async () => {
    const fleet = new StoredFleet();
    const before = await running(fleet, [1], 30);
    before.pass(20);
    await beat(before);
    before.pass(20);
    expect(before.found).toHaveLength(1);
    // Between the last writing and the crash it was found, and nobody knows.
    await before.crash();
    const after = await startedAt(fleet, 50);
    await after.watch([1], 30 * SECOND);
    after.pass(GRACE_S - 20);
    expect(after.changes).toEqual([]);
  });

  it('tells at once that a device is well that was heard of lately', async () => {
    const fleet = new StoredFleet();
    const before = await running(fleet, [1], 600);
    await beat(before);
    await before.crash();
    const after = await startedAt(fleet, 5);
    await after.watch([1], 600 * SECOND);
    expect(after.changes.map(({ silence }) => silence)).toEqual([null]);
  });

  it('each night does not keep a device with a long deadline from being found', async () => {
    const fleet = new StoredFleet();
    const day = 86_400;
    fleet.uptime = { outages: [], upMicros: START_MS * 1000 };
    fleet.note(1, { lastReadingMicros: START_MS * 1000, connection: 'offline' });
    let found: NoDataRun['found'] = [];
    for (let night = 1; night <= 6 && found.length === 0; night += 1) {
      const run = await startedAt(fleet, night * day - 3600);
      await run.watch([1], day * SECOND);
      for (let hour = 0; hour < 23; hour += 1) {
        run.pass(3600);
      }
      await beat(run);
      await run.crash();
      found = run.found;
    }
    expect(found).toHaveLength(1);
  });

  it('without anything stored counts all the time before as an outage', async () => {
    const fleet = new StoredFleet();
    fleet.note(1, { lastReadingMicros: (START_MS - 86_400_000) * 1000, connection: 'offline' });
    const run = await startedAt(fleet, 0);
    await run.watch([1], 60 * SECOND);
    run.pass(GRACE_S);
    expect(run.found).toEqual([]);
    run.pass(2);
    expect(run.found).toEqual([[1, 'offline', GRACE_S]]);
  });
});

describe('an outage of ours', () => {
  it('of the database: nobody is silent while it lasts, and all have their deadline again', async () => {
    const run = await running(new StoredFleet(), [1, 2], 30);
    run.pass(20);
    run.isAway = true;
    run.pass(600);
    expect(run.found).toEqual([]);
    run.isAway = false;
    run.pass(20);
    run.reading(2);
    run.pass(14);
    expect(run.found).toEqual([[1, 'silent', 650.25]]);
    expect(run.noData.gauges.outages).toBe(2);
  });

  it('of the listener: connections that end with it do not make a device offline', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.pass(40);
    expect(run.silenceOf(1)).toBe('silent');
    run.noData.platformDown('listener');
    run.connection(1, 'offline');
    run.pass(60);
    run.noData.platformUp('listener');
    run.pass(GRACE_S - 1);
    expect(run.found).toHaveLength(1);
    run.pass(5);
    expect(run.found.map(([, kind]) => kind)).toEqual(['silent', 'offline']);
  });

  it('ends with the last of its causes', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.noData.platformDown('listener');
    run.isAway = true;
    run.pass(60);
    run.noData.platformUp('listener');
    run.pass(60);
    expect(run.found).toEqual([]);
    run.isAway = false;
    run.pass(35);
    expect(run.found).toHaveLength(1);
  });

  it('of the event loop, or of the whole machine, is seen by the clock', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.pass(20);
    run.nowMs += 3_600_000;
    run.noData.tick();
    run.pass(29);
    expect(run.found).toEqual([]);
    run.pass(4);
    expect(run.found).toEqual([[1, 'silent', 3650]]);
  });

  it('too short to be one: a late tick lets what waits in sockets come in first', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.pass(29);
    run.nowMs += 3000;
    run.noData.tick();
    run.reading(1);
    run.pass(5);
    expect(run.found).toEqual([]);
  });

  it('does not stand in the way of a device that was heard of behind it', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.isAway = true;
    run.pass(5);
    run.isAway = false;
    run.pass(5);
    run.reading(1);
    run.connection(1, 'offline');
    run.pass(32);
    expect(run.found).toEqual([[1, 'offline', 40]]);
  });

  it('is not learned as a gap', async () => {
    const run = await running(new StoredFleet(), [], 30);
    await run.watch([1], 'auto');
    for (let count = 0; count < 30; count += 1) {
      run.reading(1);
      run.pass(10);
    }
    run.isAway = true;
    run.pass(900);
    run.isAway = false;
    for (let count = 0; count < 3; count += 1) {
      run.pass(10);
      run.reading(1);
    }
    run.pass(40);
    expect(run.found).toHaveLength(1);
  });
});

describe('a connection that ends', () => {
  const at = (seconds: number): number => (START_MS + seconds * 1000) * 1000;

  it('is told of at once when the outage is not ours', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.pass(5);
    run.connection(1, 'offline');
    expect(run.connections).toEqual([
      [1, 'online', at(0)],
      [1, 'offline', at(5)],
    ]);
  });

  it('L-06 with an outage of ours is told of when the grace is over, and never when it came back', async () => {
    const run = await running(new StoredFleet(), [1, 2, 3], 30);
    run.connections.length = 0;
    run.pass(10);
    run.noData.platformDown('listener');
    for (const id of [1, 2]) run.connection(id, 'offline');
    run.pass(60);
    run.noData.platformUp('listener');
    run.pass(5);
    // Keep alive has found it only now.
    run.connection(3, 'offline');
    run.connection(2, 'online');
    run.pass(GRACE_S - 6);
    expect(run.connections).toEqual([[2, 'online', at(75)]]);
    run.pass(2);
    expect(run.connections.slice(1)).toEqual([
      [1, 'offline', at(10)],
      [3, 'offline', at(75)],
    ]);
    run.connection(2, 'offline');
    expect(run.connections).toHaveLength(4);
  });

  it('L-06 with the program goes on for rules until the grace is over', async () => {
    const fleet = new StoredFleet();
    const before = await running(fleet, [1], 30);
    before.pass(10);
    await before.noData.stop();
    const run = await startedAt(fleet, 60);
    const loaded = (deviceId: number, connection: ConnectionState, since: number): string =>
      run.noData.loadedConnection({ organizationId: 1, deviceId }, connection, at(since));
    expect(loaded(1, 'offline', 10)).toBe('online');
    expect(loaded(2, 'offline', 60)).toBe('online');
    expect(loaded(3, 'offline', -5)).toBe('offline');
    expect(loaded(4, 'never', 10)).toBe('never');
    run.connection(2, 'online');
    run.pass(GRACE_S + 1);
    expect(run.connections).toEqual([
      [2, 'online', at(60)],
      [1, 'offline', at(10)],
    ]);
    expect(loaded(5, 'offline', 60)).toBe('offline');
  });

  it('L-06 goes on over two restarts in a row, and a stored row is not believed that is older', async () => {
    const fleet = new StoredFleet();
    const first = await running(fleet, [1], 30);
    await first.noData.stop();
    const second = await startedAt(fleet, 60);
    second.pass(20);
    await second.noData.stop();
    const run = await startedAt(fleet, 100);
    const device = { organizationId: 1, deviceId: 1 };
    expect(run.noData.loadedConnection(device, 'offline', at(60))).toBe('online');
    run.connection(1, 'online');
    expect(run.noData.loadedConnection(device, 'offline', at(60))).toBe('online');
    run.pass(10);
    expect(run.noData.loadedConnection(device, 'offline', at(105))).toBe('offline');
    run.pass(GRACE_S);
    expect(run.connections).toEqual([[1, 'online', at(100)]]);
  });

  it('is not told of a device that was deleted meanwhile', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.noData.platformDown('listener');
    run.connection(1, 'offline');
    run.noData.platformUp('listener');
    run.noData.forget(1);
    run.connections.length = 0;
    run.pass(GRACE_S + 2);
    expect(run.connections).toEqual([]);
  });
});

describe('a clock that is set back', () => {
  it('does not put deadlines off by as much', async () => {
    const run = await running(new StoredFleet(), [1], 30);
    run.pass(20);
    run.nowMs -= 7_200_000;
    run.noData.tick();
    run.pass(33);
    expect(run.found).toHaveLength(1);
  });
});

describe('a database that is away', () => {
  it('delays what is to be loaded, and loses nothing', async () => {
    const fleet = new StoredFleet();
    const run = await running(fleet, [], 30);
    fleet.note(1, { lastReadingMicros: run.nowMicros, connection: 'offline' });
    fleet.fault = new StoreUnavailableError(new Error('away'));
    run.noData.watch({ deviceId: 1, organizationId: 1, ruleId: 1, afterMicros: 30 * SECOND });
    await run.settled();
    run.pass(20);
    await run.noData.write();
    expect(run.noData.gauges.writeFailures).toBe(1);
    expect(run.changes).toEqual([]);
    fleet.fault = null;
    await expect.poll(() => run.changes.length).toBe(1);
    run.pass(12);
    expect(run.found).toEqual([[1, 'offline', 30]]);
  });

  it('does not lose what was learned of a device that is watched no more', async () => {
    const fleet = new StoredFleet();
    const run = await running(fleet, [], 30);
    await run.watch([1], 'auto');
    for (let count = 0; count < 30; count += 1) {
      run.pass(10);
      run.reading(1);
    }
    run.noData.unwatch(1, 1);
    expect(run.noData.gauges.watchedDevices).toBe(0);
    await run.noData.write();
    expect(fleet.activities.get(1)?.cadence?.buckets).not.toEqual([]);
    await run.watch([1], 'auto');
    run.pass(40);
    expect(run.found).toHaveLength(1);
  });
});
