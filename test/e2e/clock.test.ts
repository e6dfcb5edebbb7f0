import type { MqttClient } from 'mqtt';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { connectDevice, eventually, startTestApp, type TestApp } from '../support/app.ts';
import { connectReader, type Reader } from '../support/reader.ts';

const HOUR_MS = 3_600_000;
/** A second behind the last one that 32 bits can count. */
const YEAR_2038 = Date.UTC(2038, 0, 19, 3, 14, 8);

interface Status {
  readonly st: string;
  readonly since: number;
  readonly ts: number;
  readonly sid: string;
}

let app: TestApp;
const clients: MqttClient[] = [];
beforeAll(async () => {
  app = await startTestApp();
});
// The wall clock only, which goes on; timers and the monotonic clock are the real ones.
beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'], shouldAdvanceTime: true }));
afterEach(() => {
  vi.useRealTimers();
  for (const client of clients.splice(0)) client.end(true);
});
afterAll(() => app.stop());

function jumpTo(wallMs: number): void {
  vi.setSystemTime(wallMs);
}

async function enter(key: string): Promise<MqttClient> {
  const client = await connectDevice(app.addresses.mqttUrl, key, { keepalive: 15 });
  clients.push(client);
  return client;
}

async function readerOf(scopes: string[], expiresAt: string | null = null): Promise<Reader> {
  const body = { name: 'reader', scopes, devices: null, expiresAt };
  const { key } = (await app.api('POST', '/api/v1/keys', body)).body;
  const reader = await connectReader(app.addresses.mqttUrl, key);
  clients.push(reader.client);
  return reader;
}

/** Sums and gauges that a clock which goes back could have made negative. */
async function negativeMetrics(): Promise<string[]> {
  const text = await (await fetch(`${app.addresses.httpUrl}/metrics`)).text();
  return text.split('\n').filter((line) => line.startsWith('puback_') && / -/.test(line));
}

describe('a wall clock that jumps', () => {
  it('an hour ahead, an hour back and to 2038 ends no connection and stops no PUBACK (N-16)', async () => {
    const names = Array.from({ length: 10 }, (_, at) => `clock-${at}`);
    const devices = await Promise.all(names.map(async (name) => enter(await app.addDevice(name))));
    const { client: subscriber, got } = await readerOf(['data']);
    await subscriber.subscribeAsync('v1/demo/+/data', { qos: 1 });
    const closed: string[] = [];
    for (const client of [...devices, subscriber]) client.on('close', () => closed.push('one'));
    const start = Date.now();
    let published = 0;
    for (const wallMs of [
      start,
      start + HOUR_MS,
      start - HOUR_MS,
      start + 60_000,
      YEAR_2038,
      start + 120_000,
    ]) {
      jumpTo(wallMs);
      for (let round = 0; round < 3; round += 1) {
        const startedAt = performance.now();
        await Promise.all(
          devices.map((device) => device.publishAsync('v1/me/data/n', '1', { qos: 1 })),
        );
        published += devices.length;
        expect(performance.now() - startedAt, `at ${wallMs}`).toBeLessThan(10_000);
      }
      // Two looks for connections that are overdue.
      await new Promise((resolve) => setTimeout(resolve, 2200));
    }
    expect(closed).toEqual([]);
    await eventually('everything at the subscriber', () => got.length >= published);
    const stored = await app.testDatabase.database.pool.query(
      `SELECT count(*)::int4 AS count FROM v_reading WHERE device LIKE 'clock-%'`,
    );
    expect(stored.rows).toEqual([{ count: published }]);
    expect(await negativeMetrics()).toEqual([]);
    expect(await app.metric('puback_broker_held_messages')).toBe(0);
  });

  it('takes neither the times of presence nor the numbers of connections back (N-16)', async () => {
    const { client: subscriber, got } = await readerOf(['status']);
    await subscriber.subscribeAsync('v1/demo/traveller/status', { qos: 1 });
    const key = await app.addDevice('traveller');
    const start = Date.now();
    for (const wallMs of [start, start + HOUR_MS, start, start - HOUR_MS, start + HOUR_MS]) {
      jumpTo(wallMs);
      const before = got.length;
      const device = await enter(key);
      await device.publishAsync('v1/me/hello', '{"sleep":0}', { qos: 1 });
      await device.endAsync();
      await eventually('online and offline', () => got.length >= before + 2);
    }
    const statuses = got.map(({ body }) => body as Status);
    expect(statuses.map(({ st }) => st)).toEqual(
      Array.from({ length: 10 }, (_, at) => (at % 2 === 0 ? 'online' : 'offline')),
    );
    for (const [at, { since, ts, sid }] of statuses.entries()) {
      const before = statuses[at - 1];
      if (before === undefined) continue;
      expect(since, `since of ${at}`).toBeGreaterThanOrEqual(before.since);
      expect(ts, `ts of ${at}`).toBeGreaterThanOrEqual(before.ts);
      const grown = Number.parseInt(sid, 36) - Number.parseInt(before.sid, 36);
      expect(grown, `sid of ${at}`).toBeGreaterThanOrEqual(0);
      if (statuses[at]?.st === 'online') expect(grown).toBeGreaterThan(0);
    }
    expect(await negativeMetrics()).toEqual([]);
  });

  it('ahead ends keys with an end, which go by the wall clock, and no others (N-16)', async () => {
    const start = Date.now();
    const lasting = await readerOf(['data']);
    const ending = await readerOf(['data'], new Date(start + HOUR_MS / 2).toISOString());
    const ended = new Promise<void>((resolve) => ending.client.once('close', () => resolve()));
    jumpTo(start + HOUR_MS);
    await ended;
    expect(lasting.client.connected).toBe(true);
    const password = String(ending.client.options.password);
    await expect(connectReader(app.addresses.mqttUrl, password)).rejects.toThrow(/[Nn]ot auth/);
    jumpTo(start);
    const again = await connectReader(app.addresses.mqttUrl, password);
    clients.push(again.client);
  });

  it('neither ends a ban for wrong keys nor makes one longer (N-16)', async () => {
    const long = await startTestApp({ LOGIN_FAILURES_MAX: '3', LOGIN_BAN_S: '600' });
    const brief = await startTestApp({ LOGIN_FAILURES_MAX: '3', LOGIN_BAN_S: '4' });
    try {
      const start = Date.now();
      await beBanned(long);
      jumpTo(start + HOUR_MS);
      expect(await statusFor(long, long.adminKey)).toBe(429);
      await beBanned(brief);
      jumpTo(start - HOUR_MS);
      const isOver = async () => (await statusFor(brief, brief.adminKey)) === 200;
      await eventually('its end', isOver);
      expect(await statusFor(long, long.adminKey)).toBe(429);
    } finally {
      await long.stop();
      await brief.stop();
    }
  });
});

async function statusFor({ addresses }: TestApp, key: string): Promise<number> {
  const headers = { authorization: `Bearer ${key}` };
  return (await fetch(`${addresses.httpUrl}/api/v1/devices`, { headers })).status;
}

async function beBanned(of: TestApp): Promise<void> {
  for (let n = 0; n < 4; n += 1) await statusFor(of, makeKey('admin').key);
  expect(await statusFor(of, of.adminKey)).toBe(429);
}
