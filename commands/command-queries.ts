import { CommandNotFoundError } from '../command-errors.ts';
import type { Database } from '../drizzle/database.ts';
import { cutPage, type Page } from '../drizzle/page.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import type { Command, CommandEvent, CommandEventDetail, CommandState } from './command.ts';
import type { CommandQuery } from './commands.ts';
import {
  commandOf,
  type CommandNames,
  type CommandRow,
  type QueuedCommand,
} from './command-row.ts';

interface NamedRow extends CommandNames {
  readonly row: CommandRow;
}

/** Whose queue a command or a slot belongs to. */
export interface QueueOwner extends CommandNames {
  readonly organizationId: number;
  readonly deviceId: number;
}

/** What stands in a slot, as the table says. */
export interface StoredSlot extends QueueOwner {
  readonly head: QueuedCommand | null;
  readonly revision: number;
}

const EVENTS_MAX = 200;
/** What is none is no command's id, and must not come to the database, which refuses it. */
const UUID_FORM = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const NAMED = named('command');
/**
 * The page is cut before it is joined: what is joined looks rare to the planner, which sorts all then. One
 * state stands alone: of a list it does not know that an index has it in order.
 */
const PAGE = `(SELECT * FROM command
  WHERE organization_id = $1
    AND ($2::text IS NULL OR device_id = (
      SELECT device_id FROM device WHERE organization_id = $1 AND slug = $2))
    AND ($3::text[] IS NULL OR state = ANY($3))
    AND ($6::text IS NULL OR state = $6)
    AND ($4::uuid IS NULL OR command_id < $4)
  ORDER BY command_id DESC LIMIT $5)`;
/** The statement of {@link listCommands}: a page, and one more when there are more. */
export const LIST = `${named(PAGE)} ORDER BY command.command_id DESC`;
const SLOTS = `SELECT device.device_id, device.organization_id, organization.slug AS organization,
    device.slug AS device, to_jsonb(command) AS head, coalesce(slot.revision, 0)::float8 AS revision
  FROM device
  JOIN organization ON organization.organization_id = device.organization_id
  LEFT JOIN command_slot AS slot ON slot.device_id = device.device_id
  LEFT JOIN command ON command.command_id = slot.head_command_id`;

/** Reads one command. @throws {CommandNotFoundError} @throws {StoreUnavailableError} */
export async function getCommand(
  database: TenantDatabase,
  organizationId: number,
  commandId: string,
): Promise<Command> {
  if (!UUID_FORM.test(commandId)) throw new CommandNotFoundError(commandId);
  return inOrganization(database, organizationId, async ({ client }) => {
    const { rows } = await client.query<NamedRow>(
      `${NAMED} WHERE command.command_id = $1::uuid AND command.organization_id = $2`,
      [commandId, organizationId],
    );
    const [named] = rows;
    if (named === undefined) throw new CommandNotFoundError(commandId);
    return publicCommand(commandOf(named.row, named));
  });
}

/** Reads a page of commands, newest first. @throws {StoreUnavailableError} */
export function listCommands(
  database: TenantDatabase,
  query: CommandQuery,
): Promise<Page<Command>> {
  const { organizationId, limit } = query;
  return inOrganization(database, organizationId, async ({ client }) => {
    const { rows } = await client.query<NamedRow>(LIST, listValues(query));
    return cutPage(
      rows.map((row) => publicCommand(commandOf(row.row, row))),
      limit,
    );
  });
}

/** What {@link LIST} is asked with. */
export function listValues({ organizationId, device, states, limit, after }: CommandQuery) {
  const [only = null] = states?.length === 1 ? states : [];
  return [organizationId, device, only === null ? states : null, after, limit + 1, only];
}

/** Reads the newest steps of a command, oldest first. @throws {CommandNotFoundError} @throws {StoreUnavailableError} */
export async function listEvents(
  database: TenantDatabase,
  organizationId: number,
  commandId: string,
): Promise<CommandEvent[]> {
  await getCommand(database, organizationId, commandId);
  return inOrganization(database, organizationId, async ({ client }) => {
    const { rows } = await client.query<{
      event_id: number;
      occurred_at: Date;
      state: CommandState;
      detail: CommandEventDetail;
    }>(
      `SELECT command_event_id::float8 AS event_id, occurred_at, state, detail FROM command_event
       WHERE command_id = $1 AND organization_id = $2
       ORDER BY command_event_id DESC LIMIT ${EVENTS_MAX}`,
      [commandId, organizationId],
    );
    return rows.toReversed().map((row) => ({
      commandEventId: row.event_id,
      commandId,
      occurredAt: row.occurred_at,
      state: row.state,
      detail: row.detail,
    }));
  });
}

/** Whose command it is, whatever the organization; null: there is none. @throws {StoreUnavailableError} */
export async function findOwner(
  { pool }: Pick<Database, 'pool'>,
  commandId: string,
): Promise<QueueOwner | null> {
  if (!UUID_FORM.test(commandId)) return null;
  const { rows } = await guardStore(
    pool.query<NamedRow>(`${NAMED} WHERE command.command_id = $1::uuid`, [commandId]),
  );
  const [named] = rows;
  if (named === undefined) return null;
  const { organization, device, row } = named;
  const { organization_id: organizationId, device_id: deviceId } = row;
  return { organization, device, organizationId, deviceId };
}

/** A command without what only its queue needs to know. */
export function publicCommand(queued: QueuedCommand): Command {
  const { boot: _, ...command } = queued;
  return command;
}

/** What the table says of a slot, and how many wait; null: there is no such device. @throws {StoreUnavailableError} */
export async function readSlotRow(
  { pool }: Pick<Database, 'pool'>,
  { organization, device }: CommandNames,
): Promise<(StoredSlot & { readonly waiting: number }) | null> {
  const { rows } = await guardStore(
    pool.query<SlotRow>(`${SLOTS} WHERE organization.slug = $1 AND device.slug = $2`, [
      organization,
      device,
    ]),
  );
  const [row] = rows;
  if (row === undefined) return null;
  const { rows: counted } = await guardStore(
    pool.query<{ queued: number }>(
      `SELECT count(*)::int4 AS queued FROM command WHERE device_id = $1 AND state = 'queued'`,
      [row.device_id],
    ),
  );
  const slot = storedSlot(row);
  return { ...slot, waiting: (counted[0]?.queued ?? 0) + (slot.head === null ? 0 : 1) };
}

/** Slots in which something stands, behind a device, in the order of ids. @throws {StoreUnavailableError} */
export async function listFilledSlots(
  { pool }: Pick<Database, 'pool'>,
  afterDeviceId: number,
  limit: number,
): Promise<StoredSlot[]> {
  const { rows } = await guardStore(
    pool.query<SlotRow>(
      `${SLOTS} WHERE slot.head_command_id IS NOT NULL AND slot.device_id > $1
       ORDER BY slot.device_id LIMIT $2`,
      [afterDeviceId, limit],
    ),
  );
  return rows.map(storedSlot);
}

/**
 * Owners of queues in which something waits though the slot is free: none, unless somebody has changed rows
 * by hand. @throws {StoreUnavailableError}
 */
export async function listStalled({ pool }: Pick<Database, 'pool'>): Promise<QueueOwner[]> {
  const { rows } = await guardStore(
    pool.query<QueueOwner>(
      `SELECT DISTINCT organization.slug AS organization, device.slug AS device,
              device.organization_id AS "organizationId", device.device_id AS "deviceId"
       FROM command
       JOIN device ON device.device_id = command.device_id
       JOIN organization ON organization.organization_id = device.organization_id
       LEFT JOIN command_slot AS slot ON slot.device_id = command.device_id
       WHERE command.state = 'queued' AND slot.head_command_id IS NULL LIMIT 200`,
    ),
  );
  return rows;
}

/** @param commands a table, or a statement in parentheses. */
function named(commands: string): string {
  return `SELECT to_jsonb(command) AS row, organization.slug AS organization, device.slug AS device
    FROM ${commands} AS command
    JOIN device ON device.device_id = command.device_id
    JOIN organization ON organization.organization_id = command.organization_id`;
}

interface SlotRow extends CommandNames {
  readonly device_id: number;
  readonly organization_id: number;
  readonly head: CommandRow | null;
  readonly revision: number;
}

function storedSlot(row: SlotRow): StoredSlot {
  const { organization, device, head, revision } = row;
  const names = { organization, device };
  return {
    ...names,
    organizationId: row.organization_id,
    deviceId: row.device_id,
    head: head === null ? null : commandOf(head, names),
    revision,
  };
}
