/** A series as whoever observes readings knows it. Ingest keeps it and asks nothing of it. */
export type ObservedSeries = object;

/**
 * Told of every reading at accept, before its COMMIT, in order of arrival for each device. Every call is
 * synchronous and throws never: what comes of it must not hold up what is stored.
 */
export interface ReadingObserver {
  /** Asked once for each series of a device that sends; kept for as long as the device is in memory. */
  seriesOf(organizationId: number, deviceId: number, metric: string): ObservedSeries;
  /**
   * Hot path. One reading of a sample.
   * @param timeMicros event time, microseconds since 1970.
   * @param value 1 or 0 of a boolean; null of a text.
   */
  reading(
    series: ObservedSeries,
    timeMicros: number,
    value: number | null,
    text: string | null,
  ): void;
  /** Behind the readings of one sample of a device. `sample` is changed for the next one: not to be kept. */
  sampleEnd(deviceId: number, sample: ObservedSample): void;
  /** An event, with what the device sent. */
  event(
    device: { readonly organizationId: number; readonly deviceId: number },
    event: ObservedEvent,
  ): void;
  /** A message that could not be stored. */
  refused(organizationId: number, deviceId: number, receivedMicros: number): void;
}

/** When a sample was, and when it came. */
export interface ObservedSample {
  readonly timeMicros: number;
  readonly receivedMicros: number;
  /**
   * False of what somebody brings again, or of the past. What comes out of the spool is live: it may have
   * been observed when it came, if its device was in memory then, and is observed once more.
   */
  readonly isLive: boolean;
}

/** Something that happened, as a device says. */
export interface ObservedEvent extends ObservedSample {
  readonly name: string;
  /** JSON text; null when nothing was sent with it. */
  readonly content: string | null;
}
