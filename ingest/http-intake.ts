import { CLOCK_SET_MICROS, Refusal, type RefusalCode } from '../firmware-protocol/contract.ts';
import { decodeSenml } from '../firmware-protocol/senml.ts';
import { decodeData } from '../firmware-protocol/telemetry.ts';
import { canonicalTopic } from '../firmware-protocol/topics.ts';
import type { Lane } from './lane.ts';
import type { KeptApartCode, Publication } from './message.ts';
import type { DropReason } from './metrics.ts';
import type { LiveWayIn, ReplayWayIn } from './replay-port.ts';

/** How a payload over HTTP is read: as on the topic of that name. */
export type HttpChannel = 'data' | 'senml';

/** The device that a payload is of. */
export interface HttpDevice {
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  readonly deviceId: number;
  /** Slug of the device. */
  readonly device: string;
}

/** One payload, as it came. */
export interface HttpMessage {
  readonly channel: HttpChannel;
  readonly payload: Buffer;
}

/**
 * What became of a payload. `stored`: it is committed, or synced to the spool while the database is away.
 * `quarantined`: it, or a part of it, cannot be stored as readings and is kept in quarantine. `rate`: not
 * taken, more than is allowed. `refused`: not taken, its time cannot be right. `unavailable`: not known to be stored; to be sent again.
 */
export type HttpOutcome =
  | { readonly kind: 'stored' }
  | { readonly kind: 'quarantined'; readonly code: KeptApartCode; readonly detail: string }
  | { readonly kind: 'refused'; readonly detail: string }
  | { readonly kind: 'rate'; readonly detail: string }
  | { readonly kind: 'unavailable'; readonly detail: string };

/** What {@link HttpIntake} is joined with. */
export interface HttpIntakeParts {
  readonly ingest: LiveWayIn & ReplayWayIn;
  /** Subscribers of what devices send. */
  readonly subscribers: {
    isWanted(topic: string): boolean;
    /** @returns a promise when something is to be written down before the device is answered. */
    publish(topic: string, payload: Buffer): Promise<void> | null;
  };
  /** Longest wait for a COMMIT, in ms; then the outcome is `unavailable`. */
  readonly timeoutMs: number;
  /** Oldest reading that {@link HttpIntake.store} takes for an organization, in ms. */
  readonly ageMaxMs: (organizationId: number) => Promise<number>;
  /** The furthest that a reading of it may be ahead, in ms. */
  readonly aheadMaxMs: number;
}

const WAITED = 'not stored in time; it may be stored yet';
const STOPPING = 'the program is shutting down';
const FULL = 'more is waiting for the database than can be held';

/**
 * Payloads that come as requests of HTTP: each waits for its own COMMIT, and no longer than a bound.
 * Nothing is `stored` that ingest has not acknowledged.
 */
export class HttpIntake {
  readonly #parts: HttpIntakeParts;
  #isStopped = false;

  constructor(parts: HttpIntakeParts) {
    this.#parts = parts;
  }

  /**
   * A message of a device: as if it came over MQTT, with its rates, and seen by subscribers.
   * @param address of the client, for limits by address. Rejects never.
   */
  publish(device: HttpDevice, message: HttpMessage, address: string): Promise<HttpOutcome> {
    const { ingest, subscribers } = this.#parts;
    const topic = canonicalTopic(device, 'data');
    return this.#await(device, message, {
      open: () => ingest.openLane(device.organizationId, device.deviceId, address),
      accept: (lane, publication) => ingest.accept(lane, publication),
      close: (lane) => ingest.closeLane(lane),
      isWanted: () => subscribers.isWanted(topic),
      stored: (canonical) => subscribers.publish(topic, canonical),
    });
  }

  /**
   * Readings, as old as they are kept, that somebody else brings for a device: without rates, and not sent
   * on. A time before 2020 or in the future is refused: of history nobody wants the time of receipt in its
   * place, as for a board whose clock is wrong. @throws {StoreUnavailableError}
   */
  async store(device: HttpDevice, message: HttpMessage): Promise<HttpOutcome> {
    const { ingest, aheadMaxMs } = this.#parts;
    const fault = findClockFault(message, (Date.now() + aheadMaxMs) * 1000);
    if (fault !== null) return { kind: 'refused', detail: fault };
    const ageMaxMs = await this.#parts.ageMaxMs(device.organizationId);
    return this.#await(device, message, {
      open: () => ingest.openReplay(device.organizationId, device.deviceId, { ageMaxMs }),
      accept: (lane, publication) => ingest.acceptReplay(lane, publication, null),
      close: (lane) => ingest.closeReplay(lane),
      isWanted: () => false,
      stored: () => null,
    });
  }

  /** Takes nothing more: the outcome is `unavailable`. Who waits already is told what becomes of it. */
  stop(): void {
    this.#isStopped = true;
  }

  #await(device: HttpDevice, message: HttpMessage, way: Way): Promise<HttpOutcome> {
    if (this.#isStopped) return Promise.resolve({ kind: 'unavailable', detail: STOPPING });
    return new Promise((resolve) => {
      const lane = way.open();
      let isSettled = false;
      const timer = setTimeout(
        () => settle({ kind: 'unavailable', detail: WAITED }),
        this.#parts.timeoutMs,
      );
      const settle = (outcome: HttpOutcome): void => {
        if (isSettled) return;
        isSettled = true;
        clearTimeout(timer);
        way.close(lane);
        resolve(outcome);
      };
      way.accept(lane, publicationOf(device, message, way, settle));
    });
  }
}

/** What is wrong with a time of a payload; null when nothing is, or when it cannot be read at all. */
function findClockFault({ channel, payload }: HttpMessage, latestMicros: number): string | null {
  const decoded = channel === 'data' ? decodeData(payload) : decodeSenml(payload);
  if (decoded instanceof Refusal) return null;
  const isWrong = decoded.samples.some(
    ({ tsMicros }) => tsMicros !== null && (tsMicros < CLOCK_SET_MICROS || tsMicros > latestMicros),
  );
  return isWrong ? 'ts: must be after 2020 and not in the future; nothing was stored' : null;
}

/** One of the two ways in. */
interface Way {
  readonly open: () => Lane;
  readonly accept: (lane: Lane, publication: Publication) => boolean;
  readonly close: (lane: Lane) => void;
  readonly isWanted: () => boolean;
  readonly stored: (canonical: Buffer) => Promise<void> | null;
}

function publicationOf(
  device: HttpDevice,
  { channel, payload }: HttpMessage,
  way: Way,
  settle: (outcome: HttpOutcome) => void,
): Publication {
  let refused: { code: RefusalCode; detail: string } | null = null;
  return {
    source: {
      report(code, _channel, detail) {
        // Only a warning: the message is stored under the time of receipt.
        if (code !== 'clock') refused ??= { code, detail };
      },
      resume: () => undefined,
      close: (reason) => settle(droppedOutcome(reason, refused?.detail)),
    },
    channel,
    name: null,
    refusal: null,
    word: channel,
    topic: canonicalTopic(device, channel),
    payload,
    // Above 0: what is not taken is told by close, and never acknowledged as lost.
    qos: 1,
    isWanted: way.isWanted,
    acknowledge(canonical, keptApart) {
      const written = canonical === null ? null : way.stored(canonical);
      const outcome: HttpOutcome =
        keptApart === null
          ? { kind: 'stored' }
          : { kind: 'quarantined', code: keptApart.code, detail: keptApart.detail };
      if (written === null) settle(outcome);
      else void written.then(() => settle(outcome));
    },
  };
}

function droppedOutcome(reason: DropReason, detail = FULL): HttpOutcome {
  return reason === 'rate' || reason === 'quota'
    ? { kind: 'rate', detail }
    : { kind: 'unavailable', detail };
}
