import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { createDiskPersistence } from '../broker/store/disk-persistence.ts';
import { openDiskStore, type DiskStore } from '../broker/store/disk-store.ts';

/**
 * What the session store on disk costs: `npm run bench:retained`. Uses a folder in TMPDIR, which should
 * be on the disk that is meant, not in memory.
 */
const RETAINED = 100_000;
const LOOKUPS = 20_000;
const SESSIONS = 50;
const QUEUED = 10_000;
const PAYLOAD = Buffer.alloc(150, 'x');

const folder = await mkdtemp(join(tmpdir(), 'puback-bench-'));
let store = await open();
const persistence = createDiskPersistence(store);
await persistence.setup({ id: 'bench' });

const topicOf = (n: number): string => `v1/bench/device-${n}/status`;
const someTopic = (n: number): string => topicOf((n * 7919) % RETAINED);

const putSeconds = await seconds(async () => {
  for (let from = 0; from < RETAINED; from += 1000) {
    await Promise.all(
      Array.from({ length: 1000 }, (_, n) =>
        store.putRetained({ topic: topicOf(from + n), payload: PAYLOAD, qos: 1, retain: true }),
      ),
    );
  }
});
report('retained messages stored, 1 000 at a time', RETAINED / putSeconds, '1/s');

const lookupSeconds = await seconds(async () => {
  for (let n = 0; n < LOOKUPS; n += 1) {
    if (store.retained(someTopic(n)) === null) throw new Error('a retained message is missing');
  }
});
report(`exact lookup among ${RETAINED}, retained()`, (lookupSeconds / LOOKUPS) * 1000, 'ms');

const streamSeconds = await seconds(async () => {
  for (let n = 0; n < LOOKUPS / 10; n += 1) {
    const found = await persistence.createRetainedStream(someTopic(n)).toArray();
    if (found.length !== 1) throw new Error('a retained message is missing');
  }
});
report('the same through createRetainedStream()', (streamSeconds / (LOOKUPS / 10)) * 1000, 'ms');

const scanSeconds = await seconds(async () => {
  if ([...store.retainedMatching('v1/bench/+/status')].length !== RETAINED) {
    throw new Error('a retained message is missing');
  }
});
report('all of them by a wildcard', scanSeconds * 1000, 'ms');

await store.openSession('one');
const waits: number[] = [];
for (let n = 0; n < 500; n += 1) {
  waits.push(await seconds(() => enqueue(['one'])));
}
waits.sort((a, b) => a - b);
report('enqueue until it is on disk, one at a time, p50', (waits[250] ?? 0) * 1000, 'ms');
report('… p99', (waits[495] ?? 0) * 1000, 'ms');

const sessions = Array.from({ length: SESSIONS }, (_, n) => `session-${n}`);
await Promise.all(sessions.map((id) => store.openSession(id)));
const queueSeconds = await seconds(async () => {
  for (let n = 0; n < QUEUED; n += 100) {
    await Promise.all(Array.from({ length: 100 }, () => enqueue(sessions)));
  }
});
report(
  `enqueued, ${SESSIONS} sessions, 100 messages at once`,
  (SESSIONS * QUEUED) / queueSeconds,
  '1/s',
);

await store.close();
const openSeconds = await seconds(async () => {
  store = await open();
});
report(`opening with ${SESSIONS} sessions of ${QUEUED} messages`, openSeconds * 1000, 'ms');
report('size of the file', (await stat(join(folder, 'data.mdb'))).size / 1_048_576, 'MiB');
await store.close();
await rm(folder, { recursive: true });

function enqueue(clientIds: readonly string[]): Promise<void> {
  return store.enqueue(clientIds, { topic: topicOf(1), payload: PAYLOAD, qos: 1, retain: false });
}

function open(): Promise<DiskStore> {
  return openDiskStore({
    folder,
    limits: {
      queueMessagesMax: 1_000_000,
      queueBytesMax: 1_000_000_000,
      queueAgeMaxMs: 86_400_000,
      sessionsMax: 10_000,
      sessionAgeMaxMs: 86_400_000,
      retainedMax: 1_000_000,
    },
    metricsRegistry: new Registry(),
    log: pino({ level: 'warn' }),
  });
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await work();
  return (performance.now() - from) / 1000;
}

function report(what: string, value: number, unit: string): void {
  const text = value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(2);
  process.stdout.write(`${what.padEnd(56)}${text.padStart(12)} ${unit}\n`);
}
