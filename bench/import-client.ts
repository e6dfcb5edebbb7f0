import { createReadStream } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { HEAD_BYTES } from '../ingest/import/line-splitter.ts';
import { reasonOf, ToolFailedError } from '../errors.ts';

/** An import as the API shows it. */
export interface ShownImport {
  readonly importId: string;
  readonly state: string;
  /** Whether the program is reading the file now. */
  readonly active: boolean;
  readonly fingerprint: string;
  readonly byteOffset: number;
  readonly linesRead: number;
  readonly linesRefused: number;
}

/** A refused line as the API shows it. */
export interface ShownRefusal {
  readonly line: number;
  readonly code: string;
  readonly detail: string;
}

/** What the API is asked to import. */
export interface Upload {
  readonly path: string;
  readonly query: URLSearchParams;
  /** Where the file goes on behind its head; 0 for all of it. */
  readonly offset: number;
}

/** What was asked may succeed later: the program is away, busy, or was stopped. */
export class PassingFailure extends Error {
  /** Whether another import of the organization runs. */
  readonly isBusy: boolean;
  constructor(message: string, isBusy = false) {
    super(message);
    this.isBusy = isBusy;
  }
}

/** An answer of the API. */
interface Answer {
  readonly status: number;
  readonly body: unknown;
}

const TIMEOUT_MS = 30_000;
const RETRYABLE: ReadonlySet<number> = new Set([408, 409, 429, 500, 502, 503, 504]);

/**
 * The calls of Puback's HTTP API that an import needs. Each throws {@link PassingFailure} for what passes
 * and {@link ToolFailedError} for what does not.
 */
export class ImportClient {
  readonly #url: string;
  readonly #authorization: string;

  constructor(httpUrl: string, adminKey: string) {
    this.#url = httpUrl.replace(/\/+$/, '');
    this.#authorization = `Bearer ${adminKey}`;
  }

  /** Where all refused lines of an import are to be read. */
  refusalsUrl(importId: string): string {
    return `${this.#url}/api/v1/imports/${importId}/refusals`;
  }

  /** The newest import of this name and beginning; null for none. */
  async find(source: string, fingerprint: string): Promise<ShownImport | null> {
    const query = new URLSearchParams({ source, limit: '100' });
    const { data } = (await this.#get(`/api/v1/imports?${query.toString()}`)) as {
      data: ShownImport[];
    };
    return data.find((shown) => shown.fingerprint === fingerprint) ?? null;
  }

  /** The first refused lines. */
  async refusals(importId: string, limit: number): Promise<readonly ShownRefusal[]> {
    const path = `/api/v1/imports/${importId}/refusals?limit=${limit}`;
    return ((await this.#get(path)) as { data: ShownRefusal[] }).data;
  }

  /** Sends a file, or its head and what lies behind `offset`. Resolves at the end of the import. */
  async upload({ path, query, offset }: Upload, signal: AbortSignal): Promise<ShownImport> {
    const url = new URL(`${this.#url}/api/v1/import?${query.toString()}`);
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const sent = send(url, {
      method: 'POST',
      headers: { authorization: this.#authorization },
      signal,
    });
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      sent.once('response', resolve);
      sent.on('error', reject);
    });
    // Fails too when the answer comes before the end of the file; the answer tells more then.
    pipeline(Readable.from(piecesOf(path, offset)), sent).catch(() => undefined);
    try {
      const answer = await answered;
      const chunks: Buffer[] = [];
      for await (const chunk of answer) chunks.push(chunk as Buffer);
      const text = Buffer.concat(chunks).toString();
      return judge({ status: answer.statusCode ?? 0, body: parse(text) }) as ShownImport;
    } catch (error) {
      throw failureOf(error);
    } finally {
      sent.destroy();
    }
  }

  async #get(path: string): Promise<unknown> {
    try {
      const answer = await fetch(this.#url + path, {
        headers: { authorization: this.#authorization },
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      return judge({ status: answer.status, body: parse(await answer.text()) });
    } catch (error) {
      throw failureOf(error);
    }
  }
}

async function* piecesOf(path: string, offset: number): AsyncGenerator<Buffer> {
  if (offset > 0) yield* createReadStream(path, { end: HEAD_BYTES - 1 });
  yield* createReadStream(path, { start: offset });
}

/** The body of a good answer. */
function judge({ status, body }: Answer): unknown {
  if (status === 200) return body;
  const { code = '', detail = '' } = (body ?? {}) as { code?: string; detail?: string };
  const text = `HTTP ${status} ${code} ${detail}`.trim().slice(0, 500);
  if (!RETRYABLE.has(status)) throw new ToolFailedError(text);
  throw new PassingFailure(text, code === 'IMPORT_BUSY');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A proxy answered: the status says enough.
    return null;
  }
}

/** What is no answer at all is the way to the program, or that program being down. */
function failureOf(error: unknown): Error {
  if (error instanceof ToolFailedError || error instanceof PassingFailure) return error;
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : reasonOf(cause);
  return new PassingFailure(code);
}
