import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt';
import { pino } from 'pino';
import { JSON_LINES_TYPE } from '../../api/json-lines.ts';
import { createApp, type Addresses, type Overrides } from '../../app.ts';
import { loadConfig } from '../../config.ts';
import { createTestDatabase, type TestDatabase } from './database.ts';

export { eventually } from './eventually.ts';

/** The program in the process of a test, on a database of its own and on free ports. */
export interface TestApp {
  readonly addresses: Addresses;
  readonly dataDir: string;
  readonly adminKey: string;
  /** Key of the device `first`. */
  readonly deviceKey: string;
  readonly testDatabase: TestDatabase;
  /** Calls the API with the admin key and gives the JSON of the answer. */
  api(method: string, path: string, body?: unknown): Promise<ApiAnswer>;
  /** Makes a device and gives a key of it. */
  addDevice(device: string): Promise<string>;
  /** Connects a device with its key; options win. */
  connect(key: string, options?: IClientOptions): Promise<MqttClient>;
  /** Value of a metric without labels, or with exactly these. */
  metric(name: string): Promise<number>;
  /** Stops the program and leaves its database. */
  halt(): Promise<void>;
  /** Stops the program and starts it anew on the same data; its addresses are others then. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** An answer of the API. */
export interface ApiAnswer {
  readonly status: number;
  // oxlint-disable-next-line no-explicit-any -- tests look into answers as they come
  readonly body: any;
}

/** No rate limits: tests send as fast as they can unless the limit is what they test. */
const UNLIMITED = {
  DEVICE_MESSAGES_PER_S: '0',
  DEVICE_POINTS_PER_S: '0',
  DEVICE_CONNECTS_PER_MIN: '0',
  ADDRESS_CONNECTIONS_MAX: '0',
  ADDRESS_CONNECTS_PER_S: '0',
  LOGIN_FAILURES_MAX: '0',
};

/** Starts the program with these settings on top of free ports and no rate limits. */
export async function startTestApp(
  settings: Record<string, string> = {},
  overrides: Overrides = {},
): Promise<TestApp> {
  const testDatabase = await createTestDatabase();
  const dataDir = await mkdtemp(join(tmpdir(), 'puback-app-'));
  const config = loadConfig({
    MQTT_PORT: '0',
    HTTP_PORT: '0',
    MQTTS_PORT: '0',
    DATA_DIR: dataDir,
    DATABASE_URL: testDatabase.url,
    ...UNLIMITED,
    ...settings,
  });
  const newApp = () => createApp(config, { log: pino({ level: 'silent' }), ...overrides });
  let app = newApp();
  await app.start();
  let { addresses } = app.started;
  const { credentials } = app.started;
  if (credentials === null) throw new Error('the first start issued no credentials');
  const clients = new Set<MqttClient>();
  const api = (method: string, path: string, body?: unknown) =>
    callApi(addresses.httpUrl, credentials.adminKey, { method, path, body });
  return {
    get addresses() {
      return addresses;
    },
    dataDir,
    adminKey: credentials.adminKey,
    deviceKey: credentials.deviceKey,
    testDatabase,
    api,
    async addDevice(device) {
      await api('POST', '/api/v1/devices', { device });
      return (await api('POST', `/api/v1/devices/${device}/keys`, {})).body.key;
    },
    async connect(key, options = {}) {
      const client = await connectDevice(addresses.mqttUrl, key, options);
      clients.add(client);
      return client;
    },
    async metric(name) {
      const text = await (await fetch(`${addresses.httpUrl}/metrics`)).text();
      const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
      if (line === undefined) throw new Error(`no metric ${name}`);
      return Number(line.slice(name.length + 1));
    },
    halt: () => app.stop(),
    async restart() {
      for (const client of clients) client.end(true);
      await app.stop();
      app = newApp();
      await app.start();
      ({ addresses } = app.started);
    },
    async stop() {
      for (const client of clients) client.end(true);
      await app.stop();
      await testDatabase.drop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Connects as a device does, without reconnecting by itself. */
export function connectDevice(
  url: string,
  key: string,
  options: IClientOptions = {},
): Promise<MqttClient> {
  return mqtt.connectAsync(url, {
    protocolVersion: 4,
    username: 'device',
    password: key,
    reconnectPeriod: 0,
    connectTimeout: 10_000,
    ...options,
  });
}

async function callApi(
  httpUrl: string,
  adminKey: string,
  { method, path, body }: { method: string; path: string; body: unknown },
): Promise<ApiAnswer> {
  const answer = await fetch(httpUrl + path, {
    method,
    headers: {
      authorization: `Bearer ${adminKey}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (answer.headers.get('content-type') === JSON_LINES_TYPE) {
    return { status: answer.status, body: text };
  }
  return { status: answer.status, body: text === '' ? null : JSON.parse(text) };
}
