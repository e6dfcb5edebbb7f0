import type { Readable } from 'node:stream';
import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import { FirmwareBusyError, FirmwareLinkError } from '../ota-errors.ts';
import { readRange, type ByteRange } from './byte-range.ts';
import { readLink } from './download-link.ts';
import { DownloadStream } from './download-stream.ts';
import type { OtaMetrics } from './metrics.ts';
import { PieceReader } from './piece-reader.ts';
import type { UpdateState } from './update.ts';

/** A request for an image. */
export interface DownloadRequest {
  /** The part of the path behind `/fw/`. */
  readonly name: string;
  /** What `t` is. */
  readonly code: string;
  /** Header `Range`; null: not sent. */
  readonly range: string | null;
  /** Header `If-Range`. */
  readonly ifRange: string | null;
  /** Only the headers are asked for. */
  readonly isHead: boolean;
}

/** What such a request is answered with. */
export interface Download {
  readonly status: 200 | 206 | 416;
  readonly headers: Readonly<Record<string, string>>;
  /** Null: no bytes. Destroying it ends the download. */
  readonly body: Readable | null;
}

/** What {@link Downloads} needs. */
export interface DownloadsDeps {
  readonly pool: pg.Pool;
  /** Secret that the codes of links are made with. */
  readonly signingKey: Buffer;
  /** Downloads at once. */
  readonly downloadsMax: number;
  /** Bytes a second of all together; 0: no bound. */
  readonly bytesPerS: number;
  /** How long after the device was last heard of a download may begin. */
  readonly linkMs: number;
  readonly metrics: Pick<OtaMetrics, 'downloadBegan' | 'downloadRefused' | 'sentBytes'>;
  /** Some bytes of an image were sent. Must not throw. */
  readonly noteSent: (updateId: string, range: ByteRange) => void;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

interface Row {
  state: UpdateState;
  bytes_sent: number;
  heard_ms: number | null;
  is_ended: boolean;
  is_gone: boolean;
  firmware_id: string;
  version: string;
  byte_count: number;
  sha256: Buffer;
  signature: Buffer | null;
}

/**
 * Downloads of images, by the link that stands in the command of an update. A new download of an update
 * takes the place of the one before, whose connection may have died without a word.
 */
export class Downloads {
  readonly #deps: DownloadsDeps;
  readonly #reader: PieceReader;
  /** By update. */
  readonly #open = new Map<string, DownloadStream>();

  constructor(deps: DownloadsDeps) {
    this.#deps = deps;
    this.#reader = new PieceReader(deps.pool, deps.bytesPerS);
  }

  /** Downloads under way. */
  get count(): number {
    return this.#open.size;
  }

  /**
   * Begins a download. @throws {FirmwareLinkError} @throws {FirmwareBusyError}
   * @throws {StoreUnavailableError}
   */
  async open(request: DownloadRequest): Promise<Download> {
    const { metrics, signingKey } = this.#deps;
    const updateId = readLink(signingKey, request.name, request.code);
    const row = updateId === null ? null : await this.#find(updateId);
    if (updateId === null || row === null) {
      metrics.downloadRefused('link');
      throw new FirmwareLinkError('this is no link to firmware');
    }
    const headers = headersOf(row);
    const asked = isSameImage(request.ifRange, headers.etag)
      ? readRange(request.range, row.byte_count)
      : 'whole';
    this.#assertOpen(row, asked === 'whole' || asked === 'none' ? 0 : asked.start);
    if (asked === 'none') {
      metrics.downloadRefused('range');
      const range = { 'content-range': `bytes */${row.byte_count}`, 'content-length': '0' };
      return { status: 416, headers: { ...headers, ...range }, body: null };
    }
    const range = asked === 'whole' ? { start: 0, end: row.byte_count } : asked;
    const body = request.isHead ? null : this.#begin(updateId, row, range);
    const length = { 'content-length': String(range.end - range.start) };
    if (asked === 'whole') return { status: 200, headers: { ...headers, ...length }, body };
    const place = `bytes ${range.start}-${range.end - 1}/${row.byte_count}`;
    return { status: 206, headers: { ...headers, ...length, 'content-range': place }, body };
  }

  /** Ends the download of an update, when there is one. */
  close(updateId: string): void {
    this.#open.get(updateId)?.destroy();
  }

  /** Ends the downloads under way. */
  stop(): void {
    for (const download of this.#open.values()) download.destroy();
  }

  async #find(updateId: string): Promise<Row | null> {
    const { rows } = await guardStore(
      this.#deps.pool.query<Row>(
        `SELECT device_update.state, bytes_sent, extract(epoch FROM heard_at)::float8 * 1000 AS heard_ms,
                ended_at IS NOT NULL AS is_ended, firmware_id, image.version, byte_count, sha256,
                signature, image.state = 'withdrawn' OR signer.revoked_at IS NOT NULL
                OR device.disabled_at IS NOT NULL OR organization.suspended_at IS NOT NULL AS is_gone
         FROM device_update
         JOIN firmware_image AS image USING (organization_id, firmware_id)
         JOIN device USING (organization_id, device_id)
         JOIN organization USING (organization_id)
         LEFT JOIN firmware_signer AS signer USING (organization_id, signer_id)
         WHERE update_id = $1`,
        [updateId],
      ),
    );
    return rows[0] ?? null;
  }

  /**
   * A link opens when it is sent to its device, and for a while; whatever was sent before may be gone on
   * with until the update ends.
   */
  #assertOpen(row: Row, start: number): void {
    const { linkMs, metrics, now } = this.#deps;
    if (row.is_ended || row.is_gone) {
      metrics.downloadRefused('expired');
      const why = row.is_ended ? 'the update has ended' : 'the image is offered no more';
      throw new FirmwareLinkError(why);
    }
    // Not noted yet that it was sent: who has the link has it from the slot.
    if (row.heard_ms === null || now() - row.heard_ms <= linkMs) return;
    if (start > 0 && start <= row.bytes_sent) return;
    metrics.downloadRefused('expired');
    throw new FirmwareLinkError(
      'the link has expired; answer the command with "run" again, and it opens anew',
    );
  }

  #begin(updateId: string, { firmware_id: firmwareId }: Row, range: ByteRange): DownloadStream {
    const { downloadsMax, metrics, noteSent } = this.#deps;
    this.#open.get(updateId)?.destroy();
    this.#open.delete(updateId);
    if (this.#open.size >= downloadsMax) {
      metrics.downloadRefused('busy');
      throw new FirmwareBusyError('downloads', downloadsMax);
    }
    metrics.downloadBegan();
    const stream = new DownloadStream({
      firmwareId,
      range,
      reader: this.#reader,
      onBytes: (bytes) => metrics.sentBytes(bytes),
      onClose: (position) => {
        if (this.#open.get(updateId) === stream) this.#open.delete(updateId);
        noteSent(updateId, { start: range.start, end: position });
      },
    });
    this.#open.set(updateId, stream);
    noteSent(updateId, { start: range.start, end: range.start });
    return stream;
  }
}

function headersOf(row: Row): { readonly etag: string } & Readonly<Record<string, string>> {
  const { version, byte_count: bytes, sha256, signature } = row;
  return {
    etag: `"${sha256.toString('hex')}"`,
    'accept-ranges': 'bytes',
    'cache-control': 'no-store, no-transform',
    // A proxy that takes all at once would make a download look finished that has just begun.
    'x-accel-buffering': 'no',
    'content-type': 'application/octet-stream',
    'repr-digest': `sha-256=:${sha256.toString('base64')}:`,
    'x-firmware-sha256': sha256.toString('hex'),
    'x-firmware-size': String(bytes),
    'x-firmware-version': encodeURIComponent(version),
    ...(signature === null ? {} : { 'x-firmware-signature': signature.toString('base64') }),
  };
}

/** Whether a range may be taken from what there is now: a weak tag or a date is not enough for that. */
function isSameImage(ifRange: string | null, etag: string): boolean {
  return ifRange === null || ifRange.trim() === etag;
}
