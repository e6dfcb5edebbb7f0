import { describe, expect, it } from 'vitest';
import {
  DEMO_RULE,
  demoReadings,
  heatAt,
  HEAT_AFTER_MS,
  HEATED_BOARD,
  stepText,
} from '../../bench/demo-alert.ts';
import { sensorReading } from '../../bench/sensor-curves.ts';
import { parseRule } from '../../rules/rule-schema.ts';

const START_MS = Date.UTC(2026, 10, 21, 3);
const { value, clear } = DEMO_RULE.when;

describe('the alert of the demo', () => {
  it('has a rule that the program takes', () => {
    expect(parseRule(DEMO_RULE)).toMatchObject({ name: DEMO_RULE.name, forMicros: 5_000_000 });
  });

  it('heats its board after a while for longer than "for", and lets it cool', () => {
    expect([0, HEAT_AFTER_MS].map(heatAt)).toEqual([0, 0]);
    expect(heatAt(HEAT_AFTER_MS + 15_000)).toBeGreaterThan(50);
    expect(heatAt(HEAT_AFTER_MS + 31_000)).toBe(0);
    expect(heatAt(HEAT_AFTER_MS + 180_000 + 15_000)).toBeGreaterThan(50);
  });

  it('takes the board above the bound at any hour, and below where the alert ends', () => {
    for (let hour = 0; hour < 24 * 60; hour += 7) {
      const startMs = START_MS + hour * 3_600_000;
      const read = demoReadings(startMs);
      expect(read(HEATED_BOARD, startMs + HEAT_AFTER_MS + 10_000).temp).toBeGreaterThan(value);
      expect(read(HEATED_BOARD, startMs + HEAT_AFTER_MS + 40_000).temp).toBeLessThan(clear);
    }
  });

  it('leaves the other boards as they are', () => {
    const timeMs = START_MS + HEAT_AFTER_MS + 10_000;
    expect(demoReadings(START_MS)(2, timeMs)).toEqual(sensorReading(2, timeMs));
  });

  it('is told of step by step, with a command when it fires', () => {
    const alert = { alertId: 'id', rule: 'hot', device: 'demo-001' };
    const step = {
      sequence: 1,
      at: '2026-11-21T12:00:05.000Z',
      from: 'pending',
      to: 'firing',
      words: 'firing as high: because.',
      operands: [{ name: 'temp', value: 77.5 }],
    };
    const told = stepText(alert, step, 'curl URL');
    expect(told).toContain('12:00:05  ALERT firing: hot, demo-001, temp 77.5');
    expect(told).toContain('firing as high: because.');
    expect(told).toContain('curl URL/alerts/id/explain');
    const ended = stepText(alert, { ...step, from: 'firing', to: 'inactive' }, 'curl URL');
    expect(ended).toContain('ALERT resolved: hot');
    expect(ended).not.toContain('curl');
  });
});
