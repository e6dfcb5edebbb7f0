import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestApp, connectDevice, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const hasMosquitto = hasProgram('mosquitto_pub', 'publishing with mosquitto_pub');
const hasOpenssl = hasProgram('openssl', 'MQTT over TLS');

let app: TestApp;
let folder: string;
let certFile = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-tls-'));
  const tls: Record<string, string> = {};
  if (hasOpenssl) {
    certFile = join(folder, 'cert.pem');
    const keyFile = join(folder, 'key.pem');
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    const names = [
      '-subj',
      '/CN=localhost',
      '-addext',
      'subjectAltName=DNS:localhost,IP:127.0.0.1',
    ];
    await run('openssl', [
      'req',
      '-x509',
      ...curve,
      ...names,
      '-days',
      '2',
      '-keyout',
      keyFile,
      '-out',
      certFile,
    ]);
    tls['TLS_CERT_FILE'] = certFile;
    tls['TLS_KEY_FILE'] = keyFile;
  }
  app = await startTestApp(tls);
});
afterAll(async () => {
  await app.stop();
  await rm(folder, { recursive: true, force: true });
});

async function newest(metric: string): Promise<unknown> {
  const { body } = await app.api('GET', `/api/v1/devices/first/readings?metric=${metric}&limit=1`);
  return body.data[0]?.value;
}

function mosquittoPub(url: string, payload: string, ...more: string[]): Promise<unknown> {
  const { hostname, port } = new URL(url);
  const login = ['-u', 'device', '-P', app.deviceKey];
  const message = ['-q', '1', '-t', 'v1/me/data', '-m', payload];
  return run('mosquitto_pub', ['-h', hostname, '-p', port, ...login, ...message, ...more]);
}

describe.skipIf(!hasMosquitto)('mosquitto_pub', () => {
  it('returns only after the reading can be read over HTTP', async () => {
    for (let value = 0; value < 10; value += 1) {
      await mosquittoPub(app.addresses.mqttUrl, `{"tcp":${value}}`);
      expect(await newest('tcp')).toBe(value);
    }
  });

  it.skipIf(!hasOpenssl)('returns only after the reading can be read, over TLS', async () => {
    await mosquittoPub(app.addresses.mqttsUrl ?? '', '{"tls":1}', '--cafile', certFile);
    expect(await newest('tls')).toBe(1);
  });

  it('at QoS 0 that leaves at once still has its reading stored', async () => {
    await mosquittoPub(app.addresses.mqttUrl, '{"qos0":1}', '-q', '0');
    await expect.poll(() => newest('qos0')).toBe(1);
  });

  it('fails with a wrong key', async () => {
    await expect(mosquittoPub(app.addresses.mqttUrl, '{}', '-P', 'pbd_wrong')).rejects.toThrow(
      /refused|not authori/i,
    );
  });

  it('with MQTT 5 is refused with return code 1, as the contract says', async () => {
    await expect(mosquittoPub(app.addresses.mqttUrl, '{}', '-V', 'mqttv5')).rejects.toThrow();
  });
});

describe('mqtt.js', () => {
  it('over WebSocket gets its PUBACK after COMMIT', async () => {
    const client = await connectDevice(app.addresses.wsUrl, app.deviceKey);
    await client.publishAsync('v1/me/data', '{"ws":3}', { qos: 1 });
    expect(await newest('ws')).toBe(3);
    await client.endAsync();
  });

  it.skipIf(!hasOpenssl)(
    'over TLS 1.2 and 1.3 gets its PUBACK, and TLS 1.1 is refused (N-18)',
    async () => {
      const url = app.addresses.mqttsUrl ?? '';
      for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
        const options = { rejectUnauthorized: false, minVersion: version, maxVersion: version };
        const client = await connectDevice(url, app.deviceKey, options);
        await client.publishAsync('v1/me/data', '{"js":1}', { qos: 1 });
        await client.endAsync();
      }
      const old = {
        rejectUnauthorized: false,
        minVersion: 'TLSv1.1' as const,
        maxVersion: 'TLSv1.1' as const,
        ciphers: 'DEFAULT@SECLEVEL=0',
      };
      await expect(connectDevice(url, app.deviceKey, old)).rejects.toThrow();
      expect(await newest('js')).toBe(1);
    },
  );

  it('without the sub-protocol mqtt is refused by WebSocket [MQTT-6.0.0-3]', async () => {
    const url = app.addresses.wsUrl.replace('ws:', 'http:');
    const answer = await new Promise<number>((resolve, reject) => {
      import('node:http').then(({ request }) => {
        const headers = {
          connection: 'Upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        };
        request(url, { headers }, (response) => resolve(response.statusCode ?? 0))
          .on('upgrade', () => resolve(101))
          .on('error', reject)
          .end();
      }, reject);
    });
    expect(answer).toBe(400);
  });
});
