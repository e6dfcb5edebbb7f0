import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { IConnectPacket, IPublishPacket, ISubscribePacket, Packet } from 'mqtt-packet';
import { decodeHello } from '../../firmware-protocol/hello.ts';
import { Refusal, RETAINED_INBOX_TOPICS } from '../../firmware-protocol/contract.ts';
import {
  channelOf,
  inboxFilter,
  loginFault,
  newContact,
  openLink,
  type Contact,
  type Happening,
  type PacketLink,
} from './contact.ts';
import type { Certificate } from './certificate.ts';
import { DeviceRecord } from './device-record.ts';
import { handshakeFault, isClientHello } from './handshake.ts';

/** Where the platform listens and whom it lets in. */
export interface PlatformOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** The key of the device under test. */
  readonly key: string;
  /** Shown to clients, which then have to speak TLS 1.2 or newer; null: MQTT without TLS. */
  readonly tls: Certificate | null;
  /** Ends the run: all that waits rejects with `TimeOver`. */
  readonly over: AbortSignal;
  /** Told when a client is refused that is not the device under test, or speaks otherwise. */
  readonly onStranger: (why: string) => void;
}

const GREETING_DELAY_MS = 20;
/** Most connections at once, strangers included. */
const SOCKETS_MAX = 32;
/** Longest TLS handshake: slow boards take some seconds. */
const HANDSHAKE_MS = 30_000;

/**
 * A platform as a device sees it, in one process and for one device: it takes CONNECT, grants, greets,
 * acknowledges, keeps a slot and a configuration. What it does can be changed from one moment to the next:
 * refuse, hold acknowledgements back, cut. It writes down what the device does.
 */
export class Platform {
  /** What the next CONNECT is answered: 0 lets it in, `drop` closes without an answer. */
  admission: (hasNewKey: boolean) => number | 'drop' = () => 0;
  /** A key that the device was given, which is as good as its own. */
  newKey: string | null = null;
  /** PUBACKs of telemetry are held back. */
  holdsTelemetry = false;
  /** What the greeting says of commands and configuration. */
  waitingCommands = 0;
  configurationVersion = 0;
  /** Why the last client was refused that is not the device under test, or speaks otherwise. */
  refusal: string | null = null;
  /** Connections that the device ended itself while a command stood in its slot unanswered. */
  readonly leftWithCommand: Contact[] = [];
  readonly #options: PlatformOptions;
  readonly #record: DeviceRecord;
  readonly #retained = new Map<string, Buffer>();
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  #current: { readonly contact: Contact; readonly link: PacketLink } | null = null;
  #contacts = 0;
  #packetId = 0;
  /** A command stands in the slot, and nothing was said on `ack` since. */
  #isCommandOpen = false;

  constructor(options: PlatformOptions) {
    this.#options = options;
    this.#record = new DeviceRecord(options.over, () => this.#current !== null);
  }

  /** What the device did, in order. */
  get happenings(): readonly Happening[] {
    return this.#record.happenings;
  }

  /** Listens. @returns the port. */
  async start(): Promise<number> {
    const { host, port, tls } = this.#options;
    const server =
      tls === null ? createServer() : createTlsServer({ ...tls, handshakeTimeout: HANDSHAKE_MS });
    this.#server = server;
    server.on('connection', (socket: Socket) => this.#hold(socket));
    server.on(tls === null ? 'connection' : 'secureConnection', (socket: Socket) => {
      this.#accept(socket);
    });
    server.on('tlsClientError', (error: Error) => this.#refuse(handshakeFault(error)));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    return (server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => {
      if (this.#server === null) resolve();
      else this.#server.close(() => resolve());
    });
  }

  /** The connection of the device, if it is let in and not over. */
  get contact(): Contact | null {
    return this.#current?.contact ?? null;
  }

  /** Whether keys may be sent. */
  get isSecure(): boolean {
    return this.#options.tls !== null;
  }

  /** Whether the device has been there, and never asked for its slot. */
  get hasNoInbox(): boolean {
    return !this.happenings.some((one) => one.kind === 'subscribe' && one.contact.readsSlot);
  }

  /** Sets what is retained under `in/cmd` or `in/cfg`, and sends it. No bytes: nothing is retained. */
  retain(topic: (typeof RETAINED_INBOX_TOPICS)[number], payload: Buffer): void {
    if (payload.length === 0) this.#retained.delete(topic);
    else this.#retained.set(topic, payload);
    if (topic === 'in/cmd') this.#isCommandOpen = payload.length > 0;
    const { contact } = this;
    if (contact === null) return;
    if (topic === 'in/cmd' ? contact.readsSlot : contact.readsConfiguration) {
      this.send(topic, payload, 1);
    }
  }

  /** Sends to the connection of the device, in its spelling; nothing when it has none. */
  send(topic: string, payload: Buffer, qos: 0 | 1 = 0, retain = false): void {
    if (this.#current === null) return;
    const { contact, link } = this.#current;
    this.#packetId = (this.#packetId % 65_535) + 1;
    link.send({
      cmd: 'publish',
      topic: `${contact.prefix}/${topic}`,
      payload,
      qos,
      retain,
      dup: false,
      ...(qos === 0 ? {} : { messageId: this.#packetId }),
    });
  }

  /** Ends the connection of the device without a word. */
  cut(): void {
    if (this.#current === null) return;
    this.#current.contact.isCut = true;
    this.#current.link.destroy();
  }

  /**
   * Waits for something that the device does, from a place in `happenings` on.
   * @param match gives null for what is not meant.
   * @param connectedMs how long to wait; only time in which the device is connected counts.
   * @returns null when that time is over.
   * @throws {TimeOver} when the run is over.
   */
  waitFor<T>(
    match: (happening: Happening) => T | null,
    from: number,
    connectedMs: number,
  ): Promise<T | null> {
    return this.#record.waitFor(match, from, connectedMs);
  }

  /** Waits so long, whatever happens. @throws {TimeOver} */
  rest(ms: number): Promise<void> {
    return this.#record.rest(ms);
  }

  #hold(socket: Socket): void {
    if (this.#sockets.size >= SOCKETS_MAX) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  #accept(socket: Socket): void {
    let contact: Contact | null = null;
    socket.once('data', (bytes: Buffer) => {
      if (isClientHello(bytes)) this.#refuse('it speaks TLS, and this is MQTT without: --tls');
    });
    openLink(
      socket,
      (packet, link) => {
        if (contact !== null) this.#receive(packet, contact, link);
        else if (packet.cmd === 'connect') contact = this.#login(packet, link);
        else link.destroy();
      },
      () => {
        if (contact !== null) this.#end(contact);
      },
    );
  }

  #login(packet: IConnectPacket, link: PacketLink): Contact | null {
    const { key } = this.#options;
    const password = packet.password?.toString() ?? '';
    const given = password === '' ? (packet.username ?? '') : password;
    const hasNewKey = given === this.newKey;
    const fault = loginFault(packet, given === key || hasNewKey);
    if (fault !== null) this.#refuse(fault.why);
    const answer = fault?.answer ?? this.admission(hasNewKey);
    const atMs = performance.now();
    if (fault === null) this.#record.note({ kind: 'connect', atMs, answer, hasNewKey });
    if (answer !== 'drop') link.send({ cmd: 'connack', returnCode: answer, sessionPresent: false });
    if (answer !== 0) {
      link.end();
      return null;
    }
    // A new connection takes the place of the old one.
    this.cut();
    const contact = newContact((this.#contacts += 1), packet);
    this.#current = { contact, link };
    this.#record.note({ kind: 'admitted', atMs: contact.openedAtMs, contact });
    return contact;
  }

  #refuse(why: string): void {
    this.refusal = why;
    this.#options.onStranger(why);
  }

  #end(contact: Contact): void {
    contact.endedAtMs = performance.now();
    if (this.#current?.contact === contact) this.#current = null;
    if (contact.hasLeft && this.#isCommandOpen) this.leftWithCommand.push(contact);
    this.#record.note({ kind: 'ended', atMs: contact.endedAtMs, contact });
  }

  #receive(packet: Packet, contact: Contact, link: PacketLink): void {
    const messageId = packet.messageId ?? 0;
    switch (packet.cmd) {
      case 'publish':
        this.#take(packet, contact, link);
        break;
      case 'subscribe':
        this.#subscribe(packet, contact, link);
        break;
      case 'unsubscribe':
        link.send({ cmd: 'unsuback', messageId, granted: [] });
        break;
      case 'pubrel':
        link.send({ cmd: 'pubcomp', messageId });
        break;
      case 'pingreq':
        link.send({ cmd: 'pingresp' });
        break;
      case 'disconnect':
        contact.hasLeft = true;
        break;
      default:
    }
  }

  #subscribe(packet: ISubscribePacket, contact: Contact, link: PacketLink): void {
    const asked = packet.subscriptions.map(({ topic, qos }) => ({ qos, ...inboxFilter(topic) }));
    const granted = asked.map(({ rest, qos }) => (rest === null ? 128 : Math.min(qos, 1)));
    link.send({ cmd: 'suback', messageId: packet.messageId ?? 0, granted });
    const retained = RETAINED_INBOX_TOPICS.filter((topic) =>
      asked.some(({ rest }) => rest === topic || rest === 'in/+' || rest === 'in/#'),
    );
    contact.readsSlot ||= retained.includes('in/cmd');
    contact.readsConfiguration ||= retained.includes('in/cfg');
    contact.prefix = asked.find(({ rest }) => rest !== null)?.prefix ?? contact.prefix;
    const atMs = performance.now();
    if (asked.some(({ rest }) => rest?.startsWith('in/') === true)) contact.subscribedAtMs ??= atMs;
    for (const topic of retained) {
      const payload = this.#retained.get(topic);
      if (payload !== undefined) this.send(topic, payload, 1, true);
    }
    this.#greetSoon(contact);
    const filters = packet.subscriptions.map(({ topic }) => topic);
    const refused = filters.filter((_, index) => granted[index] === 128);
    this.#record.note({ kind: 'subscribe', atMs, contact, filters, refused });
  }

  #take(packet: IPublishPacket, contact: Contact, link: PacketLink): void {
    const { topic, qos, messageId = 0 } = packet;
    const payload = Buffer.from(packet.payload);
    const channel = channelOf(topic);
    const isTelemetry = /^(?:data|senml|event)(?:\/|$)/.test(channel);
    const isAcknowledged = !(isTelemetry && this.holdsTelemetry) && qos > 0;
    if (isAcknowledged) link.send({ cmd: qos === 1 ? 'puback' : 'pubrec', messageId });
    if (channel === 'ack') this.#isCommandOpen = false;
    if (channel === 'hello') this.#hear(payload, contact);
    const atMs = performance.now();
    this.#record.note({ kind: 'publish', atMs, contact, topic, payload, qos, isAcknowledged });
  }

  #hear(payload: Buffer, contact: Contact): void {
    const hello = decodeHello(payload);
    contact.helloCount += 1;
    if (!(hello instanceof Refusal)) contact.hello = { ...contact.hello, ...hello };
    this.#greetSoon(contact);
  }

  #greetSoon(contact: Contact): void {
    setTimeout(() => {
      if (this.contact !== contact) return;
      const { up } = contact.hello ?? {};
      const greeting = {
        ts: Date.now(),
        ...(up === undefined ? {} : { up }),
        cmd: this.waitingCommands,
        cfg: this.configurationVersion,
      };
      this.send('in/hello', Buffer.from(JSON.stringify(greeting)));
      contact.isGreeted = true;
    }, GREETING_DELAY_MS);
  }
}
