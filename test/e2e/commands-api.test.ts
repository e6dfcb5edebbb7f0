import type { MqttClient } from 'mqtt';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connectDevice, eventually, startTestApp, type TestApp } from '../support/app.ts';
import { connectReader, type Reader } from '../support/reader.ts';

const BACKLOG = 100;

let app: TestApp;
const open: MqttClient[] = [];
beforeAll(async () => {
  app = await startTestApp({ COMMAND_BACKLOG_MAX: String(BACKLOG) });
});
afterEach(() => {
  for (const client of open.splice(0)) client.end(true);
});
afterAll(() => app.stop());

interface Slot {
  readonly id: number;
  readonly cmd: string;
  readonly args: Record<string, unknown>;
}

/** A device that does what it is told, and remembers it. */
async function obedient(device: string): Promise<Slot[]> {
  const done: Slot[] = [];
  const client = await app.connect(await app.addDevice(device));
  client.on('message', (topic, payload) => {
    if (topic !== 'v1/me/in/cmd' || payload.length === 0) return;
    const slot = JSON.parse(payload.toString()) as Slot;
    if (slot.id <= (done.at(-1)?.id ?? 0)) return;
    done.push(slot);
    client.publish('v1/me/ack', JSON.stringify({ id: slot.id, st: 'ok', r: slot.args }), {
      qos: 1,
    });
  });
  await client.subscribeAsync('v1/me/in/cmd', { qos: 1 });
  return done;
}

async function integrator(fields: object): Promise<{ reader: Reader; keyId: string }> {
  const body = { name: 'test', scopes: ['cmd', 'cmd:write'], ...fields };
  const { key, keyId } = (await app.api('POST', '/api/v1/keys', body)).body;
  const reader = await connectReader(app.addresses.mqttUrl, key);
  open.push(reader.client);
  return { reader, keyId };
}

const commandsOf = async (device: string, query = '') =>
  (await app.api('GET', `/api/v1/devices/${device}/commands?limit=500${query}`)).body.data;

describe('a command over HTTP', () => {
  it('reaches a device that listens, and its result is the answer', async () => {
    const done = await obedient('lamp');
    for (let count = 0; count < 10; count += 1) {
      const { status, body } = await app.api('POST', '/api/v1/devices/lamp/commands?wait=10s', {
        command: 'relay',
        args: { count },
      });
      expect(status).toBe(200);
      expect(body).toMatchObject({ state: 'succeeded', result: { count } });
    }
    expect(done.map(({ args }) => args['count'])).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('that was there before its device comes behind the greeting, at each subscription', async () => {
    const added = await app.addDevice('clockless');
    const sent = await app.api('POST', '/api/v1/devices/clockless/commands', { command: 'relay' });
    expect(sent.body.state).toBe('published');
    for (const filter of ['v1/me/in/+', 'v1/me/in/cmd']) {
      const client = await app.connect(added);
      open.push(client);
      const topics: string[] = [];
      client.on('message', (topic) => topics.push(topic));
      for (let round = 1; round <= 2; round += 1) {
        await client.subscribeAsync(filter, { qos: 1 });
        await eventually('both', () => topics.length === 2 * round);
      }
      const once = ['v1/me/in/hello', 'v1/me/in/cmd'];
      expect(topics, filter).toEqual([...once, ...once]);
    }
    const { id } = sent.body;
    await eventually(
      'sent',
      async () => (await app.api('GET', `/api/v1/commands/${id}`)).body.state === 'sent',
    );
  });

  it('that is waited for is answered when the program stops, which does not wait for it', async () => {
    const other = await startTestApp();
    await other.api('POST', '/api/v1/devices', { device: 'asleep' });
    const waiting = Array.from({ length: 5 }, () =>
      other.api('POST', '/api/v1/devices/asleep/commands?wait=60s', { command: 'relay' }),
    );
    await eventually(
      'that they wait',
      async () => (await other.metric('puback_commands_waiting_requests')) === 5,
    );
    const started = performance.now();
    await other.halt();
    // Of the minute that they would wait.
    expect(performance.now() - started).toBeLessThan(20_000);
    for (const { status, body } of await Promise.all(waiting)) {
      expect(status).toBe(202);
      expect(body.state).toMatch(/^(queued|published)$/);
    }
    await other.stop();
  });

  it('leaves nobody waiting when the client goes away', async () => {
    await app.api('POST', '/api/v1/devices', { device: 'gone' });
    const gone = new AbortController();
    const waiting = fetch(`${app.addresses.httpUrl}/api/v1/devices/gone/commands?wait=60s`, {
      method: 'POST',
      headers: { authorization: `Bearer ${app.adminKey}`, 'content-type': 'application/json' },
      body: '{"command":"relay"}',
      signal: gone.signal,
    });
    const count = () => app.metric('puback_commands_waiting_requests');
    await eventually('that it waits', async () => (await count()) === 1);
    gone.abort();
    await expect(waiting).rejects.toThrow();
    await eventually('that nobody waits', async () => (await count()) === 0);
    expect((await commandsOf('gone')).length).toBe(1);
  });
});

describe('a command of an integrator', () => {
  it('is done in the order in which it was published, and its steps are told', async () => {
    const done = await obedient('obeys');
    const { reader } = await integrator({});
    await reader.client.subscribeAsync('v1/demo/obeys/cmd/+', { qos: 1 });
    const refs = Array.from({ length: 50 }, (_, index) => `job${index}`);
    await Promise.all(
      refs.map((ref) =>
        reader.client.publishAsync(`v1/demo/obeys/do/relay/${ref}`, `{"ref":"${ref}"}`, { qos: 1 }),
      ),
    );
    await eventually('that all are done', () => done.length === refs.length);
    expect(done.map(({ args }) => args['ref'])).toEqual(refs);
    const steps = () => reader.got.map(({ body }) => body as { ref: string; st: string });
    await eventually(
      'that all ends are told',
      () => steps().filter(({ st }) => st === 'succeeded').length === refs.length,
    );
    const ofFirst = steps().filter(({ ref }) => ref === 'job0');
    expect(ofFirst.map(({ st }) => st)).toEqual(
      expect.arrayContaining(['queued', 'published', 'succeeded']),
    );
    expect(ofFirst[0]?.st).toBe('queued');
    const [newest] = await commandsOf('obeys');
    expect(newest).toMatchObject({ ref: 'job49', origin: 'mqtt', state: 'succeeded' });
  });

  it('is acknowledged once it is committed', async () => {
    await app.addDevice('committed');
    const { reader } = await integrator({});
    await reader.client.publishAsync('v1/demo/committed/do/relay', '', { qos: 1 });
    expect((await commandsOf('committed')).length).toBe(1);
    await reader.client.publishAsync('v1/demo/committed/do/relay', '{"on":true}', { qos: 2 });
    await eventually('that it is there', async () => (await commandsOf('committed')).length === 2);
  });

  it('is told on cmd/refused when it cannot be queued, and the connection goes on', async () => {
    await app.addDevice('picky');
    const { reader } = await integrator({});
    await reader.client.subscribeAsync('v1/demo/+/cmd/+', { qos: 1 });
    for (const [topic, payload, code] of [
      ['picky/do/relay/a', '{"on":', 'bad_json'],
      ['picky/do/relay/b', '[]', 'bad_type'],
      ['picky/do/relay/c', '{"__proto__":{"x":1}}', 'bad_name'],
      ['picky/do/Relay/d', '{}', 'bad_name'],
      ['picky/do/relay/e', `{"a":"${'x'.repeat(300)}"}`, 'command_too_big'],
      ['picky/do/relay/f', `{"a":"${'x'.repeat(5000)}"}`, 'too_big'],
      ['picky/do/sys.ota/g', '{}', 'command_invalid'],
      ['nobody/do/relay/h', '{}', 'device_not_found'],
    ] as const) {
      reader.got.length = 0;
      await reader.client.publishAsync(`v1/demo/${topic}`, payload, { qos: 1 });
      await eventually(`that ${topic} is told`, () => reader.got.length === 1);
      const [device, , , ref] = topic.split('/');
      expect(reader.got[0], topic).toMatchObject({
        topic: `v1/demo/${device}/cmd/refused`,
        body: { ref, code, msg: expect.any(String) as string },
      });
    }
    expect(await commandsOf('picky')).toEqual([]);
    expect(reader.client.connected).toBe(true);
  });

  it('for a device that its key is not for changes nothing, and stands in its history', async () => {
    await app.addDevice('mine');
    await app.addDevice('yours');
    const { reader, keyId } = await integrator({ devices: ['mine'] });
    const { reader: witness } = await integrator({});
    await witness.client.subscribeAsync('v1/demo/+/cmd/+', { qos: 1 });
    await reader.client.publishAsync('v1/demo/yours/do/relay', '{}', { qos: 1 });
    await reader.client.publishAsync('v1/demo/mine/do/relay', '{}', { qos: 1 });
    await eventually('that one is told', () => witness.got.length >= 1);
    expect(witness.got.some(({ topic }) => topic.includes('yours'))).toBe(false);
    expect(await commandsOf('yours')).toEqual([]);
    expect((await commandsOf('mine')).length).toBe(1);
    await eventually('that it stands in the history', async () => {
      const { body } = await app.api('GET', '/api/v1/diagnostics?address=127.0.0.1');
      return body.events.data.some(
        (event: { code: string; keyId: string }) =>
          event.code === 'forbidden' && event.keyId === keyId,
      );
    });
  });

  it('without the scope, or in another organization, ends the connection', async () => {
    await app.addDevice('quiet');
    for (const [scopes, topic] of [
      [['cmd'], 'v1/demo/quiet/do/relay'],
      [['cmd:write'], 'v1/other/quiet/do/relay'],
      [['cmd:write'], 'v1/demo/quiet/data'],
      [['cmd:write'], 'v1/demo/quiet/in/cmd'],
      [['cmd:write'], 'v1/demo/quiet/cmd/refused'],
    ] as const) {
      const { reader } = await integrator({ scopes });
      const closed = new Promise<void>((resolve) => {
        reader.client.once('close', () => resolve());
      });
      reader.client.publish(topic, '{}', { qos: 1 });
      await closed;
    }
    expect(await commandsOf('quiet')).toEqual([]);
  });

  it('is one of a hundred that wait, when five hundred are published to a device that is offline [L-13]', async () => {
    await app.addDevice('offline');
    const { reader } = await integrator({ scopes: ['cmd:write'] });
    const name = 'puback_commands_publishes_refused_total{code="quota"}';
    const before = await app.metric(name);
    const published = Array.from({ length: 500 }, (_, index) =>
      reader.client.publishAsync('v1/demo/offline/do/relay', `{"n":${index}}`, { qos: 1 }),
    );
    const answered = app.api('GET', '/api/v1/devices/offline');
    await Promise.all(published);
    expect((await answered).status).toBe(200);
    expect((await app.metric(name)) - before).toBe(500 - BACKLOG);
    const waiting = await commandsOf('offline', '&state=queued,published');
    const numbers = waiting.map(({ args }: { args: { n: number } }) => args.n).toReversed();
    expect(numbers).toEqual(Array.from({ length: BACKLOG }, (_, index) => index));
    expect(await app.metric('puback_commands_waiting_publications')).toBe(0);
  });
});

describe('a device without MQTT', () => {
  it('and one with it take the same commands from one queue', async () => {
    const key = await app.addDevice('both');
    for (const command of ['one', 'two']) {
      await app.api('POST', '/api/v1/devices/both/commands', { command });
    }
    const authorization = `Bearer ${key}`;
    const url = `${app.addresses.httpUrl}/api/v1/device/commands`;
    const polled = (await (await fetch(url, { headers: { authorization } })).json()) as {
      command: Slot;
    };
    expect(polled.command.cmd).toBe('one');
    const answered = await fetch(`${url}/ack`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body: JSON.stringify({ id: polled.command.id, st: 'ok' }),
    });
    expect(answered.status).toBe(204);
    const client = await connectDevice(app.addresses.mqttUrl, key);
    open.push(client);
    const seen: Slot[] = [];
    client.on('message', (topic, payload) => {
      if (topic === 'v1/me/in/cmd' && payload.length > 0)
        seen.push(JSON.parse(payload.toString()) as Slot);
    });
    await client.subscribeAsync('v1/me/in/cmd', { qos: 1 });
    await eventually('that the second one is there', () => seen.length === 1);
    expect(seen[0]).toMatchObject({ cmd: 'two' });
    expect(seen[0]?.id).toBeGreaterThan(polled.command.id);
  });
});
