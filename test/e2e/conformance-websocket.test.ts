import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw } from '../support/raw-client.ts';
import { connectFrame, frame, publishFrame } from '../support/wire.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

const CONNACK = Buffer.from([0x20, 2, 0, 0]);
const PINGREQ = frame(0xc0);
const PINGRESP = Buffer.from([0xd0, 0]);

/** A CONNECT with the key of a device. */
function connect(): Buffer {
  return connectFrame({ flags: 0xc2, payload: ['id', 'device', app.deviceKey] });
}

async function open(protocols: string | string[] = 'mqtt'): Promise<WebSocket> {
  const socket = new WebSocket(app.addresses.wsUrl, protocols);
  await once(socket, 'open');
  return socket;
}

/** Everything that comes, once there are as many bytes as wanted. Frames that are not binary are a fault. */
function receive(socket: WebSocket, wanted: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0);
    const take = (chunk: Buffer, isBinary: boolean): void => {
      bytes = Buffer.concat([bytes, chunk]);
      if (!isBinary) reject(new Error('a text frame came'));
      if (bytes.length < wanted) return;
      socket.off('message', take);
      resolve(bytes);
    };
    socket.on('message', take);
  });
}

describe('MQTT over WebSocket', () => {
  it('comes and goes in binary frames; a text frame ends the connection [MQTT-6.0.0-1]', async () => {
    const socket = await open();
    socket.send(connect());
    expect(await receive(socket, 4)).toEqual(CONNACK);
    socket.send(PINGREQ.toString('latin1'), { binary: false });
    await once(socket, 'close');
    const early = await open();
    early.send('text');
    await once(early, 'close');
  });

  it('has packets that begin and end anywhere in its frames [MQTT-6.0.0-2]', async () => {
    const socket = await open();
    const bytes = Buffer.concat([
      connect(),
      publishFrame(2, 'v1/me/data', 7, Buffer.from('{"cut":1}')),
      PINGREQ,
    ]);
    const answered = receive(socket, 10);
    for (const byte of bytes) socket.send(Buffer.from([byte]));
    const answers = await answered;
    expect(answers.subarray(0, 4)).toEqual(CONNACK);
    expect(answers.includes(PINGRESP)).toBe(true);
    expect(answers.includes(Buffer.from([0x40, 2, 0, 7]))).toBe(true);
    const together = await open();
    together.send(Buffer.concat([connect(), PINGREQ, PINGREQ, PINGREQ]));
    await receive(together, 10);
    socket.close();
    together.close();
  });

  it('is answered with the sub-protocol mqtt [MQTT-6.0.0-4]', async () => {
    const socket = await open(['other', 'mqtt']);
    expect(socket.protocol).toBe('mqtt');
    socket.close();
  });

  it('closes the socket when MQTT ends', async () => {
    const socket = await open();
    socket.send(Buffer.concat([connect(), frame(0xe0)]));
    await once(socket, 'close');
  });
});

describe('what a device may not publish', () => {
  it('is acknowledged and goes to quarantine instead of to anybody [MQTT-3.3.5-2]', async () => {
    const key = await app.addDevice('forbidden');
    const client = await connectRaw(app.addresses.mqttUrl, key);
    client.send({
      ...{ cmd: 'publish', topic: 'v1/demo/first/data', payload: '{"temp":1}', qos: 1 },
      ...{ messageId: 3, dup: false, retain: false },
    });
    // The reason on in/err may come first.
    const answers = [await client.next(), await client.next()];
    expect(answers).toContainEqual(expect.objectContaining({ cmd: 'puback', messageId: 3 }));
    const { body } = await app.api('GET', '/api/v1/quarantine?device=forbidden');
    expect(body.data).toHaveLength(1);
    client.end();
  });
});
