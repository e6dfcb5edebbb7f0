import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeTlsFiles } from '../../bench/tls-settings.ts';
import { connectDevice, eventually, startTestApp, type TestApp } from '../support/app.ts';
import { hasHeader, hasProgram, run } from '../support/programs.ts';
import { connectReader } from '../support/reader.ts';

const hasOpenssl = hasProgram('openssl', 'independent clients over TLS');
const hasMosquitto = hasProgram('mosquitto_sub', 'reading with mosquitto_sub');
hasProgram('gcc', 'clients in C');
const hasLibmosquitto = hasHeader('mosquitto.h', 'libmosquitto-dev');
const hasPaho = hasHeader('MQTTClient.h', 'libpaho-mqtt-dev');

let app: TestApp;
let folder: string;
let certFile = '-';
let integratorKey = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-clients-'));
  const tls: Record<string, string> = hasOpenssl ? await makeTlsFiles(folder) : {};
  certFile = tls['TLS_CERT_FILE'] ?? '-';
  app = await startTestApp(tls);
  const fields = { name: 'clients', scopes: ['data'], devices: null, expiresAt: null };
  integratorKey = (await app.api('POST', '/api/v1/keys', fields)).body.key;
});
afterAll(async () => {
  await app.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Compiles a client of test/support/clients. @returns the path of the program. */
async function compile(name: string, library: string): Promise<string> {
  const source = fileURLToPath(new URL(`../support/clients/${name}.c`, import.meta.url));
  const program = join(folder, `${name}-${library}`);
  if (!existsSync(program)) {
    const strict = ['-std=c99', '-Wall', '-Wextra', '-Werror'];
    await run('gcc', [...strict, '-o', program, source, `-l${library}`]);
  }
  return program;
}

/** Values of a metric of the device `first`, oldest first. */
async function values(metric: string): Promise<unknown[]> {
  const query = `metric=${metric}&order=asc&limit=100`;
  const { body } = await app.api('GET', `/api/v1/devices/first/readings?${query}`);
  return body.data.map(({ value }: { value: unknown }) => value);
}

const PUBLISHED = 'published at QoS 0\npublished at QoS 1\npublished at QoS 2\n';

describe.skipIf(!hasLibmosquitto)('a device over libmosquitto', () => {
  it.each([['TCP'], ['TLS']])(
    'is greeted and has QoS 0, 1 and 2 stored over %s',
    async (transport) => {
      const isTls = transport === 'TLS';
      if (isTls && !hasOpenssl) return;
      const { mqttUrl, mqttsUrl } = app.addresses;
      const { port } = new URL(isTls ? (mqttsUrl ?? '') : mqttUrl);
      const program = await compile('libmosquitto', 'mosquitto');
      const host = isTls ? 'localhost' : '127.0.0.1';
      const value = isTls ? 10 : 0;
      const args = [host, port, app.deviceKey, isTls ? certFile : '-', String(value)];
      const { stdout } = await run(program, args);
      expect(stdout).toContain('granted 1\n');
      expect(stdout).toMatch(/^v1\/me\/in\/hello \{"ts":\d+/m);
      expect(stdout).toContain(PUBLISHED);
      await expect.poll(() => values('mosquitto')).toContain(value);
      expect(await values('mosquitto')).toEqual(expect.arrayContaining([value + 1, value + 2]));
    },
  );
});

describe.skipIf(!hasPaho)('a device over paho-c', () => {
  it.each([['TCP'], ['TLS']])(
    'is greeted and has QoS 0, 1 and 2 stored over %s',
    async (transport) => {
      const isTls = transport === 'TLS';
      if (isTls && !hasOpenssl) return;
      const { mqttUrl, mqttsUrl } = app.addresses;
      const { port } = new URL(isTls ? (mqttsUrl ?? '') : mqttUrl);
      const program = await compile('paho', isTls ? 'paho-mqtt3cs' : 'paho-mqtt3c');
      const url = isTls ? `ssl://localhost:${port}` : `tcp://127.0.0.1:${port}`;
      const value = isTls ? 10 : 0;
      const args = [url, app.deviceKey, isTls ? certFile : '-', String(value)];
      const { stdout } = await run(program, args);
      expect(stdout).toMatch(/^v1\/me\/in\/hello \{"ts":\d+/m);
      expect(stdout).toContain(PUBLISHED);
      await expect.poll(() => values('paho')).toContain(value);
      expect(await values('paho')).toEqual(expect.arrayContaining([value + 1, value + 2]));
    },
  );
});

describe('a device over mqtt.js', () => {
  it.each([['mqttUrl'], ['mqttsUrl'], ['wsUrl']] as const)(
    'is greeted and has QoS 0, 1 and 2 stored over %s',
    async (transport) => {
      const url = app.addresses[transport];
      if (url === null) return;
      const key = await app.addDevice(`js-${transport}`);
      const client = await connectDevice(url, key, { rejectUnauthorized: false });
      const greetings: string[] = [];
      client.on('message', (topic) => greetings.push(topic));
      expect(await client.subscribeAsync('v1/me/in/+', { qos: 1 })).toMatchObject([{ qos: 1 }]);
      await eventually('the greeting', () => greetings.includes('v1/me/in/hello'));
      for (const qos of [0, 1, 2] as const) {
        await client.publishAsync('v1/me/data', `{"js":${qos}}`, { qos });
      }
      await expect
        .poll(async () => {
          const path = `/api/v1/devices/js-${transport}/readings?metric=js&order=asc`;
          return (await app.api('GET', path)).body.data.map(
            ({ value }: { value: number }) => value,
          );
        })
        .toEqual([0, 1, 2]);
      await client.endAsync();
    },
  );
});

describe('an integrator', () => {
  it.skipIf(!hasMosquitto)('reads the stream with mosquitto_sub, over TCP and TLS', async () => {
    for (const isTls of hasOpenssl ? [false, true] : [false]) {
      const { mqttUrl, mqttsUrl } = app.addresses;
      const { port } = new URL(isTls ? (mqttsUrl ?? '') : mqttUrl);
      const login = ['-h', 'localhost', '-p', port, '-u', 'reader', '-P', integratorKey];
      const tls = isTls ? ['--cafile', certFile] : [];
      const what = ['-t', 'v1/demo/+/data', '-q', '1', '-C', '2', '-W', '20', '-v'];
      const filters = () => app.metric('puback_broker_filters');
      await eventually('nobody reads any more', async () => (await filters()) === 0);
      const reader = spawn('mosquitto_sub', [...login, ...tls, ...what]);
      let printed = '';
      reader.stdout.on('data', (chunk: Buffer) => {
        printed += chunk.toString();
      });
      await eventually('its filter is granted', async () => (await filters()) > 0);
      const device = await app.connect(app.deviceKey);
      await device.publishAsync('v1/me/data', '{"sub":1}', { qos: 1 });
      await device.publishAsync('v1/me/data/sub', '2', { qos: 0 });
      const [status] = (await once(reader, 'exit')) as [number];
      expect(status, printed).toBe(0);
      expect(printed).toMatch(/^v1\/demo\/first\/data \{.*"sub":1/m);
      expect(printed).toMatch(/^v1\/demo\/first\/data \{.*"sub":2/m);
      device.end(true);
    }
  });

  it.skipIf(!hasMosquitto)(
    'goes on with a kept session of mosquitto_sub over mqtt.js: the session is the broker’s',
    async () => {
      const { port } = new URL(app.addresses.mqttUrl);
      const session = ['-i', 'kept', '-c', '-q', '1', '-t', 'v1/demo/+/data'];
      const login = ['-h', '127.0.0.1', '-p', port, '-u', 'reader', '-P', integratorKey];
      await run('mosquitto_sub', [...login, ...session, '-E']);
      const device = await app.connect(app.deviceKey);
      for (let value = 0; value < 5; value += 1) {
        await device.publishAsync('v1/me/data', `{"kept":${value}}`, { qos: 1 });
      }
      const options = { clientId: 'kept', clean: false };
      const reader = await connectReader(app.addresses.wsUrl, integratorKey, options);
      expect(reader.connack.sessionPresent).toBe(true);
      await eventually('all five', () => reader.got.length === 5);
      expect(reader.got.map(({ body }) => (body as { kept: number }).kept)).toEqual([
        0, 1, 2, 3, 4,
      ]);
      device.end(true);
      await reader.client.endAsync();
    },
  );
});
