import { decodeAck, type Ack } from '../../firmware-protocol/ack.ts';
import { encodeSlotCommand } from '../../firmware-protocol/command.ts';
import { Refusal } from '../../firmware-protocol/contract.ts';
import {
  AWAKE_MAX_MS,
  GREETING_WAIT_MS,
  REFUSED_WAIT_MS,
} from '../../firmware-protocol/device-rules.ts';
import type { Hello } from '../../firmware-protocol/hello.ts';
import { channelOf, type Contact, type Happening } from './contact.ts';
import type { Platform } from './platform.ts';
import type { Verdicts } from './points.ts';

/** How long the run waits for what. Tests are faster. All in ms. */
export interface Pace {
  /** For an answer, while the device is connected. */
  readonly answerMs: number;
  /** How long nothing must happen where nothing may. */
  readonly quietMs: number;
  /** For the subscription after CONNACK. */
  readonly subscribeMs: number;
  /** For a sample at QoS 1, while the device is connected. */
  readonly dataMs: number;
  /** How long samples are collected after the first. */
  readonly collectMs: number;
  /** Least sum of the waits after five refused attempts: at random it is 15 s on the average. */
  readonly backoffMs: number;
  /** Least wait after CONNACK 4 and 5. */
  readonly refusedMs: number;
  /** How long a device that sleeps may stay awake with nothing to do. */
  readonly awakeMs: number;
}

/** The times of the contract. */
export const REAL_PACE: Pace = {
  answerMs: 10_000,
  quietMs: GREETING_WAIT_MS,
  subscribeMs: 10_000,
  dataMs: 120_000,
  collectMs: 3000,
  backoffMs: 2000,
  refusedMs: REFUSED_WAIT_MS,
  awakeMs: AWAKE_MAX_MS + 2000,
};

/** What the run is about. */
export interface ExamOptions {
  readonly pace: Pace;
  /** A configuration that the firmware can apply. */
  readonly configuration: Readonly<Record<string, unknown>>;
  /** Whether `sys.reboot` may be sent. */
  readonly mayRestart: boolean;
  /** Whether `sys.rekey` may be sent, over TLS. */
  readonly mayRekey: boolean;
  /** CONNACK by which the key is refused. */
  readonly refusal: 4 | 5;
  /** Tells what is being waited for. */
  readonly say: (line: string) => void;
}

/** A command to be put into the slot; what is left out is as usual. */
export interface Asked {
  readonly cmd: string;
  readonly args?: Readonly<Record<string, unknown>>;
  readonly id?: number;
  /** Unix seconds. */
  readonly exp?: number;
}

/** An answer, and where it stands among the happenings. */
export interface Answer {
  readonly ack: Ack;
  readonly at: number;
}

/** A command that no firmware knows. */
export const UNKNOWN_COMMAND = 'x-conformance';
const DAY_S = 86_400;
/** More wait behind a command, so that a device that sleeps stays awake. */
const WAITING = 2;

/** One run: the platform, what was found, and what is known of the device. */
export class Exam {
  readonly platform: Platform;
  readonly verdicts: Verdicts;
  readonly options: ExamOptions;
  /** What the device said of itself last. */
  hello: Hello = {};
  /** Hellos of a connection in which nobody asked for one. */
  usualHellos = 1;
  /** Whether it executes `sys.hello`, which can be seen. */
  showsExecution = false;
  lastId = 0;

  constructor(platform: Platform, verdicts: Verdicts, options: ExamOptions) {
    this.platform = platform;
    this.verdicts = verdicts;
    this.options = options;
  }

  get pace(): Pace {
    return this.options.pace;
  }

  /** Number of happenings until now: where to look from. */
  get now(): number {
    return this.platform.happenings.length;
  }

  /** An id above all that the device has seen, as the platform would give it. */
  nextId(): number {
    const known = Math.max(this.lastId, this.hello.last ?? 0);
    this.lastId = Math.max(known + 1, Math.floor(Date.now() / 1000));
    return this.lastId;
  }

  /** Puts a command into the slot. @returns its id. */
  put({ cmd, args = {}, id = this.nextId(), exp = Math.floor(Date.now() / 1000) + DAY_S }: Asked) {
    this.platform.waitingCommands = WAITING;
    this.platform.retain('in/cmd', encodeSlotCommand({ id, cmd, args, n: WAITING, exp }));
    return id;
  }

  /** Puts a command into the slot and waits for its answer; null: none came. */
  async ask(asked: Asked): Promise<Answer | null> {
    const from = this.now;
    return this.answerTo(this.put(asked), from);
  }

  /** The first answer to a command from there on; null: none came. */
  async answerTo(id: number, from: number): Promise<Answer | null> {
    return this.platform.waitFor(
      (happening) => {
        const ack = ackOf(happening);
        return ack?.id === id ? { ack, at: this.platform.happenings.indexOf(happening) } : null;
      },
      from,
      this.pace.answerMs,
    );
  }

  /** Waits so long for nothing in particular; a device that sleeps may leave. */
  async quiet(): Promise<void> {
    await this.platform.rest(this.pace.quietMs);
  }

  /** Hellos from there on that no new connection accounts for. */
  extraHellos(from: number): number {
    const since = this.platform.happenings.slice(from);
    const hellos = since.filter(
      (one) => one.kind === 'publish' && channelOf(one.topic) === 'hello',
    ).length;
    const contacts = since.filter(({ kind }) => kind === 'admitted').length;
    return hellos - contacts * this.usualHellos;
  }

  /** Answers from there on, to any command. */
  answersSince(from: number): Ack[] {
    return this.platform.happenings.slice(from).flatMap((happening) => ackOf(happening) ?? []);
  }

  /** Connections that the device lost or ended without a word from there on. */
  brokenSince(from: number): Contact[] {
    return this.platform.happenings
      .slice(from)
      .flatMap((one) => (one.kind === 'ended' ? [one.contact] : []))
      .filter(({ isCut, hasLeft }) => !isCut && !(hasLeft && this.sleeps));
  }

  /** Whether it said that it sleeps between contacts. */
  get sleeps(): boolean {
    return (this.hello.sleep ?? 0) > 0;
  }

  /** Cuts the connection, if there is one, and waits for a new one. @returns where that begins. */
  async reconnect(): Promise<number> {
    const from = this.now;
    this.platform.cut();
    await this.platform.waitFor(
      (happening) => (happening.kind === 'admitted' ? happening : null),
      from,
      Number.POSITIVE_INFINITY,
    );
    return from;
  }
}

/** The answer that a happening is; null: it is something else, or cannot be read. */
export function ackOf(happening: Happening): Ack | null {
  if (happening.kind !== 'publish' || channelOf(happening.topic) !== 'ack') return null;
  const ack = decodeAck(happening.payload);
  return ack instanceof Refusal ? null : ack;
}
