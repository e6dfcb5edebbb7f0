import type { Timed } from '../../deadline-heap.ts';
import type { ConnectionState, Silence } from '../compiled-rule.ts';
import type { DeviceEvaluation } from './device-evaluation.ts';
import type { StoredEvent } from './device-load.ts';
import type { DeviceSeries } from './device-series.ts';
import type { OrganizationRules } from './rule-index.ts';

/** A reading that waits with the others of its sample. */
export interface HeldReading {
  readonly metric: string;
  readonly value: number;
  readonly text: string | null;
}

/** Something of a device that waits to be evaluated. */
export type Held =
  | {
      readonly kind: 'sample';
      readonly timeMicros: number;
      readonly receivedMicros: number;
      readonly readings: readonly HeldReading[];
    }
  | { readonly kind: 'event'; readonly event: StoredEvent; readonly receivedMicros: number }
  | {
      readonly kind: 'connection';
      readonly connection: ConnectionState;
      readonly atMicros: number;
    }
  | {
      readonly kind: 'silence';
      readonly ruleId: number;
      readonly silence: Silence | null;
      readonly atMicros: number;
    };

/** A device whose readings are observed, and its evaluation once it is loaded. */
export class LiveDevice implements Timed {
  readonly deviceId: number;
  /** Null until it is loaded, when only its id is known. */
  organization: OrganizationRules | null = null;
  /** Null until it is loaded. */
  evaluation: DeviceEvaluation | null = null;
  /** What waits for it to be loaded, or for the alert log; null when nothing does. In order of arrival. */
  held: Held[] | null = null;
  /** Readings, events and changes in {@link held}. */
  heldCount = 0;
  /** While it waits to be loaded, for the first time or again. */
  isLoading = false;
  /** Moves on when the rules of its evaluation are exchanged: handles are to be asked for anew. */
  revision = 0;
  /** Rules that were told to look for its silence. */
  watchedRules: readonly number[] = [];
  /** Milliseconds of the wall clock. */
  usedMs = 0;
  /** Let go of; whoever still has a series of it finds or makes the one that took its place. */
  isForgotten = false;
  deadlineMs = 0;
  heapIndex = -1;

  constructor(deviceId: number) {
    this.deviceId = deviceId;
  }
}

/** A series as ingest keeps it. */
export class LiveSeries {
  readonly organizationId: number;
  readonly metric: string;
  device: LiveDevice;
  /** What {@link isWatched} and {@link handle} were found with. */
  organization: OrganizationRules | null = null;
  evaluation: DeviceEvaluation | null = null;
  revision = -1;
  /** Whether a rule looks at it, as far as is known. */
  isWatched = false;
  isOfFleet = false;
  /** Null while the device is not loaded, and when none of its rules looks at it. */
  handle: DeviceSeries | null = null;

  constructor(organizationId: number, metric: string, device: LiveDevice) {
    this.organizationId = organizationId;
    this.metric = metric;
    this.device = device;
  }
}

/** Gives a device what waited of it. */
export function evaluateHeld(evaluation: DeviceEvaluation, item: Held): void {
  if (item.kind === 'event') evaluation.takeEvent(item.event);
  else if (item.kind === 'connection') evaluation.setConnection(item.connection, item.atMicros);
  else if (item.kind === 'silence') evaluation.setSilence(item.ruleId, item.silence, item.atMicros);
  else {
    for (const { metric, value, text } of item.readings) {
      const handle = evaluation.series(metric);
      if (handle !== null) evaluation.reading(handle, value, text);
    }
    evaluation.sampleEnd(item.timeMicros);
  }
}
