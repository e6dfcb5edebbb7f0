import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { IPublishPacket } from 'mqtt-packet';
import { SCOPES, type Scope } from '../../firmware-protocol/contract.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';

/** What becomes of a device's PUBLISH; all of them are acknowledged. */
type Intake = 'stored' | 'taken' | 'forbidden';

/** A line of the topic tree (firmware-protocol, section 3), written behind `v1/{organization}/{device}/`. */
interface Line {
  readonly rest: string;
  readonly intake: Intake;
  /** Whether the device may subscribe it. */
  readonly isRead: boolean;
  /** The scope that lets an integrator subscribe it; null: none does. */
  readonly scope: Scope | null;
}

/**
 * What is folded into `data` (a metric of its own, SenML) has no stream; keys go between device and broker only.
 */
const TREE: readonly Line[] = [
  { rest: 'data', intake: 'stored', isRead: false, scope: 'data' },
  { rest: 'data/temp', intake: 'stored', isRead: false, scope: null },
  { rest: 'senml', intake: 'stored', isRead: false, scope: null },
  { rest: 'event/door', intake: 'taken', isRead: false, scope: 'event' },
  { rest: 'log', intake: 'taken', isRead: false, scope: 'log' },
  { rest: 'hello', intake: 'taken', isRead: false, scope: 'raw' },
  { rest: 'ack', intake: 'taken', isRead: false, scope: 'raw' },
  { rest: 'cfg', intake: 'taken', isRead: false, scope: 'raw' },
  { rest: 'key', intake: 'taken', isRead: false, scope: null },
  { rest: 'in/cmd', intake: 'forbidden', isRead: true, scope: 'raw' },
  { rest: 'in/cfg', intake: 'forbidden', isRead: true, scope: 'raw' },
  { rest: 'in/hello', intake: 'forbidden', isRead: true, scope: null },
  { rest: 'in/err', intake: 'forbidden', isRead: true, scope: 'raw' },
  { rest: 'in/key', intake: 'forbidden', isRead: true, scope: null },
  { rest: 'status', intake: 'forbidden', isRead: true, scope: 'status' },
  { rest: 'cmd/0199', intake: 'forbidden', isRead: false, scope: 'cmd' },
  { rest: 'alert/hot', intake: 'forbidden', isRead: false, scope: 'alert' },
  { rest: 'do/reboot', intake: 'forbidden', isRead: false, scope: null },
  { rest: 'do/reboot/7', intake: 'forbidden', isRead: false, scope: null },
];
/** Streams of the organization itself, behind `v1/{organization}/_/`. */
const ORGANIZATION_RESTS = ['registry', 'usage', 'quarantine', 'ha/sensor/config'];

let app: TestApp;
const open: RawClient[] = [];
beforeAll(async () => {
  app = await startTestApp();
  await app.addDevice('second');
});
afterAll(async () => {
  for (const client of open) client.end();
  await app.stop();
});

async function enter(key: string): Promise<RawClient> {
  const client = await connectRaw(app.addresses.mqttUrl, key);
  open.push(client);
  return client;
}

async function integratorKey(scope: Scope): Promise<string> {
  const body = { name: scope, scopes: [scope], devices: null, expiresAt: null };
  return (await app.api('POST', '/api/v1/keys', body)).body.key;
}

/** @returns of each filter whether it is granted; 50 filters in a SUBSCRIBE at most. */
async function granted(client: RawClient, filters: readonly string[]): Promise<boolean[]> {
  client.send({
    cmd: 'subscribe',
    messageId: 1,
    subscriptions: filters.map((topic) => ({ topic, qos: 1 as const })),
  });
  for (;;) {
    const packet = await client.next();
    if (packet.cmd === 'suback') return packet.granted.map((code) => code !== 128);
  }
}

const PAYLOADS: Readonly<Record<string, string>> = {
  senml: '[{"n":"temp","v":21.5}]',
  ack: '{"id":1,"st":"ok"}',
  cfg: '{"v":1,"ok":true}',
};

function publishOf(topic: string, messageId: number): IPublishPacket {
  const word = topic.split('/').findLast((level) => level in PAYLOADS) ?? '';
  // A sample is an object, a hello, a request for a key too.
  const payload = topic.includes('/data/') ? '21.5' : (PAYLOADS[word] ?? '{"temp":21.5}');
  return { cmd: 'publish', topic, payload, qos: 1, messageId, dup: false, retain: false };
}

/** Publishes to each topic in turn and waits for the PUBACK of each. */
async function publishEach(client: RawClient, topics: readonly string[]): Promise<void> {
  for (const [at, topic] of topics.entries()) {
    client.send(publishOf(topic, at + 1));
    for (;;) {
      const packet = await client.next();
      if (packet.cmd === 'puback') break;
    }
  }
}

/** Codes in quarantine by topic. */
async function quarantined(device: string): Promise<ReadonlyMap<string, string>> {
  const { body } = await app.api('GET', `/api/v1/quarantine?device=${device}&limit=1000`);
  return new Map(
    (body.data as { topic: string; code: string }[]).map(({ topic, code }) => [topic, code]),
  );
}

function ofTree(root: string): string[] {
  return TREE.map(({ rest }) => root + rest);
}

describe('a device', () => {
  it.each(['v1/me/', 'v1/demo/publisher/'])(
    'publishes to the topics of its own tree as the contract says, as %s (A-02)',
    async (root) => {
      const device = root === 'v1/me/' ? 'alias' : 'publisher';
      const client = await enter(await app.addDevice(device));
      await publishEach(client, ofTree(root));
      const codes = await quarantined(device);
      const found = TREE.map(({ rest }) => codes.get(root + rest) ?? 'none');
      const expected = TREE.map(({ intake }) =>
        intake === 'stored' || intake === 'taken' ? 'none' : intake,
      );
      expect(found).toEqual(expected);
      const { body } = await app.api('GET', `/api/v1/devices/${device}/readings`);
      const stored = TREE.filter(({ intake }) => intake === 'stored');
      expect(body.data).toHaveLength(stored.length);
      const shown = await app.api('GET', `/api/v1/devices/${device}/diagnostics`);
      expect(shown.body.presence.helloAt).not.toBeNull();
    },
  );

  it.each(['v1/me/', 'v1/demo/subscriber/'])(
    'subscribes the topics of its own tree as the contract says, as %s (A-02)',
    async (root) => {
      const device = root === 'v1/me/' ? 'alias-subscriber' : 'subscriber';
      const client = await enter(await app.addDevice(device));
      expect(await granted(client, ofTree(root))).toEqual(TREE.map(({ isRead }) => isRead));
    },
  );

  it("neither publishes to another device's tree nor reads it, whatever the topic (A-02)", async () => {
    const client = await enter(await app.addDevice('intruder'));
    const roots = ['v1/demo/second/', 'v1/demo/_/', 'v1/other/intruder/'];
    const topics = roots.flatMap(ofTree);
    await publishEach(client, topics);
    const codes = await quarantined('intruder');
    expect(topics.map((topic) => codes.get(topic))).toEqual(topics.map(() => 'forbidden'));
    expect(await granted(client, topics)).toEqual(topics.map(() => false));
    const { body } = await app.api('GET', '/api/v1/devices/second/readings');
    expect(body.data).toEqual([]);
  });
});

describe('an integrator', () => {
  it.each(SCOPES)('with the scope %s subscribes what the contract says (A-02)', async (scope) => {
    const client = await enter(await integratorKey(scope));
    const expected = TREE.map((line) => line.scope === scope);
    expect(await granted(client, ofTree('v1/demo/first/'))).toEqual(expected);
    expect(await granted(client, ofTree('v1/demo/+/'))).toEqual(expected);
    const streams = ORGANIZATION_RESTS.map((rest) => `v1/demo/_/${rest}`);
    expect(await granted(client, streams)).toEqual(streams.map(() => scope === 'status'));
    const foreign = [...ofTree('v1/other/first/'), ...ofTree('v1/me/'), 'v1/other/_/usage'];
    expect(await granted(client, foreign)).toEqual(foreign.map(() => false));
  });

  it('with every scope publishes to no topic but commands: the connection ends without PUBACK (A-02)', async () => {
    const body = { name: 'all', scopes: SCOPES, devices: null, expiresAt: null };
    const { key } = (await app.api('POST', '/api/v1/keys', body)).body;
    const before = await quarantined('first');
    const others = ofTree('v1/demo/first/').filter((topic) => !topic.includes('/do/'));
    for (const topic of [...others, 'v1/demo/_/usage', 'v1/me/data', 'v1/other/first/do/reboot']) {
      const client = await enter(key);
      client.send(publishOf(topic, 1));
      await client.closed;
      expect(client.received, topic).toEqual([]);
    }
    expect(await quarantined('first')).toEqual(before);
    await eventually('no readings', async () => {
      const { body: page } = await app.api('GET', '/api/v1/devices/first/readings');
      return (page.data as unknown[]).length === 0;
    });
  });

  it('publishes commands with the scope cmd:write, and with no other (A-02)', async () => {
    for (const scope of SCOPES) {
      const client = await enter(await integratorKey(scope));
      client.send(publishOf('v1/demo/first/do/relay', 1));
      if (scope === 'cmd:write') {
        expect(await client.next()).toMatchObject({ cmd: 'puback', messageId: 1 });
      } else {
        await client.closed;
        expect(client.received, scope).toEqual([]);
      }
    }
    const { body } = await app.api('GET', '/api/v1/devices/first/commands');
    expect(body.data).toMatchObject([{ command: 'relay', origin: 'mqtt', state: 'published' }]);
  });
});
