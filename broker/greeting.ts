import type { Hello } from '../firmware-protocol/hello.ts';
import { canonicalTopic, type DeviceIdentity } from '../firmware-protocol/topics.ts';
import type { Session } from './session.ts';

/** A device that can be greeted. */
export interface GreetedDevice {
  readonly principal: DeviceIdentity;
  /** Null when its connection has not begun. */
  readonly session: Pick<Session, 'send'> | null;
  /** Highest `seq` of its boot up to which everything is stored; null when that is not known. */
  readonly storedSequence: number | null;
}

/** What waits for a device. */
export interface Waiting {
  /** How many commands wait. */
  readonly commands: number;
  /** Version of the configuration that is wanted; 0 when there is none. */
  readonly configVersion: number;
}

/** Says what waits for a device that is about to be greeted; soon, and never rejects. */
export type FindWaiting<Device> = (device: Device) => Promise<Waiting>;

/** Several filters and a hello in one go are one greeting. */
const COALESCE_MS = 20;

/** A greeting that is under way. */
interface DueGreeting {
  /** To be echoed. */
  upMs: number | null;
  readonly sent: Promise<void>;
}

/**
 * Greets a device that subscribes to its inbox or says hello: `in/hello`
 * `{"ts":1795235431857,"up":812,"cmd":2,"cfg":7,"seq":1234}` carries the server's time in ms since 1970
 * for boards without a clock, how many commands wait, which version of the configuration is wanted, and
 * up to which `seq` everything is stored. `up` is echoed when the device said it. At most one greeting
 * is under way to a device.
 */
export class Greetings<Device extends GreetedDevice> {
  readonly #findWaiting: FindWaiting<Device>;
  readonly #now: () => number;
  /** Devices about to be greeted. */
  readonly #due = new WeakMap<Device, DueGreeting>();

  /** @param now the wall clock, in ms since 1970. */
  constructor(findWaiting: FindWaiting<Device>, now: () => number = Date.now) {
    this.#findWaiting = findWaiting;
    this.#now = now;
  }

  /** Tells that the device may read its inbox. Resolves once it has been greeted; never rejects. */
  subscribed(device: Device): Promise<void> {
    return this.#greetSoon(device).sent;
  }

  /** Tells that the device said hello. The last uptime counts. */
  heard(device: Device, hello: Hello): void {
    this.#greetSoon(device).upMs = hello.up ?? null;
  }

  #greetSoon(device: Device): DueGreeting {
    const underWay = this.#due.get(device);
    if (underWay !== undefined) return underWay;
    const sent = new Promise<void>((resolve) => {
      setTimeout(() => resolve(this.#greet(device)), COALESCE_MS);
    });
    const due = { upMs: null, sent };
    this.#due.set(device, due);
    return due;
  }

  async #greet(device: Device): Promise<void> {
    const { commands, configVersion } = await this.#findWaiting(device);
    const up = this.#due.get(device)?.upMs ?? null;
    this.#due.delete(device);
    const seq = device.storedSequence;
    device.session?.send(canonicalTopic(device.principal, 'in/hello'), {
      ts: this.#now(),
      ...(up === null ? {} : { up }),
      cmd: commands,
      cfg: configVersion,
      ...(seq === null ? {} : { seq }),
    });
  }
}
