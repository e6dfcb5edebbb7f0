import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { InternalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { toAppError, toProblem } from './problem.ts';

/** Media type of {@link jsonLines}: a JSON value a line. */
export const JSON_LINES_TYPE = 'application/x-ndjson';
/** Lines of progress that are told a second. */
const LINES_PER_S = 4;

/** Work whose progress can be watched, and that can be ended early. */
export type WatchedWork<Progress, Result> = (watch: {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
}) => Promise<Result>;

/**
 * The body of an answer that comes while work is under way: lines `{"progress":…}`, at most four a second,
 * and at the end one `{"result":…}` or `{"error":…}` with a problem. Closing the connection ends the work.
 * @param log is told of an unexpected error, under the id that the problem has.
 */
export function jsonLines<Progress, Result>(
  work: WatchedWork<Progress, Result>,
  log: Pick<Logger, 'error'>,
): Readable {
  return Readable.from(linesOf(work, log), { objectMode: false });
}

async function* linesOf<Progress, Result>(
  work: WatchedWork<Progress, Result>,
  log: Pick<Logger, 'error'>,
): AsyncGenerator<string> {
  const ended = new AbortController();
  let latest: { readonly progress: Progress } | null = null;
  let wake = (): void => undefined;
  const last = work({
    signal: ended.signal,
    onProgress(progress) {
      latest = { progress };
    },
  }).then(
    (result) => ({ result }),
    (error: unknown) => ({ error: problemOf(error, log) }),
  );
  let end: object | null = null;
  void last.then((line) => {
    end = line;
    wake();
  });
  try {
    while (end === null) {
      if (latest !== null) yield lineOf(latest);
      latest = null;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000 / LINES_PER_S);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    yield lineOf(end);
  } finally {
    ended.abort();
  }
}

function problemOf(thrown: unknown, log: Pick<Logger, 'error'>): object {
  const error = toAppError(thrown);
  const requestId = randomUUID();
  if (error instanceof InternalError) log.error({ err: error.cause, requestId }, 'request failed');
  return toProblem(error, requestId).body;
}

function lineOf(value: object): string {
  return `${JSON.stringify(value)}\n`;
}
