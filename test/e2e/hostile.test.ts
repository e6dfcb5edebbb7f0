import mqemitter from 'mqemitter';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw, openRaw } from '../support/raw-client.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp({
    CONNECT_DEADLINE_S: '1',
    ADDRESS_CONNECTIONS_MAX: '20',
    PACKET_BYTES_MAX: '65536',
  });
});
afterAll(() => app.stop());

async function isServed(): Promise<boolean> {
  const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
  client.send({ cmd: 'pingreq' });
  const answer = await client.next();
  client.end();
  return answer.cmd === 'pingresp';
}

/** The fixed header of a packet that claims `length` bytes [MQTT-2.2.3]. */
function fixedHeader(first: number, length: number): Buffer {
  const bytes = [first];
  let rest = length;
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.from(bytes);
}

describe('before CONNACK', () => {
  it('a CONNECT of 200 MB is refused by its header (N-10)', async () => {
    const client = await openRaw(app.addresses.mqttUrl);
    client.sendBytes(fixedHeader(0x10, 200_000_000));
    await client.closed;
    expect(await isServed()).toBe(true);
  });

  it('a CONNECT of 4097 bytes is refused and one of 4096 is read', async () => {
    // The deadline would end the one that came first, first.
    const [read, refused] = [
      await openRaw(app.addresses.mqttUrl),
      await openRaw(app.addresses.mqttUrl),
    ];
    read.sendBytes(fixedHeader(0x10, 4096));
    refused.sendBytes(fixedHeader(0x10, 4097));
    await refused.closed;
    expect(read.isClosed()).toBe(false);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(read.isClosed()).toBe(false);
    read.end();
  });

  it('silence, half a CONNECT and a byte at a time end at the deadline (N-09)', async () => {
    const silent = await openRaw(app.addresses.mqttUrl);
    const half = await openRaw(app.addresses.mqttUrl);
    half.sendBytes(Buffer.from([0x10, 60, 0, 4]));
    const slow = await openRaw(app.addresses.mqttUrl);
    const dripping = setInterval(() => slow.sendBytes(Buffer.from([0x10])), 200);
    const startedAt = performance.now();
    await Promise.all([silent.closed, half.closed, slow.closed]);
    clearInterval(dripping);
    expect(performance.now() - startedAt).toBeLessThan(6000);
  });

  it('anything but CONNECT ends the connection [MQTT-3.1.0-1]', async () => {
    const client = await openRaw(app.addresses.mqttUrl);
    client.send({ cmd: 'pingreq' });
    await client.closed;
  });

  it('one address gets no more than its share of connections', async () => {
    const sockets: Socket[] = [];
    const { hostname, port } = new URL(app.addresses.mqttUrl);
    for (let number = 0; number < 40; number += 1) {
      const socket = connect(Number(port), hostname);
      socket.on('error', () => undefined);
      sockets.push(socket);
    }
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(await app.metric('puback_broker_connections')).toBeLessThanOrEqual(20);
    for (const socket of sockets) socket.destroy();
    await eventually('they are gone', async () => {
      return (await app.metric('puback_broker_connections')) === 0;
    });
    expect(await isServed()).toBe(true);
  });
});

describe('an upgrade to another path than /mqtt', () => {
  it('is answered, closed, and ends nothing else when its client resets the connection', async () => {
    const { hostname, port } = new URL(app.addresses.httpUrl);
    for (const path of ['/other', '/mqtt']) {
      for (let round = 0; round < 20; round += 1) {
        const socket = connect(Number(port), hostname);
        await once(socket, 'connect');
        socket.on('error', () => undefined);
        const head = 'Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
        socket.write(`GET ${path} HTTP/1.1\r\n${head}`);
        if (round % 2 === 0) socket.resetAndDestroy();
        else await once(socket.resume(), 'close');
      }
    }
    expect(await isServed()).toBe(true);
  });
});

describe('after CONNACK', () => {
  it('a PUBLISH over the packet limit ends the connection, one below is stored (N-11)', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    client.send({
      cmd: 'publish',
      topic: 'v1/me/data',
      payload: `{"temp":1}${' '.repeat(60_000)}`,
      qos: 1,
      messageId: 1,
      dup: false,
      retain: false,
    });
    expect(await client.next()).toMatchObject({ cmd: 'puback' });
    client.sendBytes(fixedHeader(0x32, 65_537));
    await client.closed;
  });

  it('a topic with NUL, a control character or broken UTF-8 ends the connection (I-03)', async () => {
    const topics = ['v1/me/data/\0', 'v1/me/\u0001', 'v1/\ufffe\u009f'].map((topic) =>
      Buffer.from(topic),
    );
    for (const topic of [...topics, Buffer.from([0x76, 0x31, 0x2f, 0xc3, 0x28])]) {
      const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
      const size = Buffer.from([0, topic.length]);
      const body = Buffer.concat([size, topic, Buffer.from([0, 1]), Buffer.from('1')]);
      client.sendBytes(Buffer.concat([fixedHeader(0x32, body.length), body]));
      await client.closed;
    }
    expect(await isServed()).toBe(true);
  });

  it('a second CONNECT ends the connection [MQTT-3.1.0-2]', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    client.send({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId: 'x',
      clean: true,
      keepalive: 60,
    });
    await client.closed;
  });

  it('frames cut at every byte give the same as whole ones (N-13)', async () => {
    const client = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    const topic = Buffer.from('v1/me/data/cut');
    const body = Buffer.concat([
      Buffer.from([0, topic.length]),
      topic,
      Buffer.from([0, 9]),
      Buffer.from('5'),
    ]);
    for (const byte of Buffer.concat([fixedHeader(0x32, body.length), body])) {
      client.sendBytes(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    expect(await client.next()).toMatchObject({ cmd: 'puback', messageId: 9 });
    client.end();
  });
});

describe('the emitter of the engine', () => {
  it('releases thousands of held deliveries without overflowing the stack (N-04)', async () => {
    const emitter = mqemitter({ concurrency: 0 });
    const held: (() => void)[] = [];
    emitter.on('topic', (_message, done) => void held.push(done));
    let delivered = 0;
    for (let number = 0; number < 20_000; number += 1) {
      emitter.emit({ topic: 'topic' }, () => {
        delivered += 1;
      });
    }
    for (const done of held.splice(0)) done();
    await new Promise(setImmediate);
    expect(delivered).toBe(20_000);
    await new Promise<void>((resolve) => emitter.close(() => resolve()));
  });
});
