import type { AlertState } from '../alert/alert.ts';
import type { ConnectionState } from '../compiled-rule.ts';

/** A device as rules see it. */
export interface RuleDevice {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly slug: string;
  readonly tags: readonly string[];
  /** Null when nobody has said. */
  readonly type: string | null;
}

/** A reading of history, with what it was. */
export interface StoredReading {
  readonly metric: string;
  readonly timeMicros: number;
  /** NaN of a text. */
  readonly value: number;
  readonly text: string | null;
}

/** An event of history. */
export interface StoredEvent {
  readonly name: string;
  readonly timeMicros: number;
  /** Parsed; null when nothing was sent with it. */
  readonly content: unknown;
}

/** An alert that was open when the program ended, or that another program has opened. */
export interface OpenAlert {
  readonly alertId: string;
  readonly ruleId: number;
  readonly ruleVersion: number;
  readonly deviceId: number;
  readonly groupKey: string;
  readonly state: AlertState;
  /** Of its last transition that is recorded. */
  readonly sequence: number;
  readonly occurrences: number;
  /** Event time of that transition. */
  readonly changedMicros: number;
}

/** How far the steps of a rule that holds no more are on record; see {@link LoadedDevice.settled}. */
export interface SettledAlert {
  readonly ruleId: number;
  readonly groupKey: string;
  /** Event time of the last step. */
  readonly untilMicros: number;
}

/** All that is needed to evaluate rules for a device as if the program had never stopped. */
export interface LoadedDevice {
  readonly device: RuleDevice;
  readonly connection: ConnectionState;
  /** Since when the connection is that; 0 of `never`. */
  readonly connectionMicros: number;
  readonly open: readonly OpenAlert[];
  /**
   * In order of time, each metric that a rule in scope looks at: as far back as windows reach, and at least
   * the last reading of each. Nothing at or behind `before` of the request.
   */
  readonly history: readonly StoredReading[];
  /** In order of time: those that rules wait for, as far back as they hold; none when left out. */
  readonly events?: readonly StoredEvent[];
  /** From here on `history` may not have been evaluated before the program ended; Infinity: all of it was. */
  readonly catchUpFromMicros: number;
  /** Event time before which all ticks were taken; -Infinity, as when it is left out: that is not known. */
  readonly tickedMicros?: number;
  /**
   * Alerts that ended at or behind `catchUpFromMicros` or `tickedMicros`, the last of each (rule, group
   * key). While history is evaluated again, and at ticks, an alert takes no step at or before
   * `untilMicros`, nor an open one at or before its `changedMicros`: those are on record, with state from
   * before in them.
   */
  readonly settled: readonly SettledAlert[];
}

/** Which device is to be loaded, and what of it. */
export interface LoadRequest {
  readonly deviceId: number;
  /** Event time of the first reading that waits for this load; Infinity when none does. */
  readonly beforeMicros: number;
  /**
   * When the first reading that waits was received. When it is given, it decides what is history in place
   * of `beforeMicros`: what was received earlier, whatever its time is. So a first reading that comes late
   * does not hide the newer ones.
   */
  readonly receivedBeforeMicros?: number;
  /** Names of events that rules of its organization wait for, and for how long they may hold, in microseconds. */
  readonly events?: ReadonlyMap<string, number>;
  /** What rules of its organization look at, and how far back. */
  readonly metrics: ReadonlyMap<
    string,
    {
      readonly historyMicros: number;
      /** At least so many of the last readings as well; 0 when left out. */
      readonly historySamples?: number;
    }
  >;
}

/** Loads devices, many at a time. Rejects with a retryable `AppError` while the database is away. */
export interface DeviceLoader {
  /** A device that does not exist is missing in the answer. At most 500 at a time. */
  load(requests: readonly LoadRequest[]): Promise<readonly LoadedDevice[]>;
}
