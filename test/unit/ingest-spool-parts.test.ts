import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { REFUSAL_CODES, Refusal } from '../../firmware-protocol/contract.ts';
import { DrainProgress } from '../../ingest/spool/drain-progress.ts';
import { PendingSequences } from '../../ingest/spool/pending-sequences.ts';
import { Segment } from '../../ingest/spool/segment.ts';
import {
  decodeRecord,
  encodeRecord,
  frameAt,
  positionAt,
  spoolBytes,
  spoolBytesMax,
  type SpoolRecord,
} from '../../ingest/spool/spool-record.ts';

const id = fc.integer({ min: 1, max: 0x7fff_ffff });
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const micros = fc.integer({ min: -1e15, max: 4e15 });
const text = fc.string({ unit: 'binary', maxLength: 80 });
const record: fc.Arbitrary<SpoolRecord> = fc.record({
  organizationId: id,
  deviceId: id,
  boot: fc.option(uint32),
  receivedMicros: micros,
  basis: fc.record({ offsetMicros: fc.option(micros), bootMicros: fc.option(micros) }),
  channel: fc.constantFrom('data', 'scalar', 'senml', 'event', 'log', 'refused'),
  name: fc.option(text),
  word: text,
  topic: text,
  qos: fc.constantFrom(0, 1, 2),
  refusal: fc.option(
    fc
      .tuple(fc.constantFrom(...REFUSAL_CODES), text)
      .map(([code, detail]) => new Refusal(code, detail)),
  ),
  isKeptApart: fc.boolean(),
  seqs: fc.array(fc.maxSafeNat(), { maxLength: 500 }),
  payload: fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
});

describe('spool record', () => {
  it('comes back as it was written, wherever it stands', () => {
    fc.assert(
      fc.property(record, fc.nat(100), uint32, (given, start, marker) => {
        const target = Buffer.alloc(start + spoolBytesMax(given), 0xaa);
        const end = encodeRecord(given, target, start, marker);
        const bytes = end - start;
        expect(bytes).toBe(spoolBytes(given));
        expect(frameAt(target, start, bytes, marker)).toBe(bytes);
        const decoded = decodeRecord(target, start, end);
        expect(decoded.payload.equals(given.payload)).toBe(true);
        expect({ ...decoded, payload: null }).toEqual({ ...given, payload: null });
        const { deviceId, boot, receivedMicros } = given;
        const place = { segment: 1, start: 5, end: 9 };
        const hasSeqs = given.seqs.length > 0;
        const position = { ...place, deviceId, boot, receivedMicros, hasSeqs };
        expect(positionAt(target, start, place)).toEqual(position);
      }),
    );
  });

  it('is not whole when any bit of it was turned', () => {
    fc.assert(
      fc.property(record, fc.nat(), fc.nat(7), (given, byte, bit) => {
        const target = Buffer.alloc(spoolBytesMax(given));
        const end = encodeRecord(given, target, 0, 0x1234_5678);
        target[byte % end] = (target[byte % end] ?? 0) ^ (1 << bit);
        expect(frameAt(target, 0, end, 0x1234_5678)).not.toBe(end);
      }),
    );
  });

  it('is not whole under the marker of another segment', () => {
    const target = Buffer.alloc(spoolBytesMax(sample));
    const end = encodeRecord(sample, target, 0, 1);
    target.writeUInt32LE(2, 0);
    expect(frameAt(target, 0, end, 2)).toBe('damaged');
  });

  it('says how many bytes it needs when the chunk ends before it does', () => {
    const target = Buffer.alloc(spoolBytesMax(sample));
    const end = encodeRecord(sample, target, 0, 1);
    for (let cut = 0; cut < end; cut += 1) {
      const frame = frameAt(target.subarray(0, cut), 0, end, 1);
      expect(frame).toEqual({ bytesNeeded: cut < 62 ? 62 : end });
      expect(frameAt(target.subarray(0, cut), 0, cut, 1)).toBe('damaged');
    }
  });
});

const sample: SpoolRecord = {
  organizationId: 1,
  deviceId: 2,
  boot: null,
  receivedMicros: 3,
  basis: { offsetMicros: null, bootMicros: null },
  channel: 'data',
  name: null,
  word: 'data',
  topic: 'v1/me/data',
  qos: 0,
  refusal: null,
  isKeptApart: false,
  seqs: [],
  payload: Buffer.from('{"a":1}'),
};

describe('drained part of a segment', () => {
  it('reaches as far as all is drained, in whatever order, and counts each record once', () => {
    const order = fc
      .integer({ min: 1, max: 40 })
      .chain((count) =>
        fc.array(fc.nat(count - 1), { maxLength: 120 }).map((picks) => ({ count, picks })),
      );
    fc.assert(
      fc.property(order, ({ count, picks }) => {
        const segment = new Segment('', 1, 1);
        const places = Array.from({ length: count }, (_, n) => {
          const start = 32 + n * 10;
          const place = { segment: 1, start, end: start + 10, deviceId: 1, boot: null };
          return { ...place, hasSeqs: false, receivedMicros: n };
        });
        segment.grow(32 + count * 10, count, 0);
        const drained = new Set<number>();
        for (const pick of picks) {
          const place = places[pick];
          if (place === undefined) continue;
          expect(segment.drain(place)).toBe(!drained.has(pick));
          drained.add(pick);
          const prefix = places.findIndex((_, n) => !drained.has(n));
          expect(segment.drainedEnd).toBe(places[prefix]?.start ?? segment.end);
          expect(segment.pendingMessages).toBe(count - drained.size);
          expect(segment.isDrained).toBe(drained.size === count);
        }
      }),
    );
  });
});

describe('numbers that wait', () => {
  it('are told boot by boot until all of the boot has drained', () => {
    const sequences = new PendingSequences();
    sequences.add(7, 1, [3, 4]);
    sequences.add(7, 1, [6]);
    sequences.add(7, 2, [0]);
    expect(sequences.of(7)).toEqual([
      { boot: 1, seqs: [3, 4, 6] },
      { boot: 2, seqs: [0] },
    ]);
    sequences.remove(7, 1);
    expect(sequences.of(7)[0]).toEqual({ boot: 1, seqs: [3, 4, 6] });
    sequences.remove(7, 1);
    expect(sequences.of(7)).toEqual([{ boot: 2, seqs: [0] }]);
    sequences.remove(7, 2);
    expect(sequences.of(7)).toEqual([]);
    sequences.remove(7, 2);
    expect(sequences.of(8)).toEqual([]);
  });

  it('are at most the last 64 of each of the last four boots', () => {
    const sequences = new PendingSequences();
    for (let boot = 1; boot <= 6; boot += 1) {
      for (let seq = 0; seq < 1000; seq += 1) sequences.add(7, boot, [seq]);
    }
    expect(sequences.of(7).map(({ boot }) => boot)).toEqual([3, 4, 5, 6]);
    for (const { seqs } of sequences.of(7)) {
      expect(seqs).toEqual(Array.from({ length: 64 }, (_, index) => 936 + index));
    }
    for (let boot = 1; boot <= 6; boot += 1) {
      for (let seq = 0; seq < 1000; seq += 1) sequences.remove(7, boot);
    }
    expect(sequences.of(7)).toEqual([]);
  });
});

describe('drain progress', () => {
  it('is unknown until there is a second of it', () => {
    const progress = new DrainProgress();
    expect(progress.pace()).toBeNull();
    progress.add(0, 1000, 0);
    expect(progress.pace()).toBeNull();
    progress.add(999, 900, 100);
    expect(progress.pace()).toBeNull();
    progress.add(1000, 900, 100);
    expect(progress.pace()).toEqual({ messagesPerSecond: 100, secondsToGo: 9 });
  });

  it('takes into account what comes in meanwhile', () => {
    const progress = new DrainProgress();
    progress.add(0, 1000, 0);
    progress.add(10_000, 500, 2000);
    expect(progress.pace()).toEqual({ messagesPerSecond: 200, secondsToGo: 10 });
  });

  it('has no end while the spool does not shrink, and is at it when it is empty', () => {
    const progress = new DrainProgress();
    progress.add(0, 1000, 0);
    progress.add(2000, 1000, 500);
    expect(progress.pace()).toEqual({ messagesPerSecond: 250, secondsToGo: null });
    progress.add(3000, 0, 1500);
    expect(progress.pace()).toEqual({ messagesPerSecond: 500, secondsToGo: 0 });
    progress.clear();
    expect(progress.pace()).toBeNull();
  });

  it('goes by the last half minute alone, however often it is told', () => {
    const progress = new DrainProgress();
    let drained = 0;
    for (let atMs = 0; atMs <= 120_000; atMs += 10) {
      drained += atMs <= 60_000 ? 10 : 1;
      progress.add(atMs, 1_000_000 - drained, drained);
    }
    const pace = progress.pace();
    expect(pace?.messagesPerSecond).toBeCloseTo(100, 0);
    expect(pace?.secondsToGo).toBeCloseTo((1_000_000 - drained) / 100, -1);
  });
});
