import { Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FanOutMetrics } from '../../broker/outgoing/fan-out-metrics.ts';
import { FanOut } from '../../broker/outgoing/fan-out.ts';
import type { OutboxLimits } from '../../broker/outgoing/dispatch.ts';
import { createLog } from '../../log.ts';
import { MemorySessionStore } from '../support/memory-session-store.ts';
import { messageOf, TestLink, turn, WIDE_LIMITS } from '../support/subscriber-link.ts';

function createFanOut(store = new MemorySessionStore(), limits: Partial<OutboxLimits> = {}) {
  const metrics = new FanOutMetrics();
  const fanOut = new FanOut({
    store,
    limits: { ...WIDE_LIMITS, ...limits },
    metrics,
    isTelemetry: (topic) => topic.endsWith('/data'),
    log: createLog('silent'),
    onDenied: () => undefined,
  });
  return { fanOut, store, metrics };
}

/** A client that may read everything, subscribed. */
async function connect(
  fanOut: FanOut,
  clientId: string,
  { isClean = true, filters = [] as string[], qos = 1 as 0 | 1 } = {},
) {
  const link = new TestLink();
  const overflows: string[] = [];
  const subscriber = fanOut.attach({
    clientId,
    isClean,
    link,
    access: {
      grant: (filter) => [filter],
      denied: () => undefined,
      spell: (topic) => topic,
      retained: () => [],
    },
    onOverflow: (reason) => overflows.push(reason),
  });
  subscriber.start();
  if (filters.length > 0) {
    const subscriptions = filters.map((topic) => ({ topic, qos }));
    await subscriber.subscribe({ messageId: 1, subscriptions });
    link.read();
  }
  return { subscriber, link, overflows };
}

const texts = (link: TestLink): string[] =>
  link.readMessages().map(({ payload, qos }) => `${payload.toString()}/${qos}`);

describe('FanOut', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('sends a message to each who wants it, at the lower QoS of both', async () => {
    const { fanOut } = createFanOut();
    const all = await connect(fanOut, 'all', { filters: ['#', 'v1/+/x'] });
    const zero = await connect(fanOut, 'zero', { filters: ['v1/a/x'], qos: 0 });
    const other = await connect(fanOut, 'other', { filters: ['v2/#'] });
    expect(fanOut.publish(messageOf('v1/a/x', 'one', 1))).toBeNull();
    expect(fanOut.publish(messageOf('v1/a/x', 'nought', 0))).toBeNull();
    await turn();
    expect(texts(all.link)).toEqual(['one/1', 'nought/0']);
    expect(texts(zero.link)).toEqual(['one/0', 'nought/0']);
    expect(texts(other.link)).toEqual([]);
  });

  it('wants what anybody wants, and tells of changes by its generation', async () => {
    const { fanOut } = createFanOut();
    expect(fanOut.isWanted('a')).toBe(false);
    const { generation } = fanOut;
    const { subscriber } = await connect(fanOut, 'c', { filters: ['a'] });
    expect(fanOut.generation).toBeGreaterThan(generation);
    expect(fanOut.isWanted('a')).toBe(true);
    subscriber.detach();
    expect(fanOut.isWanted('a')).toBe(false);
    expect(fanOut.gauges.filters).toBe(0);
  });

  it('puts a message into the queues of all persistent sessions in one go, connected or not', async () => {
    const { fanOut, store } = createFanOut();
    for (const id of ['p', 'q']) await store.openSession(id);
    const p = await connect(fanOut, 'p', { isClean: false, filters: ['a'] });
    const q = await connect(fanOut, 'q', { isClean: false, filters: ['a'] });
    q.subscriber.detach();
    const written = fanOut.publish(messageOf('a', '1'));
    expect(written).toBeInstanceOf(Promise);
    await written;
    expect(store.enqueueCalls).toBe(1);
    expect(texts(p.link)).toEqual(['1/1']);
    expect(store.queueSize('q').messages).toBe(1);
    const again = await connect(fanOut, 'q', { isClean: false });
    expect(texts(again.link)).toEqual(['1/1']);
  });

  it('sends QoS 0 to a persistent session only while its client is there', async () => {
    const { fanOut, store } = createFanOut();
    await store.openSession('p');
    const p = await connect(fanOut, 'p', { isClean: false, filters: ['a'] });
    expect(fanOut.publish(messageOf('a', '1', 0))).toBeNull();
    await turn();
    expect(texts(p.link)).toEqual(['1/0']);
    p.subscriber.detach();
    void fanOut.publish(messageOf('a', '2', 0));
    expect(store.queueSize('p').messages).toBe(0);
  });

  it('knows the sessions of a run before', async () => {
    const store = new MemorySessionStore();
    await store.openSession('p');
    await store.addSubscriptions('p', [{ filter: 'v1/+/data', qos: 1 }]);
    const { fanOut } = createFanOut(store);
    fanOut.start();
    expect(fanOut.isWanted('v1/a/data')).toBe(true);
    await fanOut.publish(messageOf('v1/a/data', '1'));
    expect(store.queueSize('p').messages).toBe(1);
    fanOut.stop();
  });

  it('resolves and counts when the session store fails', async () => {
    const { fanOut, store, metrics } = createFanOut();
    await store.openSession('p');
    await connect(fanOut, 'p', { isClean: false, filters: ['a'] });
    store.failure = new Error('disk full');
    await expect(fanOut.publish(messageOf('a', '1'))).resolves.toBeUndefined();
    await expect(fanOut.publishRetained(messageOf('a', '1'))).resolves.toBeUndefined();
    expect(metrics.dropped.store_failed).toBe(2);
  });

  it('keeps a retained message and sends it on with the flag cleared [MQTT-3.3.1-9, MQTT-3.3.1-10]', async () => {
    const { fanOut, store } = createFanOut();
    const { link } = await connect(fanOut, 'c', { filters: ['s'] });
    await fanOut.publishRetained({ ...messageOf('s', 'on'), retain: true });
    expect(store.retained('s')?.payload.toString()).toBe('on');
    await fanOut.publishRetained({ ...messageOf('s', ''), retain: true });
    expect(store.retained('s')).toBeNull();
    await turn();
    const sent = link.readMessages();
    expect(sent.map(({ payload, retain }) => [payload.toString(), retain])).toEqual([
      ['on', false],
      ['', false],
    ]);
  });

  it('ends a persistent session when its client comes with a clean one [MQTT-3.1.2-6]', async () => {
    const { fanOut, store } = createFanOut();
    await store.openSession('p');
    const p = await connect(fanOut, 'p', { isClean: false, filters: ['a'] });
    p.subscriber.detach();
    await store.dropSession('p');
    await connect(fanOut, 'p');
    expect(fanOut.isWanted('a')).toBe(false);
  });

  it('hands a persistent session to the newer of two connections, whatever order they end in', async () => {
    const { fanOut, store } = createFanOut();
    await store.openSession('p');
    const old = await connect(fanOut, 'p', { isClean: false, filters: ['a'] });
    old.link.isFull = true;
    old.subscriber.sendDirect('b', Buffer.from('fills'));
    await turn();
    void fanOut.publish(messageOf('a', 'waits', 0));
    old.link.read();
    const next = await connect(fanOut, 'p', { isClean: false });
    old.link.isFull = false;
    old.subscriber.drained();
    old.subscriber.detach();
    await fanOut.publish(messageOf('a', '1'));
    await fanOut.publish(messageOf('a', '2', 0));
    await turn();
    expect(texts(old.link)).toEqual([]);
    expect(texts(next.link).toSorted()).toEqual(['1/1', '2/0']);
    expect(store.sessions.get('p')?.isConnected).toBe(true);
    next.subscriber.detach();
    expect(store.sessions.get('p')?.isConnected).toBe(false);
  });

  it('forgets sessions that the store has dropped', async () => {
    vi.useFakeTimers();
    const { fanOut, store } = createFanOut();
    await store.openSession('p');
    await store.addSubscriptions('p', [{ filter: 'a', qos: 1 }]);
    fanOut.start();
    await store.dropSession('p');
    fanOut.sessionExpired('p');
    expect(fanOut.isWanted('a')).toBe(false);
    fanOut.stop();
  });

  it('sends to the others while one subscriber is frozen, and gives that one up (N-03)', async () => {
    vi.useFakeTimers();
    const { fanOut } = createFanOut(undefined, { queueMessagesMax: 100, stuckMs: 5000 });
    fanOut.start();
    const frozen = await connect(fanOut, 'frozen', { filters: ['#'], qos: 0 });
    const well = await connect(fanOut, 'well', { filters: ['#'], qos: 0 });
    frozen.link.isFull = true;
    for (let index = 0; index < 500; index += 1) {
      void fanOut.publish(messageOf('v1/o/d/data', `${index}`, 0));
      await Promise.resolve();
    }
    expect(texts(well.link).length).toBe(500);
    expect(fanOut.gauges.waitingMessages).toBeLessThanOrEqual(100);
    vi.advanceTimersByTime(7000);
    expect(frozen.overflows).toEqual(['stuck_subscriber']);
    expect(well.overflows).toEqual([]);
    expect(fanOut.gauges.waitingMessages + fanOut.gauges.waitingBytes).toBe(0);
    fanOut.stop();
  });

  it('keeps no chunk of a socket alive for a small message in it', async () => {
    const { fanOut } = createFanOut();
    const { subscriber, link } = await connect(fanOut, 'c', { filters: ['a'] });
    link.isFull = true;
    void fanOut.publish(messageOf('a', 'fills'));
    await turn();
    link.read();
    const chunk = Buffer.allocUnsafeSlow(65_536).fill(1);
    void fanOut.publish({ topic: 'a', payload: chunk.subarray(0, 10), qos: 1, retain: false });
    chunk.fill(2);
    link.isFull = false;
    subscriber.drained();
    expect(link.readMessages().map(({ payload }) => payload[0])).toEqual([1]);
  });

  it('shows its counts as metrics', async () => {
    const registry = new Registry();
    const { fanOut, metrics } = createFanOut();
    metrics.register(registry, 1000, () => fanOut.gauges);
    await connect(fanOut, 'c', { filters: ['a'] });
    void fanOut.publish(messageOf('a', '1', 0));
    void fanOut.publish(messageOf('a', '1', 1));
    const text = await registry.metrics();
    expect(text).toContain('puback_broker_sent_messages_total{qos="0"} 1');
    expect(text).toContain('puback_broker_sent_messages_total{qos="1"} 1');
    expect(text).toContain('puback_broker_dropped_messages_total{reason="queue_full"} 0');
    expect(text).toContain('puback_broker_in_flight_messages 1');
    expect(text).toContain('puback_broker_filters 1');
  });
});
