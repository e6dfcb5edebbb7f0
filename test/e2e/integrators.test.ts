import type { IClientOptions, MqttClient } from 'mqtt';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { fastestMs } from '../support/fastest.ts';
import { connectReader, type Reader } from '../support/reader.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';

let app: TestApp;
const open: MqttClient[] = [];
beforeAll(async () => {
  app = await startTestApp();
});
afterEach(() => {
  for (const client of open.splice(0)) client.end(true);
});
afterAll(() => app.stop());

async function makeKey(fields: object = {}): Promise<{ key: string; keyId: string }> {
  const body = { name: 'test', scopes: ['data'], devices: null, expiresAt: null, ...fields };
  const answer = await app.api('POST', '/api/v1/keys', body);
  expect(answer.status).toBe(201);
  return answer.body;
}

async function readerOf(key: string, options: IClientOptions = {}): Promise<Reader> {
  const reader = await connectReader(app.addresses.mqttUrl, key, options);
  open.push(reader.client);
  return reader;
}

async function subscribe({ client }: Reader, filter: string, qos: 0 | 1 = 1): Promise<number> {
  const [grant] = await client.subscribeAsync(filter, { qos });
  return grant?.qos ?? 128;
}

/** @returns the codes of SUBACK. */
async function subscribeRaw(raw: RawClient, filters: readonly string[]): Promise<unknown> {
  raw.send({
    cmd: 'subscribe',
    messageId: 1,
    subscriptions: filters.map((topic) => ({ topic, qos: 1 as const })),
  });
  const suback = await raw.next();
  return suback.cmd === 'suback' ? suback.granted : suback;
}

describe('an integrator', () => {
  it('sees the canonical stream of every device once it is stored', async () => {
    const reader = await readerOf((await makeKey()).key);
    expect(await subscribe(reader, 'v1/demo/+/data')).toBe(1);
    const device = await app.connect(await app.addDevice('streamed'));
    await device.publishAsync('v1/me/data/temp', '21.5', { qos: 1 });
    await device.publishAsync('v1/me/data', '{"ts":1795235431,"bme":{"t":21},"nan":nan}', {
      qos: 0,
    });
    await device.publishAsync('v1/me/data', '{"broken":', { qos: 1 });
    await eventually('both messages', () => reader.got.length === 2);
    expect(reader.got[0]).toMatchObject({ topic: 'v1/demo/streamed/data', body: { temp: 21.5 } });
    expect(reader.got[0]?.body).toHaveProperty('ts', expect.any(Number));
    expect(reader.got[1]?.body).toMatchObject({ 'bme.t': 21 });
    const { body } = await app.api('GET', '/api/v1/devices/streamed/readings');
    expect(body.data.length).toBeGreaterThanOrEqual(2);
  });

  it.each([
    ['#'],
    ['+/#'],
    ['$SYS/#'],
    ['$share/g/v1/demo/+/data'],
    ['v1/other/+/data'],
    ['v1/+/+/data'],
    ['v1/demo/+/status'],
    ['v1/demo/+/in/key'],
    ['v2/demo/+/data'],
  ])('is refused %s with 0x80, and the rest of the packet is granted (I-06)', async (filter) => {
    const raw = await connectRaw(app.addresses.mqttUrl, (await makeKey()).key);
    expect(await subscribeRaw(raw, [filter, 'v1/demo/first/data'])).toEqual([128, 1]);
    raw.end();
  });

  it('finds what it was refused in the diagnostics of its address, with a hint', async () => {
    const raw = await connectRaw(app.addresses.mqttUrl, (await makeKey()).key);
    await subscribeRaw(raw, ['v1/other/+/data']);
    raw.end();
    const shown = async (): Promise<{ code: string; detail: string; hint: string }[]> =>
      (await app.api('GET', '/api/v1/diagnostics?address=127.0.0.1')).body.events.data;
    await eventually('the refusal', async () =>
      (await shown()).some(
        ({ code, detail }) => code === 'forbidden' && detail.includes('v1/other'),
      ),
    );
  });

  it('of some devices sees those alone, whatever wildcard it asks for', async () => {
    const one = await app.connect(await app.addDevice('mine'));
    const other = await app.connect(await app.addDevice('not-mine'));
    const reader = await readerOf((await makeKey({ devices: ['mine'] })).key);
    await subscribe(reader, 'v1/demo/#');
    await other.publishAsync('v1/me/data/n', '1', { qos: 1 });
    await one.publishAsync('v1/me/data/n', '2', { qos: 1 });
    await eventually('its own device', () => reader.got.length > 0);
    expect(reader.got.map(({ topic }) => topic)).toEqual(['v1/demo/mine/data']);
  });

  it('that publishes is closed without PUBACK [MQTT-3.3.5-2] (I-05)', async () => {
    const raw = await connectRaw(app.addresses.mqttUrl, (await makeKey()).key);
    raw.send({
      cmd: 'publish',
      topic: 'v1/demo/first/in/cmd',
      payload: 'x',
      qos: 1,
      messageId: 1,
      dup: false,
      retain: true,
    });
    await raw.closed;
    expect(raw.received).toEqual([]);
  });

  it('is closed within a second when its key is revoked, and let in no more (A-04)', async () => {
    const closedMs = await fastestMs(async () => {
      const { key, keyId } = await makeKey();
      const raw = await connectRaw(app.addresses.mqttUrl, key);
      const revokedAt = performance.now();
      expect((await app.api('DELETE', `/api/v1/keys/${keyId}`)).status).toBe(204);
      await raw.closed;
      const ms = performance.now() - revokedAt;
      await expect(connectRaw(app.addresses.mqttUrl, key)).rejects.toThrow('"returnCode":5');
      return ms;
    });
    expect(closedMs).toBeLessThan(1000);
  });

  it('whose key is revoked while it connects is not let in, or not for long (A-04)', async () => {
    for (let round = 0; round < 10; round += 1) {
      const { key, keyId } = await makeKey();
      const connecting = Array.from({ length: 10 }, (_, n) =>
        connectRaw(app.addresses.mqttUrl, key, { clientId: `${n}`, clean: false }).catch(
          () => null,
        ),
      );
      await new Promise((resolve) => setTimeout(resolve, round));
      await app.api('DELETE', `/api/v1/keys/${keyId}`);
      const clients = (await Promise.all(connecting)).filter((client) => client !== null);
      await eventually('all closed', () => clients.every((client) => client.isClosed()));
    }
  });

  it('is closed when its key expires', async () => {
    const expiresAt = new Date(Date.now() + 4000).toISOString();
    const { key } = await makeKey({ expiresAt });
    const raw = await connectRaw(app.addresses.mqttUrl, key);
    await raw.closed;
    await expect(connectRaw(app.addresses.mqttUrl, key)).rejects.toThrow('"returnCode":5');
  });
});

describe('a persistent session', () => {
  it('gets what was stored while its client was away, in order, and says it was present', async () => {
    const { key } = await makeKey();
    const options = { clientId: 'archive', clean: false };
    const before = await readerOf(key, options);
    await subscribe(before, 'v1/demo/+/data');
    await before.client.endAsync();
    const device = await app.connect(await app.addDevice('kept'));
    for (let n = 0; n < 50; n += 1) {
      await device.publishAsync('v1/me/data/n', String(n), { qos: 1 });
    }
    const after = await readerOf(key, options);
    await eventually('all of them', () => after.got.length === 50);
    expect(after.got.map(({ body }) => (body as { n: number }).n)).toEqual(
      Array.from({ length: 50 }, (_, n) => n),
    );
    await device.publishAsync('v1/me/data/n', '50', { qos: 1 });
    await eventually('the live one', () => after.got.length === 51);
  });

  it('is present without a subscription too [MQTT-3.2.2-2], and gone after a clean one [MQTT-3.1.2-6]', async () => {
    const { key } = await makeKey();
    const present = async (clean: boolean): Promise<boolean> => {
      const { client, connack } = await readerOf(key, { clientId: 'counter', clean });
      await client.endAsync();
      return connack.sessionPresent;
    };
    expect(await present(false)).toBe(false);
    expect(await present(false)).toBe(true);
    expect(await present(true)).toBe(false);
    expect(await present(false)).toBe(false);
  });

  it('with an allowed and a forbidden filter keeps the allowed one alone (row 6)', async () => {
    const { key } = await makeKey({ devices: ['kept'] });
    const options = { clientId: 'greedy', clean: false };
    const before = await connectRaw(app.addresses.mqttUrl, key, options);
    const filters = ['v1/demo/kept/data', 'v1/demo/first/data'];
    expect(await subscribeRaw(before, filters)).toEqual([1, 128]);
    before.end();
    await before.closed;
    const after = await readerOf(key, options);
    const first = await app.connect(app.deviceKey);
    await first.publishAsync('v1/me/data/n', '1', { qos: 1 });
    const kept = await app.connect(
      (await app.api('POST', '/api/v1/devices/kept/keys', {})).body.key,
    );
    await kept.publishAsync('v1/me/data/n', '2', { qos: 1 });
    await eventually('the allowed one', () => after.got.length > 0);
    expect(after.got.map(({ topic }) => topic)).toEqual(['v1/demo/kept/data']);
  });

  it('keeps a filter that another one stands for when that one ends, after a reconnect too', async () => {
    const { key } = await makeKey();
    const options = { clientId: 'overlapping', clean: false };
    const before = await readerOf(key, options);
    await before.client.subscribeAsync({
      'v1/demo/+/data': { qos: 1 },
      'v1/demo/#': { qos: 1 },
    });
    await before.client.endAsync();
    const after = await readerOf(key, options);
    await after.client.unsubscribeAsync('v1/demo/#');
    const device = await app.connect(app.deviceKey);
    await device.publishAsync('v1/me/data/n', '1', { qos: 1 });
    await eventually('the message', () => after.got.length === 1);
    await after.client.unsubscribeAsync('v1/demo/+/data');
    await device.publishAsync('v1/me/data/n', '2', { qos: 1 });
    await subscribe(after, 'v1/demo/+/data');
    await device.publishAsync('v1/me/data/n', '3', { qos: 1 });
    await eventually('the third', () => after.got.length === 2);
    expect(after.got.map(({ body }) => (body as { n: number }).n)).toEqual([1, 3]);
  });

  it('has one connection, however many come for it at once [MQTT-3.1.4-2]', async () => {
    const { key } = await makeKey();
    const fields = { clientId: 'race', clean: false };
    const connecting = Array.from({ length: 60 }, () =>
      connectRaw(app.addresses.mqttUrl, key, fields).catch(() => null),
    );
    const clients = (await Promise.all(connecting)).filter((client) => client !== null);
    const open = (): RawClient[] => clients.filter((client) => !client.isClosed());
    await eventually('one stays', () => open().length === 1);
    const [winner] = open();
    expect(winner).toBeDefined();
    expect(await subscribeRaw(winner as RawClient, ['v1/demo/+/data'])).toEqual([1]);
    const device = await app.connect(app.deviceKey);
    await device.publishAsync('v1/me/data/n', '1', { qos: 1 });
    expect(await winner?.next()).toMatchObject({ cmd: 'publish' });
    winner?.end();
  });

  it('is one of a bounded number for each key', async () => {
    const bounded = await startTestApp({ KEY_SESSIONS_MAX: '2' });
    try {
      const body = { name: 'many', scopes: ['data'], devices: null, expiresAt: null };
      const { key } = (await bounded.api('POST', '/api/v1/keys', body)).body;
      const keep = (clientId: string) =>
        connectRaw(bounded.addresses.mqttUrl, key, { clientId, clean: false });
      (await keep('one')).end();
      (await keep('two')).end();
      await expect(keep('three')).rejects.toThrow('"returnCode":3');
      (await keep('one')).end();
      (await connectRaw(bounded.addresses.mqttUrl, key, { clientId: 'three' })).end();
    } finally {
      await bounded.stop();
    }
  });

  it('goes with its key', async () => {
    const { key, keyId } = await makeKey();
    const reader = await readerOf(key, { clientId: 'doomed', clean: false });
    await subscribe(reader, 'v1/demo/+/data');
    await reader.client.endAsync();
    const before = await app.metric('puback_broker_store_sessions');
    await app.api('DELETE', `/api/v1/keys/${keyId}`);
    await eventually(
      'one session less',
      async () => (await app.metric('puback_broker_store_sessions')) === before - 1,
    );
  });
});

describe('presence', () => {
  it('is retained on status, for exact topics and for wildcards', async () => {
    const device = await app.connect(await app.addDevice('present'));
    const { key } = await makeKey({ scopes: ['status'] });
    const exact = await readerOf(key);
    await subscribe(exact, 'v1/demo/present/status');
    await eventually('its status', () => exact.got.length === 1);
    expect(exact.got[0]).toMatchObject({ isRetained: true, body: { st: 'online', sleep: 0 } });
    const all = await readerOf(key);
    await subscribe(all, 'v1/demo/+/status');
    const ofDevice = () => all.got.filter(({ topic }) => topic === 'v1/demo/present/status');
    await eventually('its status among all', () => ofDevice().length === 1);
    await device.endAsync();
    await eventually('that it has gone', () => ofDevice().length === 2);
    expect(ofDevice()[1]).toMatchObject({ isRetained: false, body: { st: 'offline' } });
  });

  it('follows hello: a device that sleeps is sleeping when it goes', async () => {
    const key = await app.addDevice('sleeper');
    const device = await app.connect(key);
    await device.publishAsync('v1/me/hello', '{"fw":"1.4.2","sleep":600,"boot":7}', { qos: 1 });
    const reader = await readerOf((await makeKey({ scopes: ['status'] })).key);
    await device.endAsync();
    await subscribe(reader, 'v1/demo/+/status');
    await eventually('sleeping', () =>
      reader.got.some(
        ({ topic, body }) =>
          topic === 'v1/demo/sleeper/status' && (body as { st: string }).st === 'sleeping',
      ),
    );
    const shown = await app.api('GET', '/api/v1/devices/sleeper/diagnostics');
    expect(shown.body.presence).toMatchObject({
      state: 'sleeping',
      hello: { fw: '1.4.2', boot: 7 },
    });
  });

  it('is that of the connection that stays when two come at once, and both have wills', async () => {
    const key = await app.addDevice('twin');
    const will = {
      topic: 'v1/me/data/gone',
      payload: Buffer.from('1'),
      qos: 1 as const,
      retain: false,
    };
    for (let round = 0; round < 20; round += 1) {
      const connects = Array.from({ length: 3 }, () =>
        connectRaw(app.addresses.mqttUrl, key, { will }).catch(() => null),
      );
      const clients = (await Promise.all(connects)).filter((client) => client !== null);
      const stay = (): RawClient[] => clients.filter((client) => !client.isClosed());
      await eventually('one stays', () => stay().length === 1);
      stay()[0]?.send({
        cmd: 'publish',
        topic: 'v1/me/hello',
        payload: '{}',
        qos: 1,
        messageId: 1,
        dup: false,
        retain: false,
      });
      await eventually('its hello is stored', () =>
        stay().some(({ received }) => received.some(({ cmd }) => cmd === 'puback')),
      );
      const { body } = await app.api('GET', '/api/v1/devices/twin/diagnostics');
      expect(body.presence.state).toBe('online');
      for (const client of clients) client.end();
    }
  });

  it('goes with a deleted device (I-07)', async () => {
    const device = await app.connect(await app.addDevice('deleted'));
    const reader = await readerOf((await makeKey({ scopes: ['status'] })).key);
    await subscribe(reader, 'v1/demo/deleted/status');
    await eventually('its status', () => reader.got.length === 1);
    await app.api('DELETE', '/api/v1/devices/deleted');
    await eventually('its end', () => reader.got.some(({ body }) => body === null));
    device.end(true);
    await app.addDevice('deleted-later');
    (
      await app.connect((await app.api('POST', '/api/v1/devices/deleted-later/keys', {})).body.key)
    ).end(true);
    const state = async (): Promise<unknown> =>
      (await app.api('GET', '/api/v1/devices/deleted-later/diagnostics')).body.presence?.state;
    await eventually('offline', async () => (await state()) === 'offline');
    await app.api('DELETE', '/api/v1/devices/deleted-later');
    const later = await readerOf((await makeKey({ scopes: ['status'] })).key);
    await subscribe(later, 'v1/demo/deleted/status');
    await subscribe(later, 'v1/demo/deleted-later/status');
    await subscribe(later, 'v1/demo/+/status');
    await eventually('the others', () => later.got.length > 0);
    const topics = later.got.map(({ topic }) => topic);
    expect(topics).not.toContain('v1/demo/deleted/status');
    expect(topics).not.toContain('v1/demo/deleted-later/status');
  });
});

describe('hello', () => {
  it('that comes too often is dropped at QoS 0 and told, and what is stored stays bounded', async () => {
    const key = await app.addDevice('chatty');
    const reader = await readerOf((await makeKey({ scopes: ['raw'] })).key);
    await subscribe(reader, 'v1/demo/chatty/hello');
    const raw = await connectRaw(app.addresses.mqttUrl, key);
    for (let n = 0; n < 300; n += 1) {
      raw.send({
        cmd: 'publish',
        topic: 'v1/me/hello',
        payload: `{"fw":"${n}"}`,
        qos: 0,
        dup: false,
        retain: false,
      });
    }
    await eventually('in/err', () =>
      raw.received.some(
        (packet) => packet.cmd === 'publish' && packet.payload.toString().includes('"code":"rate"'),
      ),
    );
    raw.send({ cmd: 'pingreq' });
    await eventually('that it still lives', () =>
      raw.received.some(({ cmd }) => cmd === 'pingresp'),
    );
    expect(reader.got.length).toBeLessThan(30);
    raw.end();
  });
});

describe('the greeting', () => {
  it('echoes the uptime of a hello and says up to which seq everything is stored', async () => {
    const key = await app.addDevice('greeted');
    const device = await app.connect(key);
    const greetings: Record<string, unknown>[] = [];
    device.on('message', (_topic, payload) => greetings.push(JSON.parse(payload.toString())));
    await device.subscribeAsync('v1/me/in/+');
    await device.publishAsync('v1/me/hello', '{"boot":1,"up":812}', { qos: 1 });
    for (let seq = 1; seq <= 3; seq += 1) {
      await device.publishAsync('v1/me/data', `{"seq":${seq},"n":${seq}}`, { qos: 1 });
    }
    await device.publishAsync('v1/me/data', '{"seq":2,"n":2}', { qos: 1 });
    await device.publishAsync('v1/me/hello', '{"boot":1,"up":900}', { qos: 1 });
    await eventually('the last greeting', () => greetings.some(({ up }) => up === 900));
    expect(greetings.at(-1)).toMatchObject({ up: 900, cmd: 0, cfg: 0, seq: 3 });
    const { body } = await app.api('GET', '/api/v1/devices/greeted/readings');
    expect(body.data).toHaveLength(3);
  });
});
