import type { Registry } from 'prom-client';
import { DeadlineHeap, type Timed } from '../../deadline-heap.ts';
import { reasonOf } from '../../errors.ts';
import type { Hello } from '../../firmware-protocol/hello.ts';
import type { DeviceIdentity } from '../../firmware-protocol/topics.ts';
import type { Logger } from '../../log.ts';
import { createPresenceMetrics, type PresenceMetrics } from './presence-metrics.ts';
import type { PresencePage, PresencePort } from './presence-port.ts';
import { recoverPresence } from './presence-recovery.ts';
import {
  createConnectionNumbers,
  deadlineOf,
  stepPresence,
  type DevicePresence,
  type PresenceEvent,
} from './presence-state.ts';
import { PresenceWriter, type WritableDevice } from './presence-writer.ts';
import { decodeStatus, encodeStatus, isSameStatus, statusTopic } from './status.ts';

/** A device as its key says. */
export interface PresentDevice extends DeviceIdentity {
  readonly organizationId: number;
  readonly deviceId: number;
}

/** A connection of a device that was let in. */
export interface DeviceConnection extends PresentDevice {
  readonly address: string;
  /** Of {@link Presence.nextConnectionNumber}. */
  readonly connectionNumber: number;
}

/** What {@link Presence} needs. */
export interface PresenceDeps {
  readonly store: PresencePort;
  /**
   * Publishes a retained message of QoS 1 and resolves when it is kept. An empty payload removes what is
   * kept. The message must be on its way, and seen by `readStatus`, when this returns.
   */
  readonly publishStatus: (topic: string, payload: Buffer) => Promise<void>;
  /** Payload of the message that is retained under a topic. */
  readonly readStatus: (topic: string) => Buffer | null;
  /** Topics of all retained messages that match `v1/+/+/status`; asked once, at start. */
  readonly retainedStatusTopics: () => Iterable<string>;
  /** Told of each change, and of each new connection, at once. Must not throw. */
  readonly onChanged?: ((change: PresenceChange) => void) | undefined;
  /** The wall clock, in ms since 1970. */
  readonly now: () => number;
  readonly log: Logger;
  readonly registry: Registry;
}

/** What the presence of a device has become. */
export interface PresenceChange {
  readonly organizationId: number;
  readonly deviceId: number;
  readonly presence: DevicePresence;
}

/** Retained `status` messages of some devices. */
export interface StatusPage {
  readonly messages: readonly { readonly topic: string; readonly payload: Buffer }[];
  /** For the next page; null when there is none. */
  readonly after: number | null;
}

interface Device extends PresentDevice, WritableDevice, Timed {
  presence: DevicePresence;
}

const SWEEP_MS = 1000;
/** Devices that one sweep declares offline; the others wait a second. */
const SWEPT_MAX = 5000;
/** Hellos of one connection that wait for their row. */
const WAITING_MAX = 64;

/**
 * Who is there. Keeps `online`, `sleeping` and `offline` of every device in its retained `status`, at
 * once, and in the database, a moment later. In memory are the devices that are online or sleeping and
 * those whose row is not written yet. For the states see {@link DevicePresence}.
 */
export class Presence {
  readonly #deps: PresenceDeps;
  readonly #metrics: PresenceMetrics;
  readonly #writer: PresenceWriter<Device>;
  readonly #numbers = createConnectionNumbers(
    () => (performance.timeOrigin + performance.now()) * 1000,
  );
  readonly #devices = new Map<number, Device>();
  readonly #sleeping = new DeadlineHeap<Device>();
  #online = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Pages that are being read, and devices that must not be let go of before they are. */
  #pageReads = 0;
  readonly #settled = new Set<Device>();
  #isStatusFailing = false;

  constructor(deps: PresenceDeps) {
    this.#deps = deps;
    this.#metrics = createPresenceMetrics(deps.registry, () => ({
      online: this.#online,
      sleeping: this.#sleeping.size,
      queuedRows: this.#writer.queuedRows,
    }));
    this.#writer = new PresenceWriter<Device>({
      store: deps.store,
      log: deps.log,
      metrics: this.#metrics,
      onWritten: (device, written) => this.#written(device, written),
      onGone: (device) => this.forget(device),
    });
  }

  /**
   * Corrects what a run that ended has left behind and takes over the devices that sleep. To be awaited
   * before anybody can connect. @throws {AppError} when the database is away.
   */
  async start(): Promise<void> {
    const { store, readStatus, retainedStatusTopics, now, log } = this.#deps;
    const startedAt = performance.now();
    const counts = await recoverPresence({
      store,
      readStatus,
      retainedTopics: retainedStatusTopics,
      publish: (topic, payload) => this.#publish(topic, payload),
      nowMs: now(),
      onSleeping: (device, presence) => {
        this.#sleeping.put(this.#remember(device, presence), deadlineOf(presence));
      },
      onNumber: (connectionNumber) => this.#numbers.raise(connectionNumber),
    });
    log.info({ ...counts, durationMs: performance.now() - startedAt }, 'presence recovered');
    this.#timer = setInterval(() => this.sweep(), SWEEP_MS);
    this.#timer.unref();
  }

  /** Declares all devices gone and writes everything out, as far as it goes. Never rejects. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    const published: Promise<void>[] = [];
    for (const device of this.#devices.values()) {
      const { connectionNumber } = device.presence;
      const gone = { kind: 'disconnect', connectionNumber, atMs: this.#deps.now() } as const;
      published.push(this.#step(device, gone));
    }
    await Promise.all(published);
    await this.#writer.stop();
  }

  /** A number for a connection, higher than any that was given before, by earlier runs as well. */
  nextConnectionNumber(): number {
    return this.#numbers.next();
  }

  /** Notes a connection. What an older connection of the device says no longer counts. */
  connected(connection: DeviceConnection): void {
    const { connectionNumber, address } = connection;
    const atMs = this.#deps.now();
    const event = { kind: 'connect', connectionNumber, address, atMs } as const;
    const known = this.#devices.get(connection.deviceId);
    if (known !== undefined) {
      if (connectionNumber > known.presence.connectionNumber) known.waiting = [];
      void this.#step(known, event);
      return;
    }
    const payload = this.#deps.readStatus(statusTopic(connection));
    const before = payload === null ? null : decodeStatus(payload);
    const presence = stepPresence(before, event);
    if (presence === null) return;
    void this.#changed(this.#remember(connection, presence), before);
  }

  /** Notes the end of a connection, clean or not. May be called late, and more than once. */
  disconnected(deviceId: number, connectionNumber: number): void {
    const device = this.#devices.get(deviceId);
    if (device === undefined) return;
    if (connectionNumber === device.presence.connectionNumber) device.waiting = [];
    void this.#step(device, { kind: 'disconnect', connectionNumber, atMs: this.#deps.now() });
  }

  /**
   * Notes what a device says of itself.
   * @param onStored called once that is committed, and never when the connection has ended before.
   * @returns false when too many wait for that already; nothing was noted then.
   */
  hello(deviceId: number, connectionNumber: number, said: Hello, onStored: () => void): boolean {
    const device = this.#devices.get(deviceId);
    if (device?.presence.connectionNumber !== connectionNumber) return true;
    if (device.waiting.length >= WAITING_MAX) return false;
    device.waiting.push(onStored);
    const atMs = this.#deps.now();
    void this.#step(device, { kind: 'hello', connectionNumber, hello: said, atMs });
    return true;
  }

  /** Lets go of a device that was deleted, and of its retained `status`. */
  forget(device: PresentDevice): void {
    const known = this.#devices.get(device.deviceId);
    if (known !== undefined) {
      if (known.presence.state === 'online') this.#online -= 1;
      this.#sleeping.remove(known);
      this.#writer.forget(known);
      this.#settled.delete(known);
      this.#devices.delete(device.deviceId);
    }
    void this.#publish(statusTopic(device), Buffer.alloc(0));
  }

  /** Declares sleeping devices offline that are overdue. Runs by itself each second. */
  sweep(): void {
    const atMs = this.#deps.now();
    for (let swept = 0; swept < SWEPT_MAX; swept += 1) {
      const device = this.#sleeping.takeDue(atMs);
      if (device === null) return;
      void this.#step(device, { kind: 'tick', atMs });
    }
  }

  /**
   * What the database may not know yet. Of members of the hello only those are there that were said
   * lately: they are to be laid over the stored ones.
   * @returns null when the stored row is all there is to know.
   */
  current(deviceId: number): DevicePresence | null {
    return this.#devices.get(deviceId)?.presence ?? null;
  }

  /**
   * Resolves when everything is stored that was noted before. @throws {AppError} when the database is
   * away; it is stored later all the same.
   */
  flush(): Promise<void> {
    return this.#writer.flush();
  }

  /**
   * The `status` messages of an organization's devices in the order of their ids, never older than what
   * was published when this was called. @throws {AppError} when the database is away.
   */
  async statusPage(page: PresencePage): Promise<StatusPage> {
    this.#pageReads += 1;
    try {
      await this.#writer.flush();
      const rows = await this.#deps.store.listOf(page);
      const messages = rows.map((row) => {
        const presence = this.#devices.get(row.deviceId)?.presence ?? row.presence;
        return { topic: statusTopic(row), payload: encodeStatus(presence) };
      });
      const last = rows.length < page.limit ? undefined : rows.at(-1);
      return { messages, after: last?.deviceId ?? null };
    } finally {
      this.#pageReads -= 1;
      if (this.#pageReads === 0) this.#releaseSettled();
    }
  }

  #remember(
    { organizationId, organization, deviceId, device }: PresentDevice,
    presence: DevicePresence,
  ): Device {
    const remembered: Device = {
      organizationId,
      organization,
      deviceId,
      device,
      presence,
      isWriting: false,
      isForgotten: false,
      waiting: [],
      deadlineMs: 0,
      heapIndex: -1,
    };
    this.#devices.set(deviceId, remembered);
    return remembered;
  }

  #step(device: Device, event: PresenceEvent): Promise<void> {
    const before = device.presence;
    const after = stepPresence(before, event);
    if (after === null || after === before) return DONE;
    device.presence = after;
    if (before.state === 'online') this.#online -= 1;
    return this.#changed(device, before);
  }

  #changed(device: Device, before: DevicePresence | null): Promise<void> {
    const { presence } = device;
    if (presence.state === 'online') this.#online += 1;
    if (presence.state === 'sleeping') this.#sleeping.put(device, deadlineOf(presence));
    else this.#sleeping.remove(device);
    this.#settled.delete(device);
    this.#writer.put(device);
    const { organizationId, deviceId } = device;
    this.#deps.onChanged?.({ organizationId, deviceId, presence });
    if (before !== null && isSameStatus(before, presence)) return DONE;
    return this.#publish(statusTopic(device), encodeStatus(presence));
  }

  async #publish(topic: string, payload: Buffer): Promise<void> {
    this.#metrics.statusPublished();
    try {
      await this.#deps.publishStatus(topic, payload);
      this.#isStatusFailing = false;
    } catch (error) {
      this.#metrics.statusFailed();
      if (!this.#isStatusFailing)
        this.#deps.log.warn({ reason: reasonOf(error) }, 'status not kept');
      this.#isStatusFailing = true;
    }
  }

  #written(device: Device, written: DevicePresence): void {
    if (this.#writer.isQueued(device)) return;
    const { u: units, ...hello } = written.hello;
    // The largest part of a hello, and of no use here.
    if (units !== undefined && device.presence === written) device.presence = { ...written, hello };
    if (device.presence.state !== 'offline') return;
    if (this.#pageReads > 0) this.#settled.add(device);
    else this.#devices.delete(device.deviceId);
  }

  #releaseSettled(): void {
    for (const device of this.#settled) this.#devices.delete(device.deviceId);
    this.#settled.clear();
  }
}

const DONE = Promise.resolve();
