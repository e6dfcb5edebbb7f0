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
const COMMAND: Intake = { channel: 'do', name: null, refusal: null, word: 'do' };

/** What an integrator's access works with. */
export interface IntegratorParts {
  /** Retained messages, for filters with wildcards. */
  readonly wildcardMessages: (
    principal: IntegratorPrincipal,
    filter: string,
    isOpen: () => boolean,
  ) => AsyncIterable<OutgoingMessage>;
  readonly retained: (topic: string) => OutgoingMessage | null;
  /**
   * Takes a command for a device: `v1/{organization}/{device}/do/{command}[/{ref}]`.
   * @param onStored called once it is committed, or refused for good.
   * @returns false when it has to wait first: nothing is read until {@link Session.framer} goes on.
   */
  readonly command: (
    principal: IntegratorPrincipal,
    publication: { readonly topic: string; readonly payload: Buffer },
    callbacks: {
      readonly onStored: () => void;
      readonly onRoom: () => void;
      /** Before `onStored`: why it was refused. */
      readonly onRefused: (code: RefusalCode, detail: string) => void;
    },
  ) => boolean;
  /** The connection begins, is refused something, and ends: for the history. */
  readonly refused: (session: Session, code: RefusalCode, detail: string) => void;
  readonly opened: (session: Session) => void;
  readonly closed: (session: Session, code: string) => void;
}

/**
 * An integrator: it reads streams of its organization within its key's scopes, at QoS 1 at most, with a
 * session that may outlive the connection. What it publishes are commands for devices, with the scope
 * `cmd:write`; anything else ends the connection [MQTT-3.3.5-2].
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

  authorize(topic: string): Intake {
    const { organization, scopes } = this.#principal;
    if (!scopes.includes('cmd:write')) return FORBIDDEN;
    const [version, first, , channel] = topic.split('/');
    return version === 'v1' && first === organization && channel === 'do' ? COMMAND : FORBIDDEN;
  }

  take(intake: Intake, message: IncomingMessage): boolean {
    const session = this.#session;
    if (intake !== COMMAND || session === null) {
      session?.close('publish_forbidden');
      return true;
    }
    return this.#parts.command(this.#principal, message, {
      onStored: message.acknowledge,
      onRoom: () => session.framer.goOn(),
      onRefused: (code, detail) => this.#parts.refused(session, code, detail),
    });
  }

  store(intake: Intake, message: IncomingMessage): void {
    this.take(intake, message);
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
