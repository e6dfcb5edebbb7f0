import { FileUnusableError } from '../../errors.ts';
import { CHECKPOINT_FILE, readCheckpoint } from './checkpoint.ts';
import {
  decodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
  segmentNumber,
  segmentPath,
  type SegmentHeader,
} from './segment.ts';
import { readUpTo, REAL_FILES } from './spool-files.ts';

/**
 * Bytes of messages that wait in the folder of a spool, damaged ones included; 0 without a folder. For
 * tools: the folder is not changed. While a program has it open it is what was there a moment ago.
 * @throws {FileUnusableError} when the folder cannot be read.
 */
export async function waitingBytes(folder: string): Promise<number> {
  try {
    const names = await REAL_FILES.list(folder);
    const checkpoint = names.includes(CHECKPOINT_FILE)
      ? await readCheckpoint(REAL_FILES, folder)
      : null;
    let bytes = 0;
    for (const name of names) {
      const found = segmentNumber(name);
      if (found === null) continue;
      const path = segmentPath(folder, found.number, found.isDamaged ? 'damaged' : 'log');
      const { header, size } = await look(path);
      const isDrained =
        !found.isDamaged && checkpoint !== null && found.number < checkpoint.segment;
      // Of a torn one nothing was acknowledged.
      if (isDrained || header.kind === 'torn') continue;
      const isMeant =
        header.kind === 'whole' &&
        checkpoint?.segment === found.number &&
        checkpoint.marker === header.marker;
      const drainedTo = isMeant ? checkpoint.end : 0;
      bytes += Math.max(0, size - Math.max(SEGMENT_HEADER_BYTES, drainedTo));
    }
    return bytes;
  } catch (cause) {
    if ((cause as { code?: unknown }).code === 'ENOENT') return 0;
    throw new FileUnusableError('the spool', folder, cause);
  }
}

async function look(path: string): Promise<{ header: SegmentHeader; size: number }> {
  const file = await REAL_FILES.open(path, 'r');
  try {
    const { size } = await file.stat();
    return { size, header: decodeSegmentHeader(await readUpTo(file, 0, SEGMENT_HEADER_BYTES)) };
  } finally {
    await file.close();
  }
}
