import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import mqttPacket, { type Packet } from 'mqtt-packet';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { connectDevice, eventually, startTestApp, type TestApp } from '../support/app.ts';
import { makeCa, type TestCa } from '../support/certificates.ts';
import { fastestMs } from '../support/fastest.ts';
import { hasProgram } from '../support/programs.ts';
import { proxyHeader } from '../support/proxy-header.ts';

const hasOpenssl = hasProgram('openssl', 'mutual TLS');

/** How a CONNECT was answered: return code of CONNACK, or `closed`; and after how long. */
interface Answer {
  readonly code: number | 'closed';
  readonly ms: number;
}

/** Connects from an address that the proxy names, and stays for as long as the test runs. */
async function login(url: string, key: string, source: readonly number[]): Promise<Answer> {
  const { hostname, port } = new URL(url);
  const startedAt = performance.now();
  const socket = connect(Number(port), hostname);
  const parser = mqttPacket.parser({ protocolVersion: 4 });
  const code = await new Promise<number | 'closed'>((resolve) => {
    parser.on('packet', (packet: Packet) => {
      if (packet.cmd === 'connack') resolve(packet.returnCode ?? -1);
    });
    socket.on('data', (bytes) => parser.parse(bytes));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve('closed'));
    socket.write(Buffer.concat([proxyHeader({ source }), connectPacket(key)]));
  });
  socket.destroy();
  return { code, ms: performance.now() - startedAt };
}

function connectPacket(key: string): Buffer {
  return mqttPacket.generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clientId: 'board',
    clean: true,
    keepalive: 60,
    username: 'device',
    password: Buffer.from(key),
  });
}

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** The same key with another secret: what somebody tries who knows the public part. */
function withOtherSecret(key: string): string {
  const publicId = Uint8Array.from(key.slice(4, 12), (char) => BASE62.indexOf(char));
  const random = (bytes: number) => (bytes === 8 ? publicId : randomBytes(bytes));
  return makeKey('device', random).key;
}

describe('logins', () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startTestApp({
      PROXY_PROTOCOL_FROM: '127.0.0.1/32',
      LOGIN_FAILURES_MAX: '20',
      LOGIN_BAN_S: '4',
    });
  });
  afterAll(() => app.stop());
  const from = (key: string, ...source: number[]) => login(app.addresses.mqttUrl, key, source);

  it('with an unknown key and with a wrong secret are refused alike (A-06)', async () => {
    const unknown = await from(makeKey('device').key, 192, 0, 2, 1);
    const wrong = await from(withOtherSecret(app.deviceKey), 192, 0, 2, 2);
    expect([unknown.code, wrong.code]).toEqual([5, 5]);
  });

  it('with the right key are never slowed down by what others tried with its public part (A-06)', async () => {
    const guesses = Array.from({ length: 10 }, (_, index) =>
      from(withOtherSecret(app.deviceKey), 198, 51, 100, index + 1),
    );
    const answers = await Promise.all(guesses);
    expect(answers.every(({ code }) => code === 5)).toBe(true);
    expect(Math.max(...answers.map(({ ms }) => ms))).toBeGreaterThan(700);
    const rightMs = await fastestMs(async (number) => {
      const right = await from(app.deviceKey, 192, 0, 2, 10 + number);
      expect(right.code).toBe(0);
      return right.ms;
    });
    expect(rightMs).toBeLessThan(500);
  });

  it('that guess are banned by address for a while, and nobody else is (A-06)', async () => {
    const attacker = [203, 0, 113, 9];
    const guesses = Array.from({ length: 25 }, () => from(makeKey('device').key, ...attacker));
    await eventually(
      'banned',
      async () => (await app.metric('puback_broker_banned_addresses')) === 1,
    );
    expect((await from(app.deviceKey, ...attacker)).code).toBe('closed');
    expect((await from(app.deviceKey, 203, 0, 113, 10)).code).toBe(0);
    await eventually(
      'the ban ends',
      async () => (await from(app.deviceKey, ...attacker)).code === 0,
    );
    await Promise.all(guesses);
    expect(await app.metric('puback_broker_address_bans_total')).toBe(1);
  });

  it('with wrong keys cost less than 2 ms of processor time, of both sides together (A-07)', async () => {
    const keys = Array.from({ length: 300 }, () => makeKey('device').key);
    const before = process.cpuUsage();
    const answers = await Promise.all(
      keys.map((key, index) => from(key, 10, 0, index >> 8, index & 0xff)),
    );
    const { user, system } = process.cpuUsage(before);
    expect(answers.every(({ code }) => code === 5)).toBe(true);
    expect((user + system) / keys.length).toBeLessThan(2000);
  });

  it('without the header that the proxy has to send get no answer (N-14)', async () => {
    const { hostname, port } = new URL(app.addresses.mqttUrl);
    const socket = connect(Number(port), hostname);
    socket.on('error', () => undefined);
    let bytes = 0;
    socket.on('data', (chunk) => (bytes += chunk.length));
    socket.write(connectPacket(app.deviceKey));
    await once(socket, 'close');
    expect(bytes).toBe(0);
  });
});

describe('a storm of reconnects', () => {
  it('is let in whole, with less than half a transaction for a login (N-06, N-07)', async () => {
    const app = await startTestApp();
    const keys: string[] = [];
    for (let number = 0; number < 150; number += 1) keys.push(await app.addDevice(`d-${number}`));
    const client = new pg.Client({ connectionString: app.testDatabase.url });
    await client.connect();
    const idle = await transactions(client);
    const idleMs = performance.now();
    await delay(3000);
    const before = await transactions(client);
    const startedMs = performance.now();
    for (let round = 0; round < 4; round += 1) {
      const devices = await Promise.all(
        keys.map((key) => connectDevice(app.addresses.mqttUrl, key)),
      );
      for (const device of devices) device.end(true);
      await eventually('gone', async () => (await app.metric('puback_broker_sessions')) === 0);
    }
    const used = (await transactions(client)) - before;
    const usedMs = performance.now() - startedMs;
    await client.end();
    await app.stop();
    // Presence and history of connections are among them, what the program does by the clock is not.
    const byTheClock = ((before - idle) * usedMs) / (startedMs - idleMs);
    expect(used - byTheClock).toBeLessThan((4 * keys.length) / 2);
  });
});

describe.skipIf(!hasOpenssl)('a client certificate', () => {
  let ca: TestCa;
  let app: TestApp;
  let organization = '';
  beforeAll(async () => {
    ca = await makeCa();
    const server = await ca.issue('localhost');
    app = await startTestApp({
      TLS_CERT_FILE: server.certFile,
      TLS_KEY_FILE: server.keyFile,
      TLS_CLIENT_CA_FILE: ca.certFile,
    });
    organization = JSON.parse(
      await readFile(`${app.dataDir}/credentials.json`, 'utf8'),
    ).organization;
  });
  afterAll(async () => {
    await app.stop();
    await ca.remove();
  });

  const connectWith = async (commonName: string, key: string) => {
    const { certFile, keyFile } = await ca.issue(commonName);
    const url = app.addresses.mqttsUrl ?? '';
    const files = { cert: await readFile(certFile), key: await readFile(keyFile) };
    return connectDevice(url, key, { rejectUnauthorized: false, ...files });
  };

  it('of a device is as good as its key (N-18)', async () => {
    const client = await connectWith(`${organization}/first`, '');
    await client.publishAsync('v1/me/data', '{"mtls":1}', { qos: 1 });
    const { body } = await app.api('GET', '/api/v1/devices/first/readings?metric=mtls&limit=1');
    expect(body.data[0]?.value).toBe(1);
    await client.endAsync();
  });

  it('keeps its connection when revocations may have been missed, and loses it with its device (A-04)', async () => {
    await app.addDevice('certified');
    await app.addDevice('disabled-meanwhile');
    const stays = await connectWith(`${organization}/certified`, '');
    const goes = await connectWith(`${organization}/disabled-meanwhile`, '');
    const { pool } = app.testDatabase.database;
    // As if another program had done it while the listener was away: nobody is told.
    await pool.query("UPDATE device SET disabled_at = now() WHERE slug = 'disabled-meanwhile'");
    await pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE application_name = 'puback revocations' AND datname = current_database()`,
    );
    await eventually('the disabled one is closed', () => !goes.connected);
    await stays.publishAsync('v1/me/data', '{"still":1}', { qos: 1 });
    expect(stays.connected).toBe(true);
    await app.api('PATCH', '/api/v1/devices/certified', { disabled: true });
    await eventually('the other one too', () => !stays.connected);
    await expect(connectWith(`${organization}/certified`, '')).rejects.toThrow();
  });

  it('of a device that is not there is no credential', async () => {
    await expect(connectWith(`${organization}/nobody`, '')).rejects.toThrow();
    await expect(connectWith('another/first', '')).rejects.toThrow();
  });
});

/** Transactions that this database has seen. The statistics lag; they are asked for anew. */
async function transactions(client: pg.Client): Promise<number> {
  await delay(1500);
  await client.query('SELECT pg_stat_clear_snapshot()');
  const { rows } = await client.query<{ count: string }>(
    'SELECT xact_commit + xact_rollback AS count FROM pg_stat_database WHERE datname = current_database()',
  );
  return Number(rows[0]?.count);
}
