import { randomUUID } from 'node:crypto';
import type { RefusalCode } from '../firmware-protocol/contract.ts';
import { authorizeIntegratorFilter } from '../firmware-protocol/integrator-topics.ts';
import type { Access, IncomingMessage, Intake } from './access.ts';
import type { ConnectFields } from './connect-fields.ts';
import type { OutgoingMessage } from './message.ts';
import type { IntegratorPrincipal } from './principal.ts';
import type { Session } from './session.ts';

/** Keep alive of an integrator that asks for none or for more, in seconds. */
const KEEP_ALIVE_S_MAX = 1200;
/** Longest client identifier, in characters; it is part of a key on disk. */
const CLIENT_ID_MAX = 128;

const FORBIDDEN: Intake = { channel: 'open', name: null, refusal: null, word: '' };

/** What an integrator's access works with. */
export interface IntegratorParts {
  /** Retained messages, for filters with wildcards. */
  readonly wildcardMessages: (
    principal: IntegratorPrincipal,
    filter: string,
    isOpen: () => boolean,
  ) => AsyncIterable<OutgoingMessage>;
  readonly retained: (topic: string) => OutgoingMessage | null;
  /** The connection begins, is refused something, and ends: for the history. */
  readonly refused: (session: Session, code: RefusalCode, detail: string) => void;
  readonly opened: (session: Session) => void;
  readonly closed: (session: Session, code: string) => void;
}

/**
 * An integrator: it reads streams of its organization within its key's scopes, at QoS 1 at most, with a
 * session that may outlive the connection. It publishes nothing in this version: that ends the
 * connection [MQTT-3.3.5-2].
 */
export class IntegratorClient implements Access {
  readonly clientId: string;
  readonly isClean: boolean;
  readonly keepAliveS: number;
  readonly #principal: IntegratorPrincipal;
  readonly #parts: IntegratorParts;
  #session: Session | null = null;

  constructor(principal: IntegratorPrincipal, connect: ConnectFields, parts: IntegratorParts) {
    // Several programs share a key: each has an identifier of its own within it.
    this.clientId = `${prefixOf(principal.keyId)}${connect.clientId || randomUUID()}`;
    this.isClean = connect.clean !== false;
    this.keepAliveS = Math.min(connect.keepalive || KEEP_ALIVE_S_MAX, KEEP_ALIVE_S_MAX);
    this.#principal = principal;
    this.#parts = parts;
  }

  /** Whether a client identifier can be one of a session. */
  static takesClientId(clientId: string): boolean {
    return clientId.length <= CLIENT_ID_MAX;
  }

  opened(session: Session): void {
    this.#session = session;
    this.#parts.opened(session);
  }

  authorize(): Intake {
    return FORBIDDEN;
  }

  take(): boolean {
    this.#session?.close('publish_forbidden');
    return true;
  }

  store(_intake: Intake, _message: IncomingMessage): void {
    this.take();
  }

  release(_message: unknown, done: () => void): void {
    done();
  }

  grant(filter: string): readonly string[] | null {
    return authorizeIntegratorFilter(filter, this.#principal);
  }

  denied(filter: string): void {
    const detail = `SUBSCRIBE to ${filter} is not granted`;
    if (this.#session !== null) this.#parts.refused(this.#session, 'forbidden', detail);
  }

  subscribed(): void {
    // There is no inbox to greet.
  }

  spell(topic: string): string {
    return topic;
  }

  retained(filter: string): Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage> {
    if (/[+#]/.test(filter)) {
      return this.#parts.wildcardMessages(this.#principal, filter, () => this.#isOpen);
    }
    const found = this.#parts.retained(filter);
    return found === null ? [] : [found];
  }

  get #isOpen(): boolean {
    return this.#session?.framer.destroyed === false;
  }

  closed(code: string): void {
    if (this.#session !== null) this.#parts.closed(this.#session, code);
  }
}

/** Says of client identifiers whether they are of sessions of this key. */
export function isSessionOf(keyId: string): (clientId: string) => boolean {
  return (clientId) => clientId.startsWith(prefixOf(keyId));
}

/** The key whose session a client identifier is of; null for one of another kind. */
export function keyIdOf(clientId: string): string | null {
  return /^i:([^:]+):/.exec(clientId)?.[1] ?? null;
}

function prefixOf(keyId: string): string {
  return `i:${keyId}:`;
}
