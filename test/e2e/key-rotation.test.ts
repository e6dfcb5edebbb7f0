import type { MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectDevice, eventually, startTestApp, type TestApp } from '../support/app.ts';

let app: TestApp;
let devices = 0;

beforeAll(async () => {
  app = await startTestApp();
});
afterAll(async () => {
  await app.stop();
});

/** The next message of a topic, as JSON. */
// oxlint-disable-next-line no-explicit-any -- tests look into messages as they come
function next(client: MqttClient, topic: string): Promise<any> {
  return new Promise((resolve) => {
    const take = (from: string, payload: Buffer): void => {
      if (from !== topic || payload.length === 0) return;
      client.off('message', take);
      resolve(JSON.parse(payload.toString()));
    };
    client.on('message', take);
  });
}

function closing(client: MqttClient): Promise<void> {
  return new Promise((resolve) => client.once('close', () => resolve()));
}

/** A device with its first key, connected and listening. */
async function board(): Promise<{ device: string; key: string; client: MqttClient }> {
  const device = `board-${(devices += 1)}`;
  const key = await app.addDevice(device);
  return { device, key, client: await listening(key) };
}

async function listening(key: string): Promise<MqttClient> {
  const client = await app.connect(key);
  client.on('error', () => undefined);
  await client.subscribeAsync('v1/me/in/+', { qos: 1 });
  return client;
}

async function askForKey(client: MqttClient, payload = '{}') {
  const answer = next(client, 'v1/me/in/key');
  await client.publishAsync('v1/me/key', payload, { qos: 1 });
  return answer;
}

/** As the device does it: command, key, connection with the new one, answer. */
async function rekey({ device, client }: { device: string; client: MqttClient }) {
  const asked = next(client, 'v1/me/in/cmd');
  const { body: rotation } = await app.api('POST', `/api/v1/devices/${device}/keys/rotate`, {});
  const command = await asked;
  expect(command).toMatchObject({ cmd: 'sys.rekey' });
  const { st, user, key } = await askForKey(client);
  expect({ st, user }).toMatchObject({ st: 'ok' });
  const renewed = await listening(key);
  await renewed.publishAsync('v1/me/ack', JSON.stringify({ id: command.id, st: 'ok' }), { qos: 1 });
  return { key: key as string, client: renewed, commandId: rotation.commandId as string };
}

async function rotationOf(device: string) {
  return (await app.api('GET', `/api/v1/devices/${device}/rotation`)).body;
}

describe('a device that is asked to change its key', () => {
  it('does so over MQTT without a reading lost, and its command succeeds', async () => {
    const before = await board();
    await before.client.publishAsync('v1/me/data', '{"ts":1700000000000,"temp":1}', { qos: 1 });
    const after = await rekey(before);
    await after.client.publishAsync('v1/me/data', '{"ts":1700000001000,"temp":2}', { qos: 1 });
    expect(await rotationOf(before.device)).toMatchObject({
      state: 'retiring',
      oldKeyUsedAt: null,
    });
    const { body: command } = await app.api('GET', `/api/v1/commands/${after.commandId}`);
    expect(command.state).toBe('succeeded');
    expect(await askForKey(after.client)).toEqual({ st: 'no', code: 'unasked' });
  });

  it('ends the connection that the old key still has when its grace ends [A-04]', async () => {
    const before = await board();
    const after = await rekey(before);
    after.client.end(true);
    await app.testDatabase.database.pool.query(
      `UPDATE api_key SET expires_at = now() + interval '3 s'
       WHERE key_id = $1 AND expires_at IS NOT NULL`,
      [before.key.slice(4, 12)],
    );
    const old = await listening(before.key);
    const closed = closing(old);
    const startedMs = performance.now();
    await closed;
    expect(performance.now() - startedMs).toBeLessThan(6000);
    await expect(connectDevice(app.addresses.mqttUrl, before.key)).rejects.toMatchObject({
      code: 5,
    });
    await eventually('its use is shown', async () => {
      const { oldKeyUsedAt } = await rotationOf(before.device);
      return oldKeyUsedAt !== null;
    });
  });

  it('goes on with its old key when the change is rolled back', async () => {
    const before = await board();
    const after = await rekey(before);
    const closed = closing(after.client);
    const { status } = await app.api('DELETE', `/api/v1/devices/${before.device}/rotation`);
    expect(status).toBe(204);
    await closed;
    await expect(connectDevice(app.addresses.mqttUrl, after.key)).rejects.toMatchObject({
      code: 5,
    });
    await app.connect(before.key);
  });

  it('is not asked a second time when it loses power behind saving its key', async () => {
    const { device, client } = await board();
    await client.publishAsync('v1/me/hello', '{"boot":7}', { qos: 1 });
    await eventually('its boot is known', async () => {
      const { rows } = await app.testDatabase.database.pool.query(
        `SELECT FROM device_presence JOIN device USING (device_id)
         WHERE slug = $1 AND hello->>'boot' = '7'`,
        [device],
      );
      return rows.length === 1;
    });
    const asked = next(client, 'v1/me/in/cmd');
    const { body: rotation } = await app.api('POST', `/api/v1/devices/${device}/keys/rotate`, {});
    const { id } = await asked;
    await client.publishAsync('v1/me/ack', JSON.stringify({ id, st: 'run' }), { qos: 1 });
    const { key } = await askForKey(client);
    const renewed = await app.connect(key);
    const commands: string[] = [];
    renewed.on('message', (topic, payload) => {
      if (topic === 'v1/me/in/cmd' && payload.length > 0) commands.push(payload.toString());
    });
    await renewed.publishAsync('v1/me/hello', '{"boot":8}', { qos: 1 });
    await renewed.subscribeAsync('v1/me/in/+', { qos: 1 });
    await eventually('its command has ended', async () => {
      const { body: command } = await app.api('GET', `/api/v1/commands/${rotation.commandId}`);
      return command.state === 'succeeded' && command.code === 'rekeyed';
    });
    expect(commands).toEqual([]);
  });

  it('has its new key also after the program was restarted in between', async () => {
    const { device, client } = await board();
    const asked = next(client, 'v1/me/in/cmd');
    await app.api('POST', `/api/v1/devices/${device}/keys/rotate`, {});
    await asked;
    const { key } = await askForKey(client);
    await app.restart();
    await listening(key);
    expect(await rotationOf(device)).toMatchObject({ state: 'retiring' });
  });
});

describe('a campaign', () => {
  it('changes the keys of many devices', async () => {
    const boards = await Promise.all([board(), board(), board()]);
    for (const { client } of boards) client.on('error', () => undefined);
    const renewed = boards.map(async ({ client }) => {
      const command = await next(client, 'v1/me/in/cmd');
      const { key } = await askForKey(client);
      const after = await listening(key);
      await after.publishAsync('v1/me/ack', JSON.stringify({ id: command.id, st: 'ok' }));
    });
    const { status, body } = await app.api('POST', '/api/v1/campaigns', {
      kind: 'rekey',
      name: 'new keys',
      targets: { devices: boards.map(({ device }) => device) },
      request: {},
      policy: { canary: 1, ratePerMinute: 600, concurrent: 10, settle: '0s' },
    });
    expect({ status, body }).toMatchObject({ status: 201 });
    await Promise.all(renewed);
    await eventually('it is done', async () => {
      const { body: campaign } = await app.api('GET', `/api/v1/campaigns/${body.id}`);
      return campaign.state === 'completed' && campaign.devices.succeeded === boards.length;
    });
  });
});

describe('a board with a claim key', () => {
  it('gets a name and a key, and may do nothing else', async () => {
    const { body: claimKey } = await app.api('POST', '/api/v1/claim-keys', {
      name: 'batch',
      quota: 10,
      expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
      type: 'thermo',
    });
    const bare = await app.connect(claimKey.key, { username: 'a4cf12f0e1b2' });
    await bare.subscribeAsync('v1/me/in/+');
    await expect(bare.subscribeAsync('v1/#')).rejects.toThrowError();
    const answer = await askForKey(bare, '{"mdl":"thermo-1"}');
    expect(answer).toMatchObject({ st: 'ok', user: 'demo/a4cf12f0e1b2' });
    const client = await app.connect(answer.key, { username: answer.user });
    await client.publishAsync('v1/me/data', '{"temp":1}', { qos: 1 });
    const again = await app.connect(claimKey.key, { username: 'a4cf12f0e1b2' });
    expect(await askForKey(again)).toEqual({ st: 'no', code: 'claimed' });
    expect(client.connected).toBe(true);
    const stranger = await app.connect(claimKey.key, { username: 'first' });
    expect(await askForKey(stranger)).toEqual({ st: 'no', code: 'claimed' });
    const closed = closing(again);
    await app.api('DELETE', `/api/v1/claim-keys/${claimKey.keyId}`);
    await closed;
  });
});
