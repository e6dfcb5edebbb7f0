import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw } from '../support/raw-client.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

async function valuesOf(device: string, metric: string): Promise<unknown[]> {
  const path = `/api/v1/devices/${device}/readings?metric=${metric}&order=asc&limit=1000`;
  const { body } = await app.api('GET', path);
  return body.data.map((reading: { value: unknown }) => reading.value);
}

describe('PUBACK', () => {
  it('comes only after COMMIT [MQTT-4.3.2-2]', async () => {
    const { pool } = app.testDatabase.database;
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    const publish = (messageId: number, value: number) =>
      client.send({
        cmd: 'publish',
        topic: 'v1/me/data/held',
        payload: String(value),
        qos: 1,
        messageId,
        dup: false,
        retain: false,
      });
    publish(1, 1);
    expect(await client.next()).toMatchObject({ cmd: 'puback', messageId: 1 });
    const blocker = await pool.connect();
    try {
      await blocker.query('BEGIN');
      await blocker.query('LOCK TABLE reading IN ACCESS EXCLUSIVE MODE');
      publish(2, 2);
      publish(3, 3);
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(client.received).toEqual([]);
      await blocker.query('COMMIT');
    } finally {
      blocker.release();
    }
    expect(await client.next()).toMatchObject({ cmd: 'puback', messageId: 2 });
    expect(await client.next()).toMatchObject({ cmd: 'puback', messageId: 3 });
    expect(await valuesOf('first', 'held')).toEqual([1, 2, 3]);
    client.end();
  });

  it('comes in the order of the PUBLISH packets, refused ones included [MQTT-4.6.0-2]', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    const payloads = ['{"a":1}', 'not json', '{"new-metric":1}', '[]', '{"a":2}', '{"b":true}'];
    client.send(
      ...payloads.map((payload, index) => ({
        cmd: 'publish' as const,
        topic: index === 3 ? 'v1/other/device/data' : 'v1/me/data',
        payload,
        qos: 1 as const,
        messageId: index + 1,
        dup: false,
        retain: false,
      })),
    );
    const order: number[] = [];
    while (order.length < payloads.length) {
      const packet = await client.next();
      if (packet.cmd === 'puback') order.push(packet.messageId ?? 0);
    }
    expect(order).toEqual([1, 2, 3, 4, 5, 6]);
    client.end();
  });

  it('means that the reading is found over HTTP, through TCP and WebSocket', async () => {
    for (const [index, url] of [app.addresses.mqttUrl, app.addresses.wsUrl].entries()) {
      const client = await app.connect(app.deviceKey, { ...parse(url) });
      await client.publishAsync('v1/me/data', `{"way${index}":${index}}`, { qos: 1 });
      expect(await valuesOf('first', `way${index}`)).toEqual([index]);
      await client.endAsync();
    }
  });

  it('is a PUBREC at QoS 2, and a DUP is stored once [MQTT-4.3.3-2]', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    const publish = (dup: boolean) =>
      client.send({
        cmd: 'publish',
        topic: 'v1/me/data/twice',
        payload: '7',
        qos: 2,
        messageId: 9,
        dup,
        retain: false,
      });
    publish(false);
    expect(await client.next()).toMatchObject({ cmd: 'pubrec', messageId: 9 });
    publish(true);
    expect(await client.next()).toMatchObject({ cmd: 'pubrec', messageId: 9 });
    client.send({ cmd: 'pubrel', messageId: 9 });
    expect(await client.next()).toMatchObject({ cmd: 'pubcomp', messageId: 9 });
    expect(await valuesOf('first', 'twice')).toEqual([7]);
    client.end();
  });
});

describe('readings', () => {
  it('of every accepted form are stored under their names, kinds and times', async () => {
    const key = await app.addDevice('forms');
    const client = await app.connect(key);
    const ts = Date.now() - 60_000;
    await client.publishAsync(
      'v1/me/data',
      `{"ts":${ts},"seq":7,"temp":21.5,"door":"open","ok":true}`,
      { qos: 1 },
    );
    await client.publishAsync(
      'v1/demo/forms/data',
      `[{"ts":${ts + 1},"temp":1},{"ts":${ts + 2},"temp":2}]`,
      { qos: 1 },
    );
    await client.publishAsync('v1/me/data', `{"ts":${ts + 10},"dt":1000,"rh":[48,null,49]}`, {
      qos: 1,
    });
    await client.publishAsync('v1/me/data', `{"ts":${Math.floor(ts / 1000)},"values":{"tb":5}}`, {
      qos: 1,
    });
    await client.publishAsync('v1/me/data', `{"bme":{"t":21},"dht":nan}`, { qos: 1 });
    await client.publishAsync('v1/me/data/mode', 'ON', { qos: 1 });
    await client.publishAsync('v1/me/data', `{"age":59000,"dt":1000,"old":[1,2]}`, { qos: 1 });
    const { body } = await app.api('GET', '/api/v1/devices/forms/latest');
    const latest = Object.fromEntries(
      body.data.map((reading: { metric: string; value: unknown }) => [
        reading.metric,
        reading.value,
      ]),
    );
    expect(latest).toEqual({
      temp: 2,
      door: 'open',
      ok: true,
      rh: 49,
      tb: 5,
      'bme.t': 21,
      mode: 'ON',
      old: 2,
    });
    expect(await valuesOf('forms', 'rh')).toEqual([48, 49]);
    const temps = (await app.api('GET', '/api/v1/devices/forms/readings?metric=temp&order=asc'))
      .body;
    expect(temps).toEqual({
      data: [21.5, 1, 2].map((value, index) => ({
        time: new Date(ts + index).toISOString(),
        metric: 'temp',
        value,
      })),
      next: null,
    });
  });

  it('without a time that come in one millisecond are all kept', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, await app.addDevice('burst'));
    const count = 200;
    client.send(
      ...Array.from({ length: count }, (_, index) => ({
        cmd: 'publish' as const,
        topic: 'v1/me/data/n',
        payload: String(index),
        qos: 1 as const,
        messageId: index + 1,
        dup: false,
        retain: false,
      })),
    );
    for (let index = 0; index < count; index += 1) await client.next();
    expect(await valuesOf('burst', 'n')).toEqual(Array.from({ length: count }, (_, n) => n));
    client.end();
  });

  it('D-14 with a time are stored once however often they are sent', async () => {
    const client = await app.connect(await app.addDevice('again'));
    const ts = Date.now();
    for (let copy = 0; copy < 3; copy += 1) {
      await client.publishAsync('v1/me/data', `{"ts":${ts},"temp":1,"copy":${copy}}`, { qos: 1 });
    }
    expect(await valuesOf('again', 'temp')).toEqual([1]);
    expect(await valuesOf('again', 'copy')).toEqual([0]);
    const { body } = await app.api('GET', '/api/v1/devices/again/latest');
    expect(body.data).toMatchObject([
      { metric: 'copy', value: 0 },
      { metric: 'temp', value: 1 },
    ]);
  });

  it('D-13 of a clock that was never set, or is ahead, get the time of receipt', async () => {
    const client = await app.connect(await app.addDevice('clockless'));
    const errors: { code: string; ts: number }[] = [];
    client.on('message', (_topic, payload) => errors.push(JSON.parse(payload.toString())));
    const before = Date.now();
    await client.publishAsync('v1/me/data', '{"ts":12,"temp":1}', { qos: 1 });
    await client.publishAsync('v1/me/data', '{"ts":4294967296000,"temp":2}', { qos: 1 });
    const { body } = await app.api('GET', '/api/v1/devices/clockless/readings?order=asc');
    for (const { time } of body.data) {
      expect(Date.parse(time)).toBeGreaterThanOrEqual(before);
      expect(Date.parse(time)).toBeLessThanOrEqual(Date.now());
    }
    await eventually('one in/err of code clock', () => errors.length > 0);
    expect(errors.map(({ code }) => code)).toEqual(['clock']);
    expect(Math.abs((errors[0]?.ts ?? 0) - before)).toBeLessThan(10_000);
  });

  it('of an old and a new sample in one message: the new one is stored, the message is quarantined', async () => {
    const client = await app.connect(await app.addDevice('mixed'));
    const now = Date.now();
    const old = now - 31 * 86_400_000;
    await client.publishAsync('v1/me/data', `[{"ts":${old},"temp":1},{"ts":${now},"temp":2}]`, {
      qos: 1,
    });
    expect(await valuesOf('mixed', 'temp')).toEqual([2]);
    const { body } = await app.api('GET', '/api/v1/quarantine?device=mixed');
    expect(body.data).toMatchObject([{ code: 'too_old', device: 'mixed' }]);
  });

  it('of a late day get a partition of their own', async () => {
    const client = await app.connect(await app.addDevice('late'));
    const days = [29, 3, 17];
    for (const day of days) {
      const ts = Date.now() - day * 86_400_000;
      await client.publishAsync('v1/me/data', `{"ts":${ts},"day":${day}}`, { qos: 1 });
    }
    expect(await valuesOf('late', 'day')).toEqual([29, 17, 3]);
    const { body } = await app.api('GET', '/api/v1/devices/late/latest');
    expect(body.data).toMatchObject([{ metric: 'day', value: 3 }]);
  });
});

describe('a message that cannot be stored', () => {
  it('is acknowledged, kept in quarantine with its reason, and told on in/err', async () => {
    const client = await app.connect(await app.addDevice('faulty'));
    const told: [string, { code: string; ch: string }][] = [];
    client.on('message', (topic, payload) => told.push([topic, JSON.parse(payload.toString())]));
    await client.publishAsync('v1/me/data', '{"temp":', { qos: 1 });
    await client.publishAsync('v1/me/data', '{"1x":2}', { qos: 1 });
    await client.publishAsync('v1/me/ack', '{}', { qos: 1 });
    await client.publishAsync('v1/me/nonsense', 'x', { qos: 1 });
    await client.publishAsync('v1/me/in/cmd', '{}', { qos: 1 });
    const { body } = await app.api('GET', '/api/v1/quarantine?device=faulty');
    expect(body.data.map(({ code }: { code: string }) => code).toReversed()).toEqual([
      'bad_json',
      'bad_name',
      'bad_type',
      'unknown_channel',
      'forbidden',
    ]);
    await eventually('in/err', () => told.length > 0);
    expect(told[0]).toMatchObject(['v1/me/in/err', { code: 'bad_json', ch: 'data', n: 1 }]);
    expect(await valuesOf('faulty', 'temp')).toEqual([]);
  });

  it('D-09 among good ones costs only itself', async () => {
    const { pool } = app.testDatabase.database;
    await pool.query('ALTER TABLE reading ADD CONSTRAINT test_poison CHECK (value <> 666)');
    try {
      const client = await app.connect(await app.addDevice('poison'));
      const values = Array.from({ length: 100 }, (_, index) => (index === 42 ? 666 : index));
      await Promise.all(
        values.map((value) => client.publishAsync('v1/me/data/v', String(value), { qos: 1 })),
      );
      expect(await valuesOf('poison', 'v')).toEqual(values.filter((value) => value !== 666));
      const { body } = await app.api('GET', '/api/v1/quarantine?device=poison');
      expect(body.data).toMatchObject([{ code: 'not_stored' }]);
    } finally {
      await pool.query('ALTER TABLE reading DROP CONSTRAINT test_poison');
    }
  });

  it('for too many metrics of one device is quarantined as too_many (I-16)', async () => {
    const client = await app.connect(await app.addDevice('bomb'));
    for (let part = 0; part < 6; part += 1) {
      const names = Array.from({ length: 50 }, (_, index) => `"m${part * 50 + index}":1`);
      await client.publishAsync('v1/me/data', `{${names.join(',')}}`, { qos: 1 });
    }
    const { body } = await app.api('GET', '/api/v1/devices/bomb/latest');
    expect(body.data).toHaveLength(250);
    const quarantined = await app.api('GET', '/api/v1/quarantine?device=bomb');
    expect(quarantined.body.data).toMatchObject([{ code: 'too_many' }]);
  });
});

describe('a will', () => {
  it('is not published after DISCONNECT, whatever was still waiting [MQTT-3.14.4-3]', async () => {
    for (let round = 0; round < 5; round += 1) {
      const device = `leaver-${round}`;
      const client = await connectRaw(app.addresses.mqttUrl, await app.addDevice(device), {
        will: { topic: 'v1/me/data', payload: Buffer.from('{"died":1}'), qos: 1, retain: false },
      });
      client.send(
        ...[1, 2, 3].map((value) => ({
          cmd: 'publish' as const,
          topic: 'v1/me/data/n',
          payload: String(value),
          qos: 0 as const,
          dup: false,
          retain: false,
        })),
        { cmd: 'disconnect' },
      );
      client.socket.end();
      await client.closed;
      await eventually('the readings', async () => (await valuesOf(device, 'n')).length === 3);
      expect(await valuesOf(device, 'died')).toEqual([]);
    }
  });

  it('on a data topic is stored when the device vanishes [MQTT-3.1.2-8]', async () => {
    const key = await app.addDevice('mortal');
    const client = await connectRaw(app.addresses.mqttUrl, key, {
      will: { topic: 'v1/me/data', payload: Buffer.from('{"last":1}'), qos: 1, retain: true },
    });
    client.end();
    await eventually(
      'the will among the readings',
      async () => (await valuesOf('mortal', 'last')).length === 1,
    );
  });
});

function parse(url: string): { protocol: 'mqtt' | 'ws'; host: string; port: number; path: string } {
  const { protocol, hostname, port, pathname } = new URL(url);
  return {
    protocol: protocol.slice(0, -1) as 'mqtt' | 'ws',
    host: hostname,
    port: Number(port),
    path: pathname,
  };
}
