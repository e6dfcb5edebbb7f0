import type { AnswerPort } from './broker/device-answers.ts';
import type { ClaimParts } from './broker/claim-client.ts';
import type { DeviceClient } from './broker/device-client.ts';
import type { Waiting } from './broker/greeting.ts';
import type { IntegratorParts } from './broker/integrator-client.ts';
import type { DevicePrincipal } from './broker/principal.ts';
import type { Hello } from './firmware-protocol/hello.ts';

/** Who is told of what devices and integrators say of commands, configuration, keys and firmware. */
export interface DownlinkPort extends AnswerPort {
  /** It said hello. Resolves when what follows from that is committed, or failed; never rejects. */
  greeted(device: DevicePrincipal, hello: Hello): Promise<void>;
  /** It reads its slot: what stands there is on its way. */
  reading(device: DevicePrincipal, usesAlias: boolean): void;
  /** What waits for it. Never rejects. */
  waiting(device: DevicePrincipal): Promise<Waiting>;
  /** An integrator's command. */
  readonly command: IntegratorParts['command'];
  /** A board asks for a name and a key. */
  readonly claim: ClaimParts['claim'];
}

/** Longest wait of a greeting for what follows from a hello; firmware waits 3 s for it. */
const SETTLED_MS_MAX = 500;

/** Which devices have a connection that reads their slot, and what their last hello led to. */
export class SlotReaders {
  readonly #readers = new Map<number, DeviceClient>();
  readonly #hellos = new WeakMap<DeviceClient, Promise<void>>();

  /** Whether the device has a connection now that reads its slot. */
  isReading(deviceId: number): boolean {
    return this.#readers.has(deviceId);
  }

  /** A device was granted its inbox. */
  subscribed(device: DeviceClient): void {
    if (device.readsCommands) this.#readers.set(device.principal.deviceId, device);
  }

  /** A connection has ended; one that came after it still reads. */
  closed(device: DeviceClient): void {
    const { deviceId } = device.principal;
    if (this.#readers.get(deviceId) === device) this.#readers.delete(deviceId);
  }

  /** What follows from a hello is under way. */
  greeted(device: DeviceClient, done: Promise<void>): void {
    this.#hellos.set(device, done);
  }

  /**
   * Resolves when what followed from its last hello is done, so that its greeting tells of it; or soon, for
   * a greeting is not to wait for a database that is away.
   */
  async settled(device: DeviceClient): Promise<void> {
    const hello = this.#hellos.get(device);
    if (hello === undefined) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, SETTLED_MS_MAX);
    });
    await Promise.race([hello, late]);
    clearTimeout(timer);
  }
}
