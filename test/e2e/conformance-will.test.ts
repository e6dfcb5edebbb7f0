import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import { frame, publishFrame } from '../support/wire.ts';

let target: Target;
beforeAll(async () => {
  target = await startTarget();
});
afterEach(closeProbes);
afterAll(() => target.stop());

function willOn(topic: string, more: { qos?: 0 | 1 | 2; retain?: boolean } = {}) {
  return { topic, payload: Buffer.from('will'), qos: more.qos ?? 1, retain: more.retain ?? false };
}

async function subscriberOf(...filters: string[]): Promise<Probe> {
  const subscriber = await Probe.connect(target.url);
  await subscriber.subscribe(filters);
  return subscriber;
}

describe('a will', () => {
  it.each([0, 1, 2] as const)(
    'is published when the connection is lost, at QoS %s [MQTT-3.1.2-8]',
    async (qos) => {
      const topic = unique('lost');
      const subscriber = await subscriberOf(topic);
      const client = await Probe.connect(target.url, { will: willOn(topic, { qos }) });
      client.drop();
      const { payload, qos: delivered } = await subscriber.message();
      expect({ payload, delivered }).toEqual({ payload: 'will', delivered: Math.min(qos, 1) });
    },
  );

  it('is published when the client ends the stream without DISCONNECT [MQTT-3.1.2-8]', async () => {
    const topic = unique('ended');
    const subscriber = await subscriberOf(topic);
    const client = await Probe.connect(target.url, { will: willOn(topic) });
    client.raw.socket.end();
    expect((await subscriber.message()).payload).toBe('will');
  });

  it('is published when the broker ends the connection for a violation [MQTT-3.1.2-8] [MQTT-4.8.0-1]', async () => {
    const topic = unique('violation');
    const subscriber = await subscriberOf(topic);
    const client = await Probe.connect(target.url, { will: willOn(topic) });
    client.sendBytes(frame(0xc1));
    await client.closed();
    expect((await subscriber.message()).payload).toBe('will');
  });

  it('is published when another connection takes its place [MQTT-3.1.2-8]', async () => {
    const [topic, clientId] = [unique('replaced'), unique('client')];
    const subscriber = await subscriberOf(topic);
    const older = await Probe.connect(target.url, { clientId, will: willOn(topic) });
    await Probe.connect(target.url, { clientId });
    await older.closed();
    expect((await subscriber.message()).payload).toBe('will');
  });

  it('is published behind what the client published before it went', async () => {
    const topic = unique('behind');
    const subscriber = await subscriberOf(topic);
    const client = await Probe.connect(target.url, { will: willOn(topic) });
    client.sendBytes(publishFrame(0, topic, null, Buffer.from('last words')));
    await client.ping();
    client.drop();
    expect(await subscriber.messages(2)).toEqual(['last words', 'will']);
  });

  it('is published once, and not again by the next connection [MQTT-3.1.2-10]', async () => {
    const [topic, clientId] = [unique('once'), unique('client')];
    const subscriber = await subscriberOf(topic, `${topic}/end`);
    const first = await Probe.connect(target.url, { clientId, clean: false, will: willOn(topic) });
    first.drop();
    expect(await subscriber.messages(1)).toEqual(['will']);
    const second = await Probe.connect(target.url, { clientId, clean: false });
    second.drop();
    const third = await Probe.connect(target.url, { clientId, clean: false });
    await third.publish(`${topic}/end`, 'end');
    expect(await subscriber.messages(1)).toEqual(['end']);
  });

  it('is discarded at DISCONNECT [MQTT-3.14.4-3] [MQTT-3.1.2-10]', async () => {
    const topic = unique('farewell');
    const subscriber = await subscriberOf(topic, `${topic}/end`);
    const client = await Probe.connect(target.url, { will: willOn(topic) });
    await client.disconnect();
    const publisher = await Probe.connect(target.url);
    await publisher.publish(`${topic}/end`, 'end');
    expect(await subscriber.messages(1)).toEqual(['end']);
  });

  it('that was not given is not published [MQTT-3.1.2-12]', async () => {
    const [topic, clientId] = [unique('none'), unique('client')];
    const subscriber = await subscriberOf('#');
    const client = await Probe.connect(target.url, { clientId });
    client.drop();
    const publisher = await Probe.connect(target.url, { clientId });
    await publisher.publish(topic, 'end');
    const topics: string[] = [];
    do topics.push((await subscriber.message()).topic);
    while (topics.at(-1) !== topic);
    expect(
      topics.filter((name) => !/^(farewell|once|behind|violation|replaced)/.test(name)),
    ).toEqual([topic]);
  });

  it('without will retain is not kept [MQTT-3.1.2-16]', async () => {
    const topic = unique('plain');
    const subscriber = await subscriberOf(topic);
    const client = await Probe.connect(target.url, { will: willOn(topic) });
    client.drop();
    expect(await subscriber.message()).toMatchObject({ payload: 'will', retain: false });
    const late = await subscriberOf(topic, `${topic}/end`);
    await late.publish(`${topic}/end`, 'end');
    expect(await late.messages(1)).toEqual(['end']);
  });

  it('with will retain is kept [MQTT-3.1.2-17]', async () => {
    const topic = unique('retained');
    const subscriber = await subscriberOf(topic);
    const client = await Probe.connect(target.url, { will: willOn(topic, { retain: true }) });
    client.drop();
    expect(await subscriber.message()).toMatchObject({ payload: 'will', retain: false });
    const late = await subscriberOf(topic);
    expect(await late.message()).toMatchObject({ payload: 'will', retain: true });
  });
});

describe('DISCONNECT', () => {
  it('ends the connection, although the client does not [MQTT-3.14.4-1]', async () => {
    const client = await Probe.connect(target.url);
    client.send({ cmd: 'disconnect' });
    await client.closed();
  });

  it('makes what follows it unread [MQTT-3.14.4-2]', async () => {
    const topic = unique('after');
    const subscriber = await subscriberOf(topic, `${topic}/end`);
    const client = await Probe.connect(target.url);
    client.sendBytes(frame(0xe0), publishFrame(0, topic, null, Buffer.from('too late')));
    await client.closed();
    const publisher = await Probe.connect(target.url);
    await publisher.publish(`${topic}/end`, 'end');
    expect(await subscriber.messages(1)).toEqual(['end']);
  });
});
