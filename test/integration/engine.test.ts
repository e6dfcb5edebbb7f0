import { Duplex, PassThrough } from 'node:stream';
import mqttPacket, { type IPublishPacket, type Packet } from 'mqtt-packet';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Engine, ignoreOutcome } from '../../broker/engine.ts';

/** Two ends of one connection, in memory. */
function duplexPair(): [Duplex, Duplex] {
  const there = new PassThrough();
  const back = new PassThrough();
  return [
    Duplex.from({ readable: there, writable: back }),
    Duplex.from({ readable: back, writable: there }),
  ];
}

let engine: Engine;
beforeEach(async () => {
  engine = new Engine(
    {
      preConnect: (_client, _packet, done) => done(null, true),
      authenticate: (_client, _username, _password, done) => done(null, true),
      authorizePublish: (_client, _packet, done) => done(null),
      authorizeSubscribe: (_client, subscription, done) => done(null, subscription),
      authorizeForward: (_client, packet) => packet,
    },
    10_000,
  );
  await engine.listen();
});
afterEach(() => new Promise<void>((resolve) => engine.close(() => resolve())));

/** Who the engine takes for the live client of this identifier. */
function listedClient(id: string): unknown {
  return (engine as unknown as { clients: Record<string, unknown> }).clients[id];
}

/** A subscriber in memory and the publications that it gets. */
async function subscribe(filter: string): Promise<IPublishPacket[]> {
  const [device, broker] = duplexPair();
  const got: IPublishPacket[] = [];
  const parser = mqttPacket.parser({ protocolVersion: 4 });
  const subscribed = new Promise<void>((resolve) => {
    parser.on('packet', (packet: Packet) => {
      if (packet.cmd === 'publish') got.push(packet);
      if (packet.cmd === 'suback') resolve();
      if (packet.cmd === 'publish' && packet.qos > 0) {
        device.write(mqttPacket.generate({ cmd: 'puback', messageId: packet.messageId as number }));
      }
    });
  });
  // The engine destroys its end when it stops.
  device.on('error', ignoreOutcome);
  device.on('data', (bytes: Buffer) => parser.parse(bytes));
  engine.accept(broker);
  device.write(
    mqttPacket.generate({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId: `subscriber of ${filter}`,
      clean: true,
      keepalive: 0,
    }),
  );
  device.write(
    mqttPacket.generate({
      cmd: 'subscribe',
      messageId: 1,
      subscriptions: [{ topic: filter, qos: 1 }],
    }),
  );
  await subscribed;
  return got;
}

function publish(topic: string, qos: 0 | 1, retain: boolean, payload: string): void {
  engine.publish(
    { cmd: 'publish', topic, qos, retain, dup: false, payload: Buffer.from(payload) },
    ignoreOutcome,
  );
}

describe('the engine', () => {
  it('keeps the live client on its list when another of its name dies in the handshake (row 7)', async () => {
    await subscribe('alive');
    const live = listedClient('subscriber of alive');
    for (let turns = 0; turns < 12; turns += 1) {
      const [device, broker] = duplexPair();
      device.on('error', ignoreOutcome);
      const rival = engine.accept(broker);
      // As if it had been authenticated and then vanished, before it was put on the list.
      Object.assign(rival, { id: 'subscriber of alive', _authorized: true });
      for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
      broker.destroy();
      await new Promise<void>((resolve) => rival.close(() => resolve()));
    }
    expect(listedClient('subscriber of alive')).toBe(live);
  });

  it('loses no message when one without QoS overtakes a retained one (row 1)', async () => {
    const got = await subscribe('in/+');
    for (let round = 0; round < 200; round += 1) {
      publish('in/cmd', 1, true, `slot ${round}`);
      publish('in/err', 0, false, `error ${round}`);
      if (round % 20 === 0) await new Promise(setImmediate);
    }
    await expect.poll(() => got.length).toBe(400);
  });

  it('publishes nothing of its own that a client could read (row 11)', async () => {
    const all = await subscribe('#');
    const system = await subscribe('$SYS/#');
    await subscribe('other');
    publish('in/cmd', 0, false, 'x');
    await expect.poll(() => all.length).toBe(1);
    expect(system).toEqual([]);
  });
});
