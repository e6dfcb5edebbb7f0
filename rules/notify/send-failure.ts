import { AddressRefusedError } from '../../rule-errors.ts';
import type { Deadline } from './deadline.ts';
import type { SendOutcome } from './message.ts';

/** An attempt that failed. */
export type SendFailure = Extract<SendOutcome, { ok: false }>;

/** What a receiver asks for beyond it is not waited for. */
const RETRY_AFTER_MS_MAX = 3_600_000;

/**
 * Why connections fail, in words of our own: what libraries and receivers say may hold a URL, a header or
 * an answer, and so a secret, or what somebody else's server answered.
 */
const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was closed before an answer',
  EPIPE: 'the connection was closed before an answer',
  UND_ERR_SOCKET: 'the connection was closed before an answer',
  ECONNECTION: 'the connection was closed before an answer',
  ENOTFOUND: 'the host does not resolve',
  ENODATA: 'the host does not resolve',
  EDNS: 'the host does not resolve',
  EAI_AGAIN: 'DNS does not answer',
  ESERVFAIL: 'DNS does not answer',
  ETIMEOUT: 'DNS does not answer',
  ETIMEDOUT: 'no answer in time',
  UND_ERR_CONNECT_TIMEOUT: 'no answer in time',
  UND_ERR_HEADERS_TIMEOUT: 'no answer in time',
  UND_ERR_BODY_TIMEOUT: 'no answer in time',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the host cannot be reached',
  ETLS: 'TLS failed',
  EPROTO: 'TLS failed',
  UND_ERR_HEADERS_OVERFLOW: 'the answer is not what it should be',
  EPROTOCOL: 'the answer is not what it should be',
  ERR_TLS_CERT_ALTNAME_INVALID: 'the certificate is of another host',
  CERT_HAS_EXPIRED: 'the certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'the certificate is not trusted',
  SELF_SIGNED_CERT_IN_CHAIN: 'the certificate is not trusted',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'the certificate is not trusted',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'the certificate is not trusted',
};

/**
 * What came of an attempt that ended in an error. Says nothing of the error but its kind.
 * @param signal of the caller: an attempt that it ended was not made.
 * @param deadline of the attempt.
 */
export function failureOf(
  err: unknown,
  {
    signal,
    deadline,
  }: { readonly signal: AbortSignal; readonly deadline: Pick<Deadline, 'isOver'> },
): SendFailure {
  if (err instanceof AddressRefusedError) {
    return { ok: false, isRetryable: !err.isLasting, reason: err.message };
  }
  if (signal.aborted) return retryable('it was interrupted');
  if (deadline.isOver) return retryable('no answer in time');
  const { code, originalCode } = (err ?? {}) as { code?: unknown; originalCode?: unknown };
  if (code === 'UND_ERR_INVALID_ARG') {
    return { ok: false, isRetryable: false, reason: 'no request can be made of these settings' };
  }
  for (const known of [originalCode, code]) {
    const reason = typeof known === 'string' ? (REASONS[known] ?? protocolFault(known)) : null;
    if (reason !== null) return retryable(reason);
  }
  return retryable('the connection failed');
}

/** What an HTTP status other than 2xx stands for. `detail` is added, and must be safe to show. */
export function failureOfStatus(
  status: number,
  headers: Readonly<Record<string, string | string[] | undefined>>,
  { detail, nowMs }: { readonly detail: string; readonly nowMs: number },
): SendFailure {
  const isRedirect = status >= 300 && status < 400;
  const text = detail === '' ? '' : `: ${detail}`;
  const reason = `HTTP ${status}${isRedirect ? ', and redirects are not followed' : text}`;
  const isRetryable = status >= 500 || [408, 425, 429].includes(status);
  const after = isRetryable ? retryAfterMs(headers['retry-after'], nowMs) : null;
  return { ok: false, isRetryable, reason, ...(after === null ? {} : { retryAfterMs: after }) };
}

/**
 * Reads `Retry-After` of HTTP, seconds or a date.
 * @returns milliseconds from now, 0 to one hour; null when there is none, or it says nothing.
 */
export function retryAfterMs(header: string | string[] | undefined, nowMs: number): number | null {
  const text = (Array.isArray(header) ? (header[0] ?? '') : (header ?? '')).trim();
  const waitMs = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return Number.isNaN(waitMs) ? null : Math.min(Math.max(waitMs, 0), RETRY_AFTER_MS_MAX);
}

function retryable(reason: string): SendFailure {
  return { ok: false, isRetryable: true, reason };
}

/** Codes of which there are many: those of the parser of HTTP, and of OpenSSL. */
function protocolFault(code: string): string | null {
  if (code.startsWith('HPE_')) return 'the answer is not what it should be';
  return code.startsWith('ERR_SSL_') || code.startsWith('CERT_') ? 'TLS failed' : null;
}
