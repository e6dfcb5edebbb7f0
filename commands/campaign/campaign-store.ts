import type { Page } from '../../drizzle/page.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { CampaignInvalidError, CampaignStateError } from '../../command-errors.ts';
import type { WriteAudit } from '../audit.ts';
import type { CommandAuthor } from '../command.ts';
import type {
  Campaign,
  CampaignDetail,
  CampaignDevice,
  CampaignDeviceQuery,
  CampaignPlan,
  CampaignQuery,
  Campaigns,
  NewCampaign,
  RetryScope,
} from './campaign.ts';
import { assertPolicy, assertRoom, assertWaves, type CampaignLimits } from './campaign-bounds.ts';
import {
  auditOf,
  findRepeated,
  hashOf,
  insertCampaign,
  listUnfinished,
  sameAgain,
  type PreparedCampaign,
} from './campaign-insert.ts';
import type { CampaignKind } from './campaign-kind.ts';
import { listCampaignDevices, listCampaigns } from './campaign-lists.ts';
import { getCampaignDetail, getCampaignRow, type CampaignRow } from './campaign-row.ts';
import { planTargets, type PlannedTargets } from './campaign-targets.ts';

/** What {@link CampaignStore} needs. */
export interface CampaignStoreDeps {
  readonly database: TenantDatabase;
  readonly kinds: ReadonlyMap<string, CampaignKind>;
  readonly isOnline: (deviceId: number) => boolean;
  readonly writeAudit: WriteAudit;
  readonly limits: CampaignLimits;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Told after COMMIT of each change. */
  readonly onChanged: (campaignId: string) => void;
}

type Made = Readonly<{ campaign: CampaignDetail; isNew: boolean }>;

/** Campaigns in the database; who runs them is told of changes. */
export class CampaignStore implements Campaigns {
  readonly #deps: CampaignStoreDeps;

  constructor(deps: CampaignStoreDeps) {
    this.#deps = deps;
  }

  async create(author: CommandAuthor, wanted: NewCampaign): Promise<Made> {
    return this.#make(author, await this.#prepare(author, wanted));
  }

  async plan(author: CommandAuthor, wanted: NewCampaign): Promise<CampaignPlan> {
    const prepared = await this.#prepare(author, wanted);
    const { waves, skipped } = await this.#checkTargets(author, prepared);
    return {
      kind: wanted.kind,
      request: prepared.request,
      policy: wanted.policy,
      waves: waves.map((devices, wave) => ({ wave, devices: devices.map(({ device }) => device) })),
      skipped: skipped.map(({ device, code, detail }) => ({ device, code, detail })),
    };
  }

  get(organizationId: number, campaignId: string): Promise<CampaignDetail> {
    return this.#within(organizationId, (transaction) =>
      getCampaignDetail(transaction, organizationId, campaignId),
    );
  }

  list(query: CampaignQuery): Promise<Page<Campaign>> {
    return this.#within(query.organizationId, (transaction) => listCampaigns(transaction, query));
  }

  devices(query: CampaignDeviceQuery): Promise<Page<CampaignDevice>> {
    return this.#within(query.organizationId, (transaction) =>
      listCampaignDevices(transaction, query),
    );
  }

  pause(author: CommandAuthor, campaignId: string): Promise<CampaignDetail> {
    return this.#setState(author, campaignId, { to: 'paused', from: ['running'], verb: 'paused' });
  }

  resume(author: CommandAuthor, campaignId: string): Promise<CampaignDetail> {
    return this.#setState(author, campaignId, { to: 'running', from: ['paused'], verb: 'resumed' });
  }

  cancel(author: CommandAuthor, campaignId: string): Promise<CampaignDetail> {
    const change = { to: 'cancelled', from: ['running', 'paused'], verb: 'cancelled' } as const;
    return this.#setState(author, campaignId, change);
  }

  async retry(
    author: CommandAuthor,
    campaignId: string,
    { scope, idempotencyKey }: { scope: RetryScope; idempotencyKey: string | null },
  ): Promise<Made> {
    const { organizationId } = author;
    const { before, devices } = await this.#within(organizationId, async (transaction) => ({
      before: await getCampaignRow(transaction, organizationId, campaignId),
      devices: await listUnfinished(transaction, organizationId, campaignId, scope),
    }));
    if (before.endedAt === null) throw new CampaignStateError('retried', notEnded(before));
    if (devices.length === 0) {
      throw new CampaignInvalidError(`no device of the campaign is ${scope}`);
    }
    const wanted = sameAgain(before, devices, idempotencyKey);
    assertPolicy(wanted, this.#deps.limits);
    // What its kind keeps is not what it takes: it was prepared when the first campaign was made.
    const hash = hashOf({ retryOf: campaignId, scope });
    return this.#make(author, { wanted, request: before.request, hash });
  }

  async #prepare(author: CommandAuthor, wanted: NewCampaign): Promise<PreparedCampaign> {
    assertPolicy(wanted, this.#deps.limits);
    const request = await this.#kindOf(wanted).prepare(author, wanted.request);
    const { idempotencyKey: _key, ...asked } = wanted;
    return { wanted, request, hash: hashOf(asked) };
  }

  #kindOf({ kind: name }: NewCampaign): CampaignKind {
    const kind = this.#deps.kinds.get(name);
    if (kind !== undefined) return kind;
    throw new CampaignInvalidError(`campaigns of kind ${name} are not available`);
  }

  async #make(author: CommandAuthor, prepared: PreparedCampaign): Promise<Made> {
    const { organizationId } = author;
    const known = await this.#within(organizationId, (transaction) =>
      findRepeated(transaction, organizationId, prepared),
    );
    // Its devices may be others by now, or none.
    if (known !== null) return { campaign: await this.get(organizationId, known), isNew: false };
    await this.#checkTargets(author, prepared);
    return this.#insert(author, prepared);
  }

  /** Plans, and asks the kind about the types of devices: not while a transaction waits for it. */
  async #checkTargets(author: CommandAuthor, prepared: PreparedCampaign): Promise<PlannedTargets> {
    const planned = await this.#within(author.organizationId, (transaction) =>
      this.#planTargets(transaction, author, prepared),
    );
    const { wanted, request } = prepared;
    await this.#kindOf(wanted).checkTypes?.(author, request, planned.types);
    return planned;
  }

  async #insert(author: CommandAuthor, prepared: PreparedCampaign): Promise<Made> {
    const { organizationId } = author;
    const campaignId = makeUuidV7(this.#deps.now());
    const made = await this.#within(organizationId, async (transaction) => {
      // One at a time for each organization: what was counted, and which devices are busy, stays true.
      await transaction.client.query(
        'SELECT FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE',
        [organizationId],
      );
      const known = await findRepeated(transaction, organizationId, prepared);
      if (known === null) await this.#insertPlanned(transaction, author, campaignId, prepared);
      const id = known ?? campaignId;
      const campaign = await getCampaignDetail(transaction, organizationId, id);
      return { campaign, isNew: known === null };
    });
    if (made.isNew) this.#deps.onChanged(campaignId);
    return made;
  }

  async #insertPlanned(
    transaction: Transaction,
    author: CommandAuthor,
    campaignId: string,
    prepared: PreparedCampaign,
  ): Promise<void> {
    await assertRoom(transaction, author.organizationId, this.#deps.limits);
    const planned = await this.#planTargets(transaction, author, prepared);
    const at = new Date(this.#deps.now());
    await insertCampaign(transaction, author, { campaignId, prepared, planned, at });
    const change = auditOf(prepared, planned);
    await this.#audit(transaction, author, { verb: 'create', campaignId, change });
  }

  async #planTargets(
    transaction: Transaction,
    { organizationId }: CommandAuthor,
    { wanted, hash }: PreparedCampaign,
  ): Promise<PlannedTargets> {
    const { isOnline, limits } = this.#deps;
    const planned = await planTargets(transaction, wanted, {
      organizationId,
      devicesMax: limits.devicesMax,
      seed: hash.toString('hex'),
      isOnline,
    });
    assertWaves(planned);
    return planned;
  }

  async #setState(
    author: CommandAuthor,
    campaignId: string,
    { to, from, verb }: StateChange,
  ): Promise<CampaignDetail> {
    const { organizationId } = author;
    const changed = await this.#within(organizationId, async (transaction) => {
      const before = await getCampaignRow(transaction, organizationId, campaignId, true);
      if (before.state !== to) {
        if (!from.includes(before.state)) throw new CampaignStateError(verb, before.state);
        await transaction.client.query(
          `UPDATE campaign SET state = $3, updated_at = $4
           WHERE organization_id = $1 AND campaign_id = $2`,
          [organizationId, campaignId, to, new Date(this.#deps.now())],
        );
        await this.#audit(transaction, author, { verb: ACTIONS[to], campaignId });
      }
      return getCampaignDetail(transaction, organizationId, campaignId);
    });
    this.#deps.onChanged(campaignId);
    return changed;
  }

  #audit(
    { orm }: Transaction,
    { organizationId, actor }: CommandAuthor,
    { verb, campaignId, change = {} }: AuditedChange,
  ): Promise<void> {
    const action = `campaign.${verb}`;
    const subject = `campaign/${campaignId}`;
    return this.#deps.writeAudit(orm, { organizationId, actor, action, subject, change });
  }

  #within<T>(organizationId: number, work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return inOrganization(this.#deps.database, organizationId, work);
  }
}

interface AuditedChange {
  readonly verb: string;
  readonly campaignId: string;
  readonly change?: Readonly<Record<string, unknown>>;
}

interface StateChange {
  readonly to: 'running' | 'paused' | 'cancelled';
  readonly from: readonly CampaignRow['state'][];
  readonly verb: string;
}

const ACTIONS = { running: 'resume', paused: 'pause', cancelled: 'cancel' } as const;

/** A stopped or cancelled campaign may still have devices under way. */
function notEnded({ state }: CampaignRow): string {
  return state === 'running' || state === 'paused' ? state : `${state}, with devices under way`;
}
