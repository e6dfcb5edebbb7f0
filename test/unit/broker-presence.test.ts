import fc from 'fast-check';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { DeadlineHeap, type Timed } from '../../deadline-heap.ts';
import { Greetings } from '../../broker/greeting.ts';
import type { PresencePort, PresenceRow } from '../../broker/presence/presence-port.ts';
import {
  createConnectionNumbers,
  stepPresence,
  trueAtMs,
  type DevicePresence,
  type PresenceEvent,
} from '../../broker/presence/presence-state.ts';
import { Presence, type PresentDevice } from '../../broker/presence/presence.ts';
import { decodeStatus, encodeStatus, readStatusTopic } from '../../broker/presence/status.ts';
import { StoreUnavailableError } from '../../errors.ts';
import type { Hello } from '../../firmware-protocol/hello.ts';

const T = 1_795_235_431_857;

function run(...events: PresenceEvent[]): DevicePresence | null {
  return events.reduce<DevicePresence | null>(stepPresence, null);
}
const connect = (connectionNumber: number, atMs: number) =>
  ({ kind: 'connect', connectionNumber, address: '192.0.2.1', atMs }) as const;
const hello = (connectionNumber: number, said: Hello, atMs: number) =>
  ({ kind: 'hello', connectionNumber, hello: said, atMs }) as const;
const disconnect = (connectionNumber: number, atMs: number) =>
  ({ kind: 'disconnect', connectionNumber, atMs }) as const;
const tick = (atMs: number) => ({ kind: 'tick', atMs }) as const;
const orphan = (atMs: number) => ({ kind: 'orphan', atMs }) as const;

describe('stepPresence', () => {
  it('knows nothing of a device before its first connection', () => {
    expect(run(hello(1, { sleep: 9 }, T), disconnect(1, T), tick(T), orphan(T))).toBeNull();
  });

  it('goes online with a connection and offline with its end', () => {
    expect(run(connect(1, T))).toMatchObject({ state: 'online', sinceMs: T, lastContactMs: T });
    expect(run(connect(1, T), disconnect(1, T + 5))).toMatchObject({
      state: 'offline',
      sinceMs: T + 5,
      lastContactMs: T + 5,
    });
  });

  it('sleeps after a connection in which it said so, until 2.5 times that and a minute are over', () => {
    const asleep = [connect(1, T), hello(1, { sleep: 100 }, T + 1), disconnect(1, T + 2)] as const;
    const deadline = T + 2 + 250_000 + 60_000;
    expect(run(...asleep)).toMatchObject({ state: 'sleeping', sinceMs: T + 2 });
    expect(run(...asleep, tick(deadline))).toMatchObject({ state: 'sleeping' });
    expect(run(...asleep, tick(deadline + 1))).toMatchObject({
      state: 'offline',
      sinceMs: deadline,
    });
    expect(run(...asleep, tick(deadline + 9e6))).toMatchObject({ sinceMs: deadline });
  });

  it('sleeps after further connections without a hello, and not after it said 0', () => {
    const slept = [connect(1, T), hello(1, { sleep: 100 }, T), disconnect(1, T)] as const;
    expect(run(...slept, connect(2, T), disconnect(2, T))).toMatchObject({ state: 'sleeping' });
    const awake = [...slept, connect(2, T), hello(2, { sleep: 0 }, T)] as const;
    expect(run(...awake, disconnect(2, T))).toMatchObject({ state: 'offline' });
  });

  it('keeps what former hellos said, but for the uptime', () => {
    const said = run(
      connect(1, T),
      hello(1, { fw: '1.4.2', up: 812, boot: 3 }, T),
      hello(1, { boot: 4 }, T + 1),
    );
    expect(said?.hello).toEqual({ fw: '1.4.2', boot: 4 });
    expect(said?.helloMs).toBe(T + 1);
  });

  it('ignores the late end of an older connection', () => {
    const taken = run(connect(1, T), connect(2, T + 5));
    expect(stepPresence(taken, disconnect(1, T + 9))).toBe(taken);
    expect(stepPresence(taken, hello(1, { sleep: 9 }, T + 9))).toBe(taken);
    expect(stepPresence(taken, connect(1, T + 9))).toBe(taken);
  });

  it('ends the connections of a run that has ended', () => {
    expect(run(connect(1, T), orphan(T + 9))).toMatchObject({
      state: 'offline',
      sinceMs: T + 9,
      lastContactMs: T,
    });
    const sleepy = [connect(1, T), hello(1, { sleep: 100 }, T)] as const;
    expect(run(...sleepy, orphan(T + 310_000))).toMatchObject({
      state: 'sleeping',
      lastContactMs: T,
    });
    expect(run(...sleepy, orphan(T + 310_001))).toMatchObject({ state: 'offline' });
  });

  const number = fc.integer({ min: 1, max: 5 });
  const atMs = fc.integer({ min: T - 1e6, max: T + 1e6 });
  const events: fc.Arbitrary<PresenceEvent> = fc.oneof(
    fc.record({
      kind: fc.constant('connect' as const),
      connectionNumber: number,
      address: fc.constant('192.0.2.1'),
      atMs,
    }),
    fc.record({
      kind: fc.constant('hello' as const),
      connectionNumber: number,
      hello: fc.record(
        { sleep: fc.integer({ min: 0, max: 400 }), fw: fc.constantFrom('1', '2') },
        { requiredKeys: [] },
      ),
      atMs,
    }),
    fc.record({ kind: fc.constant('disconnect' as const), connectionNumber: number, atMs }),
    fc.record({ kind: fc.constant('tick' as const), atMs }),
    fc.record({ kind: fc.constant('orphan' as const), atMs }),
  );

  it('is online exactly while its newest connection is, however events of several are mixed', () => {
    fc.assert(
      fc.property(fc.array(events, { maxLength: 40 }), (mixed) => {
        let presence: DevicePresence | null = null;
        let newest = 0;
        let isUp = false;
        for (const event of mixed) {
          const before: DevicePresence | null = presence;
          presence = stepPresence(before, event);
          if (event.kind === 'connect' && event.connectionNumber > newest) {
            newest = event.connectionNumber;
            isUp = true;
          } else if (event.kind === 'orphan') isUp = false;
          else if (event.kind === 'disconnect' && event.connectionNumber === newest) isUp = false;
          expect(presence?.connectionNumber ?? 0).toBe(newest);
          expect(presence?.state === 'online').toBe(isUp);
          if (presence === null || before === null) continue;
          expect(presence.sinceMs).toBeGreaterThanOrEqual(before.sinceMs);
          expect(presence.lastContactMs).toBeGreaterThanOrEqual(before.lastContactMs);
          expect(trueAtMs(presence)).toBeGreaterThanOrEqual(trueAtMs(before));
          if (presence.state === 'sleeping')
            expect(trueAtMs(presence)).toBe(presence.lastContactMs);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('connection numbers', () => {
  it('rise when several are given in a microsecond, and when the clock is set back', () => {
    let clock = 1000.7;
    const numbers = createConnectionNumbers(() => clock);
    expect([numbers.next(), numbers.next()]).toEqual([1000, 1001]);
    clock = 10;
    expect(numbers.next()).toBe(1002);
    numbers.raise(5000);
    numbers.raise(4000);
    expect(numbers.next()).toBe(5001);
    clock = 9000;
    expect(numbers.next()).toBe(9000);
  });
});

describe('DeadlineHeap', () => {
  it('gives items in the order of their deadlines, however they are moved and taken out', () => {
    const command = fc.record({
      item: fc.nat(15),
      deadline: fc.option(fc.nat(1000), { nil: null }),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 100 }), (commands) => {
        const items = Array.from({ length: 16 }, () => ({ deadlineMs: 0, heapIndex: -1 }));
        const heap = new DeadlineHeap<Timed>();
        const model = new Map<Timed, number>();
        for (const { item: at, deadline } of commands) {
          const item = items[at] as Timed;
          if (deadline === null) {
            heap.remove(item);
            model.delete(item);
          } else {
            heap.put(item, deadline);
            model.set(item, deadline);
          }
          expect(heap.size).toBe(model.size);
        }
        const taken: number[] = [];
        for (let item = heap.takeDue(500); item !== null; item = heap.takeDue(500)) {
          expect(model.get(item)).toBe(item.deadlineMs);
          expect(item.heapIndex).toBe(-1);
          taken.push(item.deadlineMs);
        }
        const due = [...model.values()].filter((deadline) => deadline < 500);
        expect(taken).toEqual(due.toSorted((left, right) => left - right));
      }),
    );
  });
});

describe('status', () => {
  it('has exactly the members of the contract, `fw` only when it is known', () => {
    const sid = (733_545_721).toString(36);
    const online = run(connect(733_545_721, T), hello(733_545_721, { fw: '1.4.2', up: 5 }, T + 7));
    expect(String(encodeStatus(online as DevicePresence))).toBe(
      `{"st":"online","since":${T},"ts":${T + 7},"fw":"1.4.2","sleep":0,"sid":"${sid}"}`,
    );
    const plain = run(connect(1, T), disconnect(1, T + 9)) as DevicePresence;
    expect(String(encodeStatus(plain))).toBe(
      `{"st":"offline","since":${T + 9},"ts":${T + 9},"sleep":0,"sid":"1"}`,
    );
  });

  it('is read back as it was written, and not at all when it is something else', () => {
    const presence = run(connect(9, T), hello(9, { fw: '2', sleep: 60 }, T)) as DevicePresence;
    expect(decodeStatus(encodeStatus(presence))).toEqual({
      ...presence,
      address: '',
      helloMs: null,
    });
    for (const text of [
      '',
      '{',
      'null',
      '[]',
      '"x"',
      '{"st":"gone"}',
      '{"st":"online","since":-1}',
    ]) {
      expect(decodeStatus(Buffer.from(text)), text).toBeNull();
    }
  });

  it('has a topic that names the device', () => {
    expect(readStatusTopic('v1/acme/d-1/status')).toEqual({ organization: 'acme', device: 'd-1' });
    for (const topic of ['v1/acme/d-1/data', 'v1/acme/status', 'v1/acme/d-1/status/x', 'x']) {
      expect(readStatusTopic(topic), topic).toBeNull();
    }
  });
});

/** The table and the retained messages, which outlive a run of the program. */
class World implements PresencePort {
  readonly rows = new Map<number, PresenceRow>();
  readonly devices = new Map<number, PresentDevice>();
  readonly retained = new Map<string, Buffer>();
  readonly published: string[] = [];
  readonly statements: (readonly number[])[] = [];
  nowMs = T;
  isAway = false;
  poison = 0;
  beforeAnswer: () => void = () => undefined;

  async upsertMany(rows: readonly PresenceRow[]): Promise<readonly number[]> {
    this.statements.push(rows.map(({ deviceId }) => deviceId));
    await Promise.resolve();
    if (this.isAway) throw new StoreUnavailableError();
    if (rows.some(({ deviceId }) => deviceId === this.poison)) throw new Error('bad row');
    for (const row of rows) {
      const stored = this.rows.get(row.deviceId);
      if (!this.devices.has(row.deviceId)) continue;
      const { connectionNumber } = row.presence;
      if (stored !== undefined && stored.presence.connectionNumber > connectionNumber) continue;
      const said = { ...stored?.presence.hello, ...row.presence.hello };
      this.rows.set(row.deviceId, { ...row, presence: { ...row.presence, hello: said } });
    }
    return rows.map(({ deviceId }) => deviceId).filter((id) => !this.devices.has(id));
  }

  async listAll({ after, limit }: { after: number; limit: number }) {
    return this.#named(after).slice(0, limit);
  }

  async listOf({ after, limit }: { after: number; limit: number }) {
    if (this.isAway) throw new StoreUnavailableError();
    const rows = this.#named(after).slice(0, limit);
    this.beforeAnswer();
    await new Promise((resolve) => setTimeout(resolve, 1));
    return rows;
  }

  async findDevices(names: readonly { organization: string; device: string }[]) {
    const isAsked = ({ device }: PresentDevice) => names.some((name) => name.device === device);
    return [...this.devices.values()]
      .filter(isAsked)
      .map((device) => ({ ...device, presence: this.rows.get(device.deviceId)?.presence ?? null }));
  }

  #named(after: number) {
    return [...this.rows.values()]
      .filter(({ deviceId }) => deviceId > after)
      .toSorted((left, right) => left.deviceId - right.deviceId)
      .map((row) => ({ ...(this.devices.get(row.deviceId) as PresentDevice), ...row }));
  }

  add(deviceId: number): PresentDevice {
    const device = { organizationId: 1, organization: 'acme', deviceId, device: `d${deviceId}` };
    this.devices.set(deviceId, device);
    return device;
  }

  open(): Presence {
    return new Presence({
      store: this,
      publishStatus: (topic, payload) => {
        this.published.push(`${topic.split('/')[2]} ${stateOf(payload)}`);
        if (payload.length === 0) this.retained.delete(topic);
        else this.retained.set(topic, payload);
        return Promise.resolve();
      },
      readStatus: (topic) => this.retained.get(topic) ?? null,
      retainedStatusTopics: () => this.retained.keys(),
      now: () => this.nowMs,
      log: pino({ level: 'silent' }),
      registry: new Registry(),
    });
  }

  stateInStore(deviceId: number): string {
    return this.rows.get(deviceId)?.presence.state ?? 'never';
  }

  stateRetained(deviceId: number): string {
    const payload = this.retained.get(`v1/acme/d${deviceId}/status`);
    return payload === undefined ? 'never' : stateOf(payload);
  }
}

function stateOf(payload: Buffer): string {
  return payload.length === 0 ? 'gone' : (JSON.parse(String(payload)) as { st: string }).st;
}

function come(presence: Presence, device: PresentDevice): number {
  const connectionNumber = presence.nextConnectionNumber();
  presence.connected({ ...device, address: '192.0.2.1', connectionNumber });
  return connectionNumber;
}

let world: World;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] });
  world = new World();
});
afterEach(() => {
  vi.useRealTimers();
});
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const ignore = () => undefined;

describe('Presence', () => {
  it('publishes at once and writes a moment later, many devices in one statement', async () => {
    const presence = world.open();
    for (let id = 1; id <= 50; id += 1) come(presence, world.add(id));
    expect(world.published).toHaveLength(50);
    expect(world.statements).toHaveLength(0);
    await pass(100);
    expect(world.statements).toHaveLength(1);
    expect(world.stateInStore(50)).toBe('online');
  });

  it('keeps a device online whose older connection ends late', async () => {
    const presence = world.open();
    const device = world.add(1);
    const old = come(presence, device);
    const young = come(presence, device);
    presence.disconnected(1, old);
    await presence.flush();
    expect(world.stateRetained(1)).toBe('online');
    expect(world.stateInStore(1)).toBe('online');
    presence.disconnected(1, young);
    presence.disconnected(1, young);
    await presence.flush();
    expect(world.published).toEqual(['d1 online', 'd1 online', 'd1 offline']);
    expect(world.stateInStore(1)).toBe('offline');
    expect(presence.current(1)).toBeNull();
  });

  it('publishes a hello only when it changes what status says', async () => {
    const presence = world.open();
    const number = come(presence, world.add(1));
    presence.hello(1, number, { fw: '1', sleep: 60, up: 5 }, ignore);
    presence.hello(1, number, { fw: '1', sleep: 60, up: 9 }, ignore);
    presence.hello(1, number, {}, ignore);
    expect(world.published).toEqual(['d1 online', 'd1 online']);
    await presence.flush();
    expect(world.rows.get(1)?.presence.hello).toEqual({ fw: '1', sleep: 60 });
  });

  it('acknowledges a hello once its row is stored, within 20 ms', async () => {
    const presence = world.open();
    const number = come(presence, world.add(1));
    const stored = vi.fn<() => void>();
    presence.hello(1, number, { sleep: 60 }, stored);
    await pass(19);
    expect(stored).not.toHaveBeenCalled();
    await pass(1);
    expect(stored).toHaveBeenCalledOnce();
    expect(world.rows.get(1)?.presence.hello).toEqual({ sleep: 60 });
  });

  it('acknowledges no hello of a connection that has ended, or of an older one', async () => {
    const presence = world.open();
    const device = world.add(1);
    const first = come(presence, device);
    const stored = vi.fn<() => void>();
    world.isAway = true;
    presence.hello(1, first, { sleep: 60 }, stored);
    const flushing = presence.flush();
    presence.disconnected(1, first);
    await expect(flushing).rejects.toThrow(StoreUnavailableError);
    world.isAway = false;
    const second = come(presence, device);
    presence.hello(1, first, { sleep: 61 }, stored);
    await presence.flush();
    expect(stored).not.toHaveBeenCalled();
    presence.hello(1, second, {}, stored);
    await presence.flush();
    expect(stored).toHaveBeenCalledOnce();
    expect(world.rows.get(1)?.presence.hello).toEqual({ sleep: 60 });
  });

  it('takes 64 hellos that wait for the database, and no more', async () => {
    const presence = world.open();
    world.isAway = true;
    const number = come(presence, world.add(1));
    const stored = vi.fn<() => void>();
    const taken = Array.from({ length: 65 }, (_, up) => presence.hello(1, number, { up }, stored));
    expect(taken.filter(Boolean)).toHaveLength(64);
    world.isAway = false;
    await presence.flush();
    expect(stored).toHaveBeenCalledTimes(64);
  });

  it('publishes while the database is away, and writes the last state of each device when it is back', async () => {
    const presence = world.open();
    world.isAway = true;
    const devices = [3, 1, 2].map((id) => world.add(id));
    for (let round = 0; round < 20; round += 1) {
      for (const device of devices) presence.disconnected(device.deviceId, come(presence, device));
      await pass(500);
    }
    come(presence, devices[0] as PresentDevice);
    expect(world.published).toHaveLength(3 * 20 * 2 + 1);
    expect(world.statements.length).toBeLessThan(20);
    expect(world.statements.at(-1)).toEqual([3, 1, 2]);
    world.isAway = false;
    await pass(10_000);
    expect([1, 2, 3].map((id) => world.stateInStore(id))).toEqual(['offline', 'offline', 'online']);
    expect(presence.current(1)).toBeNull();
  });

  it('writes the others when the database refuses the row of one device', async () => {
    const presence = world.open();
    for (let id = 1; id <= 9; id += 1) come(presence, world.add(id));
    world.poison = 4;
    await presence.flush();
    expect(world.rows.size).toBe(8);
    expect(world.stateInStore(4)).toBe('never');
    world.poison = 0;
    presence.disconnected(4, presence.current(4)?.connectionNumber ?? 0);
    await presence.flush();
    expect(world.stateInStore(4)).toBe('offline');
  });

  it('writes at most 1000 rows in one statement', async () => {
    const presence = world.open();
    for (let id = 1; id <= 2500; id += 1) come(presence, world.add(id));
    await presence.flush();
    expect(world.statements.map((ids) => ids.length)).toEqual([1000, 1000, 500]);
  });

  it('declares sleeping devices offline when they are overdue, and not those that came back', async () => {
    const presence = world.open();
    await presence.start();
    for (const id of [1, 2, 3]) {
      const number = come(presence, world.add(id));
      presence.hello(id, number, { sleep: id * 10 }, ignore);
      presence.disconnected(id, number);
    }
    come(presence, world.add(2));
    world.nowMs = T + 60_000 + 25_000;
    presence.sweep();
    expect([1, 2, 3].map((id) => world.stateRetained(id))).toEqual([
      'sleeping',
      'online',
      'sleeping',
    ]);
    world.nowMs += 1;
    await pass(1000);
    expect([1, 2, 3].map((id) => world.stateRetained(id))).toEqual([
      'offline',
      'online',
      'sleeping',
    ]);
    await presence.stop();
  });

  it('lets go of a device that was deleted, with its status', async () => {
    const presence = world.open();
    const device = world.add(1);
    const number = come(presence, device);
    await presence.flush();
    world.devices.delete(1);
    presence.forget(device);
    presence.disconnected(1, number);
    expect(world.published).toEqual(['d1 online', 'd1 gone']);
    expect(presence.current(1)).toBeNull();
  });

  it('lets go of a device that another program has deleted', async () => {
    const presence = world.open();
    const device = world.add(1);
    const stored = vi.fn<() => void>();
    presence.hello(1, come(presence, device), {}, stored);
    world.devices.delete(1);
    await presence.flush();
    expect(world.published).toEqual(['d1 online', 'd1 gone']);
    expect(stored).not.toHaveBeenCalled();
  });

  it('tells readers of pages nothing older than what was published', async () => {
    vi.useRealTimers();
    const presence = world.open();
    const numbers = [1, 2, 3].map((id) => come(presence, world.add(id)));
    // While the page is on its way, a device goes and its row is written.
    world.beforeAnswer = () => {
      presence.disconnected(2, numbers[1] ?? 0);
      void presence.flush();
    };
    const ask = { organizationId: 1, devices: null, after: 0, limit: 2 };
    const page = await presence.statusPage(ask);
    expect(page.messages.map(({ payload }) => stateOf(payload))).toEqual(['online', 'offline']);
    expect(page.messages.map(({ topic }) => topic)).toEqual([
      'v1/acme/d1/status',
      'v1/acme/d2/status',
    ]);
    expect(page.after).toBe(2);
    world.beforeAnswer = ignore;
    const last = await presence.statusPage({ ...ask, after: 2 });
    expect(last.messages).toHaveLength(1);
    expect(last.after).toBeNull();
    expect(presence.current(2)).toBeNull();
    world.isAway = true;
    await expect(presence.statusPage(ask)).rejects.toThrow(StoreUnavailableError);
  });

  it('declares everybody gone when it stops, and writes that', async () => {
    const presence = world.open();
    await presence.start();
    come(presence, world.add(1));
    presence.hello(2, come(presence, world.add(2)), { sleep: 60 }, ignore);
    await presence.stop();
    expect([1, 2].map((id) => world.stateInStore(id))).toEqual(['offline', 'sleeping']);
    expect([1, 2].map((id) => world.stateRetained(id))).toEqual(['offline', 'sleeping']);
  });

  it('counts what it has', async () => {
    const registry = new Registry();
    const presence = new Presence({
      store: world,
      publishStatus: () => Promise.reject(new Error('disk full')),
      readStatus: () => null,
      retainedStatusTopics: () => [],
      now: () => world.nowMs,
      log: pino({ level: 'silent' }),
      registry,
    });
    const number = come(presence, world.add(1));
    come(presence, world.add(2));
    come(presence, world.add(2));
    presence.hello(1, number, { sleep: 60 }, ignore);
    presence.disconnected(1, number);
    world.isAway = true;
    await expect(presence.flush()).rejects.toThrow(StoreUnavailableError);
    const text = await registry.metrics();
    expect(text).toContain('puback_broker_devices_online 1\n');
    expect(text).toContain('puback_broker_devices_sleeping 1\n');
    expect(text).toContain('puback_broker_presence_queue_rows 2\n');
    expect(text).toContain('puback_broker_presence_flush_failures_total 1\n');
    expect(text).toContain('puback_broker_status_publishes_total 5\n');
    expect(text).toContain('puback_broker_status_failures_total 5\n');
  });
});

describe('Presence after kill -9', () => {
  it('leaves no ghost online, and sleepers asleep', async () => {
    const killed = world.open();
    come(killed, world.add(1));
    killed.hello(2, come(killed, world.add(2)), { sleep: 60, fw: '7' }, ignore);
    killed.hello(3, come(killed, world.add(3)), { sleep: 60 }, ignore);
    await killed.flush();
    world.nowMs = T + 100_000;
    const presence = world.open();
    await presence.start();
    const states = () => [1, 2, 3].map((id) => world.stateRetained(id));
    expect(states()).toEqual(['offline', 'sleeping', 'sleeping']);
    expect([1, 2, 3].map((id) => world.stateInStore(id))).toEqual(states());
    expect(world.rows.get(2)?.presence).toMatchObject({ lastContactMs: T, sinceMs: T });
    expect(String(world.retained.get('v1/acme/d2/status'))).toContain('"fw":"7","sleep":60');
    come(presence, world.add(2));
    world.nowMs = T + 60_000 + 150_000 + 1;
    await pass(1000);
    expect(states()).toEqual(['offline', 'online', 'offline']);
    await presence.stop();
  });

  it('knows of connections that were published and never written', async () => {
    const killed = world.open();
    come(killed, world.add(1));
    killed.disconnected(1, killed.current(1)?.connectionNumber ?? 0);
    await killed.flush();
    const second = come(killed, world.add(1));
    come(killed, world.add(2));
    const presence = world.open();
    await presence.start();
    expect([1, 2].map((id) => world.stateRetained(id))).toEqual(['offline', 'offline']);
    expect([1, 2].map((id) => world.stateInStore(id))).toEqual(['offline', 'offline']);
    expect(world.rows.get(1)?.presence.connectionNumber).toBe(second);
    await presence.stop();
  });

  it('makes all status messages anew when those that were retained are lost', async () => {
    const killed = world.open();
    for (const id of [1, 2]) killed.disconnected(id, come(killed, world.add(id)));
    come(killed, world.add(3));
    await killed.flush();
    world.retained.clear();
    const presence = world.open();
    await presence.start();
    expect([1, 2, 3].map((id) => world.stateRetained(id))).toEqual([
      'offline',
      'offline',
      'offline',
    ]);
    await presence.stop();
  });

  it('removes the status of devices that were deleted meanwhile', async () => {
    const killed = world.open();
    come(killed, world.add(1));
    world.devices.delete(1);
    const presence = world.open();
    await presence.start();
    expect(world.stateRetained(1)).toBe('never');
    await presence.stop();
  });

  it('gives numbers above all former ones, though the clock was set back', async () => {
    const device = world.add(1);
    const { deviceId, organizationId } = device;
    const far = 8_000_000_000_000_000;
    const before = run(connect(far, T), disconnect(far, T)) as DevicePresence;
    await world.upsertMany([{ deviceId, organizationId, presence: before }]);
    const presence = world.open();
    await presence.start();
    expect(come(presence, device)).toBe(far + 1);
    expect(world.stateRetained(1)).toBe('online');
    await presence.stop();
  });

  it('agrees with itself after any history of connections, flushes and kills', async () => {
    const command = fc.oneof(
      fc.record({
        what: fc.constantFrom('come', 'go', 'hello', 'late'),
        id: fc.integer({ min: 1, max: 4 }),
      }),
      fc.record({ what: fc.constantFrom('flush', 'away', 'back', 'kill', 'time'), id: fc.nat(0) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 40 }), async (commands) => {
        world = new World();
        let presence = world.open();
        const numbers = new Map<number, number[]>();
        for (const { what, id } of commands) {
          const given = numbers.get(id) ?? [];
          numbers.set(id, given);
          world.nowMs += 1;
          if (what === 'come') given.push(come(presence, world.add(id)));
          else if (what === 'go') presence.disconnected(id, given.at(-1) ?? 0);
          else if (what === 'late') presence.disconnected(id, given.at(-2) ?? 0);
          else if (what === 'hello') presence.hello(id, given.at(-1) ?? 0, { sleep: 60 }, ignore);
          else if (what === 'flush') await presence.flush().catch(ignore);
          else if (what === 'time') world.nowMs += 100_000;
          else if (what === 'kill') {
            world.isAway = false;
            presence = world.open();
            await presence.start();
            for (const deviceId of world.devices.keys()) {
              expect(world.stateRetained(deviceId)).not.toBe('online');
              expect(world.stateInStore(deviceId)).toBe(world.stateRetained(deviceId));
            }
          } else world.isAway = what === 'away';
        }
        world.isAway = false;
        await presence.flush();
        for (const deviceId of world.devices.keys()) {
          expect(world.stateInStore(deviceId)).toBe(world.stateRetained(deviceId));
        }
        vi.clearAllTimers();
      }),
      { numRuns: 200 },
    );
  });
});

describe('Greetings', () => {
  const device = (sent: unknown[], storedSequence: number | null = null) => ({
    principal: { organization: 'acme', device: 'd1' },
    session: { send: (topic: string, message: object) => void sent.push([topic, message]) },
    storedSequence,
  });
  const waiting = async () => ({ commands: 2, configVersion: 7 });
  const topic = 'v1/acme/d1/in/hello';

  it('greets 20 ms after a subscription, once for several, without an uptime nobody said', async () => {
    const sent: unknown[] = [];
    const greetings = new Greetings(waiting, () => T);
    const boiler = device(sent);
    void greetings.subscribed(boiler);
    void greetings.subscribed(boiler);
    await pass(19);
    expect(sent).toEqual([]);
    await pass(1);
    expect(sent).toEqual([[topic, { ts: T, cmd: 2, cfg: 7 }]]);
  });

  it('echoes the uptime of the last hello and says up to which seq all is stored', async () => {
    const sent: unknown[] = [];
    const greetings = new Greetings(waiting, () => T);
    const boiler = device(sent, 1234);
    greetings.heard(boiler, { up: 800 });
    void greetings.subscribed(boiler);
    greetings.heard(boiler, { up: 812 });
    await pass(20);
    greetings.heard(boiler, { fw: '1' });
    await pass(20);
    expect(sent).toEqual([
      [topic, { ts: T, up: 812, cmd: 2, cfg: 7, seq: 1234 }],
      [topic, { ts: T, cmd: 2, cfg: 7, seq: 1234 }],
    ]);
  });

  it('tells when the greeting has gone, also who asks while it is under way', async () => {
    const sent: unknown[] = [];
    const told: number[] = [];
    const greetings = new Greetings(waiting, () => T);
    const boiler = device(sent);
    greetings.heard(boiler, { up: 800 });
    await pass(10);
    void greetings.subscribed(boiler).then(() => told.push(sent.length));
    await pass(9);
    expect(told).toEqual([]);
    await pass(1);
    expect(told).toEqual([1]);
    expect(sent).toEqual([[topic, { ts: T, up: 800, cmd: 2, cfg: 7 }]]);
  });
});
