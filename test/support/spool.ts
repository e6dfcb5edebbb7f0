import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino, type Logger } from 'pino';
import { REAL_FILES, type SpoolFile, type SpoolFiles } from '../../ingest/spool/spool-files.ts';
import { Spool, type PlacedRecord, type SpoolRecord } from '../../ingest/spool/spool.ts';

/** A record whose payload says its number. */
export function spoolRecord(n: number, more: Partial<SpoolRecord> = {}): SpoolRecord {
  return {
    organizationId: 1,
    deviceId: 7,
    boot: 77,
    receivedMicros: 1_700_000_000_000_000 + n,
    basis: { offsetMicros: 12, bootMicros: null },
    channel: 'data',
    name: null,
    word: 'data',
    topic: 'v1/me/data',
    qos: 1,
    refusal: null,
    isKeptApart: false,
    seqs: [n],
    payload: Buffer.from(`n=${n}`),
    ...more,
  };
}

/** Records of consecutive numbers. */
export function spoolRecords(from: number, count: number): SpoolRecord[] {
  return Array.from({ length: count }, (_, index) => spoolRecord(from + index));
}

/** Opens a spool that tests can wait for. */
export function openTestSpool(
  folder: string,
  options: {
    bytesMax?: number;
    segmentBytes?: number;
    files?: SpoolFiles;
    log?: Logger;
    tidyMs?: number;
  } = {},
): Promise<Spool> {
  const { bytesMax = 100_000_000, segmentBytes = 1_000_000, files = REAL_FILES } = options;
  const { log = pino({ level: 'silent' }), tidyMs = 10 } = options;
  return Spool.open({ folder, limits: { bytesMax, segmentBytes }, log, files, tidyMs });
}

/** Appends and waits until the records are on disk. */
export function appendAll(spool: Spool, records: readonly SpoolRecord[]): Promise<void> {
  return new Promise((resolve, reject) => spool.append(records, resolve, reject));
}

/** Reads all that can be read. */
export async function readAll(spool: Spool, limit = 100): Promise<PlacedRecord[]> {
  const all: PlacedRecord[] = [];
  for (;;) {
    const records = await spool.read(limit, 1_000_000);
    if (records.length === 0) return all;
    all.push(...records);
  }
}

/** The numbers of records that {@link spoolRecord} made. */
export function numbersOf(records: readonly PlacedRecord[]): number[] {
  return records.map(({ record }) => Number(record.payload.toString().split('=')[1]));
}

/** Runs something with a folder that is gone afterwards. */
export async function withSpoolFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'puback-spool-'));
  try {
    return await use(join(folder, 'spool'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What goes wrong with the next calls; each may be set and unset while the spool is open. */
export interface SpoolFaults {
  /** Bytes that the disk takes before it is full. */
  bytesFree: number;
  /** Bytes that one write takes at most. */
  writeBytesMax: number;
  /** Errors of the next calls, by name of the call; each strikes once. */
  readonly next: Partial<
    Record<'write' | 'datasync' | 'truncate' | 'unlink' | 'open' | 'read', string[]>
  >;
}

/** The real files with faults in front of them. */
export function faultyFiles(faults: SpoolFaults): SpoolFiles {
  const strike = (call: keyof SpoolFaults['next']) => {
    const code = faults.next[call]?.shift();
    if (code !== undefined && code !== '') throw Object.assign(new Error(code), { code });
  };
  const wrap = (file: SpoolFile): SpoolFile => ({
    async write(buffer, offset, length, position) {
      strike('write');
      const bytes = Math.min(length, faults.writeBytesMax, faults.bytesFree);
      if (bytes === 0) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      faults.bytesFree -= bytes;
      return file.write(buffer, offset, bytes, position);
    },
    async read(buffer, offset, length, position) {
      strike('read');
      return file.read(buffer, offset, length, position);
    },
    async datasync() {
      strike('datasync');
      return file.datasync();
    },
    async truncate(bytes) {
      strike('truncate');
      return file.truncate(bytes);
    },
    stat: () => file.stat(),
    close: () => file.close(),
  });
  return {
    ...REAL_FILES,
    async open(path, flags) {
      strike('open');
      return wrap(await REAL_FILES.open(path, flags));
    },
    async unlink(path) {
      strike('unlink');
      return REAL_FILES.unlink(path);
    },
  };
}

/** Faults that do not strike yet. */
export function noFaults(): SpoolFaults {
  return { bytesFree: Infinity, writeBytesMax: Infinity, next: {} };
}
