import type { Timed } from '../../deadline-heap.ts';
import type { Cadence, SketchContent } from './cadence.ts';
import type { ConnectionState, Silence } from '../compiled-rule.ts';

/** A device of which readings are expected. Changed in place. Times in microseconds since 1970. */
export interface WatchedDevice {
  readonly deviceId: number;
  readonly organizationId: number;
  /** One for each deadline that a rule asks for. */
  readonly watches: Watch[];
  isLoaded: boolean;
  /** Its connection was told of; what is stored is older. */
  isConnectionKnown: boolean;
  /** Its sleep was told of, likewise. */
  isSleepKnown: boolean;
  /** A watch is silent, has not been told of, or is not in the heap: the next reading changes something. */
  isUnsettled: boolean;
  /** Its last reading, or its first contact; -Infinity before. */
  sinceMicros: number;
  refusedMicros: number;
  connection: ConnectionState;
  connectedMicros: number;
  connectionMicros: number;
  sleepS: number;
  intervalMicros: number | null;
  /** Null while nobody asks for `auto`. */
  cadence: Cadence | null;
  /** What of it is stored. */
  storedCadence: SketchContent | null;
  /** A longer gap is learned as this one. */
  gapMicrosMax: number;
}

/** A deadline of a device, for all rules that ask for this one. */
export interface Watch extends Timed {
  readonly device: WatchedDevice;
  readonly afterMicros: number | 'auto';
  readonly ruleIds: number[];
  /** What rules were told: null that it is not silent; undefined nothing yet. */
  told: Silence | null | undefined;
  toldMicros: number;
  /** It is in the heap for another kind of silence, not for its deadline. */
  isKindCheck: boolean;
}

/** Whether a device was found silent. */
export function isSilent(watch: Watch): watch is Watch & { told: Silence } {
  return watch.told !== null && watch.told !== undefined;
}

/** A device of which nothing is known yet. */
export function newWatchedDevice(deviceId: number, organizationId: number): WatchedDevice {
  return {
    deviceId,
    organizationId,
    watches: [],
    isLoaded: false,
    isConnectionKnown: false,
    isSleepKnown: false,
    isUnsettled: true,
    sinceMicros: -Infinity,
    refusedMicros: -Infinity,
    connection: 'never',
    connectedMicros: -Infinity,
    connectionMicros: -Infinity,
    sleepS: 0,
    intervalMicros: null,
    cadence: null,
    storedCadence: null,
    gapMicrosMax: Infinity,
  };
}

/** The watch of a device with this deadline, made when there is none. */
export function watchOf(device: WatchedDevice, afterMicros: number | 'auto'): Watch {
  const found = device.watches.find((watch) => watch.afterMicros === afterMicros);
  if (found !== undefined) return found;
  const made: Watch = {
    device,
    afterMicros,
    ruleIds: [],
    told: undefined,
    toldMicros: -Infinity,
    isKindCheck: false,
    deadlineMs: 0,
    heapIndex: -1,
  };
  device.watches.push(made);
  device.isUnsettled = true;
  return made;
}
