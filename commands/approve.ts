import {
  ApprovalByAuthorError,
  CommandBacklogError,
  CommandNotWaitingError,
} from '../command-errors.ts';
import type { CommandAuthor } from './command.ts';
import type { QueuedCommand } from './command-row.ts';
import type { HeldQueue } from './queue-store.ts';
import { subjectOf, supersede, type QueueLimits } from './queue.ts';

/**
 * Lets a command into the queue, at its end, that somebody else has asked for. Queued ones with the same
 * `replace` give way, as they do to one that needs no approval.
 * @throws {CommandNotWaitingError} @throws {ApprovalByAuthorError} @throws {CommandBacklogError}
 */
export async function approve(
  { draft, transaction, others }: HeldQueue,
  subject: QueuedCommand,
  author: CommandAuthor,
  { backlogMax }: Pick<QueueLimits, 'backlogMax'>,
): Promise<void> {
  if (subject.state !== 'awaiting_approval') throw new CommandNotWaitingError(subject.state);
  if (subject.expiresAt.getTime() <= draft.nowMs) throw new CommandNotWaitingError('expired');
  if (subject.actor === author.actor) throw new ApprovalByAuthorError();
  supersede(draft, others, subject.commandId);
  if (draft.waiting >= backlogMax) throw new CommandBacklogError(subject.device, backlogMax);
  const { actor } = author;
  draft.take(
    subject,
    'approve',
    { approvedBy: actor, approvedAt: new Date(draft.nowMs) },
    { actor },
  );
  await transaction.client.query(
    'UPDATE command SET queue_number = DEFAULT WHERE command_id = $1 AND organization_id = $2',
    [subject.commandId, author.organizationId],
  );
  draft.audit({
    organizationId: author.organizationId,
    actor,
    action: 'command.approve',
    subject: subjectOf(subject),
  });
}
