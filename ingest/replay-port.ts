import type { Lane } from './lane.ts';
import type { Publication, Receipt } from './message.ts';

/** The live way in of ingest, as far as a request of HTTP needs it. */
export interface LiveWayIn {
  openLane(organizationId: number, deviceId: number, address: string): Lane;
  closeLane(lane: Lane): void;
  /** @returns false when the message waits before the queue. */
  accept(lane: Lane, publication: Publication): boolean;
}

/** Which samples of what is fed in again are refused as `too_old`; as the live ones when left out. */
export interface ReplayOptions {
  /** Those that were older when they were received. */
  readonly ageMaxMs?: number;
  /** Those from before it. Microseconds since 1970. */
  readonly notBeforeMicros?: number;
}

/** The way in of what is stored somewhere already: without rates, and never through the spool. */
export interface ReplayWayIn {
  openReplay(organizationId: number, deviceId: number, options?: ReplayOptions): Lane;
  closeReplay(lane: Lane): void;
  /**
   * @param receipt how it was received the first time; null for now.
   * @returns false when the message waits: nothing more until its source is told to go on.
   */
  acceptReplay(lane: Lane, publication: Publication, receipt: Receipt | null): boolean;
}
