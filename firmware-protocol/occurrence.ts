/** How grave a log line is, as ESP-IDF says it: error, warning, info, debug, verbose. */
export type LogLevel = 'E' | 'W' | 'I' | 'D' | 'V';

/** A line that a device logged. */
export interface LogLine {
  readonly level: LogLevel | null;
  readonly tag: string | null;
  /** Milliseconds since boot, where the line says so. */
  readonly uptimeMs: number | null;
  /** Without control characters and colours; storable in PostgreSQL. */
  readonly message: string;
}

/** Something that happened, as a device says on `event/{name}`. */
export interface EventOccurrence {
  readonly kind: 'event';
  readonly name: string;
  /** JSON text without `ts`, `age`, `up` and `seq`, storable as jsonb; null when nothing else was said. */
  readonly content: string | null;
}

/** What a device logged in one message. */
export interface LogOccurrence {
  readonly kind: 'log';
  /** One for each sample of the message, in the same order. */
  readonly lines: readonly LogLine[];
}

/**
 * What a message of the channels `event/{name}` and `log` holds in place of readings. Its samples have
 * no points: they carry the times (and, of an event, the `seq`) and go the way of all samples.
 */
export type Occurrence = EventOccurrence | LogOccurrence;
