// HOT PATH: see bench/RESULTS.md
import { Refusal, type RefusalCode } from '../firmware-protocol/contract.ts';
import { decodeHello, isHelloRefusal, type Hello } from '../firmware-protocol/hello.ts';
import { aliasOf, authorizeDeviceFilter, canonicalTopic } from '../firmware-protocol/topics.ts';
import type { Access, IncomingMessage, Intake } from './access.ts';
import { Allowance } from './allowance.ts';
import { deviceIntake } from './authorize.ts';
import { DeviceErrors } from './device-errors.ts';
import type { OutgoingMessage } from './message.ts';
import { DeviceAnswers, type AnswerChannel, type AnswerPort } from './device-answers.ts';
import { isPrivate } from './peer.ts';
import type { DevicePrincipal } from './principal.ts';
import type { Session } from './session.ts';

/** Where publications of devices go. A lane is what ingest keeps for a device; opaque here. */
export interface IngestPort {
  /** @param address of the connection, for limits by address. */
  openLane(principal: DevicePrincipal, address: string): unknown;
  closeLane(lane: unknown): void;
  /** Takes a publication. @returns false when it waits before the queue. */
  accept(lane: unknown, publication: DevicePublication): boolean;
  /** What the device says of its boot, before any message behind it. */
  setBoot(lane: unknown, boot: number): void;
  /** How many milliseconds ago the device says it has booted. */
  greetClock(lane: unknown, upMs: number): void;
  /** Highest `seq` of this boot up to which everything is stored; null for none. */
  storedSequence(lane: unknown): number | null;
  /** Whether the device is in quarantine as a whole. */
  isQuarantined(lane: unknown): boolean;
}

/** A publication of a device with what may be done to its connection. */
export interface DevicePublication {
  readonly channel: 'data' | 'scalar' | 'senml' | 'event' | 'log' | 'refused';
  /** The metric of a scalar, the name of an event, else null. */
  readonly name: string | null;
  readonly refusal: Refusal | null;
  /** The channel as the device is told of it. */
  readonly word: string;
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  /** Whether somebody wants to see the message on its stream: `event/{name}`, `log`, of readings `data`. */
  readonly isWanted: () => boolean;
  /** Called after COMMIT, or never. `canonical` is what the stream shows; null when nothing. */
  readonly acknowledge: (canonical: Buffer | null) => void;
  readonly source: DeviceSource;
}

/** What ingest may do with a connection. */
export interface DeviceSource {
  /** Tells the device on `in/err`. */
  readonly report: (code: RefusalCode, channel: string, detail: string) => void;
  /** A message that had to wait has gone on: read on. */
  readonly resume: () => void;
  /** Ends the connection; what is held of it stays unacknowledged. */
  readonly close: (reason: 'rate' | 'quota' | 'held_bytes') => void;
}

/** What a device's access works with. */
export interface DeviceParts {
  readonly ingest: IngestPort;
  readonly fanOut: {
    readonly generation: number;
    isWanted(topic: string): boolean;
    publish(message: OutgoingMessage, exceptId?: string): Promise<void> | null;
  };
  readonly retained: (topic: string) => OutgoingMessage | null;
  /** Milliseconds since 1970, as devices are told. */
  readonly now: () => number;
  /** The connection begins, says `hello`, subscribes its inbox, is refused something, and ends. */
  readonly opened: (device: DeviceClient, session: Session) => void;
  /** @returns false when too many hellos wait already: this one is not taken. */
  readonly greeted: (
    device: DeviceClient,
    session: Session,
    hello: Hello,
    onStored: () => void,
  ) => boolean;
  /** It was granted topics under `in/`. */
  readonly subscribedInbox: (device: DeviceClient) => void;
  /** Greets it because of a SUBSCRIBE. Resolves soon, when the greeting is on its way; never rejects. */
  readonly greet: (device: DeviceClient) => Promise<void>;
  /** Takes what it says of commands, configuration and keys. */
  readonly answers: AnswerPort;
  readonly refused: (session: Session, code: RefusalCode, detail: string) => void;
  readonly closed: (device: DeviceClient, session: Session, code: string) => void;
}

/** Hellos of one connection at once, and a second in the long run; each is written down and sent on. */
const HELLO_BURST = 20;
const HELLOS_PER_S = 1;
/** What a device says while it is in quarantine is believed by nobody. */
const APART = new Refusal('forbidden', 'the device is in quarantine');
/** Topics that a connection remembers its verdict on; a device has few, and a fuzzer gets no memory. */
const INTAKES_MAX = 64;

/** A device: it publishes to its own tree and reads its own inbox. Its session ends with its connection. */
export class DeviceClient implements Access {
  readonly isClean = true;
  readonly clientId: string;
  readonly keepAliveS: number;
  readonly principal: DevicePrincipal;
  readonly #parts: DeviceParts;
  readonly #dataStream: Stream;
  readonly #inbox: string;
  readonly #slot: string;
  /** Verdicts by topic name. */
  readonly #intakes = new Map<string, Intake>();
  /** Whether the device spells its topics `v1/me/…` and is answered so. */
  #usesAlias = true;
  #readsCommands = false;
  #session: Session | null = null;
  #lane: unknown = null;
  #source: DeviceSource | null = null;
  #answers: DeviceAnswers | null = null;
  readonly #hellos = new Allowance(HELLO_BURST, HELLOS_PER_S);

  constructor(principal: DevicePrincipal, keepAliveS: number, parts: DeviceParts) {
    this.principal = principal;
    this.keepAliveS = keepAliveS;
    this.clientId = `d:${principal.organization}/${principal.device}`;
    this.#parts = parts;
    this.#dataStream = new Stream(canonicalTopic(principal, 'data'), parts.fanOut);
    this.#inbox = canonicalTopic(principal, 'in/');
    this.#slot = canonicalTopic(principal, 'in/cmd');
  }

  /** The connection; null before it has begun. */
  get session(): Session | null {
    return this.#session;
  }

  /** Whether the device spells its topics `v1/me/…`. */
  get usesAlias(): boolean {
    return this.#usesAlias;
  }

  /** Whether the connection has asked for its commands. */
  get readsCommands(): boolean {
    return this.#readsCommands;
  }

  /** See {@link IngestPort.storedSequence}. */
  get storedSequence(): number | null {
    return this.#parts.ingest.storedSequence(this.#lane);
  }

  /** Whether it is in quarantine as a whole: what it says is believed by nobody, and shown to nobody. */
  get isQuarantined(): boolean {
    return this.#parts.ingest.isQuarantined(this.#lane);
  }

  opened(session: Session): void {
    this.#session = session;
    this.#lane = this.#parts.ingest.openLane(this.principal, session.peer.address);
    const errors = new DeviceErrors(session, this.#parts.now, (message) =>
      this.#tell('in/err', message),
    );
    this.#source = {
      report: (code, channel, detail) => {
        this.#parts.refused(session, code, detail);
        errors.report(code, channel, detail);
      },
      resume: () => session.framer.goOn(),
      close: session.close,
    };
    this.#answers = new DeviceAnswers(this.#parts.answers, {
      principal: this.principal,
      isPrivate: isPrivate(session.peer),
      send: (channel, message) => session.send(canonicalTopic(this.principal, channel), message),
    });
    this.#parts.opened(this, session);
  }

  /** Forgets nothing that was decided: a topic means the same for the life of a connection. */
  authorize(topic: string): Intake | null {
    const known = this.#intakes.get(topic);
    if (known !== undefined) return known;
    const decided = deviceIntake(topic, this.principal);
    if (decided === null) return null;
    if (decided.usesAlias !== null) this.#usesAlias = decided.usesAlias;
    if (this.#intakes.size >= INTAKES_MAX) this.#intakes.clear();
    this.#intakes.set(topic, decided.intake);
    return decided.intake;
  }

  take(intake: Intake, message: IncomingMessage): boolean {
    const { channel } = intake;
    if (channel === 'hello') return this.#takeHello(message);
    if (DeviceAnswers.isAnswer(channel)) return this.#takeAnswer(channel, message);
    return this.#store(intake, message);
  }

  store(intake: Intake, message: IncomingMessage): void {
    this.take(intake, message);
  }

  release(_message: unknown, done: () => void): void {
    // Stored and sent on by `store` already.
    done();
  }

  grant(filter: string): readonly string[] | null {
    const granted = authorizeDeviceFilter(filter, this.principal);
    if (granted === null) return null;
    this.#usesAlias = granted.alias;
    return granted.topics;
  }

  denied(filter: string): void {
    const detail = `SUBSCRIBE to ${filter} is not granted`;
    this.#source?.report('forbidden', 'in', detail.slice(0, 100));
  }

  subscribed(filters: readonly string[]): void {
    if (!filters.some((filter) => filter.startsWith(this.#inbox))) return;
    this.#readsCommands ||= filters.includes(this.#slot);
    this.#parts.subscribedInbox(this);
  }

  spell(topic: string): string {
    return this.#usesAlias ? aliasOf(topic, this.principal) : topic;
  }

  /** The slot comes behind the greeting: a board without a clock cannot tell before whether it is over. */
  retained(filter: string): Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage> {
    const found = this.#parts.retained(filter);
    if (found === null) return [];
    return filter === this.#slot ? this.#slotBehindGreeting() : [found];
  }

  closed(code: string): void {
    if (this.#session === null) return;
    this.#parts.ingest.closeLane(this.#lane);
    this.#parts.closed(this, this.#session, code);
  }

  /** As it stands by then. */
  async *#slotBehindGreeting(): AsyncGenerator<OutgoingMessage> {
    await this.#parts.greet(this);
    const found = this.#parts.retained(this.#slot);
    if (found !== null) yield found;
  }

  #store(intake: Intake, message: IncomingMessage): boolean {
    const { topic, payload, qos } = message;
    const stream = this.#streamOf(intake);
    return this.#parts.ingest.accept(this.#lane, {
      channel: intake.channel as DevicePublication['channel'],
      name: intake.name,
      refusal: intake.refusal,
      word: intake.word,
      topic,
      payload,
      qos,
      source: this.#source as DeviceSource,
      isWanted: stream.isWanted,
      acknowledge: (canonical) => this.#settle(stream, message, canonical),
    });
  }

  /** Stored; what waits for others is written down before the device is told so. */
  #settle({ topic }: Stream, message: IncomingMessage, canonical: Buffer | null): void {
    const written = canonical === null ? null : this.#forward(topic, canonical, message);
    if (written === null) message.acknowledge();
    else void written.then(message.acknowledge);
  }

  #takeHello(message: IncomingMessage): boolean {
    if (!this.#hellos.take(performance.now())) return this.#overRate('hello', message);
    const hello = decodeHello(message.payload);
    if (isHelloRefusal(hello)) return this.#refuse('hello', hello, message);
    if (hello.boot !== undefined) this.#parts.ingest.setBoot(this.#lane, hello.boot);
    if (hello.up !== undefined) this.#parts.ingest.greetClock(this.#lane, hello.up);
    const session = this.#session as Session;
    const isTaken = this.#parts.greeted(this, session, hello, () => {
      message.acknowledge();
      if (this.isQuarantined) return;
      void this.#forward(canonicalTopic(this.principal, 'hello'), message.payload, message);
    });
    if (isTaken) return true;
    if (message.qos === 0) message.acknowledge();
    else session.close('rate');
    return true;
  }

  /** An answer is acknowledged once what it says is stored. */
  #takeAnswer(channel: AnswerChannel, message: IncomingMessage): boolean {
    const answers = this.#answers as DeviceAnswers;
    if (!answers.mayAnswer(performance.now())) return this.#overRate(channel, message);
    if (this.isQuarantined) return this.#refuse(channel, APART, message);
    const taken = answers.take(channel, message.payload);
    if (taken instanceof Refusal) return this.#refuse(channel, taken, message);
    void taken.then(() => {
      message.acknowledge();
      if (channel === 'key') return;
      void this.#forward(canonicalTopic(this.principal, channel), message.payload, message);
    });
    return true;
  }

  #refuse(word: string, refusal: Refusal, message: IncomingMessage): boolean {
    return this.#store({ channel: 'refused', name: null, refusal, word }, message);
  }

  /** QoS 0 is lost. Above it the connection ends, and the device says it again. */
  #overRate(channel: string, message: IncomingMessage): true {
    this.#source?.report('rate', channel, 'more than allowed a second');
    if (message.qos === 0) message.acknowledge();
    else this.#session?.close('rate');
    return true;
  }

  /** Writes straight to the connection, and to others who may see it. */
  #tell(channel: string, message: object): void {
    const topic = canonicalTopic(this.principal, channel);
    const { fanOut } = this.#parts;
    this.#session?.send(topic, message);
    if (!fanOut.isWanted(topic)) return;
    const payload = Buffer.from(JSON.stringify(message));
    void fanOut.publish({ topic, payload, qos: 0, retain: false }, this.clientId);
  }

  #forward(topic: string, payload: Buffer, { qos }: IncomingMessage): Promise<void> | null {
    if (!this.#parts.fanOut.isWanted(topic)) return null;
    return this.#parts.fanOut.publish({ topic, payload, qos: qos === 0 ? 0 : 1, retain: false });
  }

  /** Events and log lines are few: their streams are made as they come. */
  #streamOf({ channel, name }: Intake): Stream {
    if (channel !== 'event' && channel !== 'log') return this.#dataStream;
    const rest = channel === 'log' ? 'log' : `event/${name}`;
    return new Stream(canonicalTopic(this.principal, rest), this.#parts.fanOut);
  }
}

/** Where what a device publishes is shown to integrators. */
class Stream {
  readonly topic: string;
  readonly #fanOut: DeviceParts['fanOut'];
  #isWanted = false;
  #generation = -1;
  /** Whether anybody is subscribed to it. */
  readonly isWanted = (): boolean => {
    if (this.#fanOut.generation !== this.#generation) {
      this.#generation = this.#fanOut.generation;
      this.#isWanted = this.#fanOut.isWanted(this.topic);
    }
    return this.#isWanted;
  };

  constructor(topic: string, fanOut: DeviceParts['fanOut']) {
    this.topic = topic;
    this.#fanOut = fanOut;
  }
}
