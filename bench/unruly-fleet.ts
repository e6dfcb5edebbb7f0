import { setTimeout as delay } from 'node:timers/promises';
import type { AcknowledgementCheck } from './acknowledgement-check.ts';
import type { Random } from './random.ts';
import { UnrulyDevice, type Habit, type UnrulyForm } from './unruly-device.ts';

/** How the devices of an unruly fleet tell their messages apart, and their QoS, in turn. */
const KINDS: readonly { form: UnrulyForm; qos: 1 | 2 }[] = [
  { form: 'time', qos: 1 },
  { form: 'sequence', qos: 1 },
  { form: 'both', qos: 1 },
  { form: 'time', qos: 2 },
  { form: 'sequence', qos: 2 },
  { form: 'both', qos: 2 },
];
const TICK_MS = 50;
const PER_TICK = 2;

/** Number of devices that holds each kind once. */
export const UNRULY_DEVICES = KINDS.length;

/** A few devices that repeat, reorder and replay what they send when they are told to. */
export class UnrulyFleet {
  readonly #devices: readonly UnrulyDevice[];
  #timer: NodeJS.Timeout | undefined;
  #acknowledged = 0;

  constructor(
    keys: readonly { device: string; key: string }[],
    mqttUrl: string,
    random: Random,
    check: AcknowledgementCheck,
  ) {
    this.#devices = keys.map(({ device, key }, index) => {
      const { form, qos } = KINDS[index % KINDS.length] ?? { form: 'time', qos: 1 };
      const acknowledged = (name: string, { number, timeMs }: AcknowledgedMessage): void => {
        this.#acknowledged += 1;
        check.add({ device: name, number, timeMs, acknowledgedAtMs: Date.now() });
      };
      return new UnrulyDevice({ device, key, form, qos, mqttUrl, random, acknowledged });
    });
  }

  /** PUBACKs and PUBRECs so far, those of repeated messages included. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  start(): void {
    for (const device of this.#devices) device.start();
    this.#timer = setInterval(() => {
      for (const device of this.#devices) device.publish(PER_TICK);
    }, TICK_MS);
  }

  /** What every device does from now on. */
  setHabit(habit: Habit): void {
    for (const device of this.#devices) device.habit = habit;
  }

  /**
   * Makes nothing new and waits for what is under way.
   * @returns how many messages are still not acknowledged after `timeoutMs`.
   */
  async drain(timeoutMs: number): Promise<number> {
    clearInterval(this.#timer);
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const waiting = this.#devices.reduce((sum, device) => sum + device.drain(), 0);
      if (waiting === 0 || performance.now() > deadline) return waiting;
      await delay(TICK_MS);
    }
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const device of this.#devices) device.stop();
  }
}

interface AcknowledgedMessage {
  readonly number: number;
  readonly timeMs: number | null;
}
