import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { openDiskFile } from '../../broker/store/disk-file.ts';
import type { DiskStore, StoreLimits } from '../../broker/store/disk-store.ts';
import { DiskWriter, type WritableFile } from '../../broker/store/disk-writer.ts';
import type { OutgoingMessage } from '../../broker/message.ts';
import { matchesFilter } from '../../broker/store/topic-filter.ts';
import { openTestStore, withFolder } from '../support/disk-store.ts';

const HOUR_MS = 3_600_000;

describe('DiskStore', () => {
  it(
    'does what a simple model in memory does, over any restarts',
    { timeout: 180_000 },
    async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(STEP, { minLength: 5, maxLength: 40 }), async (steps) => {
          await withFolder(async (folder) => {
            const limits = { queueMessagesMax: 4, sessionsMax: 3 };
            const model = new Model(limits);
            let store = await openTestStore(folder, limits);
            const writes: Promise<unknown>[] = [];
            for (const step of steps) {
              if (step.kind === 'reopen') {
                await store.close();
                store = await openTestStore(folder, limits);
              } else {
                writes.push(apply(store, step), apply(model, step));
                if (step.isAwaited) await Promise.all(writes);
              }
              expect(viewOf(store)).toEqual(viewOf(model));
            }
            await Promise.all(writes);
            await store.close();
          });
        }),
        { numRuns: 30 },
      );
    },
  );

  it('shows a change before it is on disk, and after', async () => {
    await withStore({}, async (store) => {
      await store.openSession('c');
      const enqueued = store.enqueue(['c'], message('t', 'one'));
      const retained = store.putRetained(message('r', 'kept'));
      expect(store.queued('c', 0, 9)).toMatchObject([{ payload: Buffer.from('one'), packetId: 0 }]);
      expect(store.retained('r')?.payload.toString()).toBe('kept');
      expect([...store.retainedMatching('#')]).toHaveLength(1);
      await Promise.all([enqueued, retained]);
      expect(store.queued('c', 0, 9)).toHaveLength(1);
      expect([...store.retainedMatching('#')]).toHaveLength(1);
    });
  });

  it('keeps packet identifiers over a restart [MQTT-4.4.0-1]', async () => {
    await withFolder(async (folder) => {
      const before = await openTestStore(folder);
      await before.openSession('c');
      await before.enqueue(['c'], message('t', 'one'));
      await before.enqueue(['c'], message('t', 'two'));
      before.markSent('c', 1, 513);
      await before.close();
      const after = await openTestStore(folder);
      const ids = after.queued('c', 0, 9).map(({ sequence, packetId }) => [sequence, packetId]);
      expect(ids).toEqual([
        [1, 513],
        [2, 0],
      ]);
      await after.close();
    });
  });

  it('hands out a queue in portions behind a sequence, over gaps too', async () => {
    await withStore({}, async (store) => {
      await store.openSession('c');
      for (let n = 1; n <= 50; n += 1) void store.enqueue(['c'], message('t', String(n)));
      for (let n = 2; n <= 40; n += 1) store.removeQueued('c', n);
      expect(store.queued('c', 0, 3).map(({ sequence }) => sequence)).toEqual([1, 41, 42]);
      expect(store.queued('c', 42, 3).map(({ sequence }) => sequence)).toEqual([43, 44, 45]);
      expect(store.queued('c', 49, 9).map(({ sequence }) => sequence)).toEqual([50]);
      expect(store.queued('c', 50, 9)).toEqual([]);
    });
  });

  it('drops the oldest beyond the bound on messages, and counts them', async () => {
    await withStore({ queueMessagesMax: 3 }, async (store) => {
      await store.openSession('c');
      for (const text of ['1', '2', '3', '4', '5']) await store.enqueue(['c'], message('t', text));
      expect(textsOf(store, 'c')).toEqual(['3', '4', '5']);
      expect(store.parts.totals.dropped).toMatchObject({ count: 2, bytes: 0 });
    });
  });

  it('drops the oldest beyond the bound on bytes, and counts them', async () => {
    await withStore({ queueBytesMax: 100 }, async (store) => {
      await store.openSession('c');
      for (const text of ['a', 'b', 'c']) await store.enqueue(['c'], message('t', text.repeat(30)));
      expect(textsOf(store, 'c')).toEqual(['b'.repeat(30), 'c'.repeat(30)]);
      expect(store.queueSize('c')).toEqual({ messages: 2, bytes: 80 });
      await store.enqueue(['c'], message('t', 'x'.repeat(200)));
      expect(store.queueSize('c').messages).toBe(2);
      expect(store.parts.totals.dropped.bytes).toBe(2);
    });
  });

  it('drops messages beyond the bound on age, and counts them', async () => {
    await withFolder(async (folder) => {
      const store = await openTestStore(folder, { queueAgeMaxMs: HOUR_MS });
      await store.openSession('c');
      await store.enqueue(['c'], message('t', 'old'));
      store.prune(Date.now() + HOUR_MS / 2);
      expect(store.queueSize('c').messages).toBe(1);
      store.prune(Date.now() + 2 * HOUR_MS);
      expect(store.queueSize('c')).toEqual({ messages: 0, bytes: 0 });
      expect(store.parts.totals.dropped.age).toBe(1);
      await store.enqueue(['c'], message('t', 'older'));
      await store.close();
      const later = await openTestStore(folder, { queueAgeMaxMs: -1 });
      expect(later.queued('c', 0, 9)).toEqual([]);
      await later.close();
    });
  });

  it('refuses sessions beyond the bound, and counts them', async () => {
    await withStore({ sessionsMax: 1 }, async (store) => {
      expect(await store.openSession('a')).toBe(true);
      expect(await store.openSession('a')).toBe(true);
      expect(await store.openSession('b')).toBe(false);
      await store.dropSession('a');
      expect(await store.openSession('b')).toBe(true);
      expect(store.parts.totals).toMatchObject({ sessions: 1, sessionsRefused: 1 });
    });
  });

  it('drops sessions whose client stays away, with all that is theirs', async () => {
    await withStore({ sessionAgeMaxMs: HOUR_MS }, async (store) => {
      for (const id of ['away', 'here']) {
        await store.openSession(id);
        await store.addSubscriptions(id, [{ filter: 'a/#', qos: 1 }]);
        await store.enqueue([id], message('t', 'x'));
        store.touchSession(id, id === 'here');
      }
      expect(store.prune(Date.now() + HOUR_MS / 2)).toEqual([]);
      expect(store.prune(Date.now() + 2 * HOUR_MS)).toEqual(['away']);
      expect([...store.sessionIds()]).toEqual(['here']);
      expect(store.subscriptions('away')).toEqual([]);
      expect(store.parts.totals).toMatchObject({ sessionsExpired: 1, queuedMessages: 1 });
    });
  });

  it('counts the time away from the restart for clients that were there at the end', async () => {
    await withFolder(async (folder) => {
      const before = await openTestStore(folder);
      for (const id of ['away', 'here']) await before.openSession(id);
      before.touchSession('here', true);
      await before.close();
      await new Promise((resolve) => setTimeout(resolve, 20));
      const after = await openTestStore(folder, { sessionAgeMaxMs: 15 });
      expect([...after.sessionIds()]).toEqual(['here']);
      await after.close();
    });
  });

  it('retains no new topic beyond the bound, and counts it', async () => {
    await withStore({ retainedMax: 1 }, async (store) => {
      await store.putRetained(message('a', '1'));
      await store.putRetained(message('b', '1'));
      await store.putRetained(message('a', '2'));
      expect(store.retained('b')).toBeNull();
      expect(store.retained('a')?.payload.toString()).toBe('2');
      expect(store.parts.totals).toMatchObject({ retainedMessages: 1, retainedRefused: 1 });
      await store.putRetained(message('a', ''));
      await store.putRetained(message('b', '1'));
      expect(store.retained('b')).not.toBeNull();
    });
  });

  it('finds retained messages as MQTT matches topics [MQTT-4.7.1-2] [MQTT-4.7.2-1]', async () => {
    await withStore({}, async (store) => {
      const topics = ['a', 'a/', 'a/b', 'a/b/c', 'ab', '/b', '$SYS/a', 'ü/b', 'ü'];
      await Promise.all(topics.map((topic) => store.putRetained(message(topic, 'x'))));
      for (const filter of ['#', '+/b', 'a/#', 'a/+', '+', '+/+', '$SYS/#', 'ü/#', 'a/b', '/+']) {
        const found = [...store.retainedMatching(filter)].map(({ topic }) => topic);
        const expected = topics.filter((topic) => matchesFilter(topic, filter));
        expect(found.toSorted(), filter).toEqual(expected.toSorted());
      }
    });
  });

  it('keeps ids and topics of every name and length apart (A-04)', async () => {
    const long = 'x'.repeat(65_534);
    const names = ['__proto__', 'constructor', 'toString', '', 'ü', `${long}a`, `${long}b`];
    await withFolder(async (folder) => {
      const before = await openTestStore(folder);
      for (const name of names) {
        await before.openSession(name);
        await before.addSubscriptions(name, [{ filter: name, qos: 1 }]);
        await before.enqueue([name], message(name, name.slice(-1)));
        await before.putRetained(message(`t${name.slice(1)}`, name.slice(-1) || 'x'));
      }
      await before.close();
      const after = await openTestStore(folder);
      expect([...after.sessionIds()]).toEqual(names);
      for (const name of names) {
        expect(after.subscriptions(name)).toEqual([{ filter: name, qos: 1 }]);
        expect(textsOf(after, name)).toEqual([name.slice(-1)]);
        const kept = after.retained(`t${name.slice(1)}`);
        expect(kept?.topic).toBe(`t${name.slice(1)}`);
      }
      const found = [...after.retainedMatching('+')].filter(({ topic }) => topic.length > 60_000);
      expect(found.map(({ payload }) => payload.toString())).toEqual(['a', 'b']);
      await after.close();
    });
  });

  it('ignores what concerns sessions that are not there', async () => {
    await withStore({}, async (store) => {
      await store.enqueue(['nobody'], message('t', 'x'));
      await store.addSubscriptions('nobody', [{ filter: 'a', qos: 0 }]);
      await store.removeSubscriptions('nobody', ['a']);
      await store.dropSession('nobody');
      store.touchSession('nobody', true);
      store.markSent('nobody', 1, 1);
      store.removeQueued('nobody', 1);
      expect(store.queueSize('nobody')).toEqual({ messages: 0, bytes: 0 });
      expect([...store.sessionIds()]).toEqual([]);
    });
  });

  it('shows its sizes and drops as metrics', async () => {
    await withFolder(async (folder) => {
      const registry = new Registry();
      const store = await openTestStore(folder, { queueMessagesMax: 1 }, registry);
      await store.openSession('c');
      for (const text of ['1', '2']) await store.enqueue(['c'], message('t', text));
      await store.putRetained(message('r', 'x'));
      const text = await registry.metrics();
      expect(text).toMatch(/^puback_broker_store_sessions 1$/m);
      expect(text).toMatch(/^puback_broker_store_queued_messages 1$/m);
      expect(text).toMatch(/^puback_broker_store_queued_bytes 11$/m);
      expect(text).toMatch(/^puback_broker_store_retained_messages 1$/m);
      expect(text).toMatch(/^puback_broker_store_dropped_messages_total{reason="count"} 1$/m);
      await store.close();
    });
  });
});

describe('openDiskStore', () => {
  it.each([
    ['text', 'not a database, but long enough to be looked at'.repeat(9000)],
    ['zeros', '\0'.repeat(100_000)],
    ['a few bytes', 'x'],
  ])('refuses %s in place of its file', async (_name, content) => {
    await withFolder(async (folder) => {
      await writeFile(join(folder, 'data.mdb'), content);
      await expect(openTestStore(folder)).rejects.toMatchObject({ code: 'SESSION_STORE_UNUSABLE' });
    });
  });

  it.each([8192, 40_960, 200_000])('refuses a file cut at %d bytes', async (bytes) => {
    await withFolder(async (folder) => {
      const store = await openTestStore(folder);
      await store.openSession('c');
      const payload = 'x'.repeat(500);
      const writes = Array.from({ length: 2000 }, () =>
        store.enqueue(['c'], message('t', payload)),
      );
      await Promise.all(writes);
      await store.close();
      await truncate(join(folder, 'data.mdb'), bytes);
      await expect(openTestStore(folder)).rejects.toMatchObject({ code: 'SESSION_STORE_UNUSABLE' });
    });
  });

  it('refuses a file with strange pages, wherever they are', async () => {
    await withFolder(async (folder) => {
      const store = await openTestStore(folder);
      await store.openSession('c');
      const writes = Array.from({ length: 500 }, () => store.enqueue(['c'], message('t', 'x')));
      await Promise.all(writes);
      await store.close();
      const path = join(folder, 'data.mdb');
      const whole = await readFile(path);
      const outcomes = new Set<string>();
      for (let at = 8192; at < whole.length; at += 4096) {
        await writeFile(path, Buffer.from(whole).fill(0x5a, at, at + 4096));
        const opened = await openTestStore(folder).catch((cause: { code: string }) => cause.code);
        outcomes.add(typeof opened === 'string' ? opened : 'opened');
        if (typeof opened !== 'string') await opened.close();
      }
      // Pages that are free at the last commit are nobody's loss.
      expect([...outcomes].toSorted()).toEqual(['SESSION_STORE_UNUSABLE', 'opened']);
    });
  });

  it('leaves out records that make no sense', async () => {
    await withFolder(async (folder) => {
      const store = await openTestStore(folder);
      const record = Buffer.alloc(12, 0xff);
      store.parts.writer.put('Rt', record);
      expect([store.retained('t'), ...store.retainedMatching('+')]).toEqual([null]);
      await store.openSession('c');
      await store.enqueue(['c'], message('t', 'x'));
      store.parts.writer.put('Q\0\0\0\x01\0\0\0\0\0\x01', record);
      expect(store.queued('c', 0, 9)).toEqual([]);
      await store.close();
    });
  });

  it('refuses a store of another format, and leaves it as it is', async () => {
    await withFolder(async (folder) => {
      const file = openDiskFile(folder);
      await file.commit(new Map([['format', Buffer.from('2')]]));
      await file.close();
      for (let attempt = 0; attempt < 2; attempt += 1) {
        await expect(openTestStore(folder)).rejects.toThrow("its format is 2, this program's is 1");
      }
    });
  });

  it('refuses a folder that cannot be made', async () => {
    await expect(openTestStore('/dev/null/sessions')).rejects.toMatchObject({
      code: 'SESSION_STORE_UNUSABLE',
      status: 500,
    });
  });
});

describe('DiskWriter', () => {
  it('puts what is written in one turn into one commit, and the next turns into the next', async () => {
    const disk = new FakeDisk();
    const writer = disk.writer();
    writer.put('a', Buffer.from('1'));
    writer.put('b', Buffer.from('1'));
    const first = writer.flushed();
    await new Promise((resolve) => setImmediate(resolve));
    writer.put('a', Buffer.from('2'));
    writer.remove('b');
    expect([writer.get('a')?.toString(), writer.has('b')]).toEqual(['2', false]);
    await Promise.all([first, writer.flushed()]);
    expect(disk.commits).toEqual([
      ['a', 'b'],
      ['a', 'b'],
    ]);
    await writer.flushed();
    expect([...disk.rows.keys()]).toEqual(['a']);
  });

  it('never writes what is withdrawn before its commit', async () => {
    const disk = new FakeDisk();
    const writer = disk.writer();
    writer.put('a', Buffer.from('1'));
    writer.withdraw('a');
    writer.put('b', Buffer.from('1'));
    await writer.flushed();
    writer.withdraw('b');
    await writer.flushed();
    expect(disk.commits).toEqual([['b'], ['b']]);
    expect(disk.rows.size).toBe(0);
  });

  it('rejects while the disk fails, keeps what was written, and tries again by itself', async () => {
    const disk = new FakeDisk();
    const writer = disk.writer();
    disk.failure = new Error('no space left on device');
    writer.put('a', Buffer.from('1'));
    await expect(writer.flushed()).rejects.toMatchObject({
      code: 'SESSION_STORE_FAILED',
      status: 503,
      retryable: true,
    });
    writer.put('b', Buffer.from('2'));
    await expect(writer.flushed()).rejects.toThrow('no space left on device');
    expect(writer.get('a')?.toString()).toBe('1');
    disk.failure = null;
    await expect.poll(() => [...disk.rows.keys()]).toEqual(['a', 'b']);
    await writer.flushed();
    expect(disk.failures).toBe(1);
  });

  it('is full at its bound, and has room again when the disk has taken what waited', async () => {
    const disk = new FakeDisk();
    const writer = disk.writer(100);
    writer.put('a', Buffer.alloc(98));
    expect(writer.isFull).toBe(false);
    writer.put('b', Buffer.alloc(1));
    expect(writer.isFull).toBe(true);
    await writer.flushed();
    expect(writer.isFull).toBe(false);
  });

  it('closes with an error when the rest cannot be written', async () => {
    const disk = new FakeDisk();
    const writer = disk.writer();
    disk.failure = new Error('I/O error');
    writer.put('a', Buffer.from('1'));
    await expect(writer.close()).rejects.toMatchObject({ code: 'SESSION_STORE_FAILED' });
    await expect(writer.flushed()).rejects.toMatchObject({ code: 'SESSION_STORE_FAILED' });
  });

  it('refuses in the store what can be refused when too much waits for the disk', async () => {
    await withStore({ stagedBytesMax: 200 }, async (store) => {
      await store.openSession('c');
      const taken = store.enqueue(['c'], message('t', 'x'.repeat(300)));
      await expect(store.enqueue(['c'], message('t', 'y'))).rejects.toMatchObject({
        code: 'SESSION_STORE_FAILED',
      });
      await expect(store.putRetained(message('t', 'y'))).rejects.toThrow('too much waits');
      await taken;
      await store.enqueue(['c'], message('t', 'z'));
      expect(store.queueSize('c').messages).toBe(2);
      expect(store.parts.totals.dropped.disk).toBe(1);
    });
  });
});

/** A disk in memory that can fail. */
class FakeDisk implements WritableFile {
  readonly rows = new Map<string, Buffer>();
  readonly commits: string[][] = [];
  failure: Error | null = null;
  failures = 0;

  writer(stagedBytesMax = 1_000_000): DiskWriter {
    const onFailure = () => {
      this.failures += 1;
    };
    return new DiskWriter({
      file: this,
      log: pino({ level: 'silent' }),
      stagedBytesMax,
      onFailure,
    });
  }

  get(key: string): Buffer | undefined {
    return this.rows.get(key);
  }

  has(key: string): boolean {
    return this.rows.has(key);
  }

  *scan(prefix: string): Generator<{ key: string; value: Buffer }> {
    for (const [key, value] of this.rows) if (key.startsWith(prefix)) yield { key, value };
  }

  async commit(changes: ReadonlyMap<string, Buffer | null>): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (this.failure !== null) throw this.failure;
    this.commits.push([...changes.keys()]);
    for (const [key, value] of changes) {
      if (value === null) this.rows.delete(key);
      else this.rows.set(key, value);
    }
  }
}

const ID = fc.constantFrom('a', 'b', '__proto__', 'constructor');
const TOPIC = fc.constantFrom('a', 'a/b', 'a/b/c', '/', '$x/a', '__proto__');
const FILTER = fc.constantFrom('a', 'a/#', '+/b', '#', 'a/+', '__proto__');
const QOS = fc.constantFrom<0 | 1>(0, 1);
const isAwaited = fc.boolean();

type Step =
  | { readonly kind: 'reopen' }
  | { readonly kind: 'open' | 'drop'; readonly id: string; readonly isAwaited: boolean }
  | {
      readonly kind: 'subscribe' | 'unsubscribe';
      readonly id: string;
      readonly filter: string;
      readonly qos: 0 | 1;
      readonly isAwaited: boolean;
    }
  | {
      readonly kind: 'enqueue';
      readonly ids: readonly string[];
      readonly message: OutgoingMessage;
      readonly isAwaited: boolean;
    }
  | { readonly kind: 'retain'; readonly message: OutgoingMessage; readonly isAwaited: boolean }
  | {
      readonly kind: 'sent' | 'remove';
      readonly id: string;
      readonly nth: number;
      readonly packetId: number;
      readonly isAwaited: boolean;
    };

const MESSAGE = fc
  .record({ topic: TOPIC, payload: fc.uint8Array({ maxLength: 8 }), qos: QOS })
  .map(({ topic, payload, qos }) => ({ topic, payload: Buffer.from(payload), qos, retain: false }));
const OPEN: fc.Arbitrary<Step> = fc.record({
  kind: fc.constant('open' as const),
  id: ID,
  isAwaited,
});
const ENQUEUE: fc.Arbitrary<Step> = fc.record({
  kind: fc.constant('enqueue' as const),
  ids: fc.uniqueArray(ID, { minLength: 1 }),
  message: MESSAGE,
  isAwaited,
});
const STEP: fc.Arbitrary<Step> = fc.oneof(
  OPEN,
  OPEN,
  ENQUEUE,
  ENQUEUE,
  ENQUEUE,
  fc.record({ kind: fc.constant('drop' as const), id: ID, isAwaited }),
  fc.record({ kind: fc.constant('retain' as const), message: MESSAGE, isAwaited }),
  fc.record({
    kind: fc.constantFrom('subscribe' as const, 'unsubscribe' as const),
    id: ID,
    filter: FILTER,
    qos: QOS,
    isAwaited,
  }),
  fc.record({
    kind: fc.constantFrom('sent' as const, 'remove' as const),
    id: ID,
    nth: fc.nat(4),
    packetId: fc.integer({ min: 1, max: 65_535 }),
    isAwaited,
  }),
  fc.constant({ kind: 'reopen' as const }),
);

interface ModelSession {
  readonly filters: Map<string, 0 | 1>;
  queue: { message: OutgoingMessage; packetId: number }[];
}

/** The store as arrays and Maps. Messages are named by their place in the queue, not by a sequence. */
class Model {
  readonly #limits: { queueMessagesMax: number; sessionsMax: number };
  readonly sessions = new Map<string, ModelSession>();
  readonly retained = new Map<string, OutgoingMessage>();

  constructor(limits: { queueMessagesMax: number; sessionsMax: number }) {
    this.#limits = limits;
  }

  apply(step: Exclude<Step, { kind: 'reopen' }>): void {
    if (step.kind === 'retain') {
      if (step.message.payload.length === 0) this.retained.delete(step.message.topic);
      else this.retained.set(step.message.topic, step.message);
    } else if (step.kind === 'enqueue') {
      for (const id of step.ids) {
        const queue = this.sessions.get(id)?.queue ?? [];
        queue.push({ message: step.message, packetId: 0 });
        queue.splice(0, queue.length - this.#limits.queueMessagesMax);
      }
    } else {
      this.#applyToSession(step);
    }
  }

  #applyToSession(step: Exclude<Step, { kind: 'reopen' | 'retain' | 'enqueue' }>): void {
    const session = this.sessions.get(step.id);
    switch (step.kind) {
      case 'open':
        if (session !== undefined || this.sessions.size >= this.#limits.sessionsMax) return;
        this.sessions.set(step.id, { filters: new Map(), queue: [] });
        return;
      case 'drop':
        this.sessions.delete(step.id);
        return;
      case 'subscribe':
        session?.filters.set(step.filter, step.qos);
        return;
      case 'unsubscribe':
        session?.filters.delete(step.filter);
        return;
      case 'remove':
        session?.queue.splice(step.nth, 1);
        return;
      case 'sent': {
        const queued = session?.queue[step.nth];
        if (queued !== undefined) queued.packetId = step.packetId;
      }
    }
  }
}

async function apply(
  target: DiskStore | Model,
  step: Exclude<Step, { kind: 'reopen' }>,
): Promise<unknown> {
  if (target instanceof Model) {
    target.apply(step);
    return undefined;
  }
  switch (step.kind) {
    case 'open':
      return target.openSession(step.id);
    case 'drop':
      return target.dropSession(step.id);
    case 'subscribe':
      return target.addSubscriptions(step.id, [{ filter: step.filter, qos: step.qos }]);
    case 'unsubscribe':
      return target.removeSubscriptions(step.id, [step.filter]);
    case 'enqueue':
      return target.enqueue(step.ids, step.message);
    case 'retain':
      return target.putRetained(step.message);
    case 'sent':
    case 'remove': {
      const queued = target.queued(step.id, 0, 99)[step.nth];
      if (queued === undefined) return undefined;
      if (step.kind === 'remove') target.removeQueued(step.id, queued.sequence);
      else target.markSent(step.id, queued.sequence, step.packetId);
      return undefined;
    }
  }
}

/** All that can be read, in a form that both have. */
function viewOf(target: DiskStore | Model): unknown {
  const isModel = target instanceof Model;
  const ids = [...(isModel ? target.sessions.keys() : target.sessionIds())].toSorted();
  const sessions = ids.map((id) => {
    const filters = isModel
      ? Array.from(target.sessions.get(id)?.filters ?? [], ([filter, qos]) => ({ filter, qos }))
      : target.subscriptions(id);
    const queue = isModel
      ? (target.sessions.get(id)?.queue ?? []).map(({ message: m, packetId }) => [m, packetId])
      : target.queued(id, 0, 99).map(({ sequence: _sequence, packetId, ...m }) => [m, packetId]);
    const size = isModel ? queue.length : target.queueSize(id).messages;
    return { id, filters: filters.map(({ filter, qos }) => `${filter} ${qos}`), queue, size };
  });
  const retained = isModel ? [...target.retained.values()] : [...target.retainedMatching('#')];
  const hidden = isModel ? [] : [...target.retainedMatching('$x/#')];
  const topics = [...retained, ...hidden].map(({ topic, payload, qos }) => ({
    topic,
    payload,
    qos,
  }));
  const exact = topics.filter(({ topic }) => isModel || target.retained(topic) !== null);
  return { sessions, retained: exact.toSorted((a, b) => (a.topic < b.topic ? -1 : 1)) };
}

function message(topic: string, payload: string): OutgoingMessage {
  return { topic, payload: Buffer.from(payload), qos: 1, retain: false };
}

function textsOf(store: DiskStore, clientId: string): string[] {
  return store.queued(clientId, 0, 999).map(({ payload }) => payload.toString());
}

async function withStore(
  limits: Partial<StoreLimits>,
  use: (store: DiskStore) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const store = await openTestStore(folder, limits);
    await use(store);
    await store.close();
  });
}
