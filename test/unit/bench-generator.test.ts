import { describe, expect, it } from 'vitest';
import { durationOption } from '../../bench/command-line.ts';
import { formatCount, formatMs } from '../../bench/figures.ts';
import { FIRST_NUMBER, PublishRing, rowsPerMessage } from '../../bench/publish-ring.ts';
import { createRandom } from '../../bench/random.ts';
import { SilenceFinder } from '../../bench/silence-finder.ts';
import { decodeData, isRefusal } from '../../firmware-protocol/telemetry.ts';

const NOW_MS = Date.UTC(2026, 10, 21, 8);

describe('PublishRing', () => {
  it.each(['one', 'series', 'numbered'] as const)(
    'makes payloads of kind %s that the protocol reads as the rows it promises',
    (kind) => {
      const ring = new PublishRing(kind, 4);
      ring.renew(2, NOW_MS);
      const decoded = decodeData(packetAt(ring, 2).payload);
      if (isRefusal(decoded)) throw new Error(decoded.detail);
      expect(decoded.pointCount).toBe(rowsPerMessage[kind]);
      expect(decoded.samples[0]?.tsMicros).toBe(NOW_MS * 1000);
    },
  );

  it('gives each slot its packet identifier and the telemetry topic at QoS 1 [MQTT-2.3.1-1]', () => {
    const ring = new PublishRing('one', 3);
    for (let slot = 0; slot < 3; slot += 1) ring.renew(slot, NOW_MS);
    expect([0, 1, 2].map((slot) => packetAt(ring, slot).identifier)).toEqual([1, 2, 3]);
    expect(packetAt(ring, 1)).toMatchObject({ header: 0x32, topic: 'v1/me/data' });
  });

  it('never gives two messages the same time, also when the clock stands still', () => {
    const ring = new PublishRing('series', 2);
    const times = Array.from({ length: 5 }, (_, index) => {
      ring.renew(index % 2, NOW_MS);
      return ring.timeMs(index % 2);
    });
    expect(times).toEqual([0, 20, 40, 60, 80].map((ms) => NOW_MS + ms));
  });

  it('numbers messages and marks those sent again with DUP [MQTT-3.3.1-1]', () => {
    const ring = new PublishRing('numbered', 2);
    ring.renew(0, NOW_MS);
    ring.renew(1, NOW_MS);
    ring.setDup(1);
    expect(JSON.parse(packetAt(ring, 1).payload.toString())).toEqual({
      ts: NOW_MS + 1,
      n: FIRST_NUMBER + 1,
    });
    expect(ring.number(0)).toBe(FIRST_NUMBER);
    expect(packetAt(ring, 0).header).toBe(0x32);
    expect(packetAt(ring, 1).header).toBe(0x3a);
    ring.renew(1, NOW_MS);
    expect(packetAt(ring, 1).header).toBe(0x32);
  });
});

describe('SilenceFinder', () => {
  it('finds the silence after each fault and what was acknowledged around it', () => {
    const finder = new SilenceFinder([
      { fault: 'kill-program', atMs: 5000, healedAtMs: 5500 },
      { fault: 'kill-database', atMs: 9000, healedAtMs: 13_000 },
    ]);
    for (const timeMs of [1000, 4100, 4900, 5001, 5002, 6200, 6210, 8999, 12_000]) {
      finder.add(timeMs);
    }
    expect(finder.records).toEqual([
      {
        fault: 'kill-program',
        atMs: 5000,
        healedAtMs: 5500,
        acknowledgedBefore: 2,
        acknowledgedDuring: 2,
        acknowledgedUnderWay: 4,
        silenceMs: 2789,
        recoveredMs: 3999,
      },
      {
        fault: 'kill-database',
        atMs: 9000,
        healedAtMs: 13_000,
        acknowledgedBefore: 1,
        acknowledgedDuring: 1,
        acknowledgedUnderWay: 0,
        silenceMs: 3000,
        recoveredMs: 3000,
      },
    ]);
  });

  it('says nothing of a recovery that the next fault forestalled', () => {
    const finder = new SilenceFinder([
      { fault: 'kill-program', atMs: 1000, healedAtMs: 1000 },
      { fault: 'kill-program', atMs: 1500, healedAtMs: 1500 },
    ]);
    for (const timeMs of [900, 2500]) finder.add(timeMs);
    expect(finder.records.map(({ recoveredMs }) => recoveredMs)).toEqual([null, 1000]);
  });
});

describe('tools', () => {
  it('repeats random numbers for the same seed', () => {
    const draw = (seed: number): number[] => {
      const random = createRandom(seed);
      return Array.from({ length: 5 }, () => random.between(0, 100));
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  it.each([
    ['60', 60],
    ['90s', 90],
    ['10m', 600],
    ['1.5h', 5400],
  ])('reads the duration %s', (text, seconds) => {
    expect(durationOption({ duration: text }, 'duration', 1)).toBe(seconds);
  });

  it('refuses a duration it cannot read', () => {
    expect(() => durationOption({ duration: '10 weeks' }, 'duration', 1)).toThrow('--duration');
  });

  it('writes figures for people', () => {
    expect([formatCount(1_234_567), formatCount(999)]).toEqual(['1 234 567', '999']);
    expect([formatMs(0.842), formatMs(12.34), formatMs(1520)]).toEqual([
      '0.84 ms',
      '12.3 ms',
      '1.52 s',
    ]);
  });
});

interface Packet {
  header: number;
  topic: string;
  identifier: number;
  payload: Buffer;
}

function packetAt(ring: PublishRing, slot: number): Packet {
  const bytes = ring.bytes.subarray(slot * ring.slotBytes, (slot + 1) * ring.slotBytes);
  const lengthBytes = (bytes[1] ?? 0) > 127 ? 2 : 1;
  const topicAt = 1 + lengthBytes + 2;
  const topicEnd = topicAt + bytes.readUInt16BE(topicAt - 2);
  return {
    header: bytes[0] ?? 0,
    topic: bytes.toString('utf8', topicAt, topicEnd),
    identifier: bytes.readUInt16BE(topicEnd),
    payload: bytes.subarray(topicEnd + 2),
  };
}
