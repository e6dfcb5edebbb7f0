import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../bench/random.ts';
import type { Ingest } from '../../ingest/ingest.ts';
import type { Lane } from '../../ingest/lane.ts';
import type { Source } from '../../ingest/message.ts';
import { makePublication } from './messages.ts';

/** Messages that a device has under way at a time. */
const UNDER_WAY_MAX = 20;
/** How far it goes on ahead of what is not acknowledged: copies are told among the last 64 numbers. */
const AHEAD_MAX = 30;
/** Of its last messages so many at most are sent again although they were acknowledged. */
const LOST_PUBACKS_MAX = 12;
const CONNECT_CHANCE = 0.1;
const RECONNECT_CHANCE = 0.01;
const STEP_MS = 3;
/** Each so many numbers a value of another metric, which has to be looked up. */
const OTHER_METRIC_EVERY = 50;
const OTHER_METRICS = 40;

interface Connection {
  readonly ingest: Ingest;
  readonly lane: Lane;
}

/**
 * A device that numbers its messages, tells its boot, and goes on until all is acknowledged: what was not
 * when its connection ended is sent again, and some of what was too, as if the PUBACK had been lost. The
 * value of a message is its number; it has no time.
 */
export class NumberedDevice {
  readonly organizationId: number;
  readonly deviceId: number;
  readonly boot: number;
  lastSeq = 0;
  /** What must not be: a message acknowledged twice on one connection. */
  readonly twiceAcknowledged: number[] = [];
  #connection: Connection | null = null;
  /** Sent on this connection. */
  readonly #underWay = new Set<number>();
  #toSendAgain: number[] = [];
  #acknowledged: number[] = [];

  constructor(organizationId: number, deviceId: number, boot: number) {
    this.organizationId = organizationId;
    this.deviceId = deviceId;
    this.boot = boot;
  }

  get isSettled(): boolean {
    return this.#underWay.size === 0 && this.#toSendAgain.length === 0;
  }

  /** Does a little of what a device may do. */
  step(ingest: Ingest, random: Random): void {
    const isConnected = this.#connection !== null;
    const chance = random.between(0, 1);
    if (chance < (isConnected ? RECONNECT_CHANCE : CONNECT_CHANCE)) this.connect(ingest, random);
    else if (isConnected) this.#sendSome(Math.floor(random.between(0, 3)), true);
  }

  /** Sends nothing new. */
  settle(ingest: Ingest, random: Random): void {
    if (this.#connection === null) this.connect(ingest, random);
    else this.#sendSome(UNDER_WAY_MAX, false);
  }

  connect(ingest: Ingest, random: Random): void {
    this.disconnect();
    const lane = ingest.openLane(this.organizationId, this.deviceId);
    ingest.setBoot(lane, this.boot);
    this.#connection = { ingest, lane };
    const lost = this.#acknowledged
      .splice(-Math.floor(random.between(1, LOST_PUBACKS_MAX + 1)))
      .filter((seq) => seq > this.lastSeq - AHEAD_MAX);
    this.#toSendAgain = [...this.#toSendAgain, ...this.#underWay, ...lost].toSorted(
      (a, b) => a - b,
    );
    this.#underWay.clear();
  }

  disconnect(): void {
    if (this.#connection === null) return;
    this.#connection.ingest.closeLane(this.#connection.lane);
    this.#connection = null;
  }

  #sendSome(count: number, isNewAllowed: boolean): void {
    for (let sent = 0; sent < count && this.#underWay.size < UNDER_WAY_MAX; sent += 1) {
      const seq = this.#toSendAgain.shift() ?? (isNewAllowed ? this.#nextSeq() : null);
      if (seq === null || this.#connection === null) return;
      this.#send(this.#connection, seq);
    }
  }

  #nextSeq(): number | null {
    if (this.lastSeq - Math.min(...this.#underWay) > AHEAD_MAX) return null;
    this.lastSeq += 1;
    return this.lastSeq;
  }

  #send(connection: Connection, seq: number): void {
    const isOpen = (): boolean => connection === this.#connection;
    const source: Source = {
      report: () => undefined,
      resume: () => undefined,
      close: () => void setImmediate(() => isOpen() && this.disconnect()),
    };
    const acknowledge = (): void => {
      if (!isOpen()) return;
      if (!this.#underWay.delete(seq)) this.twiceAcknowledged.push(seq);
      this.#acknowledged = [...this.#acknowledged, seq].slice(-LOST_PUBACKS_MAX);
    };
    this.#underWay.add(seq);
    connection.ingest.accept(connection.lane, makePublication(payloadOf(seq), acknowledge, source));
  }
}

/** The same number gives the same message. */
function payloadOf(seq: number): string {
  const other = seq / OTHER_METRIC_EVERY;
  const metric = Number.isInteger(other) ? `other${other % OTHER_METRICS}` : 'temp';
  return JSON.stringify({ seq, [metric]: seq });
}

/** Devices that send to whichever ingest runs, a step at a time. The seed decides all but the timing. */
export class NumberedFleet {
  readonly devices: readonly NumberedDevice[];
  readonly #random: Random;
  readonly #ingest: () => Ingest;

  constructor(devices: readonly NumberedDevice[], random: Random, ingest: () => Ingest) {
    this.devices = devices;
    this.#random = random;
    this.#ingest = ingest;
  }

  /** Lets all of them do something so many times. */
  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps; step += 1) {
      for (const device of this.devices) device.step(this.#ingest(), this.#random);
      await delay(STEP_MS);
    }
  }

  /** As {@link run} until a condition holds; fails when it does not for long. */
  async runUntil(wanted: string, holds: () => boolean, stepsMax = 5000): Promise<void> {
    for (let step = 0; !holds(); step += 1) {
      if (step === stepsMax) throw new Error(`not within ${stepsMax} steps: ${wanted}`);
      await this.run(1);
    }
  }

  /** Lets them send only what is not acknowledged. @returns whether there is none left. */
  settle(): boolean {
    for (const device of this.devices) device.settle(this.#ingest(), this.#random);
    return this.devices.every(({ isSettled }) => isSettled);
  }

  disconnect(): void {
    for (const device of this.devices) device.disconnect();
  }
}
