import type { Ack } from '../firmware-protocol/ack.ts';
import type { AckOutcome, CommandEventDetail } from './command.ts';
import type { QueuedCommand } from './command-row.ts';
import { END_STATES } from './command.ts';
import type { CommandInput } from './command-state.ts';
import type { CommandPatch, QueueDraft } from './queue-draft.ts';
import { OVER_THE_AIR_UPDATE } from './reboot.ts';
import { healLastId } from './slot.ts';

/**
 * Makes of the queue what an answer of its device says. `subject` is the command of this device with the
 * answer's id; null: there is none. The first answer for the slot frees it; the head is placed by who
 * calls. @returns what was made of it.
 */
export function answer(draft: QueueDraft, given: Ack, subject: QueuedCommand | null): AckOutcome {
  const ack = meantBy(given, subject);
  healLastId(draft, ack.last);
  if (subject === null) {
    // Whoever restored an old backup has forgotten it; its device has not.
    healLastId(draft, ack.id);
    return 'unknown_id';
  }
  if (ack.st === 'dup' && ack.last !== undefined && ack.last < ack.id) return 'out_of_order';
  const wasEnded = END_STATES.has(subject.state);
  const input = inputOf(ack);
  const patch = patchOf(draft, ack, subject, wasEnded);
  const detail = detailOf(ack, wasEnded);
  if (draft.take(subject, input, patch, detail) !== null) return wasEnded ? 'late' : 'applied';
  return wasEnded ? 'repeated' : 'out_of_order';
}

/** Of an update it is the version of the next greeting that counts: "done" means that all is written. */
function meantBy(ack: Ack, subject: QueuedCommand | null): Ack {
  if (ack.st !== 'ok' || subject?.name !== OVER_THE_AIR_UPDATE) return ack;
  return { id: ack.id, st: 'run', pct: 100 };
}

function inputOf({ st, code }: Ack): CommandInput {
  return st === 'no' && code === 'expired' ? 'outdated' : st;
}

function patchOf(
  { nowMs, slot }: QueueDraft,
  { st, r, pct, code, msg }: Ack,
  subject: QueuedCommand,
  isLate: boolean,
): CommandPatch {
  const now = new Date(nowMs);
  const sentAt = subject.sentAt ?? now;
  if (st === 'run') {
    const began = subject.state === 'running' ? {} : { startedAt: now, boot: slot.boot };
    return { sentAt, ...began, progress: pct ?? subject.progress };
  }
  const unknownWhy = st === 'dup' ? 'taken_before' : null;
  return { sentAt, result: r ?? null, code: code ?? unknownWhy, message: msg ?? null, isLate };
}

function detailOf({ st, r, pct, code, msg }: Ack, isLate: boolean): CommandEventDetail {
  const why = code ?? (st === 'dup' ? 'taken_before' : undefined);
  return {
    ...(why === undefined ? {} : { code: why }),
    ...(msg === undefined ? {} : { msg }),
    ...(pct === undefined || st !== 'run' ? {} : { pct }),
    ...(r === undefined ? {} : { r }),
    ...(isLate ? { late: true as const } : {}),
  };
}
