import type { Lane } from './lane.ts';
import type { Publication, Receipt } from './message.ts';

/** The live way in of ingest, as far as a request of HTTP needs it. */
export interface LiveWayIn {
  openLane(organizationId: number, deviceId: number, address: string): Lane;
  closeLane(lane: Lane): void;
  /** @returns false when the message waits before the queue. */
  accept(lane: Lane, publication: Publication): boolean;
}

/** The way in of what is stored somewhere already: without rates, and never through the spool. */
export interface ReplayWayIn {
  /** @param options `ageMaxMs`: older samples are refused as `too_old`. */
  openReplay(
    organizationId: number,
    deviceId: number,
    options?: { readonly ageMaxMs?: number },
  ): Lane;
  closeReplay(lane: Lane): void;
  /**
   * @param receipt how it was received the first time; null for now.
   * @returns false when the message waits: nothing more until its source is told to go on.
   */
  acceptReplay(lane: Lane, publication: Publication, receipt: Receipt | null): boolean;
}
