import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { BatchStore } from '../../ingest/batch-commit.ts';
import { BatchWriter } from '../../ingest/batch-writer.ts';
import { IngestMetrics } from '../../ingest/metrics.ts';
import type { Publication } from '../../ingest/message.ts';
import { Pipeline } from '../../ingest/pipeline.ts';
import { makePublication, makeSlot, noLookups, openLane } from '../support/messages.ts';

/** A pipeline over a store that takes everything but messages with `poison`. */
function createIntake() {
  const stored = { insertedRows: 0, duplicateRows: 0, quarantinedMessages: 0 };
  const refused = Object.assign(new Error('out of range'), { code: '22003' });
  const store: BatchStore = {
    insert: (batch) => {
      const isPoisoned = batch.messages.some(({ publication }) => publication.topic === 'poison');
      return isPoisoned ? Promise.reject(refused) : Promise.resolve(stored);
    },
    insertNew: (batch, first, end) => {
      const part = batch.messages.slice(first, end);
      const isPoisoned = part.some(({ publication }) => publication.topic === 'poison');
      return isPoisoned ? Promise.reject(refused) : Promise.resolve(stored);
    },
    insertQuarantine: () => Promise.resolve({ ...stored, quarantinedMessages: 1 }),
    forgetPartitions: () => undefined,
    close: () => Promise.resolve(),
  };
  const metrics = new IngestMetrics();
  const log = pino({ level: 'silent' });
  const limits = { batchRowsMax: 1000, lingerMs: 0, queueRowsMax: 1000, queueBytesMax: 1e6 };
  const writer = new BatchWriter({ store, limits, metrics, log });
  const pipeline = new Pipeline({
    lanes: noLookups(),
    writer,
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
  });
  const lane = openLane();
  lane.device.slots.set('temp', makeSlot(1, 1));
  return {
    /** Resolves with what the message is acknowledged with. */
    send: (payload: string, changes: Partial<Publication> = {}) =>
      new Promise<string | null>((resolve) => {
        const publication = makePublication(payload, (canonical) =>
          resolve(canonical?.toString() ?? null),
        );
        pipeline.accept(lane, { ...publication, ...changes });
      }),
  };
}

const NOW = Date.now();

describe('what is handed on with an acknowledgement', () => {
  it('is the canonical message, under the time that it is stored with', async () => {
    const { send } = createIntake();
    expect(await send(`{"ts":${NOW / 1000},"temp":21.5}`)).toBe(`{"ts":${NOW},"temp":21.5}`);
    const scalar = await send('21.5', { channel: 'scalar', name: 'temp' });
    expect(scalar).toMatch(/^\{"ts":\d{13},"temp":21\.5\}$/);
    expect(JSON.parse((await send('{"age":60000,"temp":1}')) ?? '')).toMatchObject({ temp: 1 });
  });

  it('is nothing when nobody wants it, who is asked once', async () => {
    const { send } = createIntake();
    let asked = 0;
    const isWanted = () => {
      asked += 1;
      return false;
    };
    expect(await send('{"dt":1,"temp":[1,2,3]}', { isWanted })).toBeNull();
    expect(asked).toBe(1);
  });

  it('is nothing of a message that went to quarantine whole, for whatever reason', async () => {
    const { send } = createIntake();
    expect(await send('{"temp":')).toBeNull();
    expect(await send(`{"ts":${NOW - 40 * 86_400_000},"temp":1}`)).toBeNull();
    expect(await send('{"temp":1}', { topic: 'poison' })).toBeNull();
  });

  it('is the part that was stored when the rest is too old or came before', async () => {
    const { send } = createIntake();
    const old = `[{"ts":${NOW - 40 * 86_400_000},"temp":1},{"ts":${NOW},"temp":2}]`;
    expect(await send(old)).toBe(`{"ts":${NOW},"temp":2}`);
    await send(`{"seq":1,"ts":${NOW},"temp":1}`);
    const batch = `[{"seq":1,"ts":${NOW},"temp":1},{"seq":2,"ts":${NOW + 1},"temp":2}]`;
    expect(await send(batch)).toBe(`{"ts":${NOW + 1},"seq":2,"temp":2}`);
    expect(await send(batch)).toBeNull();
  });

  it('is nothing of a message without a value', async () => {
    const { send } = createIntake();
    expect(await send('{"temp":null}')).toBeNull();
  });
});
