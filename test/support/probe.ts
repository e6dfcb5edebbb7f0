import { once } from 'node:events';
import type { IConnackPacket, IConnectPacket, IPublishPacket, Packet } from 'mqtt-packet';
import { openRaw, type RawClient } from './raw-client.ts';

const WAIT_MS = 20_000;
const open = new Set<Probe>();
let lastNumber = 0;

/** A name that no other test of this process uses. */
export function unique(prefix: string): string {
  lastNumber += 1;
  return `${prefix}-${lastNumber}`;
}

/** Closes every connection that was opened since the last call; for `afterEach`. */
export function closeProbes(): void {
  for (const probe of open) probe.drop();
  open.clear();
}

/** How a message is published. */
export interface PublishOptions {
  readonly qos?: 0 | 1 | 2;
  readonly retain?: boolean;
  readonly dup?: boolean;
  readonly messageId?: number;
}

/**
 * A client of which every step is taken by hand: nothing is acknowledged, and nothing pinged, unless the
 * test says so. A wait that takes longer than twenty seconds rejects and names what had come instead.
 */
export class Probe {
  readonly raw: RawClient;
  #lastId = 0;

  private constructor(raw: RawClient) {
    this.raw = raw;
    open.add(this);
  }

  /** Opens the connection and says nothing. */
  static async open(url: string): Promise<Probe> {
    return new Probe(await openRaw(url));
  }

  /** Opens the connection, sends CONNECT and expects CONNACK 0. Clean session, unless `fields` say otherwise. */
  static async connect(url: string, fields: Partial<IConnectPacket> = {}): Promise<Probe> {
    const probe = await Probe.open(url);
    const connack = await probe.login(fields);
    if (connack.returnCode !== 0) throw new Error(`CONNACK ${connack.returnCode}`);
    return probe;
  }

  /** Sends CONNECT. @returns its CONNACK. */
  login(fields: Partial<IConnectPacket> = {}): Promise<IConnackPacket> {
    this.raw.send({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId: unique('probe'),
      clean: true,
      keepalive: 60,
      ...fields,
    });
    return this.take('connack');
  }

  send(...packets: Packet[]): void {
    this.raw.send(...packets);
  }

  sendBytes(...pieces: Uint8Array[]): void {
    this.raw.sendBytes(Buffer.concat(pieces));
  }

  /** The first packet of this kind that has come or comes; others stay for later. */
  async take<C extends NonNullable<Packet['cmd']>>(
    cmd: C,
    waitMs = WAIT_MS,
  ): Promise<Extract<Packet, { cmd: C }>> {
    const { received } = this.raw;
    const isFound = await this.#until(() => received.some((packet) => packet.cmd === cmd), waitMs);
    if (!isFound) {
      const state = this.raw.isClosed() ? 'the connection has ended' : `not within ${waitMs} ms`;
      throw new Error(`no ${cmd}: ${state}; came: ${JSON.stringify(received)}`);
    }
    const at = received.findIndex((packet) => packet.cmd === cmd);
    return received.splice(at, 1)[0] as Extract<Packet, { cmd: C }>;
  }

  /** The next message, with its payload as text. */
  async message(waitMs = WAIT_MS): Promise<Omit<IPublishPacket, 'payload'> & { payload: string }> {
    const packet = await this.take('publish', waitMs);
    return { ...packet, payload: packet.payload.toString() };
  }

  /** Payloads of the next messages, each acknowledged. */
  async messages(count: number): Promise<string[]> {
    const payloads: string[] = [];
    while (payloads.length < count) {
      const { payload, qos, messageId } = await this.message();
      payloads.push(payload);
      if (qos === 1) this.acknowledge(messageId);
    }
    return payloads;
  }

  /** Sends PUBACK of a message at QoS 1. */
  acknowledge(messageId: number | undefined): void {
    this.send({ cmd: 'puback', messageId: messageId ?? 0 });
  }

  /** Subscribes. @returns the return codes of SUBACK. */
  async subscribe(filter: string | readonly string[], qos: 0 | 1 | 2 = 1): Promise<number[]> {
    const filters = typeof filter === 'string' ? [filter] : filter;
    const messageId = this.nextId();
    const subscriptions = filters.map((topic) => ({ topic, qos }));
    this.send({ cmd: 'subscribe', messageId, subscriptions });
    const suback = await this.take('suback');
    if (suback.messageId !== messageId) throw new Error(`SUBACK of ${suback.messageId}`);
    return suback.granted as number[];
  }

  async unsubscribe(...filters: string[]): Promise<void> {
    const messageId = this.nextId();
    this.send({ cmd: 'unsubscribe', messageId, unsubscriptions: filters });
    const unsuback = await this.take('unsuback');
    if (unsuback.messageId !== messageId) throw new Error(`UNSUBACK of ${unsuback.messageId}`);
  }

  /** Publishes and goes through all that its QoS asks for. */
  async publish(topic: string, payload: string, options: PublishOptions = {}): Promise<void> {
    const { qos = 1, retain = false, dup = false, messageId = this.nextId() } = options;
    this.send({ cmd: 'publish', topic, payload, qos, retain, dup, messageId });
    if (qos === 1) await this.take('puback');
    if (qos !== 2) return;
    await this.take('pubrec');
    this.send({ cmd: 'pubrel', messageId });
    await this.take('pubcomp');
  }

  /** A round trip: what was sent before has been read by the broker. */
  async ping(): Promise<void> {
    this.send({ cmd: 'pingreq' });
    await this.take('pingresp');
  }

  /** Resolves when the connection has ended. */
  async closed(waitMs = WAIT_MS): Promise<void> {
    if (await this.#until(() => this.raw.isClosed(), waitMs)) return;
    throw new Error(`still open after ${waitMs} ms; came: ${JSON.stringify(this.raw.received)}`);
  }

  /** Leaves as the standard says. */
  async disconnect(): Promise<void> {
    this.send({ cmd: 'disconnect' });
    await this.closed();
  }

  /** Vanishes. */
  drop(): void {
    open.delete(this);
    this.raw.end();
  }

  nextId(): number {
    this.#lastId += 1;
    return this.#lastId;
  }

  async #until(holds: () => boolean, waitMs: number): Promise<boolean> {
    const timeout = AbortSignal.timeout(waitMs);
    const { socket } = this.raw;
    while (!holds()) {
      if (this.raw.isClosed()) return holds();
      const step = new AbortController();
      const signal = AbortSignal.any([timeout, step.signal]);
      try {
        await Promise.race([once(socket, 'data', { signal }), once(socket, 'close', { signal })]);
      } catch {
        // An error of the socket is followed by its close; the time limit is told from that here.
        if (timeout.aborted) return holds();
      } finally {
        step.abort();
      }
    }
    return true;
  }
}
