import { randomUUID } from 'node:crypto';
import { Refusal } from '../firmware-protocol/contract.ts';
import {
  decodeKeyRequest,
  type KeyAnswer,
  type KeyRequest,
} from '../firmware-protocol/key-request.ts';
import { aliasTopic } from '../firmware-protocol/topics.ts';
import type { Access, IncomingMessage, Intake } from './access.ts';
import type { ConnectFields } from './connect-fields.ts';
import type { OutgoingMessage } from './message.ts';
import { isPrivate } from './peer.ts';
import type { ClaimPrincipal } from './principal.ts';
import type { Session } from './session.ts';

/** A board that asks for a name and a key of its own. */
export interface ClaimRequest extends KeyRequest {
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  /** Public part of the claim key. */
  readonly keyId: string;
  /** User name of the CONNECT. */
  readonly hardwareId: string;
  readonly address: string;
  /** Whether nobody can read the answer on its way. */
  readonly isPrivate: boolean;
}

/** What a claiming board's access works with. */
export interface ClaimParts {
  /** Decides on a claim; what it says is committed. Never rejects. */
  readonly claim: (request: ClaimRequest) => Promise<KeyAnswer>;
  readonly refused: (session: Session, code: 'forbidden' | 'bad_type', detail: string) => void;
  readonly opened: (session: Session) => void;
  readonly closed: (session: Session, code: string) => void;
}

const KEY_TOPIC = aliasTopic('key');
const ANSWER_TOPIC = aliasTopic('in/key');
const INBOX_FILTERS: ReadonlySet<string> = new Set(['in/+', 'in/#', 'in/key'].map(aliasTopic));
const CLAIM: Intake = { channel: 'key', name: null, refusal: null, word: 'key' };
const FORBIDDEN: Intake = { channel: 'open', name: null, refusal: null, word: '' };
/** A board that is not answered asks again after a minute or more. */
const KEEP_ALIVE_S = 60;
/** Claims of one connection; a board needs one. */
const CLAIMS_MAX = 5;

/**
 * A board with a claim key: it may ask for its key on `v1/me/key`, is answered on `v1/me/in/key`, and may
 * do nothing else. Its session ends with its connection.
 */
export class ClaimClient implements Access {
  readonly isClean = true;
  readonly clientId: string;
  readonly keepAliveS = KEEP_ALIVE_S;
  readonly #principal: ClaimPrincipal;
  readonly #hardwareId: string;
  readonly #parts: ClaimParts;
  #session: Session | null = null;
  #claims = 0;

  constructor(principal: ClaimPrincipal, connect: ConnectFields, parts: ClaimParts) {
    this.clientId = `c:${principal.keyId}:${randomUUID()}`;
    this.#principal = principal;
    this.#hardwareId = connect.username ?? '';
    this.#parts = parts;
  }

  opened(session: Session): void {
    this.#session = session;
    this.#parts.opened(session);
  }

  authorize(topic: string): Intake {
    return topic === KEY_TOPIC ? CLAIM : FORBIDDEN;
  }

  take(intake: Intake, message: IncomingMessage): boolean {
    if (intake !== CLAIM) {
      this.#refuse('forbidden', 'a claim key may publish v1/me/key only');
      message.acknowledge();
      return true;
    }
    const request = decodeKeyRequest(message.payload);
    this.#claims += 1;
    if (request instanceof Refusal || this.#claims > CLAIMS_MAX) {
      this.#refuse('bad_type', request instanceof Refusal ? request.detail : 'too many claims');
      message.acknowledge();
    } else void this.#claim(request, message);
    return true;
  }

  store(intake: Intake, message: IncomingMessage): void {
    this.take(intake, message);
  }

  release(_message: unknown, done: () => void): void {
    done();
  }

  grant(filter: string): readonly string[] | null {
    // Nothing is published there: the answer is written to the connection.
    return INBOX_FILTERS.has(filter) ? [`$claim/${this.clientId}`] : null;
  }

  denied(filter: string): void {
    this.#refuse('forbidden', `SUBSCRIBE to ${filter} is not granted`.slice(0, 100));
  }

  subscribed(): void {
    // There is nothing to greet it with.
  }

  spell(topic: string): string {
    return topic;
  }

  retained(): Iterable<OutgoingMessage> {
    return [];
  }

  closed(code: string): void {
    if (this.#session !== null) this.#parts.closed(this.#session, code);
  }

  async #claim(request: KeyRequest, message: IncomingMessage): Promise<void> {
    const session = this.#session as Session;
    const { organizationId, organization, keyId } = this.#principal;
    const answer = await this.#parts.claim({
      ...request,
      organizationId,
      organization,
      keyId,
      hardwareId: this.#hardwareId,
      address: session.peer.address,
      isPrivate: isPrivate(session.peer),
    });
    session.send(ANSWER_TOPIC, answer);
    message.acknowledge();
  }

  #refuse(code: 'forbidden' | 'bad_type', detail: string): void {
    if (this.#session !== null) this.#parts.refused(this.#session, code, detail);
  }
}
