import { describe, expect, it } from 'vitest';
import { configSchema, loadConfig } from '../../config.ts';
import { ConfigInvalidError } from '../../errors.ts';

function faultsOf(environment: Record<string, string>): readonly string[] {
  try {
    loadConfig(environment);
  } catch (error) {
    if (error instanceof ConfigInvalidError) return error.faults;
    throw error;
  }
  return [];
}

const byText = (a: string, b: string): number => (a < b ? -1 : 1);

describe('loadConfig', () => {
  it('takes an empty environment and gives every default', () => {
    expect(loadConfig({})).toMatchObject({
      MQTT_HOST: '127.0.0.1',
      MQTT_PORT: 1883,
      MQTTS_PORT: 8883,
      HTTP_HOST: '127.0.0.1',
      HTTP_PORT: 8080,
      DATA_DIR: './data',
      DATABASE_URL: '',
      DEVICE_MESSAGES_PER_S: 20,
      DEVICE_POINTS_PER_S: 1000,
      ADDRESS_CONNECTIONS_MAX: 1000,
    });
  });

  it('leaves foreign variables alone and takes an empty one as not set', () => {
    expect(loadConfig({ PATH: '/bin', MQTT_PORT: '', HTTP_PORT: ' ' }).MQTT_PORT).toBe(1883);
  });

  it('reports all faults at once, by key and without the value (O-05)', () => {
    const faults = faultsOf({
      MQTT_PORT: 'secret-1',
      HTTP_PORT: '70000',
      LOG_LEVEL: 'secret-2',
      DATABASE_URL: 'mysql://user:secret-3@host/db',
      TLS_CERT_FILE: 'secret-4',
      BATCH_LINGER_MS: '51',
      DEVICE_POINTS_PER_S: '1.5',
    });
    expect(faults.map((fault) => fault.split(':')[0] ?? '').toSorted(byText)).toEqual([
      'BATCH_LINGER_MS',
      'DATABASE_URL',
      'DEVICE_POINTS_PER_S',
      'HTTP_PORT',
      'LOG_LEVEL',
      'MQTT_PORT',
      'TLS_CERT_FILE, TLS_KEY_FILE',
    ]);
    expect(faults.join()).not.toMatch(/secret|70000|mysql/);
  });

  it('keeps nothing for a shorter time than what it is made of', () => {
    expect(faultsOf({ READING_AGE_MAX_D: '31' })).toEqual([
      'RETENTION_RAW_D: must be at least READING_AGE_MAX_D',
    ]);
    expect(faultsOf({ RETENTION_1M_D: '29', RETENTION_1D_D: '364' })).toEqual([
      'RETENTION_1M_D: must be at least RETENTION_RAW_D',
      'RETENTION_1D_D: must be at least RETENTION_1H_D',
    ]);
    expect(faultsOf({ READING_AGE_MAX_D: '60', RETENTION_RAW_D: '60' })).toEqual([]);
  });

  it('takes addresses and networks of proxies, and nothing else (N-14)', () => {
    for (const text of ['', '127.0.0.1', '10.0.0.0/8, fd00::/8', '::1 192.0.2.0/24', '0.0.0.0/0']) {
      expect(faultsOf({ PROXY_PROTOCOL_FROM: text }), text).toEqual([]);
    }
    const wrong = [
      'proxy',
      '10.0.0.0/33',
      '10.0.0/8',
      '::/129',
      '::1/',
      '10.0.0.0/8/8',
      '1.1.1.1/-1',
    ];
    for (const text of wrong) {
      expect(faultsOf({ PROXY_PROTOCOL_FROM: text }), text).toEqual([
        'PROXY_PROTOCOL_FROM: is not valid',
      ]);
    }
  });

  it('wants the certificate of the server where clients are to show theirs', () => {
    expect(faultsOf({ TLS_CLIENT_CA_FILE: 'ca.pem' })).toHaveLength(1);
    expect(faultsOf({ TLS_CLIENT_CRL_FILE: 'crl.pem' })).toHaveLength(1);
    const server = { TLS_CERT_FILE: 'cert.pem', TLS_KEY_FILE: 'key.pem' };
    const clients = { TLS_CLIENT_CA_FILE: 'ca.pem', TLS_CLIENT_CRL_FILE: 'crl.pem' };
    expect(faultsOf({ ...server, ...clients })).toEqual([]);
  });

  it('says of each setting what it is for', () => {
    for (const [key, schema] of Object.entries(configSchema.shape)) {
      expect(schema.description, key).toMatch(/\.$/);
    }
  });

  it('gives a frozen object', () => {
    expect(Object.isFrozen(loadConfig({}))).toBe(true);
  });
});
