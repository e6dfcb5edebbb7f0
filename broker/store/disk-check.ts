import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';

/** How LMDB lays out its pages; all numbers are little-endian. */
const META = {
  bytes: 168,
  magicAt: 24,
  magic: 0xbeefc0de,
  pageBytesAt: 48,
  transactionAt: 152,
} as const;
/** The roots of the table of free pages and of ours. */
const ROOTS_AT = [88, 136] as const;
const NO_ROOT = 0xffff_ffff_ffff_ffffn;
const HEAD_BYTES = 24;
const PAGE = { flagsAt: 18, lowerAt: 20, branch: 1, leaf: 2 } as const;
const NODE = {
  bytes: 8,
  flagsAt: 4,
  keyBytesAt: 6,
  onOverflowPages: 1,
  overflowCountAt: 16,
} as const;
/** A tree of 2^32 rows has ten levels at most. */
const DEPTH_MAX = 32;

/**
 * Looks whether a file is one that LMDB can work on. LMDB maps it into memory and believes it: strange
 * content, or a page that is missing, ends the process with a signal. So every page that can be reached
 * is looked at first, some microseconds each. Values are not looked at: there are no checksums. A file
 * that is missing or empty is well.
 * @throws {Error} that says what is wrong.
 */
export function checkPages(path: string): void {
  if (!existsSync(path)) return;
  const descriptor = openSync(path, 'r');
  try {
    const bytes = fstatSync(descriptor).size;
    if (bytes > 0) new PageCheck(descriptor, bytes).run();
  } finally {
    closeSync(descriptor);
  }
}

class PageCheck {
  readonly #descriptor: number;
  readonly #pageBytes: number;
  readonly #pageCount: number;
  readonly #meta: Buffer;
  #visited = 0;

  constructor(descriptor: number, bytes: number) {
    this.#descriptor = descriptor;
    const first = this.#readMeta(0);
    this.#pageBytes = first.readUInt32LE(META.pageBytesAt);
    if (this.#pageBytes < 512 || this.#pageBytes > 65_536)
      throw new Error('it is damaged: page size');
    this.#pageCount = Math.floor(bytes / this.#pageBytes);
    const second = this.#readMeta(this.#pageBytes);
    const isSecondNewer =
      second.readBigUInt64LE(META.transactionAt) > first.readBigUInt64LE(META.transactionAt);
    this.#meta = isSecondNewer ? second : first;
  }

  run(): void {
    for (const at of ROOTS_AT) {
      const root = this.#meta.readBigUInt64LE(at);
      if (root !== NO_ROOT) this.#visit(root, 1);
    }
  }

  #visit(page: bigint, depth: number): void {
    this.#visited += 1;
    if (depth > DEPTH_MAX || this.#visited > this.#pageCount) throw damaged(page);
    const content = this.#read(page);
    const flags = content.readUInt16LE(PAGE.flagsAt);
    const isLeaf = flags === PAGE.leaf;
    if (!isLeaf && flags !== PAGE.branch) throw damaged(page);
    const count = content.readUInt16LE(PAGE.lowerAt) >>> 1;
    if (HEAD_BYTES + 2 * count > this.#pageBytes) throw damaged(page);
    for (let index = 0; index < count; index += 1) {
      const at = HEAD_BYTES + content.readUInt16LE(HEAD_BYTES + 2 * index);
      if (at + NODE.bytes > this.#pageBytes) throw damaged(page);
      if (isLeaf) this.#checkRow(page, content, at);
      else this.#visit(childOf(content, at), depth + 1);
    }
  }

  #checkRow(page: bigint, content: Buffer, at: number): void {
    const flags = content.readUInt16LE(at + NODE.flagsAt);
    const valueAt = at + NODE.bytes + content.readUInt16LE(at + NODE.keyBytesAt);
    if (flags === 0) {
      if (valueAt + content.readUInt32LE(at) > this.#pageBytes) throw damaged(page);
      return;
    }
    const isWhole = valueAt + HEAD_BYTES <= this.#pageBytes;
    if (flags !== NODE.onOverflowPages || !isWhole) throw damaged(page);
    const first = content.readBigUInt64LE(valueAt);
    const end = first + content.readBigUInt64LE(valueAt + NODE.overflowCountAt);
    if (first < 2n || end > BigInt(this.#pageCount)) throw damaged(page);
  }

  #read(page: bigint): Buffer {
    const content = Buffer.allocUnsafe(this.#pageBytes);
    if (page < 2n || page >= BigInt(this.#pageCount)) throw damaged(page);
    readSync(this.#descriptor, content, 0, content.length, Number(page) * this.#pageBytes);
    if (content.readBigUInt64LE(0) !== page) throw damaged(page);
    return content;
  }

  #readMeta(at: number): Buffer {
    const meta = Buffer.alloc(META.bytes);
    readSync(this.#descriptor, meta, 0, meta.length, at);
    if (meta.readUInt32LE(META.magicAt) !== META.magic) throw new Error('data.mdb is no LMDB file');
    return meta;
  }
}

/** The page below a node of a branch: 48 bits, the upper 16 where a leaf has its flags. */
function childOf(content: Buffer, at: number): bigint {
  return BigInt(content.readUIntLE(at, 6));
}

function damaged(page: bigint): Error {
  return new Error(`data.mdb is damaged at page ${page}`);
}
