import fc from 'fast-check';
import { pino } from 'pino';
import { describe, expect, it, vi } from 'vitest';
import type { Batch } from '../../ingest/batch.ts';
import type { BatchStore } from '../../ingest/batch-commit.ts';
import { BatchWriter } from '../../ingest/batch-writer.ts';
import type { LaneStore } from '../../ingest/lane-store.ts';
import type { Message } from '../../ingest/message.ts';
import { IngestMetrics } from '../../ingest/metrics.ts';
import { Pipeline } from '../../ingest/pipeline.ts';
import { SettledOrder } from '../../ingest/settled-order.ts';
import { makeMessage, makePublication, makeSlot, openLane } from '../support/messages.ts';
import type { BatchSpool } from '../../ingest/writer-limits.ts';

/** Longer than a busy machine keeps a turn of the event loop waiting. */
const SPOOL_AFTER_MS = 100;
/** Messages that fill a queue. */
const MANY = 400;
const STORED = { insertedRows: 0, duplicateRows: 0, quarantinedMessages: 0 };

/** A database that answers, refuses to, or keeps silent until it is told to answer. */
class SwitchedStore implements BatchStore {
  mode: 'up' | 'away' | 'hung' = 'up';
  attempts = 0;
  readonly committed: Message[] = [];
  #hung: (() => void)[] = [];
  #failHung: ((cause: Error) => void)[] = [];

  insert(batch: Batch) {
    this.attempts += 1;
    if (this.mode === 'away') return Promise.reject(new Error('connection refused'));
    if (this.mode === 'up') return Promise.resolve(this.#commit(batch));
    return new Promise<typeof STORED>((resolve, reject) => {
      this.#hung.push(() => resolve(this.#commit(batch)));
      this.#failHung.push(reject);
    });
  }
  failHung(): void {
    this.#hung = [];
    for (const fail of this.#failHung.splice(0)) fail(new Error('no answer in time'));
  }
  answer(): void {
    this.mode = 'up';
    for (const answer of this.#hung.splice(0)) answer();
  }
  insertNew = () => Promise.reject(new Error('not expected'));
  insertQuarantine = () => Promise.reject(new Error('not expected'));
  forgetPartitions = () => undefined;
  close = () => Promise.resolve();

  #commit(batch: Batch) {
    this.committed.push(...batch.messages);
    return STORED;
  }
}

/** A spool that takes, refuses or keeps waiting. */
class SwitchedSpool implements BatchSpool {
  isUsable = true;
  mode: 'taking' | 'failing' | 'hung' = 'taking';
  readonly stored: Message[] = [];
  #hung: (() => void)[] = [];

  append(messages: readonly Message[], onStored: () => void, onFailed: () => void): void {
    const end = (): void => {
      if (this.mode === 'failing') {
        onFailed();
        return;
      }
      this.stored.push(...messages);
      onStored();
    };
    if (this.mode === 'hung') this.#hung.push(end);
    else setImmediate(end);
  }
  answer(mode: 'taking' | 'failing'): void {
    this.mode = mode;
    if (mode === 'failing') this.isUsable = false;
    for (const answer of this.#hung.splice(0)) answer();
  }
}

function createWriter(queueRowsMax = 100, batchRowsMax = 1000, spoolAfterMs = SPOOL_AFTER_MS) {
  const store = new SwitchedStore();
  const spool = new SwitchedSpool();
  const metrics = new IngestMetrics();
  const limits = {
    batchRowsMax,
    lingerMs: 0,
    queueRowsMax,
    queueBytesMax: 1e6,
    spoolAfterMs,
  };
  const log = pino({ level: 'silent' });
  const writer = new BatchWriter({ store, limits, metrics, log, spool });
  const lane = openLane();
  const slot = makeSlot(1, 1);
  const acknowledged: number[] = [];
  let last = 0;
  const push = (): void => {
    const number = (last += 1);
    writer.open.addReading(slot, number, 1, null, number, 0);
    writer.open.addMessage(makeMessage(() => acknowledged.push(number), lane));
    writer.added();
  };
  return { store, spool, metrics, writer, push, acknowledged, log };
}

describe('BatchWriter with a spool', () => {
  it('gives the spool nothing while the database answers', async () => {
    const { writer, push, spool, acknowledged } = createWriter(100, 1000, 30_000);
    push();
    push();
    await writer.drain();
    expect(acknowledged).toEqual([1, 2]);
    expect(spool.stored).toEqual([]);
  });

  it('acknowledges what the database does not take once the spool has it, and not before', async () => {
    const { store, spool, writer, push, acknowledged, metrics } = createWriter();
    store.mode = 'away';
    spool.mode = 'hung';
    push();
    await expect.poll(() => writer.isAway).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 3 * SPOOL_AFTER_MS));
    expect(acknowledged).toEqual([]);
    expect(writer.queuedMessages).toBe(1);
    spool.answer('taking');
    expect(acknowledged).toEqual([1]);
    expect(writer.queuedMessages).toBe(0);
    expect(metrics.storedMessages).toBe(0);
    expect(store.committed).toEqual([]);
  });

  it('asks the database no more while it is away, until it is known to be back', async () => {
    const { store, spool, writer, push, acknowledged } = createWriter(100, 1000, 500);
    store.mode = 'away';
    push();
    await writer.drain();
    const { attempts } = store;
    push();
    push();
    await writer.drain();
    expect(store.attempts).toBe(attempts);
    expect(spool.stored).toHaveLength(3);
    store.mode = 'up';
    writer.noteBack();
    push();
    await writer.drain();
    expect(store.committed).toHaveLength(1);
    expect(acknowledged).toEqual([1, 2, 3, 4]);
  });

  it('spools what waits behind a COMMIT without an answer, then that too, and counts it once', async () => {
    const { store, spool, writer, push, acknowledged, metrics } = createWriter();
    store.mode = 'hung';
    push();
    await expect.poll(() => store.attempts).toBe(1);
    push();
    await expect.poll(() => acknowledged).toHaveLength(2);
    expect(spool.stored).toHaveLength(2);
    store.answer();
    push();
    await writer.drain();
    expect(acknowledged.at(-1)).toBe(3);
    expect(acknowledged).toHaveLength(3);
    expect(metrics.storedMessages).toBe(1);
  });

  it('does not call the database away for an attempt whose batch is spooled and was drained', async () => {
    const { store, writer, push, acknowledged } = createWriter();
    store.mode = 'hung';
    push();
    await expect.poll(() => acknowledged).toEqual([1]);
    writer.noteBack();
    store.failHung();
    await writer.drain();
    expect(writer.isAway).toBe(false);
    expect(writer.isSpooling).toBe(false);
  });

  it('spools what does not fit into the queue at once', async () => {
    // Not for the time that they wait.
    const { store, spool, writer, push, acknowledged } = createWriter(3, 1000, 30_000);
    store.mode = 'hung';
    push();
    await expect.poll(() => store.attempts).toBe(1);
    push();
    push();
    expect(writer.hasRoom()).toBe(false);
    const woken = new Promise<void>((resolve) => writer.whenRoom(resolve));
    await woken;
    expect(spool.stored).toHaveLength(2);
    expect(acknowledged).toEqual([2, 3]);
    store.answer();
    await writer.drain();
  });

  it.each(['fails', 'has no room', 'is late'])(
    'hands over a few of many batches in a turn of the event loop when the queue %s',
    async (reason) => {
      const { store, spool, writer, push, acknowledged } = createWriter(MANY, 2);
      store.mode = 'hung';
      let turn = 0;
      const nextTurn = (): void => {
        turn += 1;
        if (acknowledged.length < MANY) setImmediate(nextTurn);
      };
      const handedOver = new Map<number, number>();
      spool.append = (messages, onStored) => {
        handedOver.set(turn, (handedOver.get(turn) ?? 0) + messages.length);
        setImmediate(onStored);
      };
      for (let message = 0; message < MANY; message += 1) push();
      nextTurn();
      if (reason === 'has no room') writer.whenRoom(() => undefined);
      if (reason === 'fails') {
        await expect.poll(() => store.attempts).toBe(1);
        store.mode = 'away';
        store.failHung();
      }
      await expect.poll(() => acknowledged).toHaveLength(MANY);
      expect(Math.max(...handedOver.values())).toBeLessThan(MANY / 4);
    },
  );

  it('goes back to the database with what the spool did not take, in the old order', async () => {
    const { store, spool, writer, push, acknowledged } = createWriter();
    store.mode = 'away';
    spool.mode = 'hung';
    for (let batch = 0; batch < 3; batch += 1) {
      push();
      await new Promise((resolve) => setTimeout(resolve, 2 * SPOOL_AFTER_MS));
    }
    expect(acknowledged).toEqual([]);
    spool.answer('failing');
    expect(acknowledged).toEqual([]);
    store.mode = 'up';
    await writer.drain();
    expect(acknowledged).toEqual([1, 2, 3]);
    expect(spool.stored).toEqual([]);
  });
});

describe('SettledOrder', () => {
  const messages = (...areCopies: boolean[]): Message[] =>
    areCopies.map((isDuplicate) =>
      Object.assign(
        makeMessage(() => undefined),
        { isDuplicate },
      ),
    );

  it('holds a copy back until every batch before its own is stored', () => {
    const order = new SettledOrder();
    for (const number of [1, 2, 3]) order.begin(number);
    const first = messages(false);
    const second = messages(true, false);
    const third = messages(true);
    expect(order.settle(2, second)).toEqual([second[1]]);
    expect(order.settle(3, third)).toEqual([]);
    expect(order.waitingCopies).toBe(2);
    expect(order.settle(1, first)).toEqual([...first, second[0], third[0]]);
    expect(order.waitingCopies).toBe(0);
  });

  it('lets every message go, each once, in whatever order batches are stored', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.boolean(), { maxLength: 4 })),
        fc.infiniteStream(fc.nat()),
        (given, picks) => {
          const order = new SettledOrder();
          const batches = given.map((areCopies) => messages(...areCopies));
          for (const number of batches.keys()) order.begin(number);
          const open = new Set(batches.keys());
          const gone: Message[] = [];
          while (open.size > 0) {
            const pick = picks.next().value % open.size;
            const number = [...open][pick] ?? 0;
            open.delete(number);
            const ready = order.settle(number, batches[number] ?? []);
            gone.push(...ready);
            for (const message of ready.filter(({ isDuplicate }) => isDuplicate)) {
              const own = batches.findIndex((batch) => batch.includes(message));
              expect([...open].every((other) => other > own)).toBe(true);
            }
          }
          expect(new Set(gone).size).toBe(gone.length);
          expect(gone).toHaveLength(batches.flat().length);
        },
      ),
    );
  });
});

describe('Pipeline with a spool', () => {
  function createPipeline(ageMaxMs = 1e12) {
    const { writer, spool, store, metrics, log } = createWriter();
    let isUp = false;
    const lane = openLane();
    lane.device.isLoaded = false;
    const lanes = {
      async load() {
        if (!isUp) throw new Error('connection refused');
        lane.device.isLoaded = true;
        lane.device.slots.set('temp', makeSlot(1, 1));
      },
      missingMetrics: () => null,
    } as unknown as LaneStore;
    const pipeline = new Pipeline({
      lanes,
      writer,
      metrics,
      log,
      spool,
      limits: {
        deviceMetricsMax: 10,
        deviceHeldBytesMax: 1e6,
        heldBytesMax: 1e6,
        ageMaxMs,
        aheadMaxMs: 1000,
        deviceLogBytesPerSecond: 0,
        spoolAfterMs: SPOOL_AFTER_MS,
      },
    });
    const shown: (string | null)[] = [];
    const send = (payload: string): boolean =>
      pipeline.accept(
        lane,
        makePublication(payload, (canonical) => void shown.push(canonical?.toString() ?? null)),
      );
    return {
      pipeline,
      lane,
      spool,
      store,
      send,
      shown,
      comeUp: () => {
        isUp = true;
      },
    };
  }

  it('spools unread what waits for a device that cannot be looked up, and shows it to listeners', async () => {
    const { pipeline, lane, spool, store, send, shown, comeUp } = createPipeline();
    expect(send('{"ts":1700000000000,"temp":1}')).toBe(false);
    expect(send('{"ts":1700000001000,"temp":2}')).toBe(false);
    await expect.poll(() => spool.stored).toHaveLength(2);
    expect(shown).toEqual(['{"ts":1700000000000,"temp":1}', '{"ts":1700000001000,"temp":2}']);
    expect(pipeline.heldMessages).toBe(0);
    expect(pipeline.heldBytes).toBe(0);
    comeUp();
    await expect.poll(() => lane.device.lookupSince).toBe(null);
    send('{"ts":1700000002000,"temp":3}');
    await expect.poll(() => store.committed).toHaveLength(1);
    expect(shown).toHaveLength(3);
  });

  it('counts the numbers of what it spooled as come, once the device is loaded', async () => {
    const { lane, spool, send } = createPipeline();
    lane.setBoot(4);
    lane.device.isLoaded = true;
    lane.device.slots.set('temp', makeSlot(1, 1));
    lane.device.isLoaded = false;
    send('{"ts":1700000000000,"seq":9,"temp":1}');
    await expect.poll(() => spool.stored).toHaveLength(1);
    expect(spool.stored[0]?.outcome).toMatchObject({ samples: [{ seq: 9 }] });
  });

  it('keeps what the spool does not take', async () => {
    const { pipeline, spool, store, send, shown, comeUp } = createPipeline();
    spool.mode = 'failing';
    send('{"temp":1}');
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(shown).toEqual([]);
    expect(pipeline.heldMessages).toBe(1);
    comeUp();
    await expect.poll(() => store.committed).toHaveLength(1);
    expect(shown).toHaveLength(1);
  });

  it('stores what is not too old of a message that the spool did not take', async () => {
    const { spool, store, send, shown, comeUp } = createPipeline(86_400_000);
    const append = vi.spyOn(spool, 'append');
    spool.mode = 'failing';
    const [old, now] = [Date.now() - 2 * 86_400_000, Date.now()];
    send(`[{"ts":${old},"temp":1},{"ts":${now},"temp":2}]`);
    await expect.poll(() => append).toHaveBeenCalled();
    comeUp();
    await expect.poll(() => store.committed).toHaveLength(1);
    expect(store.committed[0]).toMatchObject({ rowCount: 1, quarantine: { code: 'too_old' } });
    expect(shown).toEqual([`{"ts":${now},"temp":2}`]);
  });
});
