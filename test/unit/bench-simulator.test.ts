import { describe, expect, it } from 'vitest';
import { AcknowledgedLog } from '../../bench/acknowledged-log.ts';
import type { HistoryRow } from '../../bench/api-client.ts';
import { sensorMetrics, sensorReading } from '../../bench/sensor-curves.ts';
import { verifyReadings, type HistorySource } from '../../bench/verification.ts';

const START_MS = Date.UTC(2026, 10, 21, 8);
const board = { number: 4, device: 'sim-004' };

describe('sensorReading', () => {
  it('is the same for the same board and time', () => {
    expect(sensorReading(7, START_MS)).toEqual(sensorReading(7, START_MS));
    expect(sensorReading(7, START_MS)).not.toEqual(sensorReading(8, START_MS));
  });

  it('stays within what such sensors measure over a month', () => {
    for (let hour = 0; hour < 30 * 24; hour += 1) {
      const reading = sensorReading(1 + (hour % 50), START_MS + hour * 3_600_000 + hour);
      expect(reading.temp).toBeGreaterThan(5);
      expect(reading.temp).toBeLessThan(40);
      expect(reading.rh).toBeGreaterThanOrEqual(1);
      expect(reading.rh).toBeLessThanOrEqual(99);
      expect(reading.battery).toBeGreaterThan(3.4);
      expect(reading.battery).toBeLessThan(4.2);
    }
  });

  it('is warmer and drier in the afternoon than before dawn', () => {
    const afternoon = sensorReading(3, Date.UTC(2026, 10, 21, 15));
    const night = sensorReading(3, Date.UTC(2026, 10, 21, 3));
    expect(afternoon.temp).toBeGreaterThan(night.temp + 1);
    expect(afternoon.rh).toBeLessThan(night.rh);
  });

  it('reports a door only now and then, and only on every fourth board', () => {
    const doors = (number: number): number =>
      Array.from({ length: 1000 }, (_, index) => sensorReading(number, START_MS + index)).filter(
        ({ door }) => door !== undefined,
      ).length;
    expect(doors(4)).toBeGreaterThan(50);
    expect(doors(4)).toBeLessThan(200);
    expect(doors(5)).toBe(0);
  });
});

describe('AcknowledgedLog', () => {
  it('returns the times of each board in ascending order', () => {
    const log = new AcknowledgedLog(START_MS);
    for (let index = 99; index >= 0; index -= 1) log.add(1, START_MS + index);
    log.add(2, START_MS + 5);
    expect([...log.times(1)]).toEqual(Array.from({ length: 100 }, (_, index) => START_MS + index));
    expect([...log.times(2)]).toEqual([START_MS + 5]);
    expect(log.times(3)).toHaveLength(0);
  });
});

describe('verifyReadings', () => {
  const times = [START_MS, START_MS + 1000, START_MS + 2000];

  it('finds every acknowledged reading over several pages', async () => {
    const rows = times.flatMap(rowsAt);
    const result = await verifyReadings([board], acknowledged(times), inPages(rows, 2));
    expect(result).toMatchObject({ found: rows.length, missing: 0, different: 0, twice: 0 });
    expect(result.acknowledged).toBe(rows.length);
  });

  it('counts a reading that is not there as missing, with an example', async () => {
    const rows = times.flatMap(rowsAt).filter(({ metric }, index) => metric !== 'rh' || index > 3);
    const result = await verifyReadings([board], acknowledged(times), inPages(rows, 100));
    expect(result).toMatchObject({ missing: 1, different: 0, twice: 0 });
    expect(result.examples).toEqual(['sim-004 rh 2026-11-21T08:00:00.000Z']);
  });

  it('counts a reading with another value, and one that comes twice', async () => {
    const rows = times.flatMap(rowsAt);
    const changed = rows.map((row, index) => (index === 0 ? { ...row, value: -40 } : row));
    const result = await verifyReadings(
      [board],
      acknowledged(times),
      inPages([...changed, ...rows.slice(1, 2)], 100),
    );
    expect(result).toMatchObject({ missing: 0, different: 1, twice: 1 });
  });

  it('takes no notice of readings that were stored without an acknowledgement', async () => {
    const rows = [...times, START_MS + 1500].flatMap(rowsAt);
    const result = await verifyReadings([board], acknowledged(times), inPages(rows, 100));
    expect(result.found).toBe(result.acknowledged);
    expect(result.twice).toBe(0);
  });
});

function acknowledged(times: readonly number[]): AcknowledgedLog {
  const log = new AcknowledgedLog(START_MS);
  for (const timeMs of times) log.add(board.number, timeMs);
  return log;
}

function rowsAt(timeMs: number): HistoryRow[] {
  const reading = sensorReading(board.number, timeMs);
  return sensorMetrics.flatMap((metric) => {
    const value = reading[metric];
    return value === undefined ? [] : [{ time: new Date(timeMs).toISOString(), metric, value }];
  });
}

function inPages(rows: readonly HistoryRow[], pageRows: number): HistorySource {
  return async function* () {
    for (let at = 0; at < rows.length; at += pageRows) yield rows.slice(at, at + pageRows);
  };
}
