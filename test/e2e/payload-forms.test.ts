import { encode } from 'cborg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';

const TS = Date.now() - 60_000;

let app: TestApp;
let client: Awaited<ReturnType<TestApp['connect']>>;
/** What integrators were shown, behind `v1/demo/forms/`. */
const shown: [string, unknown][] = [];
const told: { code: string; ch: string }[] = [];
beforeAll(async () => {
  app = await startTestApp();
  const body = { name: 'all', scopes: ['data', 'event', 'log'], devices: null, expiresAt: null };
  const { key } = (await app.api('POST', '/api/v1/keys', body)).body;
  const reader = await app.connect(key);
  reader.on('message', (topic, payload) => {
    shown.push([topic.replace('v1/demo/forms/', ''), JSON.parse(payload.toString())]);
  });
  await reader.subscribeAsync('v1/demo/#', { qos: 1 });
  client = await app.connect(await app.addDevice('forms'));
  client.on('message', (topic, payload) => {
    if (topic.endsWith('/in/err')) told.push(JSON.parse(payload.toString()));
  });
});
afterAll(() => app.stop());

async function publish(rest: string, payload: string | Buffer): Promise<void> {
  await client.publishAsync(`v1/me/${rest}`, payload, { qos: 1 });
}

async function list(path: string): Promise<Record<string, unknown>[]> {
  return (await app.api('GET', `/api/v1/devices/forms/${path}`)).body.data;
}

async function isShown(topic: string, payload: unknown): Promise<void> {
  await eventually(`${topic} is shown`, () => shown.length > 0);
  expect(shown.shift()).toEqual([topic, payload]);
}

describe('what a device publishes', () => {
  it('may be CBOR, is stored, and is shown as JSON', async () => {
    await publish('data', Buffer.from(encode({ ts: TS, temp: 21.5, door: 'open', bad: NaN })));
    expect(await list('readings')).toEqual([
      expect.objectContaining({ metric: 'temp', value: 21.5 }),
      expect.objectContaining({ metric: 'door', value: 'open' }),
    ]);
    await isShown('data', { ts: TS, temp: 21.5, door: 'open' });
  });

  it('may be SenML, in JSON and CBOR, and names units', async () => {
    const pack = [
      { bn: 'urn:dev:mac:0024befffe804ff1:', bt: TS / 1000 + 1, n: 'flow', u: 'l/s', v: 3 },
    ];
    await publish('senml', JSON.stringify(pack));
    await isShown('data', { ts: TS + 1000, flow: 3 });
    const record = new Map<number, unknown>([
      [0, 'flow'],
      [2, 4],
      [6, TS / 1000 + 2],
    ]);
    await publish('senml', Buffer.from(encode([record])));
    await isShown('data', { ts: TS + 2000, flow: 4 });
    expect(await list('readings?metric=flow')).toHaveLength(2);
    await eventually('the unit is registered', async () => {
      const { body } = await app.api('GET', '/api/v1/metrics');
      const metrics = body.data as { name: string; unit: string | null }[];
      return metrics.some(({ name, unit }) => name === 'flow' && unit === 'l/s');
    });
  });

  it('may be an event, stored once however often it comes', async () => {
    const payload = `{"ts":${TS},"seq":900,"by":"rfid"}`;
    await publish('event/door', payload);
    await publish('event/door', payload);
    await publish('event/boot', '');
    const events = await list('events?order=asc');
    expect(events).toHaveLength(2);
    expect(events[0]).toMatchObject({ name: 'door', content: { by: 'rfid' }, quality: 'device' });
    expect(events[1]).toMatchObject({ name: 'boot', content: null, quality: 'receipt' });
    await isShown('event/door', { ts: TS, seq: 900, by: 'rfid' });
    await isShown('event/boot', { ts: expect.any(Number) as number });
  });

  it('may be lines of a log', async () => {
    await publish('log', '\u001b[0;31mE (12345) wifi: lost\u001b[0m\nplain\n');
    expect(await list('logs?order=asc')).toMatchObject([
      { level: 'E', tag: 'wifi', uptimeMs: 12_345, message: 'lost' },
      { level: null, tag: null, uptimeMs: null, message: 'plain' },
    ]);
    const ts = expect.any(Number) as number;
    await isShown('log', [
      { ts, l: 'E', tag: 'wifi', up: 12_345, msg: 'lost' },
      { ts, msg: 'plain' },
    ]);
  });

  it('is lost of logs at QoS 0 over their rate, and counted', async () => {
    const chatty = await app.connect(await app.addDevice('chatty'));
    const lines = Array.from({ length: 10 }, (_, index) => `${index}`.padEnd(1000, '.'));
    for (const line of lines) await chatty.publishAsync('v1/me/log', line);
    await chatty.publishAsync('v1/me/data', '{"temp":1}', { qos: 1 });
    const { body } = await app.api('GET', '/api/v1/devices/chatty/logs?order=asc');
    const kept = (body.data as { message: string }[]).map(({ message }) => message);
    // 1024 bytes a second, five seconds' worth at once; a slow machine lets one more through.
    expect(kept.slice(0, 5)).toEqual(lines.slice(0, 5));
    const dropped = await app.metric('puback_ingest_dropped_messages_total{reason="rate"}');
    expect(dropped).toBe(lines.length - kept.length);
    expect(dropped).toBeGreaterThan(0);
    await chatty.endAsync();
    await eventually('what was logged is shown', () => shown.length > kept.length);
    shown.length = 0;
  });

  it('goes to quarantine with its reason when it cannot be read (I-09)', async () => {
    await publish('data', Buffer.from('9bffffffffffffffff', 'hex'));
    await publish('senml', '{}');
    await publish('event/door', '{"ts":"now"}');
    const { body } = await app.api('GET', '/api/v1/quarantine?device=forms');
    const codes = (body.data as { code: string }[]).map(({ code }) => code);
    expect(codes).toEqual(['bad_type', 'bad_senml', 'bad_cbor']);
    await eventually('in/err', () => told.length > 0);
    expect(told[0]).toMatchObject({ code: 'bad_cbor', ch: 'data' });
    expect(shown).toEqual([]);
  });
});
