import fc from 'fast-check';
import type { Packet } from 'mqtt-packet';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { fastestMs } from '../support/fastest.ts';
import { connectRaw, openRaw, type RawClient } from '../support/raw-client.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

function publish(topic: string | Buffer, messageId: number, payload = '{"stolen":1}'): Packet {
  return {
    cmd: 'publish',
    topic: topic as string,
    payload,
    qos: 1,
    messageId,
    dup: false,
    retain: true,
  };
}

async function connackOf(username: string, password: string): Promise<unknown> {
  const client = await openRaw(app.addresses.mqttUrl);
  client.send({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clientId: 'x',
    clean: true,
    keepalive: 60,
    ...(username === '' ? {} : { username }),
    ...(password === '' ? {} : { password: Buffer.from(password) }),
  });
  const connack = await client.next();
  client.end();
  return 'returnCode' in connack ? connack.returnCode : null;
}

describe('CONNECT', () => {
  it('takes the key as password or as user name, and any user name without a slash', async () => {
    const key = app.deviceKey;
    expect(await connackOf('device', key)).toBe(0);
    expect(await connackOf('first', key)).toBe(0);
    expect(await connackOf('demo/first', key)).toBe(0);
    expect(await connackOf(key, '')).toBe(0);
  });

  it('answers 4 to a mistyped key or another identity, 5 to an unknown key [MQTT-3.2.2-5]', async () => {
    const key = app.deviceKey;
    expect(await connackOf('device', `${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`)).toBe(
      4,
    );
    expect(await connackOf('demo/second', key)).toBe(4);
    expect(await connackOf('other/first', key)).toBe(4);
    expect(await connackOf('', '')).toBe(4);
    expect(await connackOf('device', makeKey('device').key)).toBe(5);
    expect(await connackOf('device', app.adminKey)).toBe(5);
  });

  it('does not let a client identifier take the place of another device (N-08)', async () => {
    const other = await app.addDevice('other-id');
    const first = await connectRaw(app.addresses.mqttUrl, app.deviceKey, { clientId: 'same' });
    const second = await connectRaw(app.addresses.mqttUrl, other, { clientId: 'same' });
    first.send({ cmd: 'pingreq' });
    expect(await first.next()).toMatchObject({ cmd: 'pingresp' });
    second.end();
    first.end();
  });

  it('of a device that is connected closes its older connection [MQTT-3.1.4-2]', async () => {
    const key = await app.addDevice('twin');
    const older = await connectRaw(app.addresses.mqttUrl, key, { clientId: 'a' });
    const newer = await connectRaw(app.addresses.mqttUrl, key, { clientId: 'b' });
    await older.closed;
    newer.send({ cmd: 'pingreq' });
    expect(await newer.next()).toMatchObject({ cmd: 'pingresp' });
    newer.end();
  });

  it('has no session present and clean session whatever it asks [MQTT-3.2.2-1]', async () => {
    const key = await app.addDevice('sessionless');
    for (let round = 0; round < 2; round += 1) {
      const client = await openRaw(app.addresses.mqttUrl);
      client.send({
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 4,
        clientId: 'kept',
        clean: false,
        keepalive: 60,
        username: 'device',
        password: Buffer.from(key),
      });
      expect(await client.next()).toMatchObject({ returnCode: 0, sessionPresent: false });
      client.end();
      await client.closed;
    }
  });

  it('with a will on a forbidden or malformed topic is refused (I-08)', async () => {
    const topics = [
      'v1/demo/second/data',
      'v1/me/in/cmd',
      'v1/me/#',
      'v1/+/first/data',
      '$SYS/x',
      'a',
    ];
    for (const topic of topics) {
      const will = { topic, payload: Buffer.from('x'), qos: 1 as const, retain: false };
      await expect(
        connectRaw(app.addresses.mqttUrl, app.deviceKey, { will }),
        topic,
      ).rejects.toThrow();
    }
  });
});

describe('a key', () => {
  it('that is revoked ends its live connection within 2 s and is refused afterwards (A-04)', async () => {
    const closedMs = await fastestMs(async (number) => {
      const key = await app.addDevice(`revoked-${number}`);
      const client = await connectRaw(app.addresses.mqttUrl, key);
      const startedAt = performance.now();
      const path = `/api/v1/devices/revoked-${number}/keys/${key.slice(4, 12)}`;
      expect((await app.api('DELETE', path)).status).toBe(204);
      await client.closed;
      const ms = performance.now() - startedAt;
      expect(await connackOf('device', key)).toBe(5);
      return ms;
    });
    expect(closedMs).toBeLessThan(2000);
  });

  it('of a device that is disabled or deleted ends its live connection (A-04)', async () => {
    for (const [device, method, body] of [
      ['disabled', 'PATCH', { disabled: true }],
      ['deleted', 'DELETE', undefined],
    ] as const) {
      const key = await app.addDevice(device);
      const client = await connectRaw(app.addresses.mqttUrl, key);
      await app.api(method, `/api/v1/devices/${device}`, body);
      await client.closed;
      expect(await connackOf('device', key)).toBe(5);
    }
  });
});

/** Topics that a device might try, with all that is special in MQTT, in Puback and in JavaScript. */
const level = fc.oneof(
  fc.constantFrom(
    'v1',
    'v2',
    'V1',
    'me',
    'demo',
    'other',
    'first',
    'second',
    'data',
    'in',
    'cmd',
    'cfg',
    'status',
    'err',
    'hello',
    'ack',
    'key',
    'do',
    'alert',
    'event',
    'temp',
    '+',
    '#',
    '',
    '$SYS',
    '$share',
    '$void',
    '_',
    '..',
    '.',
    '__proto__',
    'constructor',
    'toString',
    '%00',
    '\u0000',
    '\u0001',
    '\ufeff',
    ' ',
    'first ',
    'FIRST',
    'v1/demo',
    'new',
    'clients',
    'g',
  ),
  fc.string({ maxLength: 6, unit: 'binary' }).map((text) => text.replaceAll('/', '')),
);
const anyTopic = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.array(level, { minLength: 1, maxLength: 7 }).map((levels) => levels.join('/')),
  },
  {
    weight: 2,
    arbitrary: fc
      .array(level, { maxLength: 4 })
      .map((levels) => ['v1', 'demo', ...levels].join('/')),
  },
  {
    weight: 2,
    arbitrary: fc.array(level, { maxLength: 3 }).map((levels) => ['v1', 'me', ...levels].join('/')),
  },
);

const OWN_FILTER = /^v1\/(me|demo\/first)\/(status|in\/(\+|#|[a-z][a-z0-9_.-]{0,31}))$/;
const OWN_TREE = /^v1\/(me|demo\/first)\//;

describe('a device', () => {
  it(
    'gets no subscription outside its own tree, of 10 000 filters (I-06)',
    { timeout: 120_000 },
    async () => {
      const filters = [...new Set(fc.sample(anyTopic, { numRuns: 12_000, seed: 1 }))].slice(
        0,
        10_000,
      );
      expect(filters.length).toBeGreaterThan(8_000);
      let client: RawClient | null = null;
      let granted = 0;
      for (const filter of filters) {
        client =
          client === null || client.isClosed()
            ? await connectRaw(app.addresses.mqttUrl, app.deviceKey)
            : client;
        client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: filter, qos: 1 }] });
        // A filter that is none at all ends the connection; that grants nothing either.
        const suback = await nextOf(client, 'suback');
        if (suback === null || suback.granted[0] === 128) continue;
        granted += 1;
        expect(filter).toMatch(OWN_FILTER);
      }
      client?.end();
      expect(granted).toBeGreaterThan(0);
    },
  );

  it(
    'stores nothing outside its own tree, of 10 000 topics (I-05)',
    { timeout: 120_000 },
    async () => {
      const { pool } = app.testDatabase.database;
      await app.addDevice('second');
      const thief = await app.addDevice('thief');
      const topics = [...new Set(fc.sample(anyTopic, { numRuns: 12_000, seed: 2 }))]
        .map((topic) => topic.replaceAll('first', 'second'))
        .slice(0, 10_000);
      const victim = await app.connect(await app.addDevice('victim'));
      await victim.subscribeAsync(['v1/me/in/+', 'v1/me/status'], { qos: 1 });
      const heard: string[] = [];
      victim.on('message', (topic) => {
        if (topic !== 'v1/me/in/hello') heard.push(topic);
      });
      const before = await pool.query('SELECT count(*)::int4 AS count FROM v_reading');
      let client: RawClient | null = null;
      for (const topic of topics) {
        if (OWN_TREE.test(topic)) continue;
        client =
          client === null || client.isClosed()
            ? await connectRaw(app.addresses.mqttUrl, thief)
            : client;
        client.sendBytes(rawPublish(topic));
        await nextOf(client, 'puback');
      }
      client?.end();
      const after = await pool.query('SELECT count(*)::int4 AS count FROM v_reading');
      expect(after.rows).toEqual(before.rows);
      expect(heard).toEqual([]);
    },
  );

  it('is granted in/+ and status under both spellings, at QoS 1 at most [MQTT-3.8.4-6]', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    const own = ['v1/me/in/+', 'v1/me/in/#', 'v1/me/in/cmd', 'v1/me/status', 'v1/demo/first/in/+'];
    const foreign = [
      'v1/demo/second/in/+',
      'v1/demo/+/in/cmd',
      '#',
      '$SYS/#',
      'v1/me/data',
      '$share/g/v1/me/in/+',
    ];
    client.send({
      cmd: 'subscribe',
      messageId: 5,
      subscriptions: [...own, ...foreign].map((topic) => ({ topic, qos: 2 })),
    });
    expect(await client.next()).toMatchObject({
      cmd: 'suback',
      messageId: 5,
      granted: [...own.map(() => 1), ...foreign.map(() => 128)],
    });
    client.end();
  });

  it('is greeted once with the time when it subscribes to its inbox, under its own spelling', async () => {
    for (const tree of ['v1/me', 'v1/demo/first']) {
      const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
      const topics = [`${tree}/in/+`, `${tree}/in/err`, 'v1/me/data'];
      client.send({
        cmd: 'subscribe',
        messageId: 1,
        subscriptions: topics.map((topic) => ({ topic, qos: 1 })),
      });
      expect(await client.next()).toMatchObject({ cmd: 'suback', granted: [1, 1, 128] });
      expect(await client.next()).toMatchObject({ cmd: 'publish', topic: `${tree}/in/err` });
      const greeting = await client.next();
      expect(greeting).toMatchObject({ cmd: 'publish', topic: `${tree}/in/hello`, qos: 0 });
      const { ts } = JSON.parse(String('payload' in greeting && greeting.payload)) as {
        ts: number;
      };
      expect(Math.abs(Date.now() - ts)).toBeLessThan(5000);
      client.send({ cmd: 'subscribe', messageId: 2, subscriptions: [{ topic: '#', qos: 1 }] });
      expect(await client.next()).toMatchObject({ cmd: 'suback', granted: [128] });
      client.send({ cmd: 'pingreq' });
      expect(await client.next()).toMatchObject({ cmd: 'pingresp' });
      client.end();
    }
  });

  it('is granted 64 filters and no more', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    const subscriptions = Array.from({ length: 70 }, (_, index) => ({
      topic: `v1/me/in/w${index}`,
      qos: 0 as const,
    }));
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions });
    const suback = await nextOf(client, 'suback');
    expect(suback?.granted.filter((qos) => qos !== 128)).toHaveLength(64);
    client.end();
  });

  it('is cut off after a hundred errors in a minute', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, await app.addDevice('noisy'));
    for (let number = 1; number <= 150; number += 1) client.send(publish('v1/me/in/cmd', number));
    await client.closed;
    const { body } = await app.api('GET', '/api/v1/quarantine?device=noisy&limit=1000');
    expect(body.data.length).toBeGreaterThanOrEqual(100);
  });

  it('does not read or leave retained messages (I-07)', async () => {
    const { deviceKey, addresses } = app;
    const client = await connectRaw(addresses.mqttUrl, deviceKey);
    client.send(publish('v1/me/data', 1, '{"kept":1}'));
    expect(await client.next()).toMatchObject({ cmd: 'puback' });
    client.send({
      cmd: 'subscribe',
      messageId: 2,
      subscriptions: [{ topic: 'v1/me/in/#', qos: 1 }],
    });
    expect(await client.next()).toMatchObject({ cmd: 'suback' });
    client.send({ cmd: 'pingreq' });
    expect(await client.next()).toMatchObject({ cmd: 'pingresp' });
    client.end();
  });
});

describe('the metrics', () => {
  it('count connections in and out', async () => {
    await eventually('no open connection but those of this test', async () => {
      return (await app.metric('puback_broker_connections')) <= 1;
    });
  });
});

/** The next packet of a kind, or null when the connection ended. Others are passed over. */
async function nextOf(
  client: RawClient,
  cmd: 'suback',
): Promise<Extract<Packet, { cmd: 'suback' }> | null>;
async function nextOf(client: RawClient, cmd: 'puback'): Promise<Packet | null>;
async function nextOf(client: RawClient, cmd: string): Promise<Packet | null> {
  for (;;) {
    const packet = await client.next().catch(() => null);
    if (packet === null || packet.cmd === cmd) return packet;
  }
}

/** A PUBLISH at QoS 1 with a topic that a client library would refuse to send. */
function rawPublish(topic: string): Buffer {
  const name = Buffer.from(topic, 'utf8');
  const payload = Buffer.from('{"stolen":1}');
  const length = 2 + name.length + 2 + payload.length;
  const head =
    length < 128 ? [0x33, length] : [0x33, (length % 128) | 0x80, Math.floor(length / 128)];
  const size = Buffer.alloc(2);
  size.writeUInt16BE(name.length);
  return Buffer.concat([Buffer.from(head), size, name, Buffer.from([0, 7]), payload]);
}

describe('wrong admin keys', () => {
  it('are refused later with each try, and their address in the end for a while (A-06)', async () => {
    const guarded = await startTestApp({ LOGIN_FAILURES_MAX: '8', LOGIN_BAN_S: '600' });
    const ask = async (key: string): Promise<Response> =>
      fetch(`${guarded.addresses.httpUrl}/api/v1/devices`, {
        headers: { authorization: `Bearer ${key}` },
      });
    try {
      const statuses: number[] = [];
      for (let n = 0; n < 12 && statuses.at(-1) !== 429; n += 1) {
        statuses.push((await ask(`pba_guess${n}`)).status);
      }
      expect(statuses.slice(0, 8)).toEqual(Array.from({ length: 8 }, () => 401));
      expect(statuses.at(-1)).toBe(429);
      const banned = await ask(guarded.adminKey);
      expect(await banned.json()).toMatchObject({ code: 'ADDRESS_BANNED' });
      expect(banned.headers.get('retry-after')).not.toBeNull();
      expect((await fetch(`${guarded.addresses.httpUrl}/health/live`)).status).toBe(200);
    } finally {
      await guarded.stop();
    }
  });
});
