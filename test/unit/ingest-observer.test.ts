import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { BatchStore } from '../../ingest/batch-commit.ts';
import { BatchWriter } from '../../ingest/batch-writer.ts';
import type { Lane } from '../../ingest/lane.ts';
import { IngestMetrics } from '../../ingest/metrics.ts';
import type { Publication } from '../../ingest/message.ts';
import type { ReadingObserver } from '../../ingest/observer.ts';
import { Pipeline } from '../../ingest/pipeline.ts';
import { makePublication, makeSlot, noLookups, openLane } from '../support/messages.ts';

const NOW = Date.now();

/** Writes down what it is told. */
class Recorder implements ReadingObserver {
  readonly told: string[] = [];
  seriesAsked = 0;

  seriesOf(organizationId: number, deviceId: number, metric: string): object {
    this.seriesAsked += 1;
    return { name: `${organizationId}/${deviceId}/${metric}` };
  }

  reading(series: object, timeMicros: number, value: number | null, text: string | null): void {
    const { name } = series as { name: string };
    this.told.push(`${name} ${text ?? String(value)} at ${timeMicros / 1000 - NOW}`);
  }

  sampleEnd(deviceId: number, sample: Parameters<ReadingObserver['sampleEnd']>[1]): void {
    const { timeMicros, isLive } = sample;
    this.told.push(`end of ${deviceId} at ${timeMicros / 1000 - NOW}${isLive ? '' : ', again'}`);
  }

  event(
    device: Parameters<ReadingObserver['event']>[0],
    { name, content, timeMicros }: Parameters<ReadingObserver['event']>[1],
  ): void {
    const { deviceId } = device;
    this.told.push(`${name} of ${deviceId} at ${timeMicros / 1000 - NOW}: ${content ?? 'nothing'}`);
  }

  refused(_organizationId: number, deviceId: number): void {
    this.told.push(`refused of ${deviceId}`);
  }
}

function createIntake() {
  const stored = { insertedRows: 0, duplicateRows: 0, quarantinedMessages: 0 };
  let committed = (): void => undefined;
  const commit = new Promise<void>((resolve) => (committed = resolve));
  const store: BatchStore = {
    insert: () => commit.then(() => stored),
    insertNew: () => Promise.resolve(stored),
    insertQuarantine: () => Promise.resolve({ ...stored, quarantinedMessages: 1 }),
    forgetPartitions: () => undefined,
    close: () => Promise.resolve(),
  };
  const metrics = new IngestMetrics();
  const log = pino({ level: 'silent' });
  const limits = { batchRowsMax: 1000, lingerMs: 0, queueRowsMax: 1000, queueBytesMax: 1e6 };
  const observer = new Recorder();
  const pipeline = new Pipeline({
    lanes: noLookups(),
    writer: new BatchWriter({ store, limits, metrics, log }),
    limits: {
      deviceMetricsMax: 10,
      deviceHeldBytesMax: 1e6,
      heldBytesMax: 1e6,
      ageMaxMs: 30 * 86_400_000,
      aheadMaxMs: 300_000,
      deviceLogBytesPerSecond: 0,
      spoolAfterMs: 1000,
    },
    metrics,
    log,
    observer,
  });
  const lane = openLane();
  for (const [index, metric] of ['temp', 'door', 'state'].entries()) {
    lane.device.slots.set(metric, makeSlot(1, index));
  }
  const send = (payload: string, changes: Partial<Publication> = {}, by: Lane = lane): void => {
    pipeline.accept(by, { ...makePublication(payload, () => undefined), ...changes });
  };
  return { observer, send, lane, committed: () => committed() };
}

describe('who observes readings', () => {
  it('is told of each at accept, before its COMMIT, sample by sample', () => {
    const { observer, send, committed } = createIntake();
    send(`[{"ts":${NOW - 10},"temp":21.5,"door":true},{"ts":${NOW},"state":"idle"}]`);
    expect(observer.told).toEqual([
      '1/1/temp 21.5 at -10',
      '1/1/door 1 at -10',
      'end of 1 at -10',
      '1/1/state idle at 0',
      'end of 1 at 0',
    ]);
    committed();
  });

  it('is asked once for the series of a metric', () => {
    const { observer, send, committed } = createIntake();
    for (let count = 0; count < 5; count += 1) send(`{"ts":${NOW + count},"temp":${count}}`);
    expect(observer.seriesAsked).toBe(1);
    committed();
  });

  it('is not told of copies, which their number gives away', () => {
    const { observer, send, committed } = createIntake();
    send(`{"seq":5,"ts":${NOW},"temp":1}`);
    send(`{"seq":5,"ts":${NOW},"temp":1}`);
    expect(observer.told).toEqual(['1/1/temp 1 at 0', 'end of 1 at 0']);
    committed();
  });

  it('is told of events with what was sent, and not of log lines', () => {
    const { observer, send, committed } = createIntake();
    const event = { channel: 'event', name: 'door.open' } as const;
    send(`{"ts":${NOW},"door":"north"}`, event);
    send('', event);
    send('I (12) boot: up', { channel: 'log' });
    expect(observer.told[0]).toBe('door.open of 1 at 0: {"door":"north"}');
    expect(observer.told[1]).toMatch(/^door\.open of 1 at .*: nothing$/);
    expect(observer.told).toHaveLength(2);
    committed();
  });

  it('is told of a message that cannot be stored, and of no reading of it', () => {
    const { observer, send, committed } = createIntake();
    send('{"temp":');
    send(`{"ts":${NOW},"temp":[1,{}]}`);
    send(`{"ts":${NOW - 90 * 86_400_000},"temp":1}`);
    expect(observer.told).toEqual(['refused of 1', 'refused of 1', 'refused of 1']);
    committed();
  });

  it('is told whether somebody feeds it in again; what comes out of the spool counts as live', () => {
    const { observer, send, lane, committed } = createIntake();
    lane.isLive = false;
    send(`{"ts":${NOW},"temp":1}`);
    lane.isOfSpool = true;
    send(`{"ts":${NOW + 1},"temp":1}`);
    expect(observer.told.filter((told) => told.startsWith('end'))).toEqual([
      'end of 1 at 0, again',
      'end of 1 at 1',
    ]);
    committed();
  });
});
