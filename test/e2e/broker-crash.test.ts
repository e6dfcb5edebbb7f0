import type { MqttClient } from 'mqtt';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { logTail, startProgram, stopLeftDatabase, type Program } from '../../bench/program.ts';
import { makeScratchFolder, type ScratchFolder } from '../../bench/scratch-folder.ts';
import { connectDevice, eventually } from '../support/app.ts';
import { connectReader, type Reader } from '../support/reader.ts';
import { connectRaw } from '../support/raw-client.ts';

let folder: ScratchFolder;
let program: Program;
const open: MqttClient[] = [];

async function start(): Promise<void> {
  program = await startProgram({
    dataDir: folder.dataDir,
    logFile: folder.logFile,
    environment: {
      DATABASE_URL: '',
      MQTT_PORT: '0',
      HTTP_PORT: '0',
      DEVICE_MESSAGES_PER_S: '0',
      DEVICE_POINTS_PER_S: '0',
    },
  });
}

async function killAndRestart(): Promise<void> {
  program.kill('SIGKILL');
  await program.exited;
  await start();
}

beforeEach(async () => {
  folder = await makeScratchFolder('broker-crash');
  await start();
});

afterEach(async ({ task }) => {
  for (const client of open.splice(0)) client.end(true);
  if (task.result?.state === 'fail') process.stderr.write(await logTail(folder.logFile));
  program.kill('SIGKILL');
  await program.exited;
  await stopLeftDatabase(folder.dataDir);
  await folder.remove();
});

async function makeKey(scopes: string[]): Promise<string> {
  const { httpUrl, adminKey } = program.credentials;
  const answer = await fetch(`${httpUrl}/api/v1/keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'archive', scopes, devices: null, expiresAt: null }),
  });
  return ((await answer.json()) as { key: string }).key;
}

async function reader(key: string, clientId: string): Promise<Reader> {
  const made = await connectReader(program.credentials.mqttUrl, key, { clientId, clean: false });
  open.push(made.client);
  return made;
}

async function device(key = program.credentials.deviceKey): Promise<MqttClient> {
  const client = await connectDevice(program.credentials.mqttUrl, key);
  client.on('error', () => undefined);
  open.push(client);
  return client;
}

function numbers({ got }: Reader): number[] {
  return got.map(({ body }) => (body as { n: number }).n);
}

describe('kill -9 of the program', { timeout: 120_000 }, () => {
  it('leaves sessions and queued messages as they were: what a device was acknowledged is in the queue', async () => {
    const key = await makeKey(['data']);
    const before = await reader(key, 'archive');
    await before.client.subscribeAsync('v1/demo/+/data', { qos: 1 });
    await before.client.endAsync();
    const publisher = await device();
    const count = 200;
    await Promise.all(
      Array.from({ length: count }, (_, n) =>
        publisher.publishAsync('v1/me/data', `{"n":${n}}`, { qos: 1 }),
      ),
    );
    await killAndRestart();
    const after = await reader(key, 'archive');
    expect(after.connack.sessionPresent).toBe(true);
    await eventually('every acknowledged message', () => after.got.length >= count);
    expect(numbers(after)).toEqual(Array.from({ length: count }, (_, n) => n));
    const live = await device();
    await live.publishAsync('v1/me/data', `{"n":${count}}`, { qos: 1 });
    await eventually('the live one, with no new SUBSCRIBE', () => after.got.length === count + 1);
  });

  it('sends what was not acknowledged again, with DUP and its packet identifier [MQTT-4.4.0-1]', async () => {
    const key = await makeKey(['data']);
    const fields = { clientId: 'slow', clean: false };
    const before = await connectRaw(program.credentials.mqttUrl, key, fields);
    before.send({
      cmd: 'subscribe',
      messageId: 1,
      subscriptions: [{ topic: 'v1/demo/+/data', qos: 1 }],
    });
    await before.next();
    const publisher = await device();
    await publisher.publishAsync('v1/me/data', '{"n":1}', { qos: 1 });
    const sent = await before.next();
    await killAndRestart();
    const after = await connectRaw(program.credentials.mqttUrl, key, fields);
    const again = await after.next();
    expect(sent).toMatchObject({ cmd: 'publish', dup: false, qos: 1 });
    expect(again).toMatchObject({
      cmd: 'publish',
      dup: true,
      qos: 1,
      messageId: sent.cmd === 'publish' ? sent.messageId : 0,
    });
    after.end();
  });

  it('leaves no ghost: who was online is offline until it comes back, who sleeps goes on sleeping', async () => {
    const awake = await device();
    await awake.publishAsync('v1/me/hello', '{"fw":"2.0"}', { qos: 1 });
    const key = await makeKey(['status']);
    const before = await reader(key, 'watch');
    await before.client.subscribeAsync('v1/demo/first/status', { qos: 1 });
    await eventually('online', () => before.got.some(({ body }) => stateOf(body) === 'online'));
    await killAndRestart();
    const after = await reader(key, 'another');
    await after.client.subscribeAsync('v1/demo/first/status', { qos: 1 });
    await after.client.subscribeAsync('v1/demo/+/status', { qos: 1 });
    await eventually('its status twice', () => after.got.length >= 2);
    expect(after.got.map(({ body }) => stateOf(body))).toEqual(['offline', 'offline']);
    const back = await device();
    await eventually('online again', () => stateOf(after.got.at(-1)?.body) === 'online');
    expect(after.got.at(-1)?.body).toMatchObject({ fw: '2.0' });
    await back.publishAsync('v1/me/hello', '{"sleep":600}', { qos: 1 });
    await killAndRestart();
    const last = await reader(key, 'third');
    await last.client.subscribeAsync('v1/demo/+/status', { qos: 1 });
    await eventually('sleeping', () => last.got.some(({ body }) => stateOf(body) === 'sleeping'));
  });
});

function stateOf(body: unknown): string | undefined {
  return (body as { st?: string } | null)?.st;
}
