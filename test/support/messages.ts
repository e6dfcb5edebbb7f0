import { Lane, type Slot } from '../../ingest/lane.ts';
import type { Message, Source } from '../../ingest/message.ts';

/** What a source was told. */
export interface Told {
  readonly reports: string[];
  readonly closes: string[];
  readonly source: Source;
}

/** A source that writes down what it is told. */
export function recordingSource(): Told {
  const reports: string[] = [];
  const closes: string[] = [];
  return {
    reports,
    closes,
    source: {
      resume: () => undefined,
      report: (code) => void reports.push(code),
      close: (reason) => void closes.push(reason),
    },
  };
}

/** A lane without limits that needs no loading. */
export function openLane(deviceId = 1): Lane {
  const lane = new Lane(1, deviceId, { messagesPerSecond: 0, pointsPerSecond: 0 });
  lane.isLoaded = true;
  return lane;
}

/** A series of a device. */
export function makeSlot(deviceId: number, metricId: number): Slot {
  return {
    deviceId,
    metricId,
    timeMicros: -Infinity,
    value: null,
    text: null,
    receivedMicros: 0,
    quality: 0,
    batch: null,
  };
}

/** A message that is ready for a batch. */
export function makeMessage(acknowledge: () => void, lane: Lane = openLane()): Message {
  return {
    publication: {
      source: recordingSource().source,
      channel: 'data',
      metric: null,
      refusal: null,
      topic: 'v1/me/data',
      payload: Buffer.from('{"temp":21.5}'),
      qos: 1,
      acknowledge,
    },
    lane,
    arrivedMs: Date.now(),
    receivedMicros: Date.now() * 1000,
    outcome: null,
    isCounted: true,
    arePointsCounted: true,
    isShaped: false,
    quarantine: null,
  };
}
