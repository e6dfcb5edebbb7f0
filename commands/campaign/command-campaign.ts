import type pg from 'pg';
import {
  CommandEndedError,
  CommandInvalidError,
  CommandNotFoundError,
} from '../../command-errors.ts';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { END_STATES, type CommandAuthor, type CommandState } from '../command.ts';
import type { CommandDesk } from '../command-desk.ts';
import type { Commands } from '../commands.ts';
import { commandSchema, requestOf, type CommandBody } from '../request-schema.ts';
import {
  beginKey,
  type CampaignBegin,
  type CampaignKind,
  type CampaignTarget,
  type CampaignVerdict,
  type RunningCampaign,
} from './campaign-kind.ts';
import { inLanes } from './lanes.ts';

/** What {@link createCommandCampaign} needs. */
export interface CommandCampaignDeps {
  readonly pool: pg.Pool;
  readonly desk: Pick<CommandDesk, 'enqueue' | 'checkedRequest'>;
  readonly commands: Pick<Commands, 'cancel'>;
}

/** Campaigns that send a command: `{"command","args","ttl",…}` as for one device, but for `approval`. */
export function createCommandCampaign(deps: CommandCampaignDeps): CampaignKind {
  return {
    kind: 'command',
    prepare: (_author, request) => prepare(request),
    checkTypes: (author, request, types) => checkTypes(deps, author, request, types),
    begin: (campaign, target) => begin(deps, campaign, target),
    judge: (_campaign, targets) => judge(deps.pool, targets),
    withdraw: (campaign, targets) => withdraw(deps, campaign, targets),
  };
}

const FAULTS_SHOWN = 5;
const APPROVAL = 'a command that a second person has to agree to cannot be sent by a campaign';

async function prepare(request: unknown): Promise<Readonly<Record<string, unknown>>> {
  if (readBody(request).approval) throw new CommandInvalidError(APPROVAL);
  // As it was given: durations stay the texts that they are read from again.
  return { ...(request as object) };
}

function readBody(request: unknown): CommandBody {
  const parsed = commandSchema.safeParse(request);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues
    .slice(0, FAULTS_SHOWN)
    .map(({ path, message }) => `${['request', ...path].join('.')}: ${message}`);
  throw new CommandInvalidError(faults.join('; '));
}

async function checkTypes(
  { desk }: CommandCampaignDeps,
  { organizationId }: CommandAuthor,
  request: Readonly<Record<string, unknown>>,
  types: readonly (string | null)[],
): Promise<void> {
  const asked = requestOf('', readBody(request), { origin: 'campaign' });
  const checked = await Promise.all(
    types.map((type) => desk.checkedRequest(organizationId, type, asked)),
  );
  if (checked.some(({ needsApproval }) => needsApproval)) throw new CommandInvalidError(APPROVAL);
}

async function begin(
  { pool, desk }: CommandCampaignDeps,
  campaign: RunningCampaign,
  { deviceId, device }: CampaignTarget,
): Promise<CampaignBegin> {
  const { campaignId, organizationId, createdBy: actor, request } = campaign;
  // Asked for before a crash: whatever has become of its definition since then.
  const [known] = await findCommands(pool, campaignId, [deviceId]);
  if (known !== undefined) return { commandId: known.commandId, facts: {} };
  const asked = requestOf(device, readBody(request), {
    origin: 'campaign',
    campaignId,
    idempotencyKey: beginKey(campaignId, deviceId),
  });
  const { command } = await desk.enqueue({ organizationId, actor }, asked);
  return { commandId: command.commandId, facts: {} };
}

interface CommandRow {
  readonly commandId: string;
  readonly deviceId: number;
  readonly state: CommandState;
  readonly code: string | null;
  readonly message: string | null;
  readonly isCancelAsked: boolean;
}

const COLUMNS = `command_id AS "commandId", device_id AS "deviceId", state, code, message,
  cancel_asked_at IS NOT NULL AS "isCancelAsked"`;

async function findCommands(
  pool: pg.Pool,
  campaignId: string,
  deviceIds: readonly number[],
): Promise<CommandRow[]> {
  const { rows } = await guardStore(
    pool.query<CommandRow>(
      `SELECT ${COLUMNS} FROM command WHERE campaign_id = $1 AND device_id = ANY($2)`,
      [campaignId, deviceIds],
    ),
  );
  return rows;
}

async function judge(
  pool: pg.Pool,
  targets: readonly CampaignTarget[],
): Promise<CampaignVerdict[]> {
  const { rows } = await guardStore(
    pool.query<CommandRow>(`SELECT ${COLUMNS} FROM command WHERE command_id = ANY($1)`, [
      targets.map(({ commandId }) => commandId),
    ]),
  );
  const byDevice = new Map(rows.map((row) => [row.deviceId, row]));
  return targets.flatMap(({ deviceId }) => {
    const command = byDevice.get(deviceId);
    if (command === undefined) {
      const detail = 'its command was deleted';
      return [{ deviceId, state: 'failed', code: 'command_gone', detail } as const];
    }
    return END_STATES.has(command.state) ? [verdictOf(command)] : [];
  });
}

/** A command that was cancelled is nothing that the device did wrong. */
function verdictOf({ deviceId, state, code, message }: CommandRow): CampaignVerdict {
  const detail = message ?? DETAILS[state] ?? state;
  if (state === 'succeeded') return { deviceId, state: 'succeeded', code: code ?? 'ok', detail };
  const end = state === 'cancelled' ? 'skipped' : 'failed';
  return { deviceId, state: end, code: code ?? state, detail };
}

const DETAILS: Partial<Record<CommandState, string>> = {
  succeeded: 'the device has done it',
  failed: 'the device could not do it',
  rejected: 'the device refused it',
  expired: 'its time was over before the device answered',
  cancelled: 'it was cancelled',
  unknown: 'the device does not know what became of it',
};

async function withdraw(
  { pool, commands }: CommandCampaignDeps,
  { campaignId, organizationId, createdBy: actor }: RunningCampaign,
  targets: readonly CampaignTarget[],
): Promise<void> {
  const ids = targets.map(({ deviceId }) => deviceId);
  const found = await findCommands(pool, campaignId, ids);
  const open = found.filter(({ state, isCancelAsked }) => !END_STATES.has(state) && !isCancelAsked);
  await inLanes(open, async ({ commandId }) => {
    try {
      await commands.cancel({ organizationId, actor }, commandId);
    } catch (error) {
      // It has ended meanwhile.
      if (error instanceof CommandEndedError || error instanceof CommandNotFoundError) return;
      throw error;
    }
  });
}
