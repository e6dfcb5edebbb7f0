import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { BatchStore } from '../../ingest/batch-commit.ts';
import { BatchWriter } from '../../ingest/batch-writer.ts';
import type { Batch } from '../../ingest/batch.ts';
import { DeviceLane } from '../../ingest/device-lane.ts';
import { Lane } from '../../ingest/lane.ts';
import { IngestMetrics } from '../../ingest/metrics.ts';
import { Pipeline } from '../../ingest/pipeline.ts';
import { SharedRate, SharedRates, SharedWait } from '../../ingest/shared-rate.ts';
import {
  makePublication,
  makeSlot,
  noLookups,
  recordingSource,
  type Told,
} from '../support/messages.ts';

const STORED = { insertedRows: 0, duplicateRows: 0, quarantinedMessages: 0 };

/** A store that commits at once, or only when {@link open} is called. */
class GatedStore implements BatchStore {
  isOpen = true;
  #open: (() => void)[] = [];
  readonly batches: Batch[] = [];
  insert(batch: Batch) {
    this.batches.push(batch);
    if (this.isOpen) return Promise.resolve(STORED);
    return new Promise<typeof STORED>((resolve) => this.#open.push(() => resolve(STORED)));
  }
  open(): void {
    this.isOpen = true;
    for (const open of this.#open.splice(0)) open();
  }
  insertNew = () => Promise.reject(new Error('not expected'));
  insertQuarantine = () => Promise.reject(new Error('not expected'));
  forgetPartitions = () => undefined;
  close = () => Promise.resolve();
}

function createPipeline(queueRowsMax = 100_000, store = new GatedStore()) {
  const metrics = new IngestMetrics();
  const log = pino({ level: 'silent' });
  const limits = { batchRowsMax: 1000, lingerMs: 0, queueRowsMax, queueBytesMax: 1e9 };
  const writer = new BatchWriter({ store, limits, metrics, log });
  const pipeline = new Pipeline({
    lanes: noLookups(),
    writer,
    metrics,
    log,
    limits: {
      deviceMetricsMax: 10,
      deviceHeldBytesMax: 1e6,
      heldBytesMax: 1e9,
      ageMaxMs: 1e9,
      aheadMaxMs: 1000,
      deviceLogBytesPerSecond: 0,
      spoolAfterMs: 1000,
    },
  });
  return { pipeline, writer, metrics, store };
}

/** A device that sends its next message when the last one waits no more, as a resting socket makes it. */
class Sender {
  readonly #pipeline: Pipeline;
  readonly #lane: Lane;
  readonly told: Told = recordingSource();
  waiting = 0;
  acknowledged = 0;
  #backlog = 0;

  constructor(pipeline: Pipeline, deviceId: number, rates: SharedRate[], perSecond = 0) {
    const device = new DeviceLane(1, deviceId, {
      messagesPerSecond: perSecond,
      pointsPerSecond: 0,
    });
    device.slots.set('n', makeSlot(deviceId, 1));
    device.isLoaded = true;
    this.#pipeline = pipeline;
    this.#lane = new Lane(device, rates);
  }

  send(count = 1): void {
    this.#backlog += count;
    this.#goOn();
  }

  #goOn(): void {
    while (this.#backlog > 0 && this.waiting === 0 && this.told.closes.length === 0) {
      this.#backlog -= 1;
      const resume = () => {
        this.waiting -= 1;
        this.#goOn();
      };
      const publication = makePublication('{"n":1}', () => (this.acknowledged += 1), {
        ...this.told.source,
        resume,
      });
      this.waiting += 1;
      if (this.#pipeline.accept(this.#lane, publication)) this.waiting -= 1;
    }
  }
}

/** Lets time pass, and the writer run. */
async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 10) {
    await vi.advanceTimersByTimeAsync(10);
    await new Promise(setImmediate);
  }
}

const TIMERS = ['setTimeout', 'clearTimeout', 'performance'] as const;

describe('the rate of a device', () => {
  beforeEach(() => vi.useFakeTimers({ toFake: [...TIMERS] }));
  afterEach(() => vi.useRealTimers());

  it('ends one that floods also where the program is late now and then, and lets two pass', async () => {
    const { pipeline } = createPipeline();
    const flood = new Sender(pipeline, 1, [], 20);
    let lateMs = 0;
    const now = performance.now.bind(performance);
    const spy = vi.spyOn(performance, 'now').mockImplementation(() => now() + lateMs);
    flood.send(10_000);
    for (let second = 0; second < 4; second += 1) {
      await pass(880);
      // A message is being waited with: it is woken as much too late.
      lateMs += 120;
      await pass(120);
    }
    spy.mockRestore();
    expect(flood.told.closes).toEqual(['rate']);
    expect(flood.acknowledged).toBeLessThan(100 + 20 * 3);
  });

  it('leaves one alone that sends as much as it may, and waits now and then', async () => {
    const { pipeline } = createPipeline();
    const steady = new Sender(pipeline, 1, [], 20);
    steady.send(100);
    for (let number = 0; number < 200; number += 1) {
      await pass(number % 2 === 0 ? 20 : 80);
      steady.send();
    }
    await pass(100);
    expect(steady.told.closes).toEqual([]);
    expect(steady.acknowledged).toBe(300);
  });
});

describe('a rate that devices share', () => {
  beforeEach(() => vi.useFakeTimers({ toFake: [...TIMERS] }));
  afterEach(() => vi.useRealTimers());

  it('holds nobody while there is enough for all', async () => {
    const { pipeline } = createPipeline();
    const rate = new SharedRate(100, 'quota');
    const senders = Array.from({ length: 10 }, (_, id) => new Sender(pipeline, id + 1, [rate]));
    for (const sender of senders) sender.send(50);
    await pass(10);
    expect(senders.map(({ acknowledged }) => acknowledged)).toEqual(Array(10).fill(50));
  });

  it('is shared out evenly when there is not, one message of each device in turn', async () => {
    const { pipeline } = createPipeline();
    const rate = new SharedRate(100, 'quota');
    new Sender(pipeline, 99, [rate]).send(500);
    const senders = Array.from({ length: 4 }, (_, id) => new Sender(pipeline, id + 1, [rate]));
    for (const sender of senders) sender.send(1000);
    await pass(1000);
    for (const { acknowledged } of senders) {
      expect(acknowledged).toBeGreaterThanOrEqual(24);
      expect(acknowledged).toBeLessThanOrEqual(26);
    }
  });

  it('leaves a device alone that sends less than its part, and ends the one that floods', async () => {
    const { pipeline, metrics } = createPipeline();
    const rate = new SharedRate(100, 'quota');
    const flood = new Sender(pipeline, 1, [rate]);
    const calm = Array.from({ length: 5 }, (_, id) => new Sender(pipeline, id + 2, [rate]));
    flood.send(100_000);
    let sent = 0;
    for (let second = 0; second < 6; second += 1) {
      for (const sender of calm) sender.send();
      sent += 1;
      await pass(900);
      for (const { acknowledged } of calm) expect(acknowledged).toBe(sent);
      await pass(100);
    }
    expect(flood.told.closes).toEqual(['quota']);
    expect(flood.told.reports).toEqual(['quota']);
    expect(metrics.dropped.quota).toBe(1);
    // The burst, and about two seconds of nearly the whole rate.
    expect(flood.acknowledged).toBeGreaterThan(500 + 150);
    expect(flood.acknowledged).toBeLessThan(500 + 250);
    for (const { told } of calm) expect(told.closes).toEqual([]);
  });

  it('is not touched by what is over the rate of its own device', async () => {
    const { pipeline } = createPipeline();
    const rate = new SharedRate(100, 'quota');
    const flood = new Sender(pipeline, 1, [rate], 10);
    flood.send(10_000);
    await pass(100);
    expect(flood.acknowledged).toBeLessThanOrEqual(52);
    expect(rate.take(performance.now())).toBe(true);
    const other = new Sender(pipeline, 2, [rate]);
    other.send(440);
    await pass(10);
    expect(other.acknowledged).toBe(440);
  });

  it('refuses who would wait for longer than two seconds, with the reason of the rate', async () => {
    const { pipeline } = createPipeline();
    const rate = new SharedRate(10, 'rate');
    const senders = Array.from({ length: 80 }, (_, id) => new Sender(pipeline, id + 1, [rate]));
    for (const sender of senders) sender.send();
    await pass(10);
    const refused = senders.filter(({ told }) => told.closes.length > 0);
    expect(refused).toHaveLength(80 - 50 - 20);
    expect(refused[0]?.told.closes).toEqual(['rate']);
    await pass(2100);
    expect(senders.filter(({ acknowledged }) => acknowledged === 1)).toHaveLength(70);
  });

  it('asks the address and then the organization, and takes from both', async () => {
    const { pipeline } = createPipeline();
    const address = new SharedRate(1000, 'rate');
    const organization = new SharedRate(10, 'quota');
    const sender = new Sender(pipeline, 1, [address, organization]);
    sender.send(100);
    await pass(500);
    expect(sender.acknowledged).toBeGreaterThanOrEqual(54);
    expect(sender.acknowledged).toBeLessThanOrEqual(56);
  });

  it('lets nobody overtake those who stand in line', () => {
    const rate = new SharedRate(10, 'quota');
    for (let taken = 0; taken < 50; taken += 1) expect(rate.take(0)).toBe(true);
    expect(rate.take(0)).toBe(false);
    rate.wait(() => undefined, 0);
    expect(rate.take(250)).toBe(false);
  });

  it('is exceeded only by who has the next message there when the last has passed', () => {
    const rate = new SharedRate(10, 'quota');
    const wait = new SharedWait();
    for (let nowMs = 0; nowMs < 10_000; nowMs += 100) {
      wait.start(rate, nowMs);
      expect(wait.overReason(nowMs + 40)).toBeNull();
      wait.end(nowMs + 40);
      expect(wait.overReason(nowMs + 40)).toBeNull();
    }
    for (let nowMs = 10_000; nowMs < 12_500; nowMs += 100) {
      wait.start(rate, nowMs);
      expect(wait.overReason(nowMs + 90)).toBe(nowMs + 90 > 12_000 ? 'quota' : null);
      wait.end(nowMs + 90);
    }
  });

  it('is kept while a connection uses it, and until its bucket is full again', () => {
    const rates = new SharedRates<string>(10, 'rate');
    const rate = rates.acquire('10.0.0.1');
    if (rate === null) throw new Error('no rate');
    rates.forgetIdle(100_000);
    expect(rates.acquire('10.0.0.1')).toBe(rate);
    rate.connections = 0;
    rate.usedAt = 100_000;
    rates.forgetIdle(109_000);
    expect(rates.acquire('10.0.0.1')).toBe(rate);
    rate.connections = 0;
    rates.forgetIdle(110_001);
    expect(rates.acquire('10.0.0.1')).not.toBe(rate);
    expect(new SharedRates(0, 'rate').acquire('10.0.0.1')).toBeNull();
  });
});

describe('the queue while the database is slow', () => {
  it('is filled by one device only in part, and has room for the others', async () => {
    const store = new GatedStore();
    store.isOpen = false;
    const { pipeline, writer } = createPipeline(80, store);
    const flood = new Sender(pipeline, 1, []);
    flood.send(500);
    expect(writer.queuedRows).toBe(10);
    const others = Array.from({ length: 6 }, (_, id) => new Sender(pipeline, id + 2, []));
    for (const other of others) other.send(5);
    expect(writer.queuedRows).toBe(40);
    expect(others.map(({ waiting }) => waiting)).toEqual(Array(6).fill(0));
    await new Promise(setImmediate);
    store.open();
    await expect.poll(() => flood.acknowledged).toBe(500);
    expect(others.map(({ acknowledged }) => acknowledged)).toEqual(Array(6).fill(5));
    expect(writer.queuedRows).toBe(0);
  });
});
