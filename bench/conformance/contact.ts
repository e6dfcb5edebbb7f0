import type { Socket } from 'node:net';
import type { IConnectPacket, Packet } from 'mqtt-packet';
import mqttPacket from 'mqtt-packet';
import type { Hello } from '../../firmware-protocol/hello.ts';

/** One connection of the device under test, as far as it has come. */
export interface Contact {
  readonly number: number;
  readonly connect: IConnectPacket;
  /** Of the clock of the run, in ms. */
  readonly openedAtMs: number;
  /** When the device first asked for something under `in/`; null: not yet. */
  subscribedAtMs: number | null;
  /** Whether it asked for its slot, and for its configuration. */
  readsSlot: boolean;
  readsConfiguration: boolean;
  /** Whether it was greeted: from then on it has the time. */
  isGreeted: boolean;
  /** `v1/me` or `v1/{organization}/{device}`: as it spelled its subscription. */
  prefix: string;
  /** All hellos of this connection, put together. */
  hello: Hello | null;
  helloCount: number;
  /** The device said DISCONNECT. */
  hasLeft: boolean;
  /** The run ended it. */
  isCut: boolean;
  endedAtMs: number | null;
}

/** Something that the device under test did. `index` counts them. */
export type Happening =
  | {
      readonly kind: 'connect';
      readonly atMs: number;
      readonly answer: number | 'drop';
      /** It came with the key that the run gave it. */
      readonly hasNewKey: boolean;
    }
  | { readonly kind: 'admitted'; readonly atMs: number; readonly contact: Contact }
  | {
      readonly kind: 'subscribe';
      readonly atMs: number;
      readonly contact: Contact;
      readonly filters: readonly string[];
      /** Filters that a device may not have. */
      readonly refused: readonly string[];
    }
  | {
      readonly kind: 'publish';
      readonly atMs: number;
      readonly contact: Contact;
      readonly topic: string;
      readonly payload: Buffer;
      readonly qos: number;
      readonly isAcknowledged: boolean;
    }
  | { readonly kind: 'ended'; readonly atMs: number; readonly contact: Contact };

/** A socket that speaks packets of MQTT 3.1.1. */
export interface PacketLink {
  send(packet: Packet): void;
  /** Ends it when all is sent. */
  end(): void;
  /** Ends it at once. */
  destroy(): void;
}

/** Longest packet that is read, in bytes, and so what a stranger can make the tool hold. */
const PACKET_BYTES_MAX = 1_048_576;

/** The channel of a topic: what stands behind `v1/me/` or `v1/{organization}/{device}/`. */
export function channelOf(topic: string): string {
  const depth = topic.startsWith('v1/me/') ? 2 : 3;
  return topic.split('/').slice(depth).join('/');
}

/** Cuts a socket into packets. What is no MQTT, or longer than 1 MiB, ends the connection. */
export function openLink(
  socket: Socket,
  onPacket: (packet: Packet, link: PacketLink) => void,
  onEnd: () => void,
): void {
  const parser = mqttPacket.parser({ protocolVersion: 4 });
  const link: PacketLink = {
    send: (packet) => {
      if (!socket.destroyed) socket.write(mqttPacket.generate(packet));
    },
    end: () => socket.end(),
    destroy: () => socket.destroy(),
  };
  socket.setNoDelay(true);
  let unreadBytes = 0;
  parser.on('packet', (packet) => {
    unreadBytes = 0;
    onPacket(packet, link);
  });
  parser.on('error', () => socket.destroy());
  socket.on('data', (bytes: Buffer) => {
    unreadBytes += bytes.length;
    parser.parse(bytes);
    if (unreadBytes > PACKET_BYTES_MAX) socket.destroy();
  });
  socket.on('error', () => socket.destroy());
  socket.once('close', onEnd);
}

/** Why a CONNECT is not that of the device under test; null: it is. */
export function loginFault(
  { protocolVersion, username = '' }: IConnectPacket,
  isKnown: boolean,
): { answer: number; why: string } | null {
  if (protocolVersion !== 4) {
    return { answer: 1, why: `protocol level ${protocolVersion}, which is not MQTT 3.1.1` };
  }
  if (isKnown) return null;
  return { answer: 5, why: `user name "${username.slice(0, 80)}" with another key` };
}

/** A connection that begins. */
export function newContact(number: number, connect: IConnectPacket): Contact {
  return {
    number,
    connect,
    openedAtMs: performance.now(),
    subscribedAtMs: null,
    readsSlot: false,
    readsConfiguration: false,
    isGreeted: false,
    prefix: 'v1/me',
    hello: null,
    helloCount: 0,
    hasLeft: false,
    isCut: false,
    endedAtMs: null,
  };
}

/** What of a filter a device may have, behind `v1/me` or its own tree; null: nothing. */
export function inboxFilter(filter: string): { prefix: string; rest: string | null } {
  const rest = channelOf(filter);
  const isGranted =
    filter.startsWith('v1/') &&
    (rest === 'status' || /^in\/(?:[+#]|[a-z][a-z0-9_.-]*)$/.test(rest));
  return { prefix: filter.slice(0, -rest.length - 1), rest: isGranted ? rest : null };
}
