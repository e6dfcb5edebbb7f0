import { destination, pino, type Logger } from 'pino';

export type { Logger } from 'pino';

/**
 * The root logger: JSON lines on stderr, so that stdout stays with what the program tells a person.
 * `msg` is a constant lower-case phrase; what varies stands in fields. Keys and payloads are never
 * passed to it; the paths below are censored should it happen all the same.
 */
export function createLog(level: string): Logger {
  return pino(
    {
      level,
      redact: {
        paths: ['password', 'key', 'secret', 'authorization', 'payload'],
        censor: '[redacted]',
      },
    },
    destination({ fd: 2, sync: false }),
  );
}
