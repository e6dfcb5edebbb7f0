import { describe, expect, it } from 'vitest';
import type { OutboxLimits } from '../../broker/outgoing/dispatch.ts';
import { FanOutMetrics } from '../../broker/outgoing/fan-out-metrics.ts';
import { FanOut } from '../../broker/outgoing/fan-out.ts';
import type { OutgoingMessage } from '../../broker/message.ts';
import type { SubscriberAccess } from '../../broker/outgoing/subscriber.ts';
import { createLog } from '../../log.ts';
import { MemorySessionStore } from '../support/memory-session-store.ts';
import { messageOf, TestLink, turn, WIDE_LIMITS } from '../support/subscriber-link.ts';

/** `all` stands for two filters, `secret` for none, everything else for itself. */
function grant(filter: string): readonly string[] | null {
  if (filter.startsWith('secret')) return null;
  return filter === 'all' ? ['a', 'b/+'] : [filter];
}

/** A broker's reading side, and clients for it. */
function createBench(limits: Partial<OutboxLimits> = {}) {
  const store = new MemorySessionStore();
  let denied = 0;
  const fanOut = new FanOut({
    store,
    limits: { ...WIDE_LIMITS, ...limits },
    metrics: new FanOutMetrics(),
    isTelemetry: (topic) => topic.endsWith('/data'),
    log: createLog('silent'),
    onDenied: () => (denied += 1),
  });
  const attach = (
    access: Partial<SubscriberAccess> = {},
    { clientId = 'c', isClean = true }: { clientId?: string; isClean?: boolean } = {},
  ) => {
    const link = new TestLink();
    const retained = (filter: string): Iterable<OutgoingMessage> => store.retainedMatching(filter);
    const subscriber = fanOut.attach({
      clientId,
      isClean,
      link,
      access: { grant, denied: () => undefined, spell: (topic) => topic, retained, ...access },
      onOverflow: () => undefined,
    });
    subscriber.start();
    return {
      link,
      subscriber,
      subscribe: (...filters: (string | readonly [string, 0 | 1 | 2])[]) =>
        subscriber.subscribe({
          messageId: 7,
          subscriptions: filters.map((one) =>
            typeof one === 'string' ? { topic: one, qos: 1 } : { topic: one[0], qos: one[1] },
          ),
        }),
      unsubscribe: (...unsubscriptions: string[]) =>
        subscriber.unsubscribe({ messageId: 8, unsubscriptions }),
    };
  };
  return { store, fanOut, attach, denied: () => denied };
}

const keep = (store: MemorySessionStore, topic: string, text: string, qos: 0 | 1 = 1) =>
  store.putRetained({ ...messageOf(topic, text, qos), retain: true });

const shown = (link: TestLink): string[] =>
  link
    .readMessages()
    .map(({ topic, payload, retain }) => `${topic}=${payload.toString()}${retain ? ' (r)' : ''}`);

describe('Subscriber', () => {
  it('answers each filter by itself: 0x80, or at most QoS 1 (I-06) [MQTT-3.8.4-5, MQTT-3.8.4-6, MQTT-3.9.3-1]', async () => {
    const { attach, fanOut, denied } = createBench();
    const { subscribe, link } = attach();
    const granted = await subscribe(['a', 0], 'secret/#', ['b', 1], ['c', 2]);
    expect(granted).toEqual(['a', 'b', 'c']);
    expect(link.read()).toMatchObject([{ cmd: 'suback', messageId: 7, granted: [0, 128, 1, 1] }]);
    expect(fanOut.isWanted('secret/x')).toBe(false);
    expect(denied()).toBe(1);
  });

  it('subscribes what a filter stands for, and says so', async () => {
    const { attach, fanOut } = createBench();
    const { subscribe } = attach();
    expect(await subscribe('all')).toEqual(['a', 'b/+']);
    expect(fanOut.isWanted('b/x')).toBe(true);
    expect(fanOut.isWanted('all')).toBe(false);
  });

  it('grants at most 64 filters, and those it has at any time', async () => {
    const { attach } = createBench();
    const client = attach();
    const filters = Array.from({ length: 66 }, (_, index) => `f/${index}`);
    expect((await client.subscribe(...filters)).length).toBe(64);
    expect(await client.subscribe('f/70', 'f/0')).toEqual(['f/0']);
    await client.unsubscribe('f/1');
    expect(await client.subscribe('f/70')).toEqual(['f/70']);
  });

  it('asks for the rights of at most 64 filters of a packet, and answers all', async () => {
    const { attach } = createBench();
    let asked = 0;
    const refuse = () => {
      asked += 1;
      return null;
    };
    const { subscribe, link } = attach({ grant: refuse });
    await subscribe(...Array.from({ length: 5000 }, (_, index) => `secret/${index}`));
    expect(asked).toBe(64);
    expect(link.read()).toMatchObject([{ granted: Array.from({ length: 5000 }, () => 128) }]);
  });

  it('grants no filters that stand for more than 2000 in all, and looks at no more', async () => {
    const { attach } = createBench();
    let looked = 0;
    const many = (filter: string) => {
      looked += 1;
      return Array.from({ length: 1500 }, (_, i) => `${filter}/${i}`);
    };
    const { subscribe } = attach({ grant: many });
    expect((await subscribe('w', 'x', 'y', 'z')).length).toBe(1500);
    expect(looked).toBe(2);
  });

  it('replaces the QoS of a filter and sends retained messages again [MQTT-3.8.4-3]', async () => {
    const { attach, store, fanOut } = createBench();
    await keep(store, 'a', 'old');
    const { subscribe, link } = attach();
    await subscribe(['a', 0]);
    await turn();
    expect(shown(link)).toEqual(['a=old (r)']);
    await subscribe(['a', 1]);
    void fanOut.publish(messageOf('a', 'new'));
    await turn();
    expect(link.readMessages().map(({ qos, retain }) => [qos, retain])).toEqual([
      [1, true],
      [1, false],
    ]);
  });

  it('sends SUBACK before retained messages, these with the flag set [MQTT-3.3.1-8]', async () => {
    const { attach, store } = createBench();
    await keep(store, 'a', '1');
    await keep(store, 'b/x', '2', 0);
    await keep(store, 'c', '3');
    const { subscribe, link } = attach();
    await subscribe('all');
    await turn();
    expect(link.read()).toMatchObject([
      { cmd: 'suback' },
      { cmd: 'publish', topic: 'a', qos: 1, retain: true },
      { cmd: 'publish', topic: 'b/x', qos: 0, retain: true },
    ]);
  });

  it('sends no message twice for overlapping filters', async () => {
    const { attach, fanOut } = createBench();
    const { subscribe, link } = attach();
    await subscribe('a', 'all', '#', ['+', 0]);
    link.read();
    void fanOut.publish(messageOf('a', '1'));
    await turn();
    expect(shown(link)).toEqual(['a=1']);
  });

  it('answers UNSUBSCRIBE always and stops sending [MQTT-3.10.4-1, MQTT-3.10.4-2, MQTT-3.10.4-4, MQTT-3.10.4-5]', async () => {
    const { attach, fanOut } = createBench();
    const { subscribe, unsubscribe, link } = attach();
    await subscribe('a');
    link.read();
    void fanOut.publish(messageOf('a', 'before'));
    await unsubscribe('a', 'never/was');
    void fanOut.publish(messageOf('a', 'behind'));
    await turn();
    expect(link.read()).toMatchObject([{ cmd: 'publish' }, { cmd: 'unsuback', messageId: 8 }]);
    expect(fanOut.gauges.filters).toBe(0);
  });

  it('keeps what another filter stands for too, at its QoS', async () => {
    const { attach, fanOut } = createBench();
    const { subscribe, unsubscribe, link } = attach();
    await subscribe(['all', 1], ['a', 0]);
    link.read();
    void fanOut.publish(messageOf('a', '1'));
    await turn();
    expect(link.readMessages().map(({ qos }) => qos)).toEqual([1]);
    await unsubscribe('all');
    expect(fanOut.isWanted('b/x')).toBe(false);
    void fanOut.publish(messageOf('a', '1'));
    await turn();
    expect(link.readMessages().map(({ qos }) => qos)).toEqual([0]);
    await unsubscribe('a');
    expect(fanOut.isWanted('a')).toBe(false);
  });

  it('spells topics as its client does', async () => {
    const { attach, fanOut } = createBench();
    const { subscriber, subscribe, link } = attach({ spell: (topic) => `me/${topic}` });
    await subscribe('a');
    link.read();
    void fanOut.publish(messageOf('a', '1'));
    subscriber.sendDirect('in/err', Buffer.from('{}'));
    await turn();
    expect(shown(link)).toEqual(['me/a=1', 'me/in/err={}']);
  });

  it('leaves nothing behind when it ends, and ends once', async () => {
    const { attach, fanOut, store } = createBench({ inFlightMax: 1 });
    await keep(store, 'b/1', 'x');
    const { subscriber, subscribe } = attach();
    await subscribe('all');
    for (let index = 0; index < 5; index += 1) void fanOut.publish(messageOf('a', '1'));
    subscriber.detach();
    subscriber.detach();
    await turn();
    expect(fanOut.gauges).toEqual({
      waitingMessages: 0,
      waitingBytes: 0,
      inFlightMessages: 0,
      filters: 0,
    });
  });
});

describe('Subscriber, retained messages of a wildcard', () => {
  it('come only as fast as the client takes them, and all of them', async () => {
    const { attach, store } = createBench({ inFlightMax: 5, queueMessagesMax: 8 });
    for (let index = 0; index < 300; index += 1) await keep(store, `b/${index}`, `${index}`);
    let read = 0;
    const { subscriber, subscribe, link } = attach({
      *retained(filter) {
        for (const message of store.retainedMatching(filter)) {
          read += 1;
          yield message;
        }
      },
    });
    await subscribe('b/+');
    await turn();
    expect(read).toBeLessThanOrEqual(8);
    const got: string[] = [];
    for (let round = 0; round < 300 && got.length < 300; round += 1) {
      for (const { messageId = 0, payload } of link.readMessages()) {
        got.push(payload.toString());
        subscriber.acknowledge(messageId);
      }
      await turn();
    }
    expect(got).toEqual(Array.from({ length: 300 }, (_, index) => `${index}`));
  });

  it('do not follow a live message of the same topic', async () => {
    const { attach, store, fanOut } = createBench({ inFlightMax: 2, queueMessagesMax: 4 });
    for (let index = 0; index < 10; index += 1) await keep(store, `b/${index}`, 'old');
    const pages = async function* (filter: string): AsyncIterable<OutgoingMessage> {
      for (const message of [...store.retainedMatching(filter)]) {
        await turn();
        yield message;
      }
    };
    const { subscriber, subscribe, link } = attach({ retained: pages });
    await subscribe('b/+');
    await turn();
    await fanOut.publishRetained(messageOf('b/9', 'new'));
    const got: string[] = [];
    for (let round = 0; round < 60; round += 1) {
      for (const { messageId = 0, topic, payload } of link.readMessages()) {
        got.push(`${topic}=${payload.toString()}`);
        subscriber.acknowledge(messageId);
      }
      await turn();
    }
    expect(got.filter((one) => one.startsWith('b/9'))).toEqual(['b/9=new']);
    expect(got.length).toBe(10);
  });

  it('end with UNSUBSCRIBE and with the connection, and start over with SUBSCRIBE', async () => {
    const { attach, store } = createBench();
    for (let index = 0; index < 200; index += 1) await keep(store, `b/${index}`, '', 0);
    for (let index = 0; index < 200; index += 1) await keep(store, `b/${index}`, 'x', 0);
    let open = 0;
    const pages = async function* (filter: string): AsyncIterable<OutgoingMessage> {
      open += 1;
      try {
        for (const message of store.retainedMatching(filter)) {
          await turn();
          yield message;
        }
      } finally {
        open -= 1;
      }
    };
    const { subscriber, subscribe, unsubscribe, link } = attach({ retained: pages });
    await subscribe('b/+');
    for (let round = 0; round < 5; round += 1) await turn();
    await unsubscribe('b/+');
    link.read();
    for (let round = 0; round < 5; round += 1) await turn();
    expect(shown(link)).toEqual([]);
    expect(open).toBe(0);
    await subscribe('b/+');
    for (let round = 0; round < 5; round += 1) await turn();
    await subscribe('b/+');
    link.read();
    for (let round = 0; round < 5; round += 1) await turn();
    expect(shown(link)[0]).toBe('b/0=x (r)');
    subscriber.detach();
    for (let round = 0; round < 5; round += 1) await turn();
    expect(open).toBe(0);
  });

  it('that cannot be read cost nothing but themselves', async () => {
    const { attach, fanOut } = createBench();
    const { subscribe, link } = attach({
      // oxlint-disable-next-line require-yield
      async *retained(): AsyncIterable<OutgoingMessage> {
        throw new Error('database away');
      },
    });
    await subscribe('b/+');
    await turn();
    void fanOut.publish(messageOf('b/x', '1'));
    await turn();
    expect(link.read()).toMatchObject([{ cmd: 'suback', granted: [1] }, { topic: 'b/x' }]);
  });
});

describe('Subscriber of a persistent session', () => {
  const persistent = { clientId: 'p', isClean: false };

  it('stores what was granted, and only that, before SUBACK', async () => {
    const { attach, store } = createBench();
    await store.openSession('p');
    const { subscribe, link } = attach({}, persistent);
    const done = subscribe('all', 'secret/#');
    expect(link.writes).toEqual([]);
    await done;
    expect(link.read()).toMatchObject([{ cmd: 'suback', granted: [1, 128] }]);
    expect(store.subscriptions('p')).toEqual([
      { filter: 'a', qos: 1 },
      { filter: 'b/+', qos: 1 },
    ]);
  });

  it('grants nothing while the store fails, and works again afterwards', async () => {
    const { attach, store, fanOut } = createBench();
    await store.openSession('p');
    const { subscribe, unsubscribe, link } = attach({}, persistent);
    store.failure = new Error('disk full');
    expect(await subscribe('a', 'secret/#')).toEqual([]);
    expect(link.read()).toMatchObject([{ granted: [128, 128] }]);
    expect(fanOut.isWanted('a')).toBe(false);
    store.failure = null;
    expect(await subscribe('a')).toEqual(['a']);
    store.failure = new Error('disk full');
    await unsubscribe('a');
    expect(fanOut.isWanted('a')).toBe(false);
    expect(link.read()).toMatchObject([{ granted: [1] }, { cmd: 'unsuback' }]);
  });

  it('keeps its subscriptions over connections, and undoes them by the filter they came from', async () => {
    const { attach, store, fanOut } = createBench();
    await store.openSession('p');
    const first = attach({}, persistent);
    await first.subscribe('all', 'c');
    first.subscriber.detach();
    expect(fanOut.isWanted('b/x')).toBe(true);
    const second = attach({}, persistent);
    await second.subscribe('a');
    await second.unsubscribe('all');
    expect(
      store
        .subscriptions('p')
        .map(({ filter }) => filter)
        .toSorted(),
    ).toEqual(['a', 'c']);
    expect(fanOut.isWanted('b/x')).toBe(false);
    expect(fanOut.isWanted('a')).toBe(true);
    await second.unsubscribe('a', 'c');
    expect(store.subscriptions('p')).toEqual([]);
    expect(fanOut.gauges.filters).toBe(0);
  });

  it('replaces the QoS of a filter of an earlier connection', async () => {
    const { attach, store } = createBench();
    await store.openSession('p');
    const first = attach({}, persistent);
    await first.subscribe(['a', 1]);
    first.subscriber.detach();
    await attach({}, persistent).subscribe(['a', 0]);
    expect(store.subscriptions('p')).toEqual([{ filter: 'a', qos: 0 }]);
  });

  it('gives up on its return what is not granted any more, queued messages too', async () => {
    const { attach, store, fanOut } = createBench();
    await store.openSession('p');
    const first = attach({}, persistent);
    await first.subscribe('a', 'x/#');
    first.subscriber.detach();
    await fanOut.publish(messageOf('x/1', 'of a stream that was taken away'));
    await fanOut.publish(messageOf('a', 'own'));
    const narrow = (filter: string) =>
      filter === 'x/#' ? ['x/2'] : filter === 'x/1' ? null : [filter];
    const { link } = attach({ grant: narrow }, persistent);
    expect(shown(link)).toEqual(['a=own']);
    expect(fanOut.isWanted('x/1')).toBe(false);
    expect(fanOut.isWanted('x/2')).toBe(true);
    await turn();
    expect(
      store
        .subscriptions('p')
        .map(({ filter }) => filter)
        .toSorted(),
    ).toEqual(['a', 'x/2']);
  });

  it('gets retained messages at QoS 1 through its stored queue, as any other', async () => {
    const { attach, store } = createBench({ inFlightMax: 2 });
    await store.openSession('p');
    for (let index = 0; index < 5; index += 1) await keep(store, `b/${index}`, 'x');
    const first = attach({}, persistent);
    await first.subscribe('b/+');
    await turn();
    expect(first.link.readMessages().length).toBe(2);
    first.subscriber.detach();
    const second = attach({}, persistent);
    expect(second.link.readMessages().map(({ dup, retain }) => [dup, retain])).toEqual([
      [true, true],
      [true, true],
    ]);
  });
});
