import type { Duplex } from 'node:stream';
import type { IncomingMessage as HttpRequest } from 'node:http';
import { Aedes, type AedesOptions, type Client, type PublishPacket } from 'aedes';
import mqemitter from 'mqemitter';
import type { Session } from './session.ts';

/** A client of the engine with what the wrapper keeps on it. */
export type EngineClient = Client & {
  /** Set once the client is let in. */
  session?: Session;
  will: PublishPacket | null;
  /** True after a DISCONNECT: there will be no will. */
  readonly _disconnected: boolean;
  /** Identifiers of QoS 2 messages whose PUBREL has not come. */
  readonly _inboundInflight: ReadonlySet<number>;
};

/** The list of clients by identifier, as Aedes keeps it. */
interface ClientList {
  readonly clients: Readonly<Record<string, Client>>;
  registerClient(client: Client): void;
  _finishRegisterClient(client: Client): void;
  unregisterClient(client: Client): void;
}

/** What the rest of `broker/` gives to the engine. */
export interface EngineHooks extends Required<
  Pick<AedesOptions, 'preConnect' | 'authenticate' | 'authorizePublish'>
> {
  /** A message at QoS 2, whose identifier is stored, or a will. `client` is null for wills of a run before. */
  readonly release: (packet: PublishPacket, client: EngineClient | null, done: () => void) => void;
  /** `next` is about to take the place of `old`, which has the same identifier [MQTT-3.1.4-2]. */
  readonly takenOver: (old: EngineClient, next: EngineClient) => void;
}

/**
 * Aedes 1.2.0 with what it gets wrong mended; the only user of `aedes`. It keeps the books of CONNECT,
 * DISCONNECT, QoS 2 and wills; it sends nothing to subscribers. Numbers are those of the table in
 * `docs/adr/0004-aedes-behind-one-wrapper.md`.
 */
export class Engine extends Aedes {
  readonly #hooks: EngineHooks;

  constructor(
    hooks: EngineHooks,
    persistence: NonNullable<AedesOptions['persistence']>,
    connectDeadlineMs: number,
  ) {
    const { preConnect, authenticate, authorizePublish } = hooks;
    super({
      preConnect,
      authenticate,
      authorizePublish,
      // Subscriptions are not the engine's.
      authorizeSubscribe: (_client, _subscription, done) => done(null, null),
      persistence,
      // (2) A bound on parallel deliveries ends in a recursion that overflows the stack.
      mq: mqemitter({ concurrency: 0, matchEmptyLevels: true }),
      connectTimeout: connectDeadlineMs,
      maxTopicLevels: 100,
      // What a client of MQTT 3.1 calls itself is replaced, so that its length says nothing.
      maxClientsIdLength: 65_535,
    });
    this.#hooks = hooks;
    this.#sealPublish();
    this.#checkIdentities();
  }

  /** Hands a connection over. The engine closes it when the client breaks the protocol. */
  accept(connection: Duplex, request?: HttpRequest): EngineClient {
    return this.handle(connection, request as HttpRequest) as EngineClient;
  }

  /**
   * (7) A connection that dies in its handshake must neither take the place of the live one with the
   * same identifier nor strike it off the list.
   */
  #checkIdentities(): void {
    const list = this as unknown as ClientList;
    const register = list.registerClient.bind(this);
    const add = list._finishRegisterClient.bind(this);
    const remove = list.unregisterClient.bind(this);
    list.registerClient = (client) => {
      const old = list.clients[client.id] as EngineClient | undefined;
      if (old !== undefined && !old.closed) this.#hooks.takenOver(old, client as EngineClient);
      register(client);
    };
    list._finishRegisterClient = (client) => {
      if (client.closed) return;
      // Another one may have come while the one before was being closed [MQTT-3.1.4-2].
      const rival = list.clients[client.id];
      if (rival !== undefined && rival !== client) {
        this.#hooks.takenOver(rival as EngineClient, client as EngineClient);
        rival.close();
      }
      add(client);
    };
    list.unregisterClient = (client) => {
      if (list.clients[client.id] === client) remove(client);
    };
  }

  /**
   * What clients publish leaves the engine here. (11) Of its own topics only the heartbeat goes on,
   * which its bookkeeping of wills listens to.
   */
  #sealPublish(): void {
    const publish = this.publish.bind(this) as PublishFunction;
    const sealed: PublishFunction = (packet, client, done) => {
      const callback = typeof client === 'function' ? client : (done ?? ignoreOutcome);
      const isOwn = packet.topic.startsWith(`$SYS/${this.id}/`);
      if (isOwn && packet.topic.endsWith('/heartbeat')) publish(packet, callback);
      else if (isOwn) callback();
      else {
        const from = typeof client === 'function' ? null : (client as EngineClient | null);
        this.#hooks.release(packet, from ?? null, callback);
      }
    };
    this.publish = sealed as typeof this.publish;
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
