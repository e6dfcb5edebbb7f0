import type { Ack } from '../firmware-protocol/ack.ts';
import type { AnsweringDevice } from './command.ts';
import type { CommandPeers } from './commands.ts';

/** What {@link DevicePolls} needs. */
export interface DevicePollsDeps {
  readonly peers: Pick<CommandPeers, 'poll' | 'acknowledge'>;
  /** Whether a device is in quarantine as a whole: what it says is believed by nobody. */
  readonly isQuarantined: (from: AnsweringDevice) => Promise<boolean>;
  /** Longest wait for a COMMIT, in ms. */
  readonly timeoutMs: number;
  /** Monotonic, in ms. */
  readonly now: () => number;
}

/** What became of an answer: stored, not taken and why, or not known to be stored. */
export type PolledAck = 'stored' | 'rate' | 'quarantined' | 'unavailable';

/** What a device that polls finds. */
export type PolledCommand = Awaited<ReturnType<CommandPeers['poll']>>;

/** As over MQTT: of one device at once, and a second in the long run; each is a transaction. */
const BURST = 100;
const PER_S = 20;
/** Devices whose rates are remembered; the longest silent are forgotten first. */
const DEVICES_MAX = 20_000;

/** Devices that ask for their commands over HTTP, in place of a slot. */
export class DevicePolls {
  readonly #deps: DevicePollsDeps;
  /** By device, the longest silent first. */
  readonly #rates = new Map<number, { left: number; atMs: number }>();
  /** Devices whose answer waits for the database: one of each. */
  readonly #answering = new Set<number>();

  constructor(deps: DevicePollsDeps) {
    this.#deps = deps;
  }

  /** The head of its queue, which counts as sent; `rate` when it asks too often. @throws {StoreUnavailableError} */
  async next(from: AnsweringDevice): Promise<PolledCommand | 'rate'> {
    return this.#mayGoOn(from.deviceId) ? this.#deps.peers.poll(from) : 'rate';
  }

  /** Takes an answer. @throws {StoreUnavailableError} */
  async acknowledge(from: AnsweringDevice, ack: Ack): Promise<PolledAck> {
    const { deviceId } = from;
    if (!this.#mayGoOn(deviceId)) return 'rate';
    // What it said before goes on being tried while the database is away.
    if (this.#answering.has(deviceId)) return 'unavailable';
    if (await this.#deps.isQuarantined(from)) return 'quarantined';
    return this.#within(deviceId, this.#deps.peers.acknowledge(from, ack));
  }

  async #within(deviceId: number, stored: Promise<unknown>): Promise<PolledAck> {
    this.#answering.add(deviceId);
    void stored.finally(() => this.#answering.delete(deviceId));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<PolledAck>((resolve) => {
      timer = setTimeout(() => resolve('unavailable'), this.#deps.timeoutMs);
    });
    try {
      return await Promise.race([stored.then((): PolledAck => 'stored'), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #mayGoOn(deviceId: number): boolean {
    const nowMs = this.#deps.now();
    const { left, atMs } = this.#rates.get(deviceId) ?? { left: BURST, atMs: nowMs };
    const filled = Math.min(BURST, left + ((nowMs - atMs) / 1000) * PER_S);
    const isAllowed = filled >= 1;
    this.#rates.delete(deviceId);
    this.#rates.set(deviceId, { left: isAllowed ? filled - 1 : filled, atMs: nowMs });
    if (this.#rates.size > DEVICES_MAX) {
      for (const [longestSilent] of this.#rates) {
        this.#rates.delete(longestSilent);
        break;
      }
    }
    return isAllowed;
  }
}
