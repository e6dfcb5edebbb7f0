import { Client, type Dispatcher } from 'undici';
import type { AddressGuard } from './address-guard.ts';
import { Deadline } from './deadline.ts';
import { guardedConnector } from './guarded-connect.ts';
import { failureOf, type SendFailure } from './send-failure.ts';

/** What senders over HTTP work with. */
export interface HttpPosterParts {
  readonly guard: AddressGuard;
  /** Of one attempt, from the lookup to the end of what is read of the answer. */
  readonly timeoutMs: number;
  /** Authorities to trust in place of the system's, in PEM. */
  readonly ca?: string;
}

/** What is posted. */
export interface HttpPost {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** What came back. */
export interface HttpAnswer {
  readonly ok: true;
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Its first 64 KB at most, as they came: nothing is unpacked. From a stranger: not to be shown. */
  readonly body: string;
}

/** What is read of an answer; the rest is not waited for. */
const ANSWER_BYTES_MAX = 65_536;
const ANSWER_HEADER_BYTES_MAX = 16_384;
/** Answers of 1xx before the real one. A stream of them would keep the parser, and all else, busy. */
const INFORMATIONAL_MAX = 8;

/**
 * Posts to URLs that strangers have given. Goes only where the guard allows, follows no redirect, keeps
 * no connection, waits `timeoutMs` in all and reads 64 KB.
 */
export class HttpPoster {
  readonly #parts: HttpPosterParts;

  constructor(parts: HttpPosterParts) {
    this.#parts = parts;
  }

  /** Posts once. Never rejects. */
  async post(request: HttpPost, signal: AbortSignal): Promise<HttpAnswer | SendFailure> {
    const { guard, timeoutMs } = this.#parts;
    const fault = guard.urlFault(request.url);
    if (fault !== null) {
      return { ok: false, isRetryable: false, reason: `the address is refused: ${fault}` };
    }
    const deadline = new Deadline(signal, timeoutMs);
    const url = new URL(request.url);
    const client = this.#clientFor(url, deadline.signal);
    let informational = 0;
    try {
      const answer = await client.request({
        method: 'POST',
        path: `${url.pathname}${url.search}`,
        headers: { ...request.headers, 'accept-encoding': 'identity', 'user-agent': 'puback' },
        body: request.body,
        signal: deadline.signal,
        onInfo() {
          informational += 1;
          if (informational > INFORMATIONAL_MAX) deadline.end(new BabbleError());
        },
      });
      const { statusCode: status, headers } = answer;
      return { ok: true, status, headers, body: await readStart(answer.body) };
    } catch (err) {
      return failureOf(err, { signal, deadline });
    } finally {
      deadline.release();
      await client.destroy();
    }
  }

  #clientFor(url: URL, signal: AbortSignal): Client {
    const { guard, timeoutMs } = this.#parts;
    return new Client(url.origin, {
      connect: guardedConnector(guard, { ...this.#parts, signal }),
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      maxHeaderSize: ANSWER_HEADER_BYTES_MAX,
      pipelining: 1,
    });
  }
}

/** The other end sends answers of 1xx without end. */
class BabbleError extends Error {
  readonly code = 'EPROTOCOL';
}

/** Reads until there is enough. An answer that breaks off has still been given: its status counts. */
async function readStart(body: Dispatcher.ResponseData['body']): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= ANSWER_BYTES_MAX) break;
    }
  } catch {
    // What was read is enough to go by.
  }
  return Buffer.concat(chunks).subarray(0, ANSWER_BYTES_MAX).toString();
}
