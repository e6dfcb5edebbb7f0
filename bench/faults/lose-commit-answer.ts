import type { Inspection, ProxiedLink } from '../tcp-proxy.ts';
import type { Fault } from './fault.ts';

/** What binary COPY begins with. */
const COPY_SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
/** ReadyForQuery, no transaction open: what the server says after COMMIT. */
const READY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

/**
 * Cuts connections to the database just as it answers that rows are committed: they are stored, and who
 * wrote them cannot know.
 * @param strikes connections that are cut in this way
 */
export function loseCommitAnswers(strikes: number, onStrike?: () => void): Inspection {
  const writers = new WeakSet<ProxiedLink>();
  let left = strikes;
  return (link, bytes, from) => {
    if (from === 'client') {
      if (bytes.includes(COPY_SIGNATURE)) writers.add(link);
      return true;
    }
    if (left === 0 || !writers.has(link) || !bytes.subarray(-READY.length).equals(READY))
      return true;
    left -= 1;
    onStrike?.();
    return false;
  };
}

/** {@link loseCommitAnswers}, three times in a row. */
export function loseCommitAnswer(durationMs: number): Fault {
  return {
    name: 'lose-commit-answer',
    durationMs,
    needsServer: true,
    apply({ databaseProxy }) {
      if (databaseProxy !== null) databaseProxy.inspect = loseCommitAnswers(3);
      return Promise.resolve(() => {
        if (databaseProxy !== null) databaseProxy.inspect = null;
        return Promise.resolve();
      });
    },
  };
}
