import type { ConnectionState, Silence } from '../compiled-rule.ts';
import type { SketchContent } from './cadence.ts';
import type { Outage } from './outages.ts';

/** What is known of the silence of a device, for the rule that asked with {@link NoDataWatch}. */
export interface SilenceChange {
  readonly deviceId: number;
  readonly organizationId: number;
  /** Key inside. */
  readonly ruleId: number;
  /** Null: it is not silent. */
  readonly silence: Silence | null;
  /**
   * Time of receipt, microseconds since 1970. Of a silence that begins the deadline itself, however late
   * it is noticed; of one that ends the receipt of the reading; of another kind of silence when that was
   * noticed.
   */
  readonly atMicros: number;
}

/**
 * Told of silences, synchronously; must not throw. The first call for a (device, rule) comes once the
 * device is loaded, also when it is not silent: a condition `noData` has no verdict before it, and an alert
 * that was firing when the program ended must not be resolved for want of it.
 */
export type SilenceListener = (change: SilenceChange) => void;

/** That a rule looks for missing readings of a device. */
export interface NoDataWatch {
  readonly deviceId: number;
  readonly organizationId: number;
  /** Key inside. */
  readonly ruleId: number;
  /** Longest time between two readings; `auto`: as the device says, or as was learned of it. */
  readonly afterMicros: number | 'auto';
}

/** What is stored of the activity of a device. */
export interface StoredActivity {
  readonly deviceId: number;
  readonly organizationId: number;
  /** Receipt of its last reading, as far as is stored; null when there is none. */
  readonly lastReadingMicros: number | null;
  /** When it was last connected; null: never. */
  readonly lastContactMicros: number | null;
  readonly connection: ConnectionState;
  /** Seconds between contacts that it has announced; 0: always on. */
  readonly sleepS: number;
  /** Between two readings, as is declared for the device; null: it is not. */
  readonly intervalMicros: number | null;
  /** Null when nothing was learned of it yet. */
  readonly cadence: SketchContent | null;
}

/** What was learned of a device, to be written. */
export interface CadenceRow {
  readonly deviceId: number;
  readonly gapP99Micros: number;
  readonly sketch: SketchContent;
  readonly lastReceivedMicros: number;
}

/** Where cadences and our own outages are kept. Rejects with a retryable `AppError` while the database is away. */
export interface NoDataStore {
  /** At most 1000 at a time; devices that do not exist are missing in the answer. */
  load(deviceIds: readonly number[]): Promise<readonly StoredActivity[]>;
  /** At most 1000 at a time, each device once; rows of devices that do not exist are left out. */
  writeCadences(rows: readonly CadenceRow[]): Promise<void>;
  /** Our outages until the program ended, oldest first, and when it was last known to be up. */
  loadUptime(): Promise<{ readonly outages: readonly Outage[]; readonly upMicros: number | null }>;
  writeUptime(outages: readonly Outage[], upMicros: number): Promise<void>;
}

/** What the broker knows of a connection now. */
export interface LiveConnection {
  readonly connection: ConnectionState;
  /** When it began. */
  readonly sinceMicros: number;
  /** Seconds; 0: always on. Undefined: what is stored holds. */
  readonly sleepS?: number | undefined;
}
