/** What a simulated board measures at one moment. `door` is only there now and then. */
export interface SensorReading {
  /** Degrees Celsius, two decimals. */
  temp: number;
  /** Relative humidity in percent, one decimal. */
  rh: number;
  /** Battery voltage, three decimals. */
  battery: number;
  door?: boolean;
}

/** The metric names of {@link SensorReading}. */
export const sensorMetrics = ['temp', 'rh', 'battery', 'door'] as const;

const DAY_MS = 86_400_000;
const WANDER_MS = 600_000;
const DOOR_SLOT_MS = 30_000;
const BATTERY_LIFE_MS = 60 * DAY_MS;

/**
 * The reading of one board at one time: temperature with a daily wave, a slow wander and sensor noise;
 * humidity against it; a battery that falls from 4.15 V and is changed when it is flat; on every fourth
 * board a door. A pure function, so the check at the end of a run can compute again what was sent.
 * @param device number of the board, from 1
 * @param timeMs milliseconds since 1970
 */
export function sensorReading(device: number, timeMs: number): SensorReading {
  const temp = temperature(device, timeMs);
  const reading: SensorReading = {
    temp: round(temp, 100),
    rh: round(clamp(52 - 2.1 * (temp - 21) + 3 * wander(device + 7919, timeMs), 1, 99), 10),
    battery: round(batteryVolts(device, timeMs), 1000),
  };
  if (device % 4 === 0 && hash(device, timeMs) < 0.1) {
    reading.door = hash(device + 104_729, Math.floor(timeMs / DOOR_SLOT_MS)) < 0.15;
  }
  return reading;
}

function temperature(device: number, timeMs: number): number {
  const mean = 18 + 6 * hash(device, 1);
  const swing = 1.5 + 3 * hash(device, 2);
  // Warmest at 15:00 UTC, coldest twelve hours before.
  const wave = Math.cos((2 * Math.PI * (timeMs - 15 * 3_600_000)) / DAY_MS);
  const noise = 0.06 * (hash(device + 31, timeMs) - 0.5);
  return mean + swing * wave + 0.8 * wander(device, timeMs) + noise;
}

function batteryVolts(device: number, timeMs: number): number {
  const used = ((timeMs + hash(device, 3) * BATTERY_LIFE_MS) % BATTERY_LIFE_MS) / BATTERY_LIFE_MS;
  return 4.15 - 0.65 * used + 0.004 * (hash(device + 57, timeMs) - 0.5);
}

/** A smooth path through random points ten minutes apart, between -1 and 1. */
function wander(device: number, timeMs: number): number {
  const slot = Math.floor(timeMs / WANDER_MS);
  const part = timeMs / WANDER_MS - slot;
  const from = 2 * hash(device, slot) - 1;
  const to = 2 * hash(device, slot + 1) - 1;
  return from + (to - from) * part * part * (3 - 2 * part);
}

/** A number in [0, 1) that is always the same for the same pair (32-bit mix of MurmurHash3). */
function hash(a: number, b: number): number {
  let mixed = Math.imul(a, 0x9e3779b1) ^ Math.imul(b >>> 0, 0x85ebca6b) ^ Math.floor(b / 2 ** 32);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}

function round(value: number, steps: number): number {
  return Math.round(value * steps) / steps;
}
