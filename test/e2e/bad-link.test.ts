import type { MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectDevice, startTestApp, type TestApp } from '../support/app.ts';
import { openSlowLink, type SlowLink } from '../support/slow-link.ts';

const DEVICES = 10;
const MESSAGES = 20;
/** Makes 200 messages a quarter of a megabyte: two seconds of the link. */
const PADDING = 'x'.repeat(250);
/** The shortest keep alive that a device gets, in seconds. */
const KEEP_ALIVE_S = 15;
const ACKNOWLEDGED_MS_MAX = 20_000;

let app: TestApp;
let link: SlowLink;
const clients: MqttClient[] = [];
const closed: string[] = [];
beforeAll(async () => {
  app = await startTestApp();
  link = await openSlowLink(app.addresses.mqttUrl, {
    latencyMs: 400,
    bitsPerSecond: 1_000_000,
    loss: 0.3,
    retransmitMs: 1000,
  });
});
afterAll(async () => {
  for (const client of clients) client.end(true);
  await link.close();
  await app.stop();
});

async function enter(device: string): Promise<MqttClient> {
  const client = await connectDevice(link.url, await app.addDevice(device), {
    keepalive: KEEP_ALIVE_S,
  });
  client.on('close', () => closed.push(device));
  clients.push(client);
  return client;
}

/** Publishes one message after the other. @returns how long each PUBACK took, in ms. */
async function publishAll(client: MqttClient): Promise<number[]> {
  const took: number[] = [];
  for (let n = 0; n < MESSAGES; n += 1) {
    const startedAt = performance.now();
    const body = { n, a: PADDING, b: PADDING, c: PADDING, d: PADDING };
    await client.publishAsync('v1/me/data', JSON.stringify(body), { qos: 1 });
    took.push(performance.now() - startedAt);
  }
  return took;
}

describe('a link with 30 % loss, 400 ms latency and 1 Mbit/s', () => {
  it(
    'loses nothing that was acknowledged, bounds the wait, and trips no keep alive (N-12)',
    { timeout: 180_000 },
    async () => {
      const names = Array.from({ length: DEVICES }, (_, at) => `far-${at}`);
      const startedAt = performance.now();
      const silent = enter('silent');
      const took = await Promise.all(names.map(async (name) => publishAll(await enter(name))));
      const all = took.flat().toSorted((a, b) => a - b);
      expect(all).toHaveLength(DEVICES * MESSAGES);
      // Proof that the link is as bad as its name.
      expect(all[0]).toBeGreaterThan(800);
      expect(link.lostSegments).toBeGreaterThan(100);
      expect(all.at(-1)).toBeLessThan(ACKNOWLEDGED_MS_MAX);
      for (const name of names) {
        const path = `/api/v1/devices/${name}/readings?metric=n&order=asc`;
        const values = (await app.api('GET', path)).body.data.map(
          ({ value }: { value: number }) => value,
        );
        expect(values, name).toEqual(Array.from({ length: MESSAGES }, (_, n) => n));
      }
      await silent;
      // Long enough that a connection without its pings would have ended.
      const leftMs = KEEP_ALIVE_S * 1500 + 3000 - (performance.now() - startedAt);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, leftMs)));
      expect(closed).toEqual([]);
      expect(await app.metric('puback_broker_sessions')).toBe(DEVICES + 1);
    },
  );
});
