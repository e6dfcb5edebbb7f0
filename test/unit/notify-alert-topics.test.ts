import fc from 'fast-check';
import { pino } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import { TOPIC_BYTES_MAX } from '../../firmware-protocol/contract.ts';
import { authorizeIntegratorFilter } from '../../firmware-protocol/integrator-topics.ts';
import { readUplinkTopic, topicNameFault } from '../../firmware-protocol/topics.ts';
import { alertTopic, topicWord } from '../../rules/notify/alert-topic.ts';
import type { TopicAlert } from '../../rules/notify/alert-topic-rows.ts';
import { AlertTopics } from '../../rules/notify/alert-topics.ts';
import { MqttSender } from '../../rules/notify/send-mqtt.ts';
import { createTestMessage } from '../../rules/notify/test-message.ts';
import { INACTIVE } from '../../rules/alert/alert.ts';
import type { Transition } from '../../rules/alert/transition.ts';
import { makeMessage, makeReceiver } from '../support/senders.ts';

const TOPIC = 'v1/demo/first/alert/boiler-too-hot';
const parts: AlertTopics[] = [];
afterEach(async () => {
  await Promise.all(parts.splice(0).map((topics) => topics.stop()));
});

/** A broker and a database as far as topics see them. */
class World {
  readonly retainedMessages = new Map<string, string>();
  readonly sent: string[] = [];
  readonly stored = new Map<string, TopicAlert>();
  isAway = false;
  readonly publisher = {
    publishRetained: (topic: string, payload: Buffer) => {
      this.sent.push(`${topic} ${payload.length === 0 ? 'removed' : stateOf(payload)}`);
      if (payload.length === 0) this.retainedMessages.delete(topic);
      else this.retainedMessages.set(topic, payload.toString());
      return Promise.resolve();
    },
    publish: (topic: string, payload: Buffer) => {
      this.sent.push(`${topic} ${stateOf(payload)} once`);
      return Promise.resolve();
    },
    retained: (topic: string) => {
      const payload = this.retainedMessages.get(topic);
      return payload === undefined ? null : Buffer.from(payload);
    },
    retainedTopics: () => this.retainedMessages.keys(),
  };
  readonly rows = {
    byIds: (ids: readonly string[]) => this.#read(({ alert }) => ids.includes(alert.alertId)),
    firing: (after: string | null) =>
      this.#read(({ state, alert }) => state === 'firing' && alert.alertId > (after ?? '')),
  };

  #read(wanted: (alert: TopicAlert) => boolean): Promise<TopicAlert[]> {
    if (this.isAway) return Promise.reject(new Error('away'));
    const found = [...this.stored.values()].filter(wanted);
    return Promise.resolve(found.toSorted((a, b) => (a.alert.alertId < b.alert.alertId ? -1 : 1)));
  }

  set(alertId: string, state: string, change: { rule?: string; severity?: string } = {}): void {
    const [base] = makeMessage().alerts;
    if (base === undefined) return;
    const alert = { ...base, ...change, alertId, state: state === 'firing' ? state : 'resolved' };
    this.stored.set(alertId, { organization: 'demo', groupKey: '', state, alert: alert as never });
  }

  start(): AlertTopics {
    const log = pino({ level: 'silent' });
    const topics = new AlertTopics({ ...this, log, retryMs: 5 });
    parts.push(topics);
    topics.start();
    return topics;
  }
}

function stateOf(payload: Buffer): string {
  const { state, severity } = JSON.parse(payload.toString()) as Record<string, string>;
  return `${state} ${severity}`;
}

function step(alertId: string, change: Partial<Transition> = {}): Transition {
  return {
    ...{ alertId, sequence: 1, organizationId: 1, ruleId: 1, ruleVersion: 1, deviceId: 1 },
    ...{ groupKey: '', atMicros: 0, from: 'inactive', to: 'firing', severity: 'critical' },
    ...{ reason: 'for_elapsed', operands: [], value: 1, state: INACTIVE, occurrences: 1 },
    ...{ labels: {}, annotations: {}, isShadow: false, isHistorical: false },
    ...change,
  } as Transition;
}

describe('the topic of an alert', () => {
  it.each([
    ['boiler too hot', 'boiler-too-hot'],
    ['Boiler: too hot!', 'boiler-too-hot'],
    ['Kühlung zu warm', 'kuhlung-zu-warm'],
    ['a/b+c#d', 'a-b-c-d'],
    ['温度', topicWord('温度', 45)],
  ])('of the rule %s ends in %s', (rule, word) => {
    const names = { organization: 'demo', device: 'first', rule, groupKey: '' };
    expect(alertTopic(names)).toBe(`v1/demo/first/alert/${word}`);
    expect(alertTopic({ ...names, groupKey: 'Zone 3' })).toBe(`v1/demo/first/alert/${word}.zone-3`);
  });

  it('is a topic of 128 bytes at most, which subscribers to alerts get and no device may publish', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 100 }),
        fc.string(),
        (rule, key) => {
          const [organization, device] = ['o'.repeat(24), 'd'.repeat(48)];
          const topic = alertTopic({ organization, device, rule, groupKey: key });
          expect(topicNameFault(topic)).toBeNull();
          expect(Buffer.byteLength(topic)).toBeLessThanOrEqual(TOPIC_BYTES_MAX);
          expect(topic).toMatch(/^v1\/o{24}\/d{48}\/alert\/[a-z0-9.-]+$/);
          expect(readUplinkTopic(topic, { organization, device })).toEqual({ code: 'forbidden' });
          const rights = { organization, scopes: ['alert'] as const, devices: [device] };
          expect(authorizeIntegratorFilter(topic, rights)).toEqual([topic]);
        },
      ),
    );
  });
});

describe('topics of alerts', () => {
  it('say that an alert fires, that it is worse, that it has ended, and are removed', async () => {
    const world = new World();
    const topics = world.start();
    world.set('a1', 'firing');
    topics.changed([step('a1')]);
    await expect.poll(() => world.sent).toEqual([`${TOPIC} firing critical`]);
    world.set('a1', 'firing', { severity: 'high' });
    topics.changed([step('a1', { from: 'firing', reason: 'severity_lowered' })]);
    await expect.poll(() => world.sent.length).toBe(2);
    expect(JSON.parse(world.retainedMessages.get(TOPIC) ?? '')).toMatchObject({ severity: 'high' });
    world.set('a1', 'resolved');
    topics.changed([step('a1', { from: 'firing', to: 'inactive' })]);
    await expect
      .poll(() => world.sent.slice(2))
      .toEqual([`${TOPIC} resolved critical once`, `${TOPIC} removed`]);
    expect(world.retainedMessages.size).toBe(0);
  });

  it('do not follow pending, shadow and historical alerts, nor steps that nobody sees', async () => {
    const world = new World();
    const topics = world.start();
    world.set('a1', 'firing');
    topics.changed([
      step('a1', { to: 'pending' }),
      step('a1', { from: 'pending', to: 'inactive' }),
      step('a1', { isShadow: true }),
      step('a1', { isHistorical: true }),
      step('a1', { from: 'firing', reason: 'condition_cleared' }),
    ]);
    world.set('a2', 'firing', { rule: 'other' });
    topics.changed([step('a2'), step('a2')]);
    await expect.poll(() => world.sent).toContain('v1/demo/first/alert/other firing critical');
    topics.changed([step('a2')]);
    world.set('a3', 'firing', { rule: 'last' });
    topics.changed([step('a3')]);
    await expect.poll(() => world.sent).toContain('v1/demo/first/alert/last firing critical');
    expect(world.sent.filter((line) => line.includes('other'))).toHaveLength(1);
  });

  it('L-03: are made to say what is stored when the program starts', async () => {
    const world = new World();
    world.set('a1', 'firing');
    world.set('a2', 'firing', { rule: 'kept' });
    const first = world.start();
    await expect.poll(() => world.retainedMessages.size).toBe(2);
    await first.stop();
    world.set('a1', 'resolved');
    world.set('a3', 'firing', { rule: 'new' });
    world.sent.length = 0;
    world.start();
    await expect
      .poll(() => world.sent)
      .toEqual(['v1/demo/first/alert/new firing critical', `${TOPIC} removed`]);
    expect([...world.retainedMessages.keys()]).toEqual([
      'v1/demo/first/alert/kept',
      'v1/demo/first/alert/new',
    ]);
  });

  it('are made up for when the database was away', async () => {
    const world = new World();
    const topics = world.start();
    await topics.stop();
    const other = world.start();
    world.isAway = true;
    world.set('a1', 'firing');
    other.changed([step('a1')]);
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(world.sent).toEqual([]);
    world.isAway = false;
    await expect.poll(() => world.sent).toEqual([`${TOPIC} firing critical`]);
  });

  it('are read anew when more has changed than may wait', async () => {
    const world = new World();
    const topics = world.start();
    const one = step('x');
    const many = Array.from({ length: 50_001 }, (_, index) => ({ ...one, alertId: `x${index}` }));
    topics.changed(many);
    world.set('a1', 'firing');
    await expect.poll(() => world.sent).toEqual([`${TOPIC} firing critical`]);
  });

  it('are written together, however long the disk takes for one', async () => {
    const world = new World();
    let waiting = 0;
    let together = 0;
    world.publisher.publishRetained = async (topic: string, payload: Buffer) => {
      waiting += 1;
      together = Math.max(together, waiting);
      await new Promise((resolve) => setTimeout(resolve, 20));
      waiting -= 1;
      world.retainedMessages.set(topic, payload.toString());
    };
    const topics = world.start();
    const ids = Array.from({ length: 400 }, (_, index) => `n${index}`);
    for (const id of ids) world.set(id, 'firing', { rule: id });
    topics.changed(ids.map((id) => step(id)));
    await expect.poll(() => world.retainedMessages.size).toBe(400);
    expect(together).toBe(400);
  });

  it('are tried again when the broker could not take them', async () => {
    const world = new World();
    const { publishRetained } = world.publisher;
    let failures = 0;
    world.publisher.publishRetained = (topic: string, payload: Buffer) => {
      failures -= 1;
      return failures < 0 ? publishRetained(topic, payload) : Promise.reject(new Error('full'));
    };
    const topics = world.start();
    world.set('a0', 'firing', { rule: 'other' });
    topics.changed([step('a0')]);
    await expect.poll(() => world.retainedMessages.size).toBe(1);
    failures = 2;
    world.set('a1', 'firing');
    topics.changed([step('a1')]);
    await expect.poll(() => world.retainedMessages.has(TOPIC)).toBe(true);
    failures = 2;
    world.set('a1', 'resolved');
    topics.changed([step('a1', { from: 'firing', to: 'inactive' })]);
    await expect.poll(() => world.retainedMessages.has(TOPIC)).toBe(false);
    expect(world.retainedMessages.size).toBe(1);
  });

  it('of two rules with one topic say that one fires until both have ended', async () => {
    const world = new World();
    const topics = world.start();
    world.set('a1', 'firing');
    world.set('a2', 'firing', { rule: 'Boiler-too-hot', severity: 'high' });
    topics.changed([step('a1'), step('a2')]);
    await expect.poll(() => world.sent.length).toBe(2);
    world.set('a2', 'resolved', { rule: 'Boiler-too-hot' });
    topics.changed([step('a2', { from: 'firing', to: 'inactive' })]);
    await expect.poll(() => world.sent.length).toBe(4);
    expect(JSON.parse(world.retainedMessages.get(TOPIC) ?? '')).toMatchObject({
      alertId: 'a1',
      state: 'firing',
    });
    world.set('a1', 'resolved');
    topics.changed([step('a1', { from: 'firing', to: 'inactive' })]);
    await expect.poll(() => world.retainedMessages.size).toBe(0);
  });

  it('of a rule that was renamed while it fires are removed all the same', async () => {
    const world = new World();
    const topics = world.start();
    world.set('a1', 'firing');
    topics.changed([step('a1')]);
    await expect.poll(() => world.retainedMessages.size).toBe(1);
    world.set('a1', 'resolved', { rule: 'renamed' });
    topics.changed([step('a1', { from: 'firing', to: 'inactive', reason: 'rule_changed' })]);
    await expect.poll(() => world.retainedMessages.size).toBe(0);
    expect(world.sent.join()).not.toContain('renamed');
  });

  it('of a device that is gone are removed', async () => {
    const world = new World();
    const topics = world.start();
    world.set('a1', 'firing');
    topics.changed([step('a1')]);
    await expect.poll(() => world.retainedMessages.size).toBe(1);
    world.stored.clear();
    topics.changed([step('a1', { from: 'firing', to: 'inactive' })]);
    await expect.poll(() => world.retainedMessages.size).toBe(0);
  });
});

describe('receivers over MQTT', () => {
  const receiver = makeReceiver('mqtt', {}, null);
  const { signal } = new AbortController();

  it('make topics of firing alerts say so once more, and bring none back that has ended', async () => {
    const world = new World();
    const topics = world.start();
    const sender = new MqttSender({ topics, publisher: world.publisher });
    const [alert] = makeMessage().alerts;
    world.set(alert?.alertId ?? '', 'firing');
    topics.changed([step(alert?.alertId ?? '')]);
    await expect.poll(() => world.sent.length).toBe(1);
    expect(await sender.send(receiver, makeMessage(), signal)).toEqual({ ok: true });
    expect(world.sent).toEqual([`${TOPIC} firing critical`, `${TOPIC} firing critical`]);
    world.set(alert?.alertId ?? '', 'resolved');
    expect(await sender.send(receiver, makeMessage(), signal)).toEqual({ ok: true });
    expect(world.sent).toHaveLength(2);
  });

  it('are sent a test that is not kept', async () => {
    const world = new World();
    const sender = new MqttSender({ topics: world.start(), publisher: world.publisher });
    const { notificationId } = makeMessage();
    const message = createTestMessage({ notificationId, organization: 'demo', nowMs: 0 });
    expect(await sender.send(receiver, message, signal)).toEqual({ ok: true });
    expect(world.sent).toEqual(['v1/demo/_/alert/test firing undefined once']);
    expect(world.retainedMessages.size).toBe(0);
  });

  it('wait while the database is away', async () => {
    const world = new World();
    const sender = new MqttSender({ topics: world.start(), publisher: world.publisher });
    world.isAway = true;
    expect(await sender.send(receiver, makeMessage(), signal)).toMatchObject({
      ok: false,
      isRetryable: true,
    });
  });
});
