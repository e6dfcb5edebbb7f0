import { randomUUID } from 'node:crypto';
import type { Access, IncomingMessage, Intake } from '../../broker/access.ts';
import type { ConnectFields } from '../../broker/connect-fields.ts';
import type { FanOut } from '../../broker/outgoing/fan-out.ts';
import type { OutgoingMessage } from '../../broker/message.ts';
import type { Admission, Policy } from '../../broker/policy.ts';
import type { SessionStore } from '../../broker/store/session-store.ts';
import { topicNameFault } from '../../firmware-protocol/topics.ts';

const OPEN: Intake = { channel: 'open', name: null, refusal: null, word: '' };
/** The one filter that nobody may subscribe, for suites that want to see a refusal. */
const FORBIDDEN_FILTER = 'test/nosubscribe';

interface Parts {
  readonly fanOut: FanOut;
  readonly store: SessionStore;
}

/** Lets everybody in and allows everything: for conformance suites. */
export class OpenPolicy implements Policy {
  readonly keepsWills = true;
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async admit(connect: ConnectFields): Promise<Admission> {
    return { ok: true, principal: null, access: new OpenClient(connect, this.#parts) };
  }

  releaseOrphan(message: Omit<IncomingMessage, 'acknowledge'>, done: () => void): void {
    publish(this.#parts, message, done);
  }

  violated(): void {}

  takenOver(): void {}
}

class OpenClient implements Access {
  readonly clientId: string;
  readonly isClean: boolean;
  readonly keepAliveS: number;
  readonly #parts: Parts;

  constructor(connect: ConnectFields, parts: Parts) {
    this.clientId = connect.clientId || randomUUID();
    this.isClean = connect.clean !== false;
    this.keepAliveS = connect.keepalive ?? 0;
    this.#parts = parts;
  }

  opened(): void {}

  authorize(topic: string): Intake | null {
    const fault = topicNameFault(topic);
    return fault === null || fault.startsWith('too ') ? OPEN : null;
  }

  take(_intake: Intake, message: IncomingMessage): boolean {
    publish(this.#parts, message, message.acknowledge);
    return true;
  }

  store(_intake: Intake, message: IncomingMessage): void {
    message.acknowledge();
  }

  release(message: Omit<IncomingMessage, 'acknowledge'>, done: () => void): void {
    publish(this.#parts, message, done);
  }

  grant(filter: string): readonly string[] | null {
    return filter === FORBIDDEN_FILTER ? null : [filter];
  }

  denied(): void {}

  subscribed(): void {}

  spell(topic: string): string {
    return topic;
  }

  retained(filter: string): Iterable<OutgoingMessage> {
    return this.#parts.store.retainedMatching(filter);
  }

  closed(): void {}
}

/** A retained message is kept and then sent on; `done` when what was to be kept is on disk. */
function publish(
  { fanOut }: Parts,
  { topic, payload, qos, retain }: Omit<IncomingMessage, 'acknowledge'>,
  done: () => void,
): void {
  const message: OutgoingMessage = { topic, payload, qos: qos === 0 ? 0 : 1, retain: false };
  const written = retain ? fanOut.publishRetained(message) : fanOut.publish(message);
  void (written ?? Promise.resolve()).finally(done);
}
