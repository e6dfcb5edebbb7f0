import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { Batch } from '../../ingest/batch.ts';
import type { BatchStore } from '../../ingest/batch-commit.ts';
import { BatchWriter } from '../../ingest/batch-writer.ts';
import { IngestMetrics } from '../../ingest/metrics.ts';
import { makeMessage, makeSlot, openLane } from '../support/messages.ts';
import type { BatchSpool, WriterLimits } from '../../ingest/writer-limits.ts';

const LIMITS: WriterLimits = {
  batchRowsMax: 1000,
  lingerMs: 0,
  queueRowsMax: 10,
  queueBytesMax: 1_000_000,
};

/** A store whose commits end when and how the test says. */
class ScriptedStore implements BatchStore {
  readonly commits: { batch: Batch; first: number; end: number }[] = [];
  readonly quarantined: number[] = [];
  gate: Promise<void> = Promise.resolve();
  failures: unknown[] = [];
  /** Number of the message whose rows are refused. */
  poison: number | null = null;

  async insert(batch: Batch) {
    await this.gate;
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
    return this.#commit(batch, 0, batch.messages.length);
  }

  async insertNew(batch: Batch, first: number, end: number) {
    return this.#commit(batch, first, end);
  }

  async insertQuarantine() {
    this.quarantined.push(this.poison ?? -1);
    return { insertedRows: 0, duplicateRows: 0, quarantinedMessages: 1 };
  }

  forgetPartitions(): void {}

  async close() {}

  #commit(batch: Batch, first: number, end: number) {
    if (this.poison !== null && first <= this.poison && this.poison < end) {
      throw Object.assign(new Error('value out of range'), { code: '22003' });
    }
    this.commits.push({ batch, first, end });
    return { insertedRows: end - first, duplicateRows: 0, quarantinedMessages: 0 };
  }
}

function createWriter(
  store: BatchStore,
  limits: Partial<WriterLimits> = {},
  spool: BatchSpool | null = null,
) {
  const metrics = new IngestMetrics();
  const log = pino({ level: 'silent' });
  const writer = new BatchWriter({ store, limits: { ...LIMITS, ...limits }, metrics, log, spool });
  const slot = makeSlot(1, 1);
  const lane = openLane();
  let micros = 1_700_000_000_000_000;
  const push = (acknowledge: () => void) => {
    writer.open.addReading(slot, (micros += 1), 21.5, null, micros, 0);
    writer.open.addMessage(makeMessage(acknowledge, lane));
    writer.added();
  };
  return { writer, metrics, push };
}

function gate(): { opened: Promise<void>; open: () => void } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

describe('BatchWriter', () => {
  it('acknowledges nothing before COMMIT and everything after it, in order [MQTT-4.6.0-2]', async () => {
    const store = new ScriptedStore();
    const commit = gate();
    store.gate = commit.opened;
    const { writer, push } = createWriter(store);
    const acknowledged: number[] = [];
    for (let number = 0; number < 5; number += 1) push(() => acknowledged.push(number));
    await new Promise(setImmediate);
    expect(acknowledged).toEqual([]);
    commit.open();
    await writer.drain();
    expect(acknowledged).toEqual([0, 1, 2, 3, 4]);
    expect(store.commits).toHaveLength(1);
  });

  it('commits what comes in during a COMMIT as the next batch', async () => {
    const store = new ScriptedStore();
    const first = gate();
    store.gate = first.opened;
    const { writer, push } = createWriter(store);
    push(() => {});
    await new Promise(setImmediate);
    push(() => {});
    push(() => {});
    first.open();
    await writer.drain();
    expect(store.commits.map(({ batch }) => batch.messages.length)).toEqual([1, 2]);
  });

  it('starts another batch when one is full', async () => {
    const store = new ScriptedStore();
    const { writer, push } = createWriter(store, { batchRowsMax: 2, queueRowsMax: 100 });
    for (let number = 0; number < 5; number += 1) push(() => {});
    await writer.drain();
    expect(store.commits.map(({ batch }) => batch.messages.length)).toEqual([2, 2, 1]);
  });

  it('tries the same batch again while the database is away', async () => {
    const store = new ScriptedStore();
    store.failures = [
      new Error('connection refused'),
      Object.assign(new Error('x'), { code: '57P01' }),
    ];
    const { writer, metrics, push } = createWriter(store);
    let isAcknowledged = false;
    push(() => {
      isAcknowledged = true;
    });
    await writer.drain();
    expect(isAcknowledged).toBe(true);
    expect(metrics.commitFailures).toBe(2);
    expect(writer.isAway).toBe(false);
  });

  it('replays a batch row by row when a key was stored before', async () => {
    const store = new ScriptedStore();
    store.failures = [Object.assign(new Error('duplicate key'), { code: '23505' })];
    const { writer, push } = createWriter(store);
    push(() => {});
    push(() => {});
    await writer.drain();
    expect(store.commits).toMatchObject([{ first: 0, end: 2 }]);
  });

  it('puts the one message aside that the database refuses, and stores the others (D-09)', async () => {
    for (const poison of [0, 3, 6]) {
      const store = new ScriptedStore();
      store.failures = [Object.assign(new Error('out of range'), { code: '22003' })];
      store.poison = poison;
      const { writer, push } = createWriter(store, { queueRowsMax: 100 });
      const acknowledged: number[] = [];
      for (let number = 0; number < 7; number += 1) push(() => acknowledged.push(number));
      await writer.drain();
      const stored = store.commits.flatMap(({ first, end }) =>
        Array.from({ length: end - first }, (_, offset) => first + offset),
      );
      expect(stored).toEqual([0, 1, 2, 3, 4, 5, 6].filter((number) => number !== poison));
      expect(store.quarantined).toEqual([poison]);
      expect(acknowledged).toEqual([0, 1, 2, 3, 4, 5, 6]);
    }
  });

  it('says when its queue is full and wakes who waits for room', async () => {
    const store = new ScriptedStore();
    const commit = gate();
    store.gate = commit.opened;
    const { writer, push } = createWriter(store);
    for (let number = 0; number < LIMITS.queueRowsMax; number += 1) push(() => {});
    expect(writer.hasRoom()).toBe(false);
    const woken = new Promise<void>((resolve) => writer.whenRoom(resolve));
    commit.open();
    await woken;
    expect(writer.hasRoom()).toBe(true);
  });

  it('counts payload bytes against its bound', () => {
    const { writer, push } = createWriter(new ScriptedStore(), { queueBytesMax: 20 });
    push(() => {});
    expect(writer.hasRoom()).toBe(true);
    push(() => {});
    expect(writer.hasRoom()).toBe(false);
  });

  it('acknowledges nothing more after it was stopped', async () => {
    const store = new ScriptedStore();
    store.failures = Array.from({ length: 100 }, () => new Error('away'));
    const { writer, push } = createWriter(store);
    let isAcknowledged = false;
    push(() => {
      isAcknowledged = true;
    });
    await new Promise(setImmediate);
    await writer.stop();
    await writer.drain();
    expect(isAcknowledged).toBe(false);
  });
});
