import { Duplex, PassThrough } from 'node:stream';
import memory from 'aedes-persistence';
import mqttPacket from 'mqtt-packet';
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
      release: (_packet, _client, done) => done(),
      takenOver: ignoreOutcome,
    },
    (memory as unknown as () => object)(),
    10_000,
  );
  await engine.listen();
});
afterEach(() => new Promise<void>((resolve) => engine.close(() => resolve())));

/** Who the engine takes for the live client of this identifier. */
function listedClient(id: string): unknown {
  return (engine as unknown as { clients: Record<string, unknown> }).clients[id];
}

/** Connects a client of this identifier over a pair of streams. */
async function connect(clientId: string): Promise<void> {
  const [device, broker] = duplexPair();
  // The engine destroys its end when it stops.
  device.on('error', ignoreOutcome);
  const connected = new Promise((resolve) => device.once('data', resolve));
  engine.accept(broker);
  device.write(
    mqttPacket.generate({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId,
      clean: true,
      keepalive: 0,
    }),
  );
  await connected;
}

describe('the engine', () => {
  it('keeps the live client on its list when another of its name dies in the handshake (row 7)', async () => {
    await connect('alive');
    const live = listedClient('alive');
    for (let turns = 0; turns < 12; turns += 1) {
      const [device, broker] = duplexPair();
      device.on('error', ignoreOutcome);
      const rival = engine.accept(broker);
      // As if it had been authenticated and then vanished, before it was put on the list.
      Object.assign(rival, { id: 'alive', _authorized: true });
      for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
      broker.destroy();
      await new Promise<void>((resolve) => rival.close(() => resolve()));
    }
    expect(listedClient('alive')).toBe(live);
  });
});
