import fc from 'fast-check';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { BatchStore } from '../../ingest/batch-commit.ts';
import { BatchWriter } from '../../ingest/batch-writer.ts';
import type { Batch } from '../../ingest/batch.ts';
import { BootSequence } from '../../ingest/boot-sequence.ts';
import { DeviceLane } from '../../ingest/device-lane.ts';
import { Lane } from '../../ingest/lane.ts';
import { IngestMetrics } from '../../ingest/metrics.ts';
import { Pipeline } from '../../ingest/pipeline.ts';
import { rangesOf } from '../../ingest/sequence-ranges.ts';
import { SequenceWindow } from '../../ingest/sequence-window.ts';
import { makePublication, makeSlot, noLookups } from '../support/messages.ts';

/** Numbers as a device sends them: mostly the next, some again, some late, some far ahead. */
const seqsArbitrary = fc
  .array(
    fc.oneof(
      { weight: 6, arbitrary: fc.constant(1) },
      { weight: 2, arbitrary: fc.integer({ min: -70, max: 3 }) },
      { weight: 1, arbitrary: fc.integer({ min: 2, max: 200 }) },
    ),
    { maxLength: 300, size: 'max' },
  )
  .map((steps) => {
    let seq = 100;
    return steps.map((step) => (seq = Math.max(0, seq + step)));
  });

function add(window: SequenceWindow, ...seqs: number[]): SequenceWindow {
  for (const seq of seqs) window.add(seq);
  return window;
}

describe('SequenceWindow', () => {
  it('knows exactly the last 64 numbers, whatever came in whatever order', () => {
    fc.assert(
      fc.property(seqsArbitrary, (seqs) => {
        const window = new SequenceWindow();
        const come = new Set<number>();
        for (const seq of seqs) {
          const highest = Math.max(-1, ...come);
          expect(window.has(seq)).toBe(come.has(seq) && seq > highest - 64);
          window.add(seq);
          come.add(seq);
        }
      }),
    );
  });

  it('never claims more than came without a gap, and all of it while nothing comes too late', () => {
    fc.assert(
      fc.property(seqsArbitrary, (seqs) => {
        const window = new SequenceWindow();
        const come = new Set<number>();
        let isLate = false;
        for (const seq of seqs) {
          isLate ||= seq <= window.highest - 64;
          window.add(seq);
          come.add(seq);
          let without = seqs[0] ?? 0;
          while (come.has(without + 1)) without += 1;
          expect(window.contiguous ?? 0).toBeLessThanOrEqual(without);
          if (!isLate) expect(window.contiguous).toBe(without);
        }
      }),
    );
  });

  it('is the same after it was stored and read again', () => {
    fc.assert(
      fc.property(seqsArbitrary, seqsArbitrary, (before, after) => {
        const window = add(new SequenceWindow(), 5, ...before);
        const restored = SequenceWindow.restore(rangesOf([5, ...before]));
        // A gap that the window has left behind is known again once it is read anew.
        const knowsMore = restored.contiguous !== window.contiguous;
        for (const seq of after) {
          expect(restored.has(seq)).toBe(window.has(seq));
          add(restored, seq);
          add(window, seq);
          if (!knowsMore) expect(restored.contiguous).toBe(window.contiguous);
        }
      }),
    );
  });

  it('closes a gap that it has left behind when its numbers come in their order', () => {
    const window = add(new SequenceWindow(), 1, 2, 5);
    for (let seq = 6; seq <= 100; seq += 1) window.add(seq);
    expect(window.contiguous).toBe(2);
    add(window, 3);
    expect(window.contiguous).toBe(3);
    for (let seq = 4; seq < 36; seq += 1) window.add(seq);
    expect(window.contiguous).toBe(35);
    add(window, 36);
    expect(window.contiguous).toBe(100);
  });

  it('takes any number up to 2^53 - 1', () => {
    const window = add(new SequenceWindow(), 0, Number.MAX_SAFE_INTEGER - 1);
    add(window, Number.MAX_SAFE_INTEGER);
    expect(window.has(Number.MAX_SAFE_INTEGER)).toBe(true);
    expect(window.has(Number.MAX_SAFE_INTEGER - 2)).toBe(false);
    expect(window.has(0)).toBe(false);
    expect(window.contiguous).toBe(0);
  });
});

/** What a database keeps: messages by number, and windows, both changed by one COMMIT. */
class ModelDatabase {
  readonly stored = new Map<number, Set<number>>();
  received: number[] = [];
  readonly boot = 7;

  commit(batch: Batch): void {
    for (const { publication, isDuplicate } of batch.messages) {
      if (isDuplicate) continue;
      const { seq, n } = JSON.parse(publication.payload.toString()) as { seq: number; n: number };
      const copies = this.stored.get(seq) ?? new Set();
      this.stored.set(seq, copies.add(n));
    }
    for (const { received } of batch.sequencesOf(0, batch.messages.length)) {
      for (const [from, to] of received) {
        for (let seq = from; seq < to; seq += 1) this.received.push(seq);
      }
    }
  }
}

/** The program, from its start to its end, over a database whose COMMITs happen when the test says. */
class ModelRun {
  readonly #database: ModelDatabase;
  readonly #writer: BatchWriter;
  readonly #pipeline: Pipeline;
  readonly lane: Lane;
  #underWay: { batch: Batch; done: () => void; fail: (cause: Error) => void } | null = null;

  constructor(database: ModelDatabase) {
    this.#database = database;
    const device = new DeviceLane(1, 1, { messagesPerSecond: 0, pointsPerSecond: 0 });
    device.slots.set('n', makeSlot(1, 1));
    device.isLoaded = true;
    if (database.received.length > 0) {
      const stored = SequenceWindow.restore(rangesOf(database.received));
      device.keep(new BootSequence(device, database.boot, stored));
    }
    this.lane = new Lane(device, []);
    this.lane.setBoot(database.boot);
    const metrics = new IngestMetrics();
    const log = pino({ level: 'silent' });
    const store: BatchStore = {
      insert: (batch) =>
        new Promise((resolve, reject) => {
          const stored = { insertedRows: 0, duplicateRows: 0, quarantinedMessages: 0 };
          this.#underWay = { batch, done: () => resolve(stored), fail: reject };
        }),
      insertNew: () => Promise.reject(new Error('not expected')),
      insertQuarantine: () => Promise.reject(new Error('not expected')),
      forgetPartitions: () => undefined,
      close: () => Promise.resolve(),
    };
    const limits = { batchRowsMax: 3, lingerMs: 0, queueRowsMax: 1000, queueBytesMax: 1e6 };
    this.#writer = new BatchWriter({ store, limits, metrics, log });
    this.#pipeline = new Pipeline({
      lanes: noLookups(),
      writer: this.#writer,
      limits: {
        deviceMetricsMax: 10,
        deviceHeldBytesMax: 1e6,
        heldBytesMax: 1e6,
        ageMaxMs: 1e9,
        aheadMaxMs: 1000,
        deviceLogBytesPerSecond: 0,
        spoolAfterMs: 1000,
      },
      metrics,
      log,
    });
  }

  send(seq: number, n: number, acknowledge: (canonical: Buffer | null) => void): void {
    const payload = JSON.stringify({ seq, n });
    this.#pipeline.accept(this.lane, makePublication(payload, acknowledge));
  }

  /** COMMITs the batch that is under way; the program hears of it, or dies before. */
  async commit(isHeard: boolean): Promise<void> {
    await new Promise(setImmediate);
    const underWay = this.#underWay;
    this.#underWay = null;
    if (underWay === null) return;
    this.#database.commit(underWay.batch);
    if (!isHeard) return;
    underWay.done();
    await new Promise(setImmediate);
  }

  async end(): Promise<void> {
    await this.#writer.stop();
    this.#underWay?.fail(new Error('killed'));
  }
}

const stepArbitrary = fc.oneof(
  { weight: 9, arbitrary: fc.record({ send: fc.integer({ min: 0, max: 20 }) }) },
  { weight: 3, arbitrary: fc.record({ send: fc.integer({ min: 0, max: 90 }) }) },
  { weight: 5, arbitrary: fc.constant('commit' as const) },
  { weight: 1, arbitrary: fc.constantFrom('crash' as const, 'crash after COMMIT' as const) },
);

describe('messages with seq', () => {
  it('are stored before they are acknowledged, and not twice within the window, over crashes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(stepArbitrary, { maxLength: 80, size: 'max' }), async (steps) => {
        const database = new ModelDatabase();
        let run = new ModelRun(database);
        const acknowledged = new Set<number>();
        let number = 0;
        let highest = 0;
        const outOfWindow = new Set<number>();
        for (const step of steps) {
          if (typeof step === 'object') {
            const { send } = step;
            if (send <= highest - 64) outOfWindow.add(send);
            highest = Math.max(highest, send);
            run.send(send, (number += 1), () => acknowledged.add(send));
          } else if (step === 'commit') await run.commit(true);
          else {
            if (step !== 'crash') await run.commit(false);
            await run.end();
            run = new ModelRun(database);
          }
          for (const seq of acknowledged) expect(database.stored.has(seq)).toBe(true);
          const { storedSequence } = run.lane;
          if (storedSequence !== null) expect(database.stored.has(storedSequence)).toBe(true);
        }
        for (const [seq, copies] of database.stored) {
          if (!outOfWindow.has(seq)) expect(copies.size, `${seq}`).toBe(1);
        }
        await run.end();
      }),
      { numRuns: 100 },
    );
  });
});
