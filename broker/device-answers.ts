import { decodeAck, type Ack } from '../firmware-protocol/ack.ts';
import {
  decodeConfigurationReport,
  type ConfigurationReport,
} from '../firmware-protocol/configuration.ts';
import { Refusal } from '../firmware-protocol/contract.ts';
import {
  decodeKeyRequest,
  type KeyAnswer,
  type KeyRequest,
} from '../firmware-protocol/key-request.ts';
import { Allowance } from './allowance.ts';
import type { DevicePrincipal } from './principal.ts';

/** Channels on which a device answers what it was sent, or asks for a key. */
export type AnswerChannel = 'ack' | 'cfg' | 'key';

/** Where answers of devices go. What a promise stands for is committed when it resolves; none rejects. */
export interface AnswerPort {
  /** What became of a command. */
  acknowledged(device: DevicePrincipal, ack: Ack): Promise<unknown>;
  /** Which configuration is in effect. */
  reported(device: DevicePrincipal, report: ConfigurationReport): Promise<unknown>;
  /** @param isPrivate whether nobody can read the answer on its way. */
  keyRequested(
    device: DevicePrincipal,
    request: KeyRequest,
    isPrivate: boolean,
  ): Promise<KeyAnswer>;
}

/** A connection as its answers need it. */
export interface AnswerLink {
  readonly principal: DevicePrincipal;
  /** Whether nobody can read what is sent on it: TLS, or a connection within this machine. */
  readonly isPrivate: boolean;
  /** Writes to the device alone. */
  readonly send: (channel: 'in/key', message: object) => void;
}

/** Answers of one connection at once, and a second in the long run; each is a transaction. */
const ANSWER_BURST = 100;
const ANSWERS_PER_S = 20;

/** Takes what a device answers, one connection's worth of it. */
export class DeviceAnswers {
  readonly #port: AnswerPort;
  readonly #link: AnswerLink;
  readonly #allowance = new Allowance(ANSWER_BURST, ANSWERS_PER_S);

  constructor(port: AnswerPort, link: AnswerLink) {
    this.#port = port;
    this.#link = link;
  }

  /** Whether an intake's channel is one of these. */
  static isAnswer(channel: string): channel is AnswerChannel {
    return channel === 'ack' || channel === 'cfg' || channel === 'key';
  }

  /** Takes one more of the rate; false when there is none left. */
  mayAnswer(nowMs: number): boolean {
    return this.#allowance.take(nowMs);
  }

  /**
   * Takes an answer.
   * @returns a promise that resolves when it is stored and may be acknowledged, or why it cannot be read.
   */
  take(channel: AnswerChannel, payload: Buffer): Promise<unknown> | Refusal {
    const { principal } = this.#link;
    if (channel === 'ack') {
      const ack = decodeAck(payload);
      return ack instanceof Refusal ? ack : this.#port.acknowledged(principal, ack);
    }
    if (channel === 'cfg') {
      const report = decodeConfigurationReport(payload);
      return report instanceof Refusal ? report : this.#port.reported(principal, report);
    }
    const request = decodeKeyRequest(payload);
    return request instanceof Refusal ? request : this.#giveKey(request);
  }

  async #giveKey(request: KeyRequest): Promise<void> {
    const { principal, isPrivate, send } = this.#link;
    send('in/key', await this.#port.keyRequested(principal, request, isPrivate));
  }
}
