import { NO_BASIS, newestTimes } from '../../firmware-protocol/time.ts';
import { DeviceLane, type Slot } from '../../ingest/device-lane.ts';
import { Lane } from '../../ingest/lane.ts';
import type { LaneStore } from '../../ingest/lane-store.ts';
import type { Message, Publication, Source } from '../../ingest/message.ts';

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
  const device = new DeviceLane(1, deviceId, { messagesPerSecond: 0, pointsPerSecond: 0 });
  device.isLoaded = true;
  return new Lane(device, []);
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
    observed: null,
  };
}

/** A publication on `data` at QoS 1 that somebody wants to see. */
export function makePublication(
  payload: string,
  acknowledge: (canonical: Buffer | null) => void,
  source: Source = recordingSource().source,
): Publication {
  return {
    source,
    channel: 'data',
    name: null,
    refusal: null,
    word: 'data',
    topic: 'v1/me/data',
    payload: Buffer.from(payload),
    qos: 1,
    isWanted: () => true,
    acknowledge,
  };
}

/** What looks devices and metrics up, for lanes that have all that is asked. */
export function noLookups(): LaneStore {
  const lookUp = () => Promise.reject(new Error('a lookup was not expected'));
  const lanes = { load: lookUp, makeSlots: lookUp, missingMetrics: () => null };
  return lanes as unknown as LaneStore;
}

/** A message that is ready for a batch. */
export function makeMessage(
  acknowledge: (canonical: Buffer | null) => void,
  lane: Lane = openLane(),
): Message {
  return {
    publication: makePublication('{"temp":21.5}', acknowledge),
    lane,
    arrivedMs: Date.now(),
    receivedMicros: Date.now() * 1000,
    basis: NO_BASIS,
    newest: newestTimes([]),
    outcome: null,
    isCounted: true,
    isLogCounted: false,
    arePointsCounted: true,
    sharedRatesPassed: 0,
    quarantine: null,
    dated: null,
    canonical: null,
    isDuplicate: false,
    rowCount: 0,
  };
}
