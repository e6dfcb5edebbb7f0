import { CommandEndedError } from '../command-errors.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import { END_STATES, type CommandAuthor } from './command.ts';
import type { QueuedCommand } from './command-row.ts';
import type { QueueDraft } from './queue-draft.ts';
import type { HeldQueue } from './queue-store.ts';
import { subjectOf } from './queue.ts';

/** A device that has not been asked to stop by then goes on. */
const ASK_MS = 3_600_000;

/**
 * Cancels a command that has not been answered. Of one that runs the device is asked, before anything
 * else that waits; asked once, its answer decides. @throws {CommandEndedError}
 */
export function cancel({ draft }: HeldQueue, subject: QueuedCommand, author: CommandAuthor): void {
  if (END_STATES.has(subject.state)) throw new CommandEndedError(subject.state);
  if (subject.state !== 'running') {
    draft.take(
      subject,
      'cancel',
      { code: 'cancelled' },
      { code: 'cancelled', actor: author.actor },
    );
  } else if (subject.cancelAskedAt === null) {
    draft.amend(subject, { cancelAskedAt: new Date(draft.nowMs) });
    draft.addFirst(askToStop(draft, subject, author));
  } else {
    return;
  }
  draft.audit({
    organizationId: author.organizationId,
    actor: author.actor,
    action: 'command.cancel',
    subject: subjectOf(subject),
  });
}

function askToStop(
  { nowMs }: QueueDraft,
  subject: QueuedCommand,
  { actor }: CommandAuthor,
): QueuedCommand {
  return {
    ...subject,
    commandId: makeUuidV7(nowMs),
    name: 'sys.cancel',
    args: { id: subject.wireId },
    state: 'queued',
    wireId: null,
    ref: null,
    replaceKey: null,
    isRetrySafe: false,
    attempts: 0,
    precondition: null,
    createdAt: new Date(nowMs),
    expiresAt: new Date(Math.ceil((nowMs + ASK_MS) / 1000) * 1000),
    publishedAt: null,
    sentAt: null,
    startedAt: null,
    progress: null,
    actor,
    campaignId: null,
    approvedBy: null,
    approvedAt: null,
    boot: null,
  };
}
