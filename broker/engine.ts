import type { Duplex } from 'node:stream';
import type { IncomingMessage } from 'node:http';
import { Aedes, type AedesOptions, type Client, type PublishPacket } from 'aedes';
import mqemitter from 'mqemitter';
import type { Packet } from 'mqtt-packet';
import type { Session } from './session.ts';

/** A client of the engine with what the wrapper keeps on it. */
export type EngineClient = Client & {
  /** Set once the device is authenticated. */
  session?: Session;
  will: PublishPacket | null;
  /** Identifiers of QoS 2 messages whose PUBREL has not come. */
  readonly _inboundInflight: ReadonlySet<number>;
  /** Stops reading from the connection. */
  pause(): void;
};

/** The inside of an Aedes client that the wrapper mends; pinned with the version of Aedes. */
interface ClientInternals {
  _parser: {
    prependListener(event: 'packet', listener: (packet: Packet) => void): void;
  };
}

/** The list of clients by identifier, as Aedes keeps it. */
interface ClientList {
  readonly clients: Readonly<Record<string, Client>>;
  _finishRegisterClient(client: Client): void;
  unregisterClient(client: Client): void;
}

/** What the rest of `broker/` gives to the engine. */
export type EngineHooks = Required<
  Pick<
    AedesOptions,
    'preConnect' | 'authenticate' | 'authorizePublish' | 'authorizeSubscribe' | 'authorizeForward'
  >
>;

/**
 * Aedes 1.2.0 with what it gets wrong mended; the only user of `aedes`. Numbers are those of the table
 * in `docs/adr/0004-aedes-behind-one-wrapper.md`.
 */
export class Engine extends Aedes {
  constructor(hooks: EngineHooks, connectDeadlineMs: number) {
    super({
      ...hooks,
      // (2) A bound on parallel deliveries ends in a recursion that overflows the stack.
      mq: mqemitter({ concurrency: 0, matchEmptyLevels: true }),
      connectTimeout: connectDeadlineMs,
      maxTopicLevels: 8,
    });
    this.#sealPublish();
    this.#checkIdentities();
  }

  /** Hands a connection over. The engine closes it when the client breaks the protocol. */
  accept(connection: Duplex, request?: IncomingMessage): EngineClient {
    const client = this.handle(connection, request as IncomingMessage) as EngineClient;
    const internals = client as unknown as ClientInternals;
    internals._parser.prependListener('packet', capGrantedQos);
    // (1) The duplicate filter drops live messages that overtake each other. Its memory stays empty.
    Object.defineProperty(client, 'duplicates', { value: NEVER_SEEN });
    return client;
  }

  /**
   * (7) A connection that dies in its handshake must neither take the place of the live one with the
   * same identifier nor strike it off the list.
   */
  #checkIdentities(): void {
    const list = this as unknown as ClientList;
    const add = list._finishRegisterClient.bind(this);
    const remove = list.unregisterClient.bind(this);
    list._finishRegisterClient = (client) => {
      if (!client.closed) add(client);
    };
    list.unregisterClient = (client) => {
      if (list.clients[client.id] === client) remove(client);
    };
  }

  /**
   * What devices publish ends at ingest, so nothing of it is fanned out. (11) Of the engine's own
   * topics only the heartbeat is needed, which its bookkeeping of wills listens to.
   */
  #sealPublish(): void {
    const publish = this.publish.bind(this) as PublishFunction;
    const sealed: PublishFunction = (packet, client, done) => {
      const callback = typeof client === 'function' ? client : (done ?? ignoreOutcome);
      const isFromDevice = typeof client === 'object' && client !== null;
      const isNoise = packet.topic.startsWith('$SYS/') && !packet.topic.endsWith('/heartbeat');
      if (isFromDevice || isNoise) callback();
      else publish(packet, callback);
    };
    this.publish = sealed as typeof this.publish;
  }
}

/** [MQTT-3.8.4-6] QoS 1 is the most that is granted; the engine answers what it finds in the packet. */
function capGrantedQos(packet: Packet): void {
  if (packet.cmd !== 'subscribe') return;
  for (const subscription of packet.subscriptions) {
    if (subscription.qos === 2) subscription.qos = 1;
  }
}

type Callback = (error?: Error) => void;
type PublishFunction = (
  packet: PublishPacket,
  client: Client | Callback | null,
  done?: Callback,
) => void;

/** For calls into the engine whose end nobody waits for; it calls back without asking whether it can. */
export function ignoreOutcome(): void {}

/** Reads as "not seen yet" for every broker id and keeps nothing. */
const NEVER_SEEN = new Proxy(Object.create(null) as Record<string, number>, {
  get: () => 0,
  set: () => true,
});
