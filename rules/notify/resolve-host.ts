import { lookup, Resolver } from 'node:dns/promises';

/** Finds all addresses of a name. Rejects with the error of DNS when there is none. */
export type Resolve = (host: string) => Promise<readonly string[]>;

/** The system's own lookup holds a thread of the pool that files are written with. */
const SYSTEM_LOOKUPS_MAX = 2;
const DNS_TIMEOUT_MS = 2000;
/** Of a name that DNS does not have, and of no DNS at all. */
const ABSENT = new Set(['ENOTFOUND', 'ENODATA', 'ECONNREFUSED']);

/**
 * Makes a {@link Resolve}. DNS is asked first, without a thread; only for a name that it says it does
 * not have, the system (hosts file, search domains), for two names at a time. So a slow name server of
 * one receiver stops neither other names nor the disk.
 */
export function createResolve(): Resolve {
  let systemLookups = 0;
  return async (host) => {
    // A new one each time reads the system's name servers as they are now.
    const resolver = new Resolver({ timeout: DNS_TIMEOUT_MS, tries: 2 });
    const answers = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    const found = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    if (found.length > 0) return found;
    const failures = answers.flatMap((answer) =>
      answer.status === 'rejected' ? [answer.reason as NodeJS.ErrnoException] : [],
    );
    const lasting = failures.find(({ code }) => !ABSENT.has(code ?? '')) ?? null;
    if (lasting !== null) throw lasting;
    if (systemLookups >= SYSTEM_LOOKUPS_MAX) throw new DnsBusyError();
    systemLookups += 1;
    try {
      return (await lookup(host, { all: true })).map(({ address }) => address);
    } finally {
      systemLookups -= 1;
    }
  };
}

/**
 * Waits for work that cannot be ended, such as a lookup, and leaves it alone when the signal is aborted.
 * Rejects with the signal's reason then.
 */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let abort = (): void => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => {
      reject(signal.reason as Error);
    };
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** The system is asked for as many names as it may be. */
class DnsBusyError extends Error {
  readonly code = 'EAI_AGAIN';
}
