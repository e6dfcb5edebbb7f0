import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startOpenBrokerChild, type OpenBrokerChild } from '../support/open-broker-child.ts';
import { closeProbes, Probe } from '../support/probe.ts';
import { publishFrame } from '../support/wire.ts';

let folder: string;
let broker: OpenBrokerChild;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-killed-'));
  broker = await startOpenBrokerChild(folder);
});
afterEach(async () => {
  closeProbes();
  await broker.end('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

const ROUNDS = 4;
const BATCH = 50;
/** In one round; well below the bound of a session's queue. */
const NUMBERS_MAX = 8000;

/**
 * Publishes numbers at QoS 1, each retained on a topic of its own too, until the connection ends.
 * @returns the highest number that was acknowledged.
 */
async function publishUntilEnd(first: number): Promise<number> {
  const publisher = await Probe.connect(broker.url);
  let acknowledged = first - 1;
  const end = first + NUMBERS_MAX;
  for (let number = first; number < end && !publisher.raw.isClosed(); number += BATCH) {
    const frames = Array.from({ length: BATCH }, (_, at) => {
      const text = Buffer.from(String(number + at));
      return [publishFrame(3, `number/${(number + at) % 100}`, at + 1, text)];
    });
    publisher.sendBytes(...frames.flat());
    for (let at = 0; at < BATCH; at += 1) {
      const puback = await publisher.take('puback').catch(() => null);
      if (puback === null) return acknowledged;
      acknowledged = number + at;
    }
  }
  await publisher.raw.closed;
  return acknowledged;
}

it('kill -9 leaves sessions, subscriptions, retained messages and every acknowledged message that was queued', async () => {
  const away = { clientId: 'away', clean: false };
  const here = { clientId: 'here', clean: false };
  for (const fields of [away, here]) {
    const client = await Probe.connect(broker.url, fields);
    await client.subscribe('number/+');
    await client.disconnect();
  }
  let next = 1;
  for (let round = 0; round < ROUNDS; round += 1) {
    // One that is connected and acknowledges nothing, one that is away.
    const reader = await Probe.connect(broker.url, here);
    const publishing = publishUntilEnd(next);
    await new Promise((resolve) => setTimeout(resolve, 200 + 150 * round));
    await broker.end('SIGKILL');
    const acknowledged = await publishing;
    expect(acknowledged).toBeGreaterThan(next);
    reader.drop();
    broker = await startOpenBrokerChild(folder);
    const last = await expectQueued(away, next, acknowledged);
    expect(await expectQueued(here, next, acknowledged)).toBe(last);
    await expectRetained(acknowledged, last);
    next = last + 1;
  }
});

/** The client gets every number from `first` on, in order. @returns the last of them, which may be one that was not acknowledged. */
async function expectQueued(
  fields: { clientId: string; clean: boolean },
  first: number,
  acknowledged: number,
): Promise<number> {
  const client = await Probe.open(broker.url);
  expect(await client.login(fields)).toMatchObject({ returnCode: 0, sessionPresent: true });
  let wanted = first;
  for (;;) {
    const message = await client.message(wanted <= acknowledged ? 20_000 : 1500).catch(() => null);
    if (message === null) break;
    expect(Number(message.payload)).toBe(wanted);
    client.acknowledge(message.messageId);
    wanted += 1;
  }
  expect(wanted).toBeGreaterThan(acknowledged);
  await client.disconnect();
  return wanted - 1;
}

/** Each topic holds the last number that was acknowledged on it, or a later one. */
async function expectRetained(acknowledged: number, last: number): Promise<void> {
  const client = await Probe.connect(broker.url);
  await client.subscribe('number/+');
  for (let count = 0; count < Math.min(100, acknowledged); count += 1) {
    const { topic, payload, retain, messageId } = await client.message();
    client.acknowledge(messageId);
    expect(retain).toBe(true);
    const number = Number(payload);
    expect(topic).toBe(`number/${number % 100}`);
    expect(number).toBeGreaterThan(acknowledged - 100);
    expect(number).toBeLessThanOrEqual(last + BATCH);
  }
  await client.disconnect();
}

it('SIGTERM ends it in order, and nothing is lost', async () => {
  const client = await Probe.connect(broker.url, { clientId: 'kept', clean: false });
  await client.subscribe('a');
  await client.disconnect();
  const publisher = await Probe.connect(broker.url);
  await publisher.publish('a', 'queued', { retain: true });
  expect(await broker.end('SIGTERM')).toBe(0);
  broker = await startOpenBrokerChild(folder);
  const again = await Probe.connect(broker.url, { clientId: 'kept', clean: false });
  expect(await again.messages(1)).toEqual(['queued']);
});
