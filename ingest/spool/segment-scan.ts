import { frameAt, type SpoolPlace } from './spool-record.ts';
import { readUpTo, type SpoolFile } from './spool-files.ts';
import type { Segment } from './segment.ts';

/** Bytes that are read at once while a segment is gone through. */
const CHUNK_BYTES = 1_048_576;

/** Called for each whole record, in order: it begins at `at` of the chunk. */
export type VisitRecord = (chunk: Buffer, at: number, place: SpoolPlace) => void;

/** A part of a file. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/**
 * Goes through the records of a segment, a mebibyte or one record at a time. Behind damage it goes on
 * with the next whole record, and notes the place in {@link Segment.damage}.
 * @returns where the last whole record ends.
 */
export async function scanSegment(
  file: SpoolFile,
  segment: Segment,
  { from, to: fileBytes }: Span,
  visit: VisitRecord,
): Promise<number> {
  let at = from;
  let wholeEnd = at;
  let chunkStart = at;
  let chunk: Buffer = Buffer.alloc(0);
  while (at < fileBytes) {
    const frame = frameAt(chunk, at - chunkStart, fileBytes - at, segment.marker);
    if (typeof frame === 'number') {
      visit(chunk, at - chunkStart, { segment: segment.number, start: wholeEnd, end: at + frame });
      at += frame;
      wholeEnd = at;
    } else if (frame === 'damaged') {
      const found = await findRecord(file, segment, { from: at + 1, to: fileBytes });
      if (found === null) break;
      segment.damage.set(at, found);
      at = found;
    } else {
      const bytes = Math.min(Math.max(frame.bytesNeeded, CHUNK_BYTES), fileBytes - at);
      chunk = await readUpTo(file, at, bytes);
      chunkStart = at;
      if (chunk.length < bytes) break;
    }
  }
  return wholeEnd;
}

/**
 * Looks for a whole record by its marker. The marker is not known to devices, and seeds the checksum, so
 * that no payload can pass for a record.
 * @returns where it starts; null when there is none.
 */
export async function findRecord(
  file: SpoolFile,
  segment: Segment,
  { from, to: fileBytes }: Span,
): Promise<number | null> {
  const marker = Buffer.alloc(4);
  marker.writeUInt32LE(segment.marker);
  for (let start = from; fileBytes - start >= marker.length; start += CHUNK_BYTES) {
    // Three bytes more than the step: a marker may lie across.
    const bytes = Math.min(CHUNK_BYTES + marker.length - 1, fileBytes - start);
    const chunk = await readUpTo(file, start, bytes);
    for (let at = chunk.indexOf(marker); at >= 0; at = chunk.indexOf(marker, at + 1)) {
      if (await isWhole(file, segment, start + at, fileBytes)) return start + at;
    }
  }
  return null;
}

async function isWhole(
  file: SpoolFile,
  { marker }: Segment,
  start: number,
  fileBytes: number,
): Promise<boolean> {
  let bytes: Buffer = Buffer.alloc(0);
  for (;;) {
    const frame = frameAt(bytes, 0, fileBytes - start, marker);
    if (typeof frame === 'number') return true;
    if (frame === 'damaged') return false;
    bytes = await readUpTo(file, start, frame.bytesNeeded);
    if (bytes.length < frame.bytesNeeded) return false;
  }
}
