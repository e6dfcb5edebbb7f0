import { decodeMessage, encodeMessage } from './disk-codec.ts';
import type { QueuedRecord } from './disk-queue.ts';

/** A packet as the engine stores it. Fields that are not named here are kept too where it says so. */
export interface EnginePacket {
  readonly cmd?: string;
  readonly topic?: string;
  /** The engine may be given a text and wants it back as one. */
  readonly payload?: Buffer | string;
  readonly qos?: 0 | 1 | 2;
  readonly retain?: boolean;
  readonly dup?: boolean;
  readonly brokerId?: string;
  readonly brokerCounter?: number;
  readonly clientId?: string;
  readonly messageId?: number;
}

/** A stored packet with its place in a queue. */
export interface QueuedPacket {
  readonly sequence: number;
  readonly packet: EnginePacket;
}

const NO_BYTES = Buffer.alloc(0);

/** A record of all fields of a packet. What is not a message's own lies in it as JSON. */
export function encodePacket(packet: EnginePacket): Buffer {
  const { topic = '', payload = NO_BYTES, qos = 0, retain = false, ...rest } = packet;
  const message = { topic, payload: NO_BYTES, qos, retain };
  if (typeof payload === 'string') {
    return encodeMessage(message, Date.now(), JSON.stringify({ ...rest, payload }));
  }
  return encodeMessage({ ...message, payload }, Date.now(), JSON.stringify(rest));
}

/** The packet of a record, also of one without such fields. A packet without topic is no PUBLISH. */
export function decodePacket(record: Buffer): EnginePacket {
  const { topic, payload, qos, retain, extras } = decodeMessage(record);
  const rest = extras === '' ? { cmd: 'publish' } : (JSON.parse(extras) as EnginePacket);
  return topic === '' ? rest : { topic, payload, qos, retain, ...rest };
}

/** What of a PUBLISH is kept in a queue or until PUBREL: the fields of the engine's class Packet. */
export function keptOf(packet: EnginePacket, messageId: number | undefined): EnginePacket {
  return {
    cmd: packet.cmd ?? 'publish',
    brokerId: packet.brokerId ?? '',
    brokerCounter: packet.brokerCounter ?? 0,
    topic: packet.topic ?? '',
    payload: packet.payload ?? NO_BYTES,
    qos: packet.qos ?? 0,
    retain: packet.retain ?? false,
    dup: packet.dup ?? false,
    ...(messageId !== undefined && { messageId }),
  };
}

/** A packet of a queue; a PUBLISH has the identifier under which it was sent, or an undefined one. */
export function toQueuedPacket({ sequence, record, packetId }: QueuedRecord): QueuedPacket {
  const packet = decodePacket(record);
  if (packet.cmd !== 'publish') return { sequence, packet };
  return { sequence, packet: { ...packet, messageId: packetId } as EnginePacket };
}

/**
 * Whether the engine means a queued packet when it names one: messages by the broker's counter, because
 * packet identifiers come round again; a PUBREL by its packet identifier.
 */
export function isMeant(queued: EnginePacket, named: EnginePacket): boolean {
  const isMessage = named.brokerId !== undefined && queued.brokerId === named.brokerId;
  return isMessage
    ? queued.brokerCounter === named.brokerCounter
    : queued.messageId === named.messageId;
}
