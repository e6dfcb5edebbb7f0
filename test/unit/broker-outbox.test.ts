import fc from 'fast-check';
import mqttPacket from 'mqtt-packet';
import { describe, expect, it } from 'vitest';
import type { Dispatch, OutboxLimits } from '../../broker/outgoing/dispatch.ts';
import { MessageQueue } from '../../broker/outgoing/message-queue.ts';
import { Outbox } from '../../broker/outgoing/outbox.ts';
import {
  encodeSuback,
  encodeUnsuback,
  PublishEncoder,
} from '../../broker/outgoing/publish-frame.ts';
import { MemorySessionStore } from '../support/memory-session-store.ts';
import { createDispatch, messageOf, TestLink, turn } from '../support/subscriber-link.ts';

interface Bench {
  readonly dispatch: Dispatch;
  readonly link: TestLink;
  readonly outbox: Outbox;
  readonly overflows: string[];
}

/** A started outbox of a clean session. */
function openOutbox(limits: Partial<OutboxLimits> = {}): Bench {
  const bench = attachOutbox(createDispatch(limits), null);
  bench.outbox.start();
  return bench;
}

function attachOutbox(
  dispatch: Dispatch,
  storedId: string | null,
  mayRead: (topic: string) => boolean = () => true,
): Bench {
  const link = new TestLink();
  const overflows: string[] = [];
  const outbox = new Outbox(
    dispatch,
    { link, spell: (topic) => topic, onOverflow: (reason) => overflows.push(reason), mayRead },
    storedId,
  );
  return { dispatch, link, outbox, overflows };
}

/** A store with one session, and what outboxes share over it. */
async function storedSession(limits: Partial<OutboxLimits> = {}) {
  const store = new MemorySessionStore();
  await store.openSession('s');
  return { store, dispatch: createDispatch(limits, store) };
}

const texts = (link: TestLink): string[] =>
  link.readMessages().map(({ payload }) => payload.toString());

describe('PublishEncoder', () => {
  it('writes what mqtt-packet reads, of every size [MQTT-2.2.3]', () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-zé/]{1,40}$/),
        fc.constantFrom(0, 1, 100, 120, 127, 128, 16_000, 16_383, 16_384, 200_000, 2_200_000),
        fc.constantFrom(0 as const, 1 as const),
        fc.integer({ min: 1, max: 65_535 }),
        fc.tuple(fc.boolean(), fc.boolean()),
        (topic, payloadBytes, qos, packetId, [retain, isDup]) => {
          const encoder = new PublishEncoder();
          const message = { topic, payload: Buffer.alloc(payloadBytes, 7), qos, retain };
          const frame =
            qos === 0
              ? encoder.encode(message, topic)
              : encoder.encodeNumbered(message, topic, packetId, isDup);
          const bytes = payloadBytes < 16_384 ? frame : Buffer.concat([frame, message.payload]);
          const expected = mqttPacket.generate({
            cmd: 'publish',
            ...message,
            dup: qos === 1 && isDup,
            ...(qos === 1 ? { messageId: packetId } : {}),
          });
          expect(bytes.equals(expected)).toBe(true);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('encodes a message once for all subscribers that spell its topic alike', () => {
    const encoder = new PublishEncoder();
    const message = messageOf('a', 'x', 0);
    expect(encoder.encode(message, 'a')).toBe(encoder.encode(message, 'a'));
    expect(encoder.encode(message, 'b').equals(encoder.encode(message, 'a'))).toBe(false);
  });

  it('writes SUBACK and UNSUBACK as mqtt-packet does', () => {
    const granted = Array.from({ length: 200 }, (_, index) => (index % 3 === 2 ? 0x80 : index % 3));
    const suback = mqttPacket.generate({ cmd: 'suback', messageId: 777, granted });
    expect(encodeSuback(777, granted).equals(suback)).toBe(true);
    const unsuback = mqttPacket.generate({ cmd: 'unsuback', messageId: 778, granted: [] });
    expect(encodeUnsuback(778).equals(unsuback)).toBe(true);
  });
});

describe('MessageQueue', () => {
  it('gives back in order what was put in, and counts its bytes', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 600 }), (steps) => {
        const queue = new MessageQueue();
        const model: string[] = [];
        for (const [index, isPush] of steps.entries()) {
          if (isPush) {
            queue.push(messageOf('t', String(index)));
            model.push(String(index));
          } else if (model.length > 0) {
            expect(queue.shift().payload.toString()).toBe(model.shift());
          }
          expect(queue.length).toBe(model.length);
        }
        while (queue.length > 0) queue.shift();
        expect(queue.bytes).toBe(0);
      }),
    );
  });
});

describe('Outbox of a clean session', () => {
  it('sends nothing before it is started', async () => {
    const { outbox, link } = attachOutbox(createDispatch(), null);
    outbox.offer(messageOf('a', '1', 0), 0);
    outbox.offer(messageOf('a', '2'), 1);
    await turn();
    expect(link.writes).toEqual([]);
    outbox.start();
    expect(texts(link).toSorted()).toEqual(['1', '2']);
  });

  it('sends the messages of one turn in one write', async () => {
    const { outbox, link } = openOutbox();
    for (let index = 0; index < 20; index += 1) outbox.offer(messageOf('a', `${index}`, 0), 0);
    await turn();
    expect(link.writes.length).toBe(1);
    expect(texts(link)).toEqual(Array.from({ length: 20 }, (_, index) => `${index}`));
  });

  it('writes a large payload as it is, behind its header', async () => {
    const { outbox, link } = openOutbox();
    const large = { ...messageOf('a', ''), payload: Buffer.alloc(100_000, 1) };
    outbox.offer(messageOf('a', 'before'), 1);
    outbox.offer(large, 1);
    outbox.offer(messageOf('a', 'behind'), 1);
    await turn();
    expect(link.writes).toContain(large.payload);
    expect(link.readMessages().map(({ payload }) => payload.length)).toEqual([6, 100_000, 6]);
  });

  it('keeps at most inFlightMax messages without PUBACK, and passes QoS 0 by them', async () => {
    const { outbox, link, dispatch } = openOutbox({ inFlightMax: 2 });
    for (const text of ['1', '2', '3', '4']) outbox.offer(messageOf('a', text), 1);
    outbox.offer(messageOf('a', 'zero', 0), 0);
    await turn();
    const sent = link.readMessages();
    expect(sent.map(({ payload }) => payload.toString())).toEqual(['1', '2', 'zero']);
    expect(dispatch.inFlightMessages).toBe(2);
    outbox.acknowledge(sent[1]?.messageId ?? 0);
    await turn();
    expect(texts(link)).toEqual(['3']);
  });

  it('sends what waits before what comes in the turn of a PUBACK', async () => {
    const { outbox, link } = openOutbox({ inFlightMax: 1 });
    outbox.offer(messageOf('a', '1'), 1);
    outbox.offer(messageOf('a', '2'), 1);
    await turn();
    outbox.acknowledge(link.readMessages()[0]?.messageId ?? 0);
    outbox.offer(messageOf('a', '3'), 1);
    await turn();
    expect(texts(link)).toEqual(['2']);
  });

  it('ignores a PUBACK for an identifier that is not in use', async () => {
    const { outbox, link } = openOutbox({ inFlightMax: 1 });
    outbox.offer(messageOf('a', '1'), 1);
    outbox.offer(messageOf('a', '2'), 1);
    await turn();
    const [first] = link.readMessages();
    outbox.acknowledge((first?.messageId ?? 0) + 1);
    await turn();
    expect(texts(link)).toEqual([]);
    expect(outbox.inFlightMessages).toBe(1);
  });

  it('uses an identifier again only after its PUBACK [MQTT-2.3.1-4]', async () => {
    const { outbox, link } = openOutbox({ inFlightMax: 10 });
    outbox.offer(messageOf('a', 'held'), 1);
    await turn();
    const held = link.readMessages()[0]?.messageId;
    for (let index = 0; index < 70_000; index += 1) {
      outbox.offer(messageOf('a', ''), 1);
      // The identifiers go up by one, round and round, past the one that is held.
      outbox.acknowledge((index % 65_534) + 2);
    }
    expect(outbox.inFlightMessages).toBe(1);
    await turn();
    expect(link.readMessages().some(({ messageId }) => messageId === held)).toBe(false);
  });

  it('drops QoS 0 beyond the bound of messages, counted (N-02)', async () => {
    const { outbox, link, dispatch } = openOutbox({ queueMessagesMax: 10 });
    link.isFull = true;
    outbox.offer(messageOf('a', 'fills', 0), 0);
    await turn();
    const taken = Array.from({ length: 15 }, (_, index) =>
      outbox.offer(messageOf('a', `${index}`, 0), 0),
    );
    expect(taken.filter((is) => is).length).toBe(10);
    expect(dispatch.metrics.dropped.queue_full).toBe(5);
    link.isFull = false;
    outbox.drained();
    expect(texts(link).length).toBe(11);
    expect(dispatch.waitingMessages).toBe(0);
    expect(dispatch.waitingBytes).toBe(0);
  });

  it('drops QoS 0 beyond the bounds of bytes, its own and that of all', async () => {
    for (const limits of [{ queueBytesMax: 5000 }, { queuesBytesMax: 5000 }]) {
      const { outbox, link, dispatch } = openOutbox(limits);
      link.isFull = true;
      outbox.offer(messageOf('a', 'fills', 0), 0);
      await turn();
      for (let index = 0; index < 10; index += 1) {
        outbox.offer(messageOf('a', 'x'.repeat(1000), 0), 0);
      }
      expect(outbox.waitingMessages).toBe(4);
      expect(dispatch.metrics.dropped.queue_full).toBe(6);
    }
  });

  it('gives up the subscriber when QoS 1 goes beyond the bound (N-03)', async () => {
    const { outbox, link, overflows, dispatch } = openOutbox({ queueMessagesMax: 3 });
    link.isFull = true;
    outbox.offer(messageOf('a', 'fills', 0), 0);
    await turn();
    for (let index = 0; index < 5; index += 1) outbox.offer(messageOf('a', `${index}`), 1);
    expect(overflows).toEqual(['slow_subscriber']);
    expect(outbox.isClosed).toBe(true);
    expect(dispatch.waitingMessages + dispatch.waitingBytes + dispatch.inFlightMessages).toBe(0);
  });

  it('keeps room for alerts, commands and status when telemetry fills the queue', async () => {
    const { outbox, link } = openOutbox({ queueMessagesMax: 10 });
    link.isFull = true;
    outbox.offer(messageOf('a', 'fills', 0), 0);
    await turn();
    for (let index = 0; index < 20; index += 1) outbox.offer(messageOf('v1/o/d/data', '', 0), 0);
    expect(outbox.waitingMessages).toBe(8);
    expect(outbox.offer(messageOf('v1/o/d/alert', '', 0), 0)).toBe(true);
    expect(outbox.offer(messageOf('v1/o/d/cmd', '', 1), 1)).toBe(true);
    expect(outbox.offer(messageOf('v1/o/d/cmd', '', 0), 0)).toBe(false);
  });

  it('gives up a connection that takes nothing for stuckMs, and none that goes on slowly', async () => {
    const { outbox, link, overflows, dispatch } = openOutbox({ stuckMs: 1000 });
    const now = performance.now();
    dispatch.checkStuck(now + 10_000);
    link.isFull = true;
    outbox.offer(messageOf('a', 'x'.repeat(100), 0), 0);
    await turn();
    dispatch.checkStuck(now + 900);
    link.unsentBytes -= 10;
    dispatch.checkStuck(now + 1500);
    dispatch.checkStuck(now + 2400);
    expect(overflows).toEqual([]);
    dispatch.checkStuck(now + 2600);
    dispatch.checkStuck(now + 9000);
    expect(overflows).toEqual(['stuck_subscriber']);
  });

  it('is not watched any more once the connection takes bytes again', async () => {
    const { outbox, link, overflows, dispatch } = openOutbox({ stuckMs: 1000 });
    link.isFull = true;
    outbox.offer(messageOf('a', 'x', 0), 0);
    await turn();
    link.isFull = false;
    outbox.drained();
    dispatch.checkStuck(performance.now() + 60_000);
    expect(overflows).toEqual([]);
  });

  it('is silent once it is closed', async () => {
    const { outbox, link } = openOutbox();
    outbox.offer(messageOf('a', '1'), 1);
    outbox.close();
    outbox.offer(messageOf('a', '2', 0), 0);
    outbox.answer(Buffer.from([0xd0, 0]));
    outbox.drained();
    outbox.start();
    await turn();
    expect(link.writes).toEqual([]);
  });

  it('keeps order, window and bounds, loses nothing below them, whatever happens', async () => {
    const step = fc.oneof(
      { weight: 5, arbitrary: fc.record({ do: fc.constant('offer'), qos: fc.constantFrom(0, 1) }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('ack'), qos: fc.nat({ max: 5 }) }) },
      {
        weight: 2,
        arbitrary: fc.record({ do: fc.constantFrom('full', 'drain', 'wrong') }),
      },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('turn') }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('big', 'close') }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 120 }), async (steps) => {
        const bench = openOutbox({ inFlightMax: 3, queueMessagesMax: 6 });
        const { outbox, link, dispatch, overflows } = bench;
        const kept: string[][] = [[], []];
        const got: string[][] = [[], []];
        let unacknowledged: number[] = [];
        const receive = () => {
          for (const { qos, payload, messageId = 0 } of link.readMessages()) {
            got[qos]?.push(payload.toString().slice(0, 5));
            if (qos === 0) continue;
            expect(unacknowledged).not.toContain(messageId);
            unacknowledged.push(messageId);
          }
          expect(unacknowledged.length).toBeLessThanOrEqual(3);
          expect(outbox.waitingMessages).toBeLessThanOrEqual(6);
        };
        for (const [index, one] of steps.entries()) {
          const qos = ('qos' in one ? one.qos : 1) as 0 | 1;
          const text = String(index).padEnd(one.do === 'big' ? 20_000 : 5, ' ');
          if (one.do === 'offer' || one.do === 'big') {
            if (outbox.offer(messageOf('a', text, 1), qos)) kept[qos]?.push(text.slice(0, 5));
          } else if (one.do === 'ack') {
            receive();
            const [packetId = 0] = unacknowledged.splice(qos % (unacknowledged.length || 1), 1);
            outbox.acknowledge(packetId);
          } else if (one.do === 'wrong') outbox.acknowledge(60_000);
          else if (one.do === 'full') link.isFull = true;
          else if (one.do === 'turn') await turn();
          else if (one.do === 'drain') {
            link.isFull = false;
            link.unsentBytes = 0;
            outbox.drained();
          } else if (index % 7 === 0) outbox.close();
          receive();
        }
        link.isFull = false;
        for (let round = 0; round < 60; round += 1) {
          outbox.drained();
          await turn();
          receive();
          for (const packetId of unacknowledged) outbox.acknowledge(packetId);
          unacknowledged = [];
        }
        const isWhole = !outbox.isClosed;
        for (const qos of [0, 1]) {
          const expected = kept[qos] ?? [];
          expect(got[qos]).toEqual(isWhole ? expected : expected.slice(0, got[qos]?.length));
        }
        expect(overflows.length).toBeLessThanOrEqual(1);
        expect(dispatch.waitingMessages).toBe(0);
        expect(dispatch.waitingBytes).toBe(0);
        expect(dispatch.inFlightMessages).toBe(0);
      }),
      { numRuns: 150 },
    );
  });
});

describe('Outbox of a persistent session', () => {
  it('holds no message at QoS 1 in memory and sends from the store as there is room', async () => {
    const { store, dispatch } = await storedSession({ inFlightMax: 4 });
    const { outbox, link } = attachOutbox(dispatch, 's');
    outbox.start();
    for (let index = 0; index < 100; index += 1) {
      void store.enqueue(['s'], messageOf('a', `${index}`));
      outbox.wake();
    }
    await turn();
    expect(outbox.waitingMessages).toBe(0);
    const got: string[] = [];
    for (let round = 0; round < 25; round += 1) {
      const sent = link.readMessages();
      expect(sent.length).toBe(4);
      got.push(...sent.map(({ payload }) => payload.toString()));
      for (const { messageId = 0 } of sent) outbox.acknowledge(messageId);
      await turn();
    }
    expect(got).toEqual(Array.from({ length: 100 }, (_, index) => `${index}`));
    expect(store.queueSize('s').messages).toBe(0);
  });

  it('sends first what was sent before, with DUP and its old identifier, then the rest in order [MQTT-4.4.0-1, MQTT-3.3.1-1, MQTT-4.6.0-6]', async () => {
    const { store, dispatch } = await storedSession({ inFlightMax: 3 });
    for (let index = 0; index < 6; index += 1) {
      await store.enqueue(['s'], messageOf('a', `${index}`));
    }
    const first = attachOutbox(dispatch, 's');
    first.outbox.start();
    const sent = first.link.readMessages();
    expect(sent.map(({ dup }) => dup)).toEqual([false, false, false]);
    first.outbox.acknowledge(sent[1]?.messageId ?? 0);
    first.outbox.close();
    const second = attachOutbox(dispatch, 's');
    second.outbox.start();
    const again = second.link.readMessages();
    expect(again.map(({ payload, dup }) => [payload.toString(), dup])).toEqual([
      ['0', true],
      ['2', true],
      ['3', false],
    ]);
    expect(again.slice(0, 2).map(({ messageId }) => messageId)).toEqual([
      sent[0]?.messageId,
      sent[2]?.messageId,
    ]);
    expect(new Set(again.map(({ messageId }) => messageId)).size).toBe(3);
    for (const { messageId = 0 } of again) second.outbox.acknowledge(messageId);
    await turn();
    expect(texts(second.link)).toEqual(['4', '5']);
  });

  it('does not send to a client what it has lost the right to read', async () => {
    const { store, dispatch } = await storedSession();
    await store.enqueue(['s'], messageOf('secret', '1'));
    await store.enqueue(['s'], messageOf('own', '2'));
    const { outbox, link } = attachOutbox(dispatch, 's', (topic) => topic === 'own');
    outbox.start();
    expect(texts(link)).toEqual(['2']);
    expect(dispatch.metrics.dropped.not_granted).toBe(1);
    expect(store.queueSize('s').messages).toBe(1);
  });

  it('asks for no right again once it has caught up: the table has matched', async () => {
    const { store, dispatch } = await storedSession();
    const { outbox, link } = attachOutbox(dispatch, 's', () => false);
    outbox.start();
    await store.enqueue(['s'], messageOf('own', '1'));
    outbox.wake();
    await turn();
    expect(texts(link)).toEqual(['1']);
  });

  it('stops within a page when the connection is full', async () => {
    const { store, dispatch } = await storedSession();
    for (let index = 0; index < 10; index += 1) {
      await store.enqueue(['s'], messageOf('a', `${index}`.repeat(20_000)));
    }
    const { outbox, link } = attachOutbox(dispatch, 's');
    link.isFull = true;
    outbox.start();
    expect(link.readMessages().length).toBe(1);
    expect(outbox.inFlightMessages).toBe(1);
    link.isFull = false;
    outbox.drained();
    expect(link.readMessages().length).toBe(9);
  });

  it('lets QoS 0 wait in memory within the bounds, as any other', async () => {
    const { dispatch } = await storedSession({ queueMessagesMax: 2 });
    const { outbox, link } = attachOutbox(dispatch, 's');
    outbox.start();
    link.isFull = true;
    for (let index = 0; index < 5; index += 1) {
      outbox.offer(messageOf('a', `${index}`, 0), 0);
      await turn();
    }
    link.isFull = false;
    outbox.drained();
    expect(texts(link)).toEqual(['0', '1', '2']);
  });

  it('loses nothing and keeps order over any connections, fullness and acknowledgements', async () => {
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.constant('enqueue') },
      { weight: 3, arbitrary: fc.constantFrom('ack first', 'ack last') },
      { weight: 2, arbitrary: fc.constantFrom('full', 'drain', 'turn') },
      { weight: 1, arbitrary: fc.constant('reconnect') },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 100 }), async (steps) => {
        const { store, dispatch } = await storedSession({ inFlightMax: 3 });
        let bench = attachOutbox(dispatch, 's');
        bench.outbox.start();
        let offered = 0;
        /** Identifier by text of what has no PUBACK, over all connections. */
        const open = new Map<string, number>();
        const done = new Set<string>();
        let newest = -1;
        let inConnection = new Map<number, string>();
        const receive = () => {
          for (const { payload, messageId = 0, dup } of bench.link.readMessages()) {
            const text = payload.toString();
            expect(done.has(text)).toBe(false);
            expect(inConnection.has(messageId)).toBe(false);
            if (open.has(text)) expect([dup, messageId]).toEqual([true, open.get(text)]);
            else {
              expect([dup, Number(text)]).toEqual([false, newest + 1]);
              newest += 1;
            }
            open.set(text, messageId);
            inConnection.set(messageId, text);
          }
          expect(inConnection.size).toBeLessThanOrEqual(3);
        };
        const acknowledge = (packetId: number) => {
          const text = inConnection.get(packetId);
          inConnection.delete(packetId);
          bench.outbox.acknowledge(packetId);
          if (text === undefined) return;
          open.delete(text);
          done.add(text);
        };
        for (const one of steps) {
          if (one === 'enqueue') {
            void store.enqueue(['s'], messageOf('a', `${offered}`));
            bench.outbox.wake();
            offered += 1;
          } else if (one === 'ack first') acknowledge([...inConnection.keys()][0] ?? 0);
          else if (one === 'ack last') acknowledge([...inConnection.keys()].at(-1) ?? 0);
          else if (one === 'full') bench.link.isFull = true;
          else if (one === 'turn') await turn();
          else {
            if (one === 'reconnect') {
              receive();
              bench.outbox.close();
              inConnection = new Map();
              bench = attachOutbox(dispatch, 's');
              bench.outbox.start();
            }
            bench.link.isFull = false;
            bench.outbox.drained();
          }
          receive();
        }
        bench.link.isFull = false;
        for (let round = 0; round < 60; round += 1) {
          bench.outbox.drained();
          await turn();
          receive();
          for (const packetId of inConnection.keys()) acknowledge(packetId);
        }
        expect(done.size).toBe(offered);
        expect(store.queueSize('s').messages).toBe(0);
      }),
      { numRuns: 150 },
    );
  });
});
