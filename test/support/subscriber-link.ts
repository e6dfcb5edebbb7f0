import mqttPacket, { type IPublishPacket, type Packet } from 'mqtt-packet';
import { Dispatch, type OutboxLimits } from '../../broker/outgoing/dispatch.ts';
import { FanOutMetrics } from '../../broker/outgoing/fan-out-metrics.ts';
import type { OutgoingMessage } from '../../broker/message.ts';
import type { OutboxLink } from '../../broker/outgoing/outbox.ts';
import { createLog } from '../../log.ts';
import { MemorySessionStore } from './memory-session-store.ts';

/** Bounds that no test trips by accident. */
export const WIDE_LIMITS: OutboxLimits = {
  queueMessagesMax: 1000,
  queueBytesMax: 1_000_000,
  queuesBytesMax: 10_000_000,
  inFlightMax: 64,
  stuckMs: 30_000,
};

/** A connection in the hands of the test: what was written to it, and whether it is full. */
export class TestLink implements OutboxLink {
  readonly writes: Buffer[] = [];
  isFull = false;
  unsentBytes = 0;

  deliver(bytes: Buffer): boolean {
    this.writes.push(bytes);
    if (this.isFull) this.unsentBytes += bytes.length;
    return !this.isFull;
  }

  /** Packets of all that was written since the last call. */
  read(): Packet[] {
    const parser = mqttPacket.parser({ protocolVersion: 4 });
    const packets: Packet[] = [];
    parser.on('packet', (packet) => packets.push(packet));
    parser.parse(Buffer.concat(this.writes.splice(0)));
    return packets;
  }

  /** PUBLISH packets among {@link read}. */
  readMessages(): IPublishPacket[] {
    return this.read().filter((packet) => packet.cmd === 'publish');
  }
}

/** A message with a text. */
export function messageOf(topic: string, text: string, qos: 0 | 1 = 1): OutgoingMessage {
  return { topic, payload: Buffer.from(text), qos, retain: false };
}

/** What outboxes share, over a store in memory. */
export function createDispatch(
  limits: Partial<OutboxLimits> = {},
  store: MemorySessionStore = new MemorySessionStore(),
): Dispatch {
  return new Dispatch({
    store,
    limits: { ...WIDE_LIMITS, ...limits },
    metrics: new FanOutMetrics(),
    isTelemetry: (topic) => topic.endsWith('/data'),
    log: createLog('silent'),
  });
}

/** The end of this turn of the event loop and of what it leads to. */
export async function turn(): Promise<void> {
  await new Promise(setImmediate);
}
