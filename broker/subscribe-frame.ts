/** A SUBSCRIBE as it came: filters in their order, with the QoS asked for (0 to 2). */
export interface SubscribePacket {
  readonly messageId: number;
  readonly subscriptions: readonly { readonly topic: string; readonly qos: 0 | 1 | 2 }[];
}

/** An UNSUBSCRIBE as it came. */
export interface UnsubscribePacket {
  readonly messageId: number;
  readonly unsubscriptions: readonly string[];
}

/**
 * Reads a SUBSCRIBE. The packet was checked by `frameFault` before.
 * @param bytes holds the packet; its variable header starts at `start`, the packet ends at `end`.
 */
export function readSubscribe(bytes: Buffer, start: number, end: number): SubscribePacket {
  const subscriptions: { topic: string; qos: 0 | 1 | 2 }[] = [];
  for (let at = start + 2; at < end;) {
    const filterEnd = at + 2 + bytes.readUInt16BE(at);
    const topic = bytes.toString('utf8', at + 2, filterEnd);
    subscriptions.push({ topic, qos: bytes[filterEnd] as 0 | 1 | 2 });
    at = filterEnd + 1;
  }
  return { messageId: bytes.readUInt16BE(start), subscriptions };
}

/** Reads an UNSUBSCRIBE; see {@link readSubscribe}. */
export function readUnsubscribe(bytes: Buffer, start: number, end: number): UnsubscribePacket {
  const unsubscriptions: string[] = [];
  for (let at = start + 2; at < end;) {
    const filterEnd = at + 2 + bytes.readUInt16BE(at);
    unsubscriptions.push(bytes.toString('utf8', at + 2, filterEnd));
    at = filterEnd;
  }
  return { messageId: bytes.readUInt16BE(start), unsubscriptions };
}
