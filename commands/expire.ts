import type { Database } from '../drizzle/database.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import type { QueueOwner } from './command-queries.ts';
import type { QueuedCommand } from './command-row.ts';
import type { QueueDraft } from './queue-draft.ts';

const OWNERS_MAX = 500;

/** Ends commands whose time is over. Those that their device works on have begun in time. */
export function expire(draft: QueueDraft, overdue: readonly QueuedCommand[]): void {
  for (const command of overdue) draft.take(command, 'expire');
}

/** Ends a command of which nothing was heard for too long. */
export function endSilent(draft: QueueDraft, command: QueuedCommand): void {
  const message = 'nothing was heard of it for too long';
  draft.take(command, 'silence', { code: 'silent', message }, { code: 'silent', msg: message });
}

/** Owners of queues in which something is overdue; at most 500. @throws {StoreUnavailableError} */
export async function listOverdue(
  { pool }: Pick<Database, 'pool'>,
  now: Date,
): Promise<QueueOwner[]> {
  const { rows } = await guardStore(
    pool.query<QueueOwner>(
      `SELECT organization.slug AS organization, device.slug AS device,
              device.organization_id AS "organizationId", device.device_id AS "deviceId"
       FROM (SELECT DISTINCT device_id FROM command
             WHERE state IN ('awaiting_approval', 'queued', 'published', 'sent')
               AND expires_at <= $1 LIMIT ${OWNERS_MAX}) AS overdue
       JOIN device USING (device_id)
       JOIN organization ON organization.organization_id = device.organization_id`,
      [now],
    ),
  );
  return rows;
}

/** Commands that run and of which nothing was heard since a time; at most 500. @throws {StoreUnavailableError} */
export async function listSilent(
  { pool }: Pick<Database, 'pool'>,
  since: Date,
): Promise<(QueueOwner & { readonly commandId: string })[]> {
  const { rows } = await guardStore(
    pool.query<QueueOwner & { commandId: string }>(
      `SELECT organization.slug AS organization, device.slug AS device, command.command_id AS "commandId",
              device.organization_id AS "organizationId", device.device_id AS "deviceId"
       FROM command
       JOIN device ON device.device_id = command.device_id
       JOIN organization ON organization.organization_id = device.organization_id
       WHERE command.state = 'running' AND command.started_at < $1
         AND NOT EXISTS (
           SELECT FROM command_event AS event
           WHERE event.command_id = command.command_id AND event.occurred_at >= $1)
       LIMIT ${OWNERS_MAX}`,
      [since],
    ),
  );
  return rows;
}
