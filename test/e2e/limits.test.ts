import type { Packet } from 'mqtt-packet';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';

function publishAll(client: RawClient, count: number, qos: 0 | 1 = 1, payload = '1'): void {
  client.send(
    ...Array.from({ length: count }, (_, index) => ({
      cmd: 'publish' as const,
      topic: payload === '1' ? 'v1/me/data/n' : 'v1/me/data',
      payload,
      qos,
      ...(qos === 1 ? { messageId: index + 1 } : {}),
      dup: false,
      retain: false,
    })),
  );
}

const isPuback = ({ cmd }: Packet): boolean => cmd === 'puback';

async function countPubacks(client: RawClient, forMs: number): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, forMs));
  return client.received.filter(isPuback).length;
}

describe('the rate of a device', () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startTestApp({ DEVICE_MESSAGES_PER_S: '20', DEVICE_POINTS_PER_S: '100' });
  });
  afterAll(() => app.stop());

  it('lets a burst through and shapes what comes above it', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, await app.addDevice('burst'));
    const startedMs = performance.now();
    publishAll(client, 120);
    await eventually('the burst', () => client.received.length >= 100);
    // At 20 a second a hundred would take five.
    expect(performance.now() - startedMs).toBeLessThan(4000);
    await eventually('the last twenty', () => client.received.length >= 120);
    expect(performance.now() - startedMs).toBeGreaterThan(900);
    expect(client.isClosed()).toBe(false);
    client.end();
  });

  it('closes a connection whose QoS 1 messages would wait for more than 2 s, without PUBACK (N-05)', async () => {
    const key = await app.addDevice('flood');
    const client = await connectRaw(app.addresses.mqttUrl, key);
    publishAll(client, 400);
    await client.closed;
    const pubacks = client.received.filter(isPuback).length;
    expect(pubacks).toBeLessThan(400);
    expect(client.received.filter((packet) => packet.cmd === 'publish')).toHaveLength(1);
    const { body } = await app.api('GET', '/api/v1/devices/flood/readings?limit=1000');
    expect(body.data.length).toBeGreaterThanOrEqual(pubacks);
  });

  it('drops QoS 0 above it, counts it and keeps the connection', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, await app.addDevice('deaf'));
    publishAll(client, 400, 0);
    await eventually('drops are counted', async () => {
      return (await app.metric('puback_ingest_dropped_messages_total{reason="rate"}')) > 100;
    });
    expect(client.isClosed()).toBe(false);
    client.end();
  });

  it('survives a reconnect, so that reconnecting is no way around it', async () => {
    const key = await app.addDevice('evader');
    const startedMs = performance.now();
    let pubacks = 0;
    for (let round = 0; round < 3; round += 1) {
      const client = await connectRaw(app.addresses.mqttUrl, key);
      publishAll(client, 100);
      pubacks += await countPubacks(client, 200);
      client.end();
      await client.closed;
    }
    const seconds = (performance.now() - startedMs) / 1000;
    expect(pubacks).toBeLessThan(120 + 20 * seconds);
  });

  it('of values is a limit of its own', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, await app.addDevice('wide'));
    const sample = Object.fromEntries(
      Array.from({ length: 60 }, (_, index) => [`m${index}`, index]),
    );
    const startedMs = performance.now();
    publishAll(client, 10, 1, JSON.stringify(sample));
    await eventually('all of them', () => client.received.length >= 10);
    expect(performance.now() - startedMs).toBeGreaterThan(300);
    client.end();
  });
});

describe('the rate of an organization', () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startTestApp({ ORGANIZATION_MESSAGES_PER_S: '40' });
  });
  afterAll(() => app.stop());

  it('ends the device that floods, with code quota, and leaves the others alone', async () => {
    const calm = await connectRaw(app.addresses.mqttUrl, await app.addDevice('calm'));
    const flood = await connectRaw(app.addresses.mqttUrl, await app.addDevice('flooder'));
    publishAll(flood, 2000);
    const waits: number[] = [];
    while (!flood.isClosed()) {
      const sentMs = performance.now();
      publishAll(calm, 1);
      await eventually('its PUBACK', () => calm.received.length > waits.length);
      waits.push(performance.now() - sentMs);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const told = flood.received.filter((packet) => packet.cmd === 'publish');
    expect(told.map(({ payload }) => JSON.parse(String(payload)))).toMatchObject([
      { code: 'quota' },
    ]);
    expect(await app.metric('puback_ingest_dropped_messages_total{reason="quota"}')).toBe(1);
    // Behind the flood it would have waited for as long as that lasted.
    expect(waits.length).toBeGreaterThan(2);
    expect(waits.toSorted((a, b) => a - b)[waits.length >> 1]).toBeLessThan(500);
    calm.end();
  });
});

describe('the rate of an address', () => {
  it('holds all connections from it together, with code rate', async () => {
    const app = await startTestApp({ ADDRESS_MESSAGES_PER_S: '20' });
    const clients = await Promise.all(
      ['left', 'right'].map(async (device) =>
        connectRaw(app.addresses.mqttUrl, await app.addDevice(device)),
      ),
    );
    const startedMs = performance.now();
    for (const client of clients) publishAll(client, 1000);
    await Promise.all(clients.map(({ closed }) => closed));
    const seconds = (performance.now() - startedMs) / 1000;
    const pubacks = clients.flatMap(({ received }) => received.filter(isPuback)).length;
    expect(pubacks).toBeGreaterThanOrEqual(100);
    expect(pubacks).toBeLessThan(110 + 20 * seconds);
    for (const client of clients) {
      expect(client.received.find((packet) => packet.cmd === 'publish')).toBeDefined();
    }
    expect(await app.metric('puback_ingest_dropped_messages_total{reason="rate"}')).toBe(2);
    await app.stop();
  });
});

describe('while the database does not take anything, without a spool', () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startTestApp({
      SPOOL_BYTES_MAX: '0',
      QUEUE_ROWS_MAX: '100',
      DEVICE_QUEUE_PERCENT: '100',
      DEVICE_HELD_BYTES_MAX: '4096',
    });
  });
  afterAll(() => app.stop());

  /** Runs `during` with `reading` locked, as by a migration or a hung server. */
  async function withLockedReadings(during: () => Promise<void>): Promise<void> {
    const blocker = await app.testDatabase.database.pool.connect();
    try {
      await blocker.query('BEGIN');
      await blocker.query('LOCK TABLE reading IN ACCESS EXCLUSIVE MODE');
      await during();
    } finally {
      await blocker.query('COMMIT');
      blocker.release();
    }
  }

  it('D-05 the queue stays within its bound, and all of it is stored afterwards', async () => {
    const clients = await Promise.all(
      Array.from({ length: 10 }, async (_, index) =>
        connectRaw(app.addresses.mqttUrl, await app.addDevice(`queued-${index}`)),
      ),
    );
    await withLockedReadings(async () => {
      for (const client of clients) publishAll(client, 30);
      await eventually('the queue is full', async () => {
        return (await app.metric('puback_ingest_queue_rows')) >= 100;
      });
      expect(await app.metric('puback_ingest_queue_rows')).toBe(100);
      // One of each device waits before the queue; the others are still in their sockets.
      expect(await app.metric('puback_ingest_held_messages')).toBeLessThanOrEqual(10);
      expect(clients.flatMap(({ received }) => received)).toEqual([]);
    });
    await eventually('every PUBACK', () => clients.every(({ received }) => received.length === 30));
    for (const client of clients) {
      expect(client.received.map((packet) => 'messageId' in packet && packet.messageId)).toEqual(
        Array.from({ length: 30 }, (_, index) => index + 1),
      );
      client.end();
    }
  });

  it('a message larger than may be held is not taken, and its device is told', async () => {
    const key = await app.addDevice('greedy');
    const texts = Array.from({ length: 25 }, (_, index) => [`text${index}`, 'x'.repeat(200)]);
    await withLockedReadings(async () => {
      const filler = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
      publishAll(filler, 110);
      const client = await connectRaw(app.addresses.mqttUrl, key);
      publishAll(client, 1, 1, JSON.stringify(Object.fromEntries(texts)));
      await client.closed;
      expect(client.received).toMatchObject([{ cmd: 'publish', topic: 'v1/me/in/err' }]);
      filler.end();
    });
  });

  it('D-08 a connection is closed before half of its keep alive, and the readings are kept', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey, { keepalive: 15 });
    await withLockedReadings(async () => {
      const startedAt = performance.now();
      publishAll(client, 1, 1, `{"ts":${Date.now()},"kept":1}`);
      await client.closed;
      const heldMs = performance.now() - startedAt;
      expect(heldMs).toBeGreaterThan(15_000 * 0.3);
      expect(heldMs).toBeLessThan(15_000 * 0.55);
    });
    await eventually('the reading', async () => {
      const { body } = await app.api('GET', '/api/v1/devices/first/readings?metric=kept');
      return body.data.length === 1;
    });
  });
});

describe('stopping', () => {
  it('D-03 stores and acknowledges what was taken in, and then closes', async () => {
    const app = await startTestApp();
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    publishAll(client, 300);
    await client.next();
    await app.halt();
    await client.closed;
    const { rows } = await app.testDatabase.database.pool.query<{ count: number }>(
      'SELECT count(*)::int4 AS count FROM reading',
    );
    expect(client.received.length + 1).toBe(rows[0]?.count);
    expect(rows[0]?.count).toBe(300);
    await app.stop();
  });
});

describe('connects of one device', () => {
  it('beyond its rate are answered with CONNACK 3, and other devices are let in', async () => {
    const app = await startTestApp({ DEVICE_CONNECTS_PER_MIN: '5' });
    try {
      const key = await app.addDevice('restless');
      const other = await app.addDevice('calm');
      for (let n = 0; n < 5; n += 1) (await connectRaw(app.addresses.mqttUrl, key)).end();
      await expect(connectRaw(app.addresses.mqttUrl, key)).rejects.toThrow('"returnCode":3');
      (await connectRaw(app.addresses.mqttUrl, other)).end();
    } finally {
      await app.stop();
    }
  });

  it('of two boards with one key are told with both peers (N-08)', async () => {
    const app = await startTestApp();
    try {
      const key = await app.addDevice('shared');
      for (let n = 0; n < 5; n += 1) {
        await connectRaw(app.addresses.mqttUrl, key, { clientId: `board-${n % 2}` });
      }
      const shown = async (): Promise<{ code: string; detail: string }[]> =>
        (await app.api('GET', '/api/v1/devices/shared/diagnostics')).body.events.data;
      await eventually('duplicate_identity', async () =>
        (await shown()).some(
          ({ code, detail }) =>
            code === 'duplicate_identity' &&
            detail.includes('board-0') &&
            detail.includes('board-1'),
        ),
      );
      expect((await shown()).map(({ code }) => code)).not.toContain('flapping');
    } finally {
      await app.stop();
    }
  });
});

describe('SUBSCRIBE of filters that stand for many', () => {
  it('does not keep other clients waiting, from however many connections it comes', async () => {
    const app = await startTestApp();
    try {
      const devices = Array.from({ length: 100 }, (_, n) => `many-${n}`);
      for (const device of devices) await app.api('POST', '/api/v1/devices', { device });
      const scopes = ['data', 'status', 'event', 'log', 'alert', 'cmd', 'raw'];
      const body = { name: 'greedy', scopes, devices, expiresAt: null };
      const { key } = (await app.api('POST', '/api/v1/keys', body)).body;
      const greedy = await Promise.all(
        Array.from({ length: 10 }, (_, n) =>
          connectRaw(app.addresses.mqttUrl, key, { clientId: `greedy-${n}` }),
        ),
      );
      const subscriptions = Array.from({ length: 64 }, (_, n) => ({
        topic: n % 2 === 0 ? 'v1/demo/#' : `v1/demo/+/${n % 4 === 1 ? '#' : '+'}`,
        qos: 0 as const,
      }));
      for (let packet = 1; packet <= 20; packet += 1) {
        for (const client of greedy) {
          client.send({ cmd: 'subscribe', messageId: packet, subscriptions });
        }
      }
      const device = await app.connect(app.deviceKey);
      const waits: number[] = [];
      for (let n = 0; n < 40; n += 1) {
        const startedMs = performance.now();
        await device.publishAsync('v1/me/data/n', String(n), { qos: 1 });
        waits.push(performance.now() - startedMs);
      }
      const median = waits.toSorted((a, b) => a - b)[20] ?? 0;
      expect(median).toBeLessThan(100);
      for (const client of greedy) client.end();
    } finally {
      await app.stop();
    }
  });
});
