import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { REFUSAL_CODES } from '../../firmware-protocol/contract.ts';
import { DIAGNOSIS } from '../../firmware-protocol/diagnosis.ts';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw, openRaw } from '../support/raw-client.ts';

const PAGE = readFileSync(fileURLToPath(new URL('../../docs/metrics.md', import.meta.url)), 'utf8');
/** Part of every name that this test gives to anything. */
const MARK = 'zebra';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp({ DEVICE_MESSAGES_PER_S: '50', DEVICE_METRICS_MAX: '20' });
});
afterAll(() => app.stop());

/** Words in backticks of the page's line about a metric: values that its label may have. */
function documentedWords(metric: string): string[] {
  const line = PAGE.split('\n').find((row) => row.startsWith(`| \`${metric}\``)) ?? '';
  return [...line.matchAll(/`([a-z0-9_]+)`/g)].map(([, word = '']) => word);
}

/** Values that a label may have besides those of the page. */
async function closedSets(): Promise<Readonly<Record<string, (value: string) => boolean>>> {
  const { paths } = (await app.api('GET', '/openapi.json')).body as {
    paths: Record<string, Record<string, unknown>>;
  };
  const routes = Object.entries(paths).flatMap(([path, at]) =>
    Object.keys(at).map(
      (method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`,
    ),
  );
  const codes = new Set<string>([...REFUSAL_CODES, ...Object.keys(DIAGNOSIS)]);
  return {
    route: (value) => value === 'none' || routes.includes(value) || value.startsWith('GET /docs'),
    status: (value) => /^[1-5]\d\d$/.test(value),
    le: (value) => value === '+Inf' || Number.isFinite(Number(value)),
    qos: (value) => value === '0' || value === '1',
    reason: (value) => codes.has(value),
    code: (value) => codes.has(value),
    verdict: (value) =>
      /^(accepted|malformed|unknown|revoked|expired|unavailable)$/.test(value) || codes.has(value),
    // Named once, where commands are counted that were asked for.
    origin: (value) => documentedWords('puback_commands_created_total').includes(value),
    kind: () => false,
    outcome: () => false,
  };
}

interface Series {
  readonly metric: string;
  readonly label: string;
  readonly value: string;
}

async function scrape(): Promise<{ text: string; series: Series[] }> {
  const text = await (await fetch(`${app.addresses.httpUrl}/metrics`)).text();
  const series = text.split('\n').flatMap((line) => {
    const [, metric = '', labels = ''] = /^(puback_\w+)\{(.*)\} \S+$/.exec(line) ?? [];
    return [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(
      ([, label = '', value = '']): Series => ({ metric, label, value }),
    );
  });
  return { text, series };
}

/** Commands, configuration, campaigns and links of firmware, for a device. */
async function makeDownlinkTraffic(device: string): Promise<void> {
  const path = `/api/v1/devices/${device}`;
  const wanted = { command: MARK, args: { [MARK]: MARK }, ref: MARK };
  const { status, body } = await app.api('POST', `${path}/commands`, wanted);
  expect(status).toBe(202);
  expect((await app.api('DELETE', `/api/v1/commands/${body.id}`)).status).toBe(200);
  const put = await fetch(`${app.addresses.httpUrl}${path}/configuration`, {
    method: 'PUT',
    headers: {
      authorization: `Bearer ${app.adminKey}`,
      'content-type': 'application/json',
      'if-match': '*',
    },
    body: JSON.stringify({ [MARK]: MARK }),
  });
  expect(put.status).toBe(200);
  const campaign = { name: MARK, targets: { devices: [device] }, request: { command: MARK } };
  expect((await app.api('POST', '/api/v1/campaigns?dryRun=true', campaign)).status).toBe(200);
  const type = encodeURIComponent(`${MARK}.${device}`);
  const definition = `/api/v1/command-definitions/${type}/${MARK}`;
  expect((await app.api('PUT', definition, {})).status).toBe(201);
  for (const link of [`/fw/${MARK}?t=${MARK}`, `/fw/${MARK}`]) {
    expect((await fetch(app.addresses.httpUrl + link)).status).toBeGreaterThanOrEqual(400);
  }
}

/** Everything that counts something: devices, integrators, guesses, good messages and bad ones. */
async function makeTraffic(round: number): Promise<void> {
  const name = `${MARK}-${round}`;
  const key = await app.addDevice(name);
  const reader = { name: `${name}"} 1 x{y="`, scopes: ['data', 'raw'], devices: [name] };
  const integrator = (await app.api('POST', '/api/v1/keys', reader)).body.key;
  const subscriber = await connectRaw(app.addresses.mqttUrl, integrator, { clientId: name });
  subscriber.send({
    cmd: 'subscribe',
    messageId: 1,
    subscriptions: ['v1/demo/+/data', `v1/${MARK}/#`].map((topic) => ({ topic, qos: 1 as const })),
  });
  const client = await connectRaw(app.addresses.mqttUrl, key, { clientId: name });
  const messages = [
    ...Array.from({ length: 30 }, (_, at) => [`v1/me/data/${MARK}${at}`, '1'] as const),
    ['v1/me/data', `{"${MARK}"} 1`],
    [`v1/me/${MARK}`, '1'],
    [`v1/${MARK}/${name}/data`, '1'],
    ['v1/me/hello', `{"fw":"${MARK}"}`],
    ['v1/me/data', `{"ts":1,"${MARK}":1}`],
    ['v1/me/ack', `{"id":77,"st":"err","code":"${MARK}"}`],
    ['v1/me/ack', `{"${MARK}":1}`],
    ['v1/me/cfg', `{"v":0,"ok":false,"msg":"${MARK}"}`],
  ] as const;
  for (const [at, [topic, payload]] of messages.entries()) {
    const packet = { cmd: 'publish', topic, payload, qos: 1, dup: false, retain: false } as const;
    client.send({ ...packet, messageId: at + 1 });
  }
  const pubacks = () => client.received.filter(({ cmd }) => cmd === 'puback').length;
  await expect.poll(pubacks).toBe(messages.length);
  client.sendBytes(Buffer.from([0xf0, 0]));
  await client.closed;
  subscriber.send({ cmd: 'publish', topic: MARK, payload: '', qos: 0, dup: false, retain: false });
  await subscriber.closed;
  await expect(connectRaw(app.addresses.mqttUrl, makeKey('device').key)).rejects.toThrow();
  const stranger = await openRaw(app.addresses.mqttUrl);
  stranger.sendBytes(Buffer.from(`GET /${MARK.repeat(20)} HTTP/1.1\r\n\r\n`));
  await stranger.closed;
  await makeDownlinkTraffic(name);
  for (const [method, path] of [
    ['GET', `/${MARK}/${round}`],
    ['GET', `/api/v1/devices/${name}/readings?metric=${MARK}`],
    ['GET', `/api/v1/devices/${name}/${MARK}`],
    ['POST', `/api/v1/devices/${MARK}-none/keys`],
    ['DELETE', `/api/v1/devices/${name}`],
  ] as const) {
    await app.api(method, path);
  }
}

describe('GET /metrics', () => {
  it('has labels from closed sets alone, whatever devices, metrics and paths are called (I-17)', async () => {
    await makeTraffic(0);
    // The requests of this test are routes too.
    const sets = await closedSets();
    await scrape();
    const first = await scrape();
    for (let round = 1; round < 6; round += 1) await makeTraffic(round);
    const { text, series } = await scrape();
    expect(text).not.toContain(MARK);
    expect(text).not.toMatch(/demo|127\.0\.0\.1|pb[adi]_/);
    expect(series.length).toBeGreaterThan(50);
    const strangers = series.filter(({ metric, label, value }) => {
      const name = metric.replace(/_(bucket|sum|count)$/, '');
      return sets[label]?.(value) !== true && !documentedWords(name).includes(value);
    });
    expect(strangers).toEqual([]);
    // Six times the names make no series more than one time did.
    expect(series.length).toBe(first.series.length);
  });
});
