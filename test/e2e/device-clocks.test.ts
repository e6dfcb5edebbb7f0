import type { MqttClient } from 'mqtt';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { connectDevice, eventually, startTestApp, type TestApp } from '../support/app.ts';

const HOUR_MS = 3_600_000;

let app: TestApp;
const clients: MqttClient[] = [];
beforeAll(async () => {
  app = await startTestApp({}, { now: () => Date.now() });
});
// The wall clock only, which goes on; timers and the monotonic clock are the real ones.
beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'], shouldAdvanceTime: true }));
afterEach(() => {
  vi.useRealTimers();
  for (const client of clients.splice(0)) client.end(true);
});
afterAll(() => app.stop());

interface Told {
  readonly code: string;
  readonly ts?: number;
}

/** Connects a device, and collects what it is told on `in/err`. */
async function enter(name: string): Promise<{ client: MqttClient; told: Told[] }> {
  const client = await connectDevice(app.addresses.mqttUrl, await app.addDevice(name));
  clients.push(client);
  const told: Told[] = [];
  client.on('message', (topic, payload) => {
    if (topic.endsWith('/in/err')) told.push(JSON.parse(payload.toString()) as Told);
  });
  return { client, told };
}

const send = (client: MqttClient, message: object) =>
  client.publishAsync('v1/me/data', JSON.stringify(message), { qos: 1 });

/** How wrong the stored times are: each reading has the truth, in ms, as its value. */
async function errorsOf(device: string): Promise<number[]> {
  const path = `/api/v1/devices/${device}/readings?metric=truth&order=asc&limit=1000`;
  const { body } = await app.api('GET', path);
  return body.data.map(({ time, value }: { time: string; value: number }) =>
    Math.abs(Date.parse(time) - value),
  );
}

const qualityOf = async (device: string): Promise<unknown> =>
  (await app.api('GET', `/api/v1/devices/${device}/latest`)).body.data[0]?.quality;

describe('device clocks', () => {
  it('a board that is 3 h ahead and drifts by 50 ppm ends within 1 s of the truth', async () => {
    const { client, told } = await enter('ahead');
    const start = Date.now();
    // Two hours; a message every half a minute.
    for (let at = 0; at < 240; at += 1) {
      const elapsed = at * 30_000;
      vi.setSystemTime(start + elapsed);
      const ts = start + elapsed + 3 * HOUR_MS + Math.round(elapsed * 50e-6);
      await send(client, { ts, truth: start + elapsed });
    }
    const errors = await errorsOf('ahead');
    expect(errors).toHaveLength(240);
    expect(Math.max(...errors)).toBeLessThan(1000);
    expect(await qualityOf('ahead')).toBe('corrected');
    // Once for the connection, with the time to set the clock to.
    expect(told.map(({ code }) => code)).toEqual(['clock']);
    expect(Math.abs((told[0]?.ts ?? 0) - start)).toBeLessThan(60_000);
    // What it had buffered is corrected as well.
    const batch = [3600, 1800, 60].map((back) => {
      const truth = Date.now() - back * 1000;
      return { ts: truth + 3 * HOUR_MS + 360, truth };
    });
    await client.publishAsync('v1/me/data', JSON.stringify(batch), { qos: 1 });
    expect(Math.max(...(await errorsOf('ahead')))).toBeLessThan(1000);
  });

  it('a board that is 3 h behind is believed: it may be late', async () => {
    const { client, told } = await enter('behind');
    const start = Date.now();
    for (let at = 0; at < 20; at += 1) {
      vi.setSystemTime(start + at * 30_000);
      await send(client, { ts: start + at * 30_000 - 3 * HOUR_MS, truth: start + at * 30_000 });
    }
    const errors = await errorsOf('behind');
    expect(Math.max(...errors.map((error) => Math.abs(error - 3 * HOUR_MS)))).toBe(0);
    expect(await qualityOf('behind')).toBe('device');
    expect(told).toEqual([]);
  });

  it('a board that only knows its uptime is dated by hello, a batch and a series as well', async () => {
    const { client } = await enter('uptime');
    const bootMs = Date.now() - 2 * HOUR_MS;
    const up = (): number => Date.now() - bootMs;
    await client.publishAsync('v1/me/hello', JSON.stringify({ up: up() }), { qos: 1 });
    const sample = (back: number) => ({ up: up() - back, truth: Date.now() - back });
    await send(client, sample(HOUR_MS));
    await send(client, [sample(30_000), sample(20_000), sample(10_000)]);
    const first = up() - 5000;
    await send(client, {
      up: first,
      dt: 1000,
      truth: [0, 1000, 2000].map((on) => bootMs + first + on),
    });
    const errors = await errorsOf('uptime');
    expect(errors).toHaveLength(7);
    expect(Math.max(...errors)).toBeLessThan(1000);
    expect(await qualityOf('uptime')).toBe('age');
  });

  it('a board that only knows its uptime keeps the distances of a message without hello', async () => {
    const { client } = await enter('uptime-alone');
    const now = Date.now();
    const batch = [60_000, 30_000, 0].map((back) => ({ up: 90_000 - back, truth: now - back }));
    await client.publishAsync('v1/me/data', JSON.stringify(batch), { qos: 1 });
    expect(Math.max(...(await errorsOf('uptime-alone')))).toBeLessThan(1000);
  });

  it('no clock makes a time outside the limits, nor a partition for each year (D-13)', async () => {
    const { client } = await enter('lost');
    const seconds = [0, 812, 1_577_836_799, 4_294_967_295, 2_500_000_000, 9.4e12, 1e300, -1e300];
    for (let year = 2027; year < 2127; year += 1) seconds.push(Date.UTC(year) / 1000);
    for (const ts of seconds) await send(client, { ts, truth: Date.now() });
    const errors = await errorsOf('lost');
    expect(errors).toHaveLength(seconds.length);
    expect(Math.max(...errors)).toBeLessThan(5000);
    expect(await qualityOf('lost')).toBe('server_ts');
  });

  it('counts where times come from', async () => {
    const count = (quality: string) =>
      app.metric(`puback_ingest_dated_samples_total{quality="${quality}"}`);
    const before = await count('receipt');
    const { client } = await enter('counted');
    await send(client, { n: 1 });
    await eventually('the count', async () => (await count('receipt')) === before + 1);
    expect(await count('corrected')).toBeGreaterThan(200);
    expect(await app.metric('puback_ingest_device_clocks{state="ahead"}')).toBe(1);
    expect(await app.metric('puback_ingest_late_samples_total')).toBeGreaterThan(20);
  });

  it('what is known of a clock is written when the program stops', async () => {
    const other = await startTestApp({}, { now: () => Date.now() });
    try {
      const client = await connectDevice(other.addresses.mqttUrl, other.deviceKey);
      clients.push(client);
      const start = Date.now();
      for (let at = 0; at < 20; at += 1) {
        vi.setSystemTime(start + at * 10_000);
        await send(client, { ts: start + at * 10_000 + 60_000, n: at });
      }
      await other.halt();
      const { rows } = await other.testDatabase.database.pool.query(
        'SELECT offset_ms::float8 AS offset, drift_ppm, samples FROM device_clock',
      );
      expect(rows).toMatchObject([{ drift_ppm: null, samples: 20 }]);
      expect(Math.abs(rows[0].offset - 60_000)).toBeLessThan(1000);
    } finally {
      await other.stop();
    }
  });
});
