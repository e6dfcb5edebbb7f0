import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loseCommitAnswers } from '../../bench/faults/lose-commit-answer.ts';
import { eventually } from '../support/app.ts';
import {
  faultless,
  healthOf,
  openOwnServer,
  startDurableApp,
  startNumberedLoad,
  type DurableApp,
  type OwnServer,
} from '../support/own-database.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';

/** Without a spool an acknowledgement is a COMMIT, and there is none while the database is away. */
const WITHOUT_SPOOL = { SPOOL_BYTES_MAX: '0' };

let own: OwnServer;
let app: DurableApp;
beforeAll(async () => {
  own = await openOwnServer();
});
afterAll(() => own.close());
afterEach(async () => {
  await own.server.thaw();
  await own.server.start();
  await app.stop();
});

/** Proves that nothing is acknowledged for a while, once what was under way has come. */
async function nothingFor(ms: number, count: () => number): Promise<void> {
  let before = NaN;
  await eventually('an end of PUBACKs', async () => {
    before = count();
    await delay(300);
    return count() === before;
  });
  await delay(ms);
  expect(count()).toBe(before);
}

function publish(client: RawClient, count: number, qos: 0 | 1): void {
  client.send(
    ...Array.from({ length: count }, (_, index) => ({
      cmd: 'publish' as const,
      topic: 'v1/me/data/n',
      payload: String(index),
      qos,
      ...(qos === 1 ? { messageId: index + 1 } : {}),
      dup: false,
      retain: false,
    })),
  );
}

describe('without a spool, a database', { timeout: 120_000 }, () => {
  beforeEach(async () => {
    app = await startDurableApp(own, WITHOUT_SPOOL);
  });

  it('D-04 that is killed under load stops PUBACKs, ends nothing, and everything is stored once', async () => {
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 200);
    await own.server.kill();
    await eventually('the outage is seen', async () => (await healthOf(app)).ready === 503);
    await nothingFor(1000, () => fleet.acknowledged);
    expect(await healthOf(app)).toMatchObject({ live: 200, ready: 503 });
    const before = fleet.acknowledged;
    await own.server.start();
    await eventually('PUBACKs', () => fleet.acknowledged > before + 200);
    expect(await settle()).toMatchObject(faultless);
  });

  it('D-08 whose backend hangs is left for another connection, and rows are stored once', async () => {
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 200);
    const [writer] = await app.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE application_name = 'puback writer' ORDER BY pid LIMIT 1`,
    );
    const pid = writer?.pid ?? 0;
    process.kill(pid, 'SIGSTOP');
    try {
      const before = fleet.acknowledged;
      await eventually('PUBACKs over another connection', () => fleet.acknowledged > before + 200);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    expect(await settle()).toMatchObject(faultless);
  });

  it('D-11 that ends sessions or becomes read-only acknowledges nothing into the void', async () => {
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 200);
    await app.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'puback%'`,
    );
    const before = fleet.acknowledged;
    await eventually('PUBACKs after 57P01', () => fleet.acknowledged > before + 100);
    await setReadOnly('on');
    await eventually('the standby is seen', async () => (await healthOf(app)).ready === 503);
    await nothingFor(1000, () => fleet.acknowledged);
    await setReadOnly('off');
    const standing = fleet.acknowledged;
    await eventually('PUBACKs after 25006', () => fleet.acknowledged > standing + 100);
    expect(await settle()).toMatchObject(faultless);
  });

  it('whose answer to a COMMIT is lost has stored everything once', async () => {
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 200);
    let lost = 0;
    app.proxy.inspect = loseCommitAnswers(3, () => (lost += 1));
    await eventually('three lost answers', () => lost === 3);
    app.proxy.inspect = null;
    expect(await settle()).toMatchObject(faultless);
  });
});

describe('without a spool, a slow database', { timeout: 120_000 }, () => {
  it('D-07 that takes 2 s for each COMMIT makes batches grow, not connections, and no copy is stored', async () => {
    app = await startDurableApp(own, { ...WITHOUT_SPOOL, DATABASE_TIMEOUT_S: '5' });
    const probe = await app.connect(app.deviceKey);
    await probe.publishAsync('v1/me/data/n', '1', { qos: 1 });
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 200);
    const writers = await writersOf(app);
    const before = await batchesOf(app);
    app.proxy.latencyMs = 1000;
    const begun = (await batchesOf(app)).count;
    await probe.publishAsync('v1/me/data/n', '2', { qos: 1 });
    // The COMMIT under way, and its own; and what had its answer when the latency began.
    expect((await batchesOf(app)).count - begun).toBeLessThanOrEqual(4);
    expect(await writersOf(app)).toBeLessThanOrEqual(writers);
    // What waited meanwhile stands in the batches behind those two.
    await eventually(
      'five slow batches',
      async () => (await batchesOf(app)).count >= before.count + 5,
      30_000,
    );
    const after = await batchesOf(app);
    expect((after.sum - before.sum) / (after.count - before.count)).toBeGreaterThan(
      2 * (before.sum / before.count),
    );
    app.proxy.latencyMs = 0;
    expect(await settle()).toMatchObject(faultless);
  });
});

describe('without a spool, a database that stays away', { timeout: 120_000 }, () => {
  it('D-05 fills the queue up to its bound; QoS 1 is not acknowledged beyond it, QoS 0 is dropped and counted', async () => {
    app = await startDurableApp(own, {
      ...WITHOUT_SPOOL,
      QUEUE_ROWS_MAX: '100',
      DEVICE_HELD_BYTES_MAX: '4096',
    });
    const clients: RawClient[] = [];
    for (let n = 0; n < 10; n += 1) {
      const key = await app.addDevice(`queued-${n}`);
      const client = await connectRaw(app.addresses.mqttUrl, key, { keepalive: 600 });
      // Its metric is known before the database goes.
      publish(client, 1, 1);
      await client.next();
      clients.push(client);
    }
    const lossy = await connectRaw(app.addresses.mqttUrl, app.deviceKey, { keepalive: 600 });
    await own.server.stop('immediate');
    for (const client of clients) publish(client, 30, 1);
    await eventually('a full queue', async () => {
      return (await app.metric('puback_ingest_queue_rows')) === 100;
    });
    lossy.send({
      cmd: 'publish',
      topic: 'v1/me/data',
      payload: JSON.stringify({ text: 'x'.repeat(5000) }),
      qos: 0,
      dup: false,
      retain: false,
    });
    await eventually('QoS 0 is dropped', async () => {
      return (await app.metric('puback_ingest_dropped_messages_total{reason="held_bytes"}')) === 1;
    });
    expect(clients.flatMap(({ received }) => received)).toEqual([]);
    expect(await app.metric('puback_ingest_queue_rows')).toBe(100);
    expect(await healthOf(app)).toMatchObject({ live: 200, ready: 503 });
    await own.server.start();
    await eventually(
      'every PUBACK',
      () => clients.every(({ received }) => received.length === 30),
      20_000,
    );
    for (const client of [...clients, lossy]) client.end();
  });
});

async function setReadOnly(state: 'on' | 'off'): Promise<void> {
  await app.query(`ALTER SYSTEM SET default_transaction_read_only = ${state}`);
  await app.query('SELECT pg_reload_conf()');
}

/** Connections that readings are written over. */
async function writersOf(of: DurableApp): Promise<number> {
  const [row] = await of.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM pg_stat_activity WHERE application_name = 'puback writer'`,
  );
  return row?.count ?? 0;
}

async function batchesOf(of: DurableApp): Promise<{ count: number; sum: number }> {
  return {
    count: await of.metric('puback_ingest_batch_rows_count'),
    sum: await of.metric('puback_ingest_batch_rows_sum'),
  };
}
