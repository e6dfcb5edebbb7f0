import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { makeTlsFiles } from '../../bench/tls-settings.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { allClosed, openSockets } from '../support/held-socket.ts';
import { Innocents, type InnocentReport } from '../support/innocents.ts';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { hasProgram } from '../support/programs.ts';
import { connectFrame, fixedHeader, frame, publishFrame } from '../support/wire.ts';

/**
 * Each attack is made while a device publishes at QoS 1 and an integrator reads its stream. Nothing may
 * be lost of theirs, and no answer to them may take a second.
 */
const hasOpenssl = hasProgram('openssl', 'attacks on TLS');

let app: TestApp;
let folder: string;
let tlsUrl = '';
let integratorKey = '';
let innocentKey = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-attacks-'));
  const tls = hasOpenssl ? await makeTlsFiles(folder) : {};
  app = await startTestApp({
    CONNECT_DEADLINE_S: '2',
    ADDRESS_UNAUTHENTICATED_MAX: '0',
    ADDRESS_MESSAGES_PER_S: '0',
    ORGANIZATION_MESSAGES_PER_S: '0',
    SUBSCRIBER_STUCK_S: '3',
    ...tls,
  });
  tlsUrl = app.addresses.mqttsUrl ?? '';
  integratorKey = await makeIntegrator();
  innocentKey = await app.addDevice('innocent');
});
afterEach(closeProbes);
afterAll(async () => {
  await app.stop();
  await rm(folder, { recursive: true, force: true });
});

async function makeIntegrator(): Promise<string> {
  const fields = { name: 'attacks', scopes: ['data', 'status'], devices: null, expiresAt: null };
  return (await app.api('POST', '/api/v1/keys', fields)).body.key;
}

/** Runs an attack under the eyes of the innocents, to whom nothing may happen. */
async function unharmed(attack: () => Promise<void>): Promise<InnocentReport> {
  const innocents = new Innocents({
    mqttUrl: app.addresses.mqttUrl,
    organization: 'demo',
    device: 'innocent',
    deviceKey: innocentKey,
    integratorKey,
  });
  await innocents.start();
  await new Promise((resolve) => setTimeout(resolve, 300));
  try {
    await attack();
  } finally {
    await innocents.stop();
  }
  const report = innocents.report();
  expect(report.faults).toEqual([]);
  expect(report.published).toBeGreaterThan(5);
  expect(report.acknowledged).toBe(report.published);
  expect(report.delivered).toBe(report.published);
  // Most take milliseconds; a machine that has other work may stand still for a moment.
  expect(report.slowestPubackMs).toBeLessThan(3000);
  expect(report.slowestDeliveryMs).toBeLessThan(3000);
  return report;
}

/** Everybody has gone, and nothing is kept of them. */
async function expectEmpty(): Promise<void> {
  for (const name of ['connections', 'sessions', 'held_messages', 'waiting_bytes']) {
    await eventually(`no ${name} left`, async () => {
      return (await app.metric(`puback_broker_${name}`)) === 0;
    });
  }
}

function device(key: string, fields = {}): Promise<Probe> {
  return Probe.connect(app.addresses.mqttUrl, {
    username: 'device',
    password: Buffer.from(key),
    ...fields,
  });
}

function integrator(fields = {}): Promise<Probe> {
  const password = Buffer.from(integratorKey);
  return Probe.connect(app.addresses.mqttUrl, { username: 'reader', password, ...fields });
}

/** A message of 13 kB on the stream: 60 texts. */
const TEXTS = Array.from({ length: 60 }, (_, at) => `"t${at}":"${'x'.repeat(200)}"`);
const LARGE = Buffer.from(`{${TEXTS.join(',')}}`);

/** Publishes large messages, as many as are wanted, at QoS 1 with a window of 20. */
async function flood(key: string, count: number): Promise<void> {
  const publisher = await device(key);
  for (let sent = 0; sent < count; sent += 20) {
    publisher.sendBytes(
      ...Array.from({ length: 20 }, (_, at) => publishFrame(2, 'v1/me/data', at + 1, LARGE)),
    );
    for (let at = 0; at < 20; at += 1) await publisher.take('puback', 20_000);
  }
  publisher.drop();
}

describe('subscribers', () => {
  it('that are frozen and then leave, with thousands of messages for them (N-03, N-04)', async () => {
    const key = await app.addDevice(unique('flooder'));
    const clientId = unique('frozen');
    await unharmed(async () => {
      const frozen = [
        await integrator(),
        await integrator({ clientId, clean: false }),
        await integrator(),
      ];
      for (const [at, probe] of frozen.entries()) {
        await probe.subscribe('v1/demo/+/data', at === 2 ? 0 : 1);
        probe.raw.socket.pause();
      }
      await flood(key, 1200);
      for (const probe of frozen) probe.drop();
    });
    await (await integrator({ clientId })).disconnect();
    await expectEmpty();
  });

  it('that read a kilobyte a second (N-02)', async () => {
    const key = await app.addDevice(unique('flooder'));
    await unharmed(async () => {
      const slow = await integrator();
      await slow.subscribe('v1/demo/+/data', 0);
      const { socket } = slow.raw;
      socket.pause();
      const sip = setInterval(() => socket.read(100), 100);
      await flood(key, 800);
      clearInterval(sip);
      slow.drop();
    });
    await expectEmpty();
  });

  it('by the hundred over WebSocket, that stop reading (N-17)', async () => {
    const key = await app.addDevice(unique('flooder'));
    await unharmed(async () => {
      const sockets = await Promise.all(Array.from({ length: 100 }, openDashboard));
      for (const socket of sockets) socket.pause();
      await flood(key, 100);
      for (const socket of sockets) socket.terminate();
    });
    await expectEmpty();
  });

  it('that are stuck are closed, and what waits for them is let go (N-03)', async () => {
    const key = await app.addDevice(unique('flooder'));
    const stuck = await integrator();
    await stuck.subscribe('v1/demo/+/data', 0);
    stuck.raw.socket.pause();
    await flood(key, 1200);
    await eventually('the stuck subscriber is closed', async () => {
      return (await app.metric('puback_broker_sessions')) === 0;
    });
    await expectEmpty();
  });
});

async function openDashboard(): Promise<WebSocket> {
  const socket = new WebSocket(app.addresses.wsUrl, 'mqtt');
  socket.on('error', () => undefined);
  await once(socket, 'open');
  const payload = [unique('dashboard'), 'reader', integratorKey];
  socket.send(connectFrame({ flags: 0xc2, payload }));
  socket.send(frame(0x82, [0, 1], 'v1/demo/+/data', [0]));
  await once(socket, 'message');
  return socket;
}

describe('connections', () => {
  it('by the thousand that say nothing (N-09)', async () => {
    await unharmed(async () => {
      const sockets = await openSockets(app.addresses.mqttUrl, 2000);
      await allClosed(sockets, 20_000);
    });
    await expectEmpty();
  });

  it('by the thousand that begin a CONNECT and do not end it (N-09)', async () => {
    await unharmed(async () => {
      const sockets = await openSockets(app.addresses.mqttUrl, 1000);
      for (const socket of sockets) socket.write(Buffer.from([0x10, 60, 0, 4, 0x4d]));
      await allClosed(sockets, 20_000);
    });
    await expectEmpty();
  });

  it.skipIf(!hasOpenssl)('by the hundred whose TLS handshake never ends (N-09)', async () => {
    await unharmed(async () => {
      const sockets = await openSockets(tlsUrl, 300);
      // The head of a record that announces a ClientHello of 512 bytes.
      for (const [at, socket] of sockets.entries()) {
        if (at % 2 === 0) socket.write(Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1]));
      }
      await allClosed(sockets, 20_000);
    });
    await expectEmpty();
  });

  it('by the hundred that claim a CONNECT of 200 MB and send it (N-10)', async () => {
    const before = process.memoryUsage().rss;
    const refused = () =>
      app
        .metric('puback_broker_connections_closed_total{reason="packet_too_large"}')
        .catch(() => 0);
    const refusedBefore = await refused();
    await unharmed(async () => {
      const sockets = await openSockets(app.addresses.mqttUrl, 100);
      const bytes = Buffer.alloc(1_000_000);
      for (const socket of sockets) {
        socket.write(fixedHeader(0x10, 200_000_000));
        socket.write(bytes);
      }
      await allClosed(sockets, 20_000);
    });
    // By its header, and not at the deadline.
    expect((await refused()) - refusedBefore).toBe(100);
    expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(300);
    await expectEmpty();
  });

  it('that claim a PUBLISH of 10 and of 256 MB after CONNACK (N-11)', async () => {
    const key = await app.addDevice(unique('huge'));
    await unharmed(async () => {
      for (const length of [10_000_000, 256_000_000, 268_435_455]) {
        const client = await device(key);
        client.sendBytes(fixedHeader(0x32, length), Buffer.alloc(100_000));
        await client.closed();
      }
    });
    await expectEmpty();
  });

  it('by the hundred that write a byte at a time (N-13)', async () => {
    const key = await app.addDevice(unique('drip'));
    await unharmed(async () => {
      const writer = await device(key);
      const sockets: Socket[] = await openSockets(app.addresses.mqttUrl, 200);
      const bytes = publishFrame(2, 'v1/me/data', 1, Buffer.from('{"drip":1}'));
      for (const byte of bytes) {
        writer.sendBytes(Buffer.from([byte]));
        for (const socket of sockets) socket.write(Buffer.from([0x10]));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      expect(await writer.take('puback')).toMatchObject({ messageId: 1 });
      for (const socket of sockets) socket.destroy();
    });
    closeProbes();
    await expectEmpty();
  });

  it('that come and go as fast as they can, in every state', async () => {
    const key = await app.addDevice(unique('churn'));
    await unharmed(async () => {
      for (let round = 0; round < 40; round += 1) {
        const sockets = await openSockets(app.addresses.mqttUrl, 20);
        for (const [at, socket] of sockets.entries()) {
          const connect = connectFrame({ flags: 0xc2, payload: [unique('c'), 'device', key] });
          if (at % 4 > 0) socket.write(connect);
          if (at % 4 > 1) socket.write(publishFrame(2, 'v1/me/data', 1, Buffer.from('{"x":1}')));
          if (at % 2 === 0) socket.resetAndDestroy();
          else socket.destroy();
        }
      }
    });
    await expectEmpty();
  });
});

describe('identities', () => {
  it('of which a hundred connections race for one (N-08)', async () => {
    const key = await app.addDevice(unique('raced'));
    await unharmed(async () => {
      const probes = await Promise.all(
        Array.from({ length: 100 }, () => Probe.open(app.addresses.mqttUrl)),
      );
      const connect = connectFrame({ flags: 0xc2, payload: ['same', 'device', key] });
      for (const probe of probes) probe.sendBytes(connect);
      await eventually('one is left of a hundred', () => {
        return probes.filter(({ raw }) => !raw.isClosed()).length === 1;
      });
      const last = probes.find(({ raw }) => !raw.isClosed());
      await last?.ping();
      await last?.publish('v1/me/data', '{"raced":1}');
    });
    closeProbes();
    await expectEmpty();
  });

  it('of a kept session for which fifty connections race: it is whole afterwards', async () => {
    const key = await app.addDevice(unique('raced'));
    const clientId = unique('raced');
    await unharmed(async () => {
      const first = await integrator({ clientId, clean: false });
      await first.subscribe('v1/demo/+/data');
      const probes = await Promise.all(
        Array.from({ length: 50 }, () => Probe.open(app.addresses.mqttUrl)),
      );
      const payload = [clientId, 'reader', integratorKey];
      for (const probe of probes) probe.sendBytes(connectFrame({ flags: 0xc0, payload }));
      await eventually('one is left of fifty', () => {
        return probes.filter(({ raw }) => !raw.isClosed()).length === 1;
      });
      closeProbes();
      const publisher = await device(key);
      await publisher.publish('v1/me/data', '{"whole":7}');
      const last = await integrator({ clientId, clean: false });
      const payloads: string[] = [];
      do payloads.push(...(await last.messages(1)));
      while (!(payloads.at(-1) ?? '').includes('"whole":7'));
      last.drop();
    });
    closeProbes();
    await (await integrator({ clientId })).disconnect();
    await expectEmpty();
  });

  it('with the names of members of objects (I-11)', async () => {
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'prototype'];
    await unharmed(async () => {
      for (const name of names) {
        const reader = await integrator({ clientId: name, clean: false });
        await reader.subscribe([`v1/demo/${name}/data`, `v1/${name}/+/data`]);
        const { status } = await app.api('POST', '/api/v1/devices', { device: name });
        expect([201, 400, 422]).toContain(status);
        if (status === 201) {
          const { body } = await app.api('POST', `/api/v1/devices/${name}/keys`, {});
          const named = await device(body.key, { clientId: name });
          await named.publish('v1/me/data', `{"constructor":1,"toString":2,"ok":3}`);
          await named.publish(`v1/me/data/${name}`, '5');
          const [payload = ''] = await reader.messages(1);
          expect(JSON.parse(payload)).toMatchObject({ ok: 3 });
          await app.api('GET', `/api/v1/devices/${name}/readings?metric=${name}`);
        }
        reader.drop();
        await (await integrator({ clientId: name })).disconnect();
      }
    });
    closeProbes();
    const bare: Record<string, unknown> = {};
    for (const name of ['x', 'ok', 'data', 'temp']) expect(bare[name]).toBeUndefined();
    await expectEmpty();
  });
});

describe('wills', () => {
  it('of clients that die in their handshake end nothing', async () => {
    const key = await app.addDevice(unique('dying'));
    await unharmed(async () => {
      const flags = 0xc6 | 0x08;
      const payload = ['dying', 'v1/me/data', '{"will":1}', 'device', key];
      const connect = connectFrame({ flags, payload });
      for (let round = 0; round < 200; round += 1) {
        const probe = await Probe.open(app.addresses.mqttUrl);
        probe.sendBytes(connect);
        if (round % 4 !== 0) await new Promise((resolve) => setTimeout(resolve, (round % 16) / 4));
        if (round % 2 === 0) probe.raw.socket.resetAndDestroy();
        else probe.drop();
      }
    });
    await expectEmpty();
  });

  it('with poison in topic or payload harm nobody when they are published (I-08)', async () => {
    const key = await app.addDevice(unique('poisoned'));
    const topics = [
      '#',
      'v1/+/data',
      '$SYS/x',
      'v1/demo/first/data',
      'v1/me/in/cmd',
      '/',
      'v1/me/data/\u0001',
    ];
    await unharmed(async () => {
      for (const topic of topics) {
        const probe = await Probe.open(app.addresses.mqttUrl);
        const payload = ['poison', topic, '{"will":1}', 'device', key];
        probe.sendBytes(connectFrame({ flags: 0xc6, payload }));
        await Promise.race([probe.take('connack').catch(() => undefined), probe.closed()]);
        probe.drop();
      }
      for (const payload of ['', '{"a":', '[[[[', '\uFEFF{}', '{"__proto__":{"x":1}}']) {
        const will = { topic: 'v1/me/data', payload: Buffer.from(payload), qos: 2, retain: true };
        (await device(key, { will })).drop();
      }
    });
    await expectEmpty();
  });

  it('cannot be given by integrators at all (I-08)', async () => {
    const probe = await Probe.open(app.addresses.mqttUrl);
    const payload = ['reader', 'v1/demo/first/data', '{"stolen":1}', 'reader', integratorKey];
    probe.sendBytes(connectFrame({ flags: 0xc6, payload }));
    expect(await probe.take('connack')).toMatchObject({ returnCode: 5 });
    await probe.closed();
  });
});

describe('snooping', () => {
  it('under $SYS, shared filters and other organizations gives nothing (I-05, I-06)', async () => {
    const snooper = await integrator();
    const filters = ['$SYS/#', '#', '+/#', '$share/g/#', 'v1/+/+/data', 'v1/other/+/data', 'v1/#'];
    expect(await snooper.subscribe(filters)).toEqual(filters.map(() => 128));
    const key = await app.addDevice(unique('seen'));
    const publisher = await device(key);
    await publisher.publish('v1/me/data', '{"seen":1}');
    await snooper.ping();
    expect(snooper.raw.received).toEqual([]);
  });
});
