import { z } from 'zod';
import {
  CAMPAIGN_DEVICE_STATES,
  CAMPAIGN_STATES,
  type CampaignDetail,
  type Campaigns,
} from '../../commands/campaign/campaign.ts';
import { CAMPAIGN_KINDS } from '../../commands/campaign/campaign-kind.ts';
import { CampaignNotFoundError } from '../../command-errors.ts';
import type { CommandAuthor } from '../../commands/command.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Answer, type Route } from '../route.ts';
import { cursorQuery, flagQuery, limitQuery, listQuery, pageOf, uuidOf } from '../schemas.ts';
import {
  campaignAnswer,
  campaignBody,
  campaignDeviceAnswer,
  campaignDeviceBody,
  campaignPlanAnswer,
  campaignPlanBody,
  campaignWithWaves,
  campaignWithWavesBody,
} from './campaign-answers.ts';
import { idempotencyKeyOf } from './commands.ts';
import { newCampaignOf, newCampaignSchema } from './campaign-request.ts';
import { authorOf } from './devices.ts';

/** What the routes of campaigns need. */
export interface CampaignRoutesDeps {
  readonly campaigns: Campaigns;
  readonly pageRowsMax: number;
}

/** The devices of each campaign of a page are counted. */
const PAGE_CAMPAIGNS_MAX = 100;

const campaignParams = z.strictObject({ campaignId: z.string().describe('Id of the campaign.') });
const campaignPlace = z.tuple([z.uuid()]);
const devicePlace = z.tuple([z.int().min(0).max(2_147_483_647)]);

/** The routes of campaigns. */
export function campaignRoutes(deps: CampaignRoutesDeps): Route[] {
  const { campaigns } = deps;
  return [
    createRoute(deps),
    listRoute(deps),
    getRoute(deps),
    devicesRoute(deps),
    changeRoute('pause', 'Begin with no more devices of a campaign', (author, id) =>
      campaigns.pause(author, id),
    ),
    changeRoute('resume', 'Go on with a campaign that was paused', (author, id) =>
      campaigns.resume(author, id),
    ),
    changeRoute('cancel', 'End a campaign, and withdraw what can be withdrawn', (author, id) =>
      campaigns.cancel(author, id),
    ),
    retryRoute(deps),
  ];
}

function createRoute({ campaigns }: CampaignRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/campaigns',
    role: 'admin',
    tag: 'campaigns',
    summary: 'Do the same to many devices, in waves',
    description: `A few canaries first, then wave by wave, each when the one before has ended and its time to
settle has passed. It stops by itself when too many devices fail. With dryRun=true nothing is begun, and the
answer says what would be. With an Idempotency-Key, asking again gives the same campaign.`,
    query: z.strictObject({ dryRun: flagQuery.describe('Only say what would be done.') }),
    body: newCampaignSchema,
    answers: {
      200: {
        description: 'A dry run, or the campaign that the same Idempotency-Key made before.',
        schema: z.union([campaignPlanAnswer, campaignWithWaves]),
      },
      201: { description: 'The campaign, which runs.', schema: campaignWithWaves },
    },
    async handle({ principal, query: { dryRun = false }, body, conditions }) {
      const author = authorOf(principal);
      const wanted = newCampaignOf(body, idempotencyKeyOf(conditions.idempotencyKey));
      if (!dryRun) return madeAnswer(await campaigns.create(author, wanted));
      return { status: 200, body: campaignPlanBody(await campaigns.plan(author, wanted)) };
    },
  });
}

function listRoute({ campaigns, pageRowsMax }: CampaignRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/campaigns',
    role: 'admin',
    tag: 'campaigns',
    summary: 'List campaigns, newest first',
    query: z.strictObject({
      kind: z.enum(CAMPAIGN_KINDS).optional().describe('Only of this kind.'),
      state: listQuery(CAMPAIGN_STATES).describe('Only in these states.'),
      limit: limitQuery(20, Math.min(PAGE_CAMPAIGNS_MAX, pageRowsMax)),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of campaigns.', schema: pageOf(campaignAnswer) } },
    async handle({ principal: { organizationId }, query }) {
      const { kind = null, state: states = null, limit, cursor } = query;
      const filters = ['campaigns', organizationId, kind, states];
      const after = cursor === undefined ? null : readCursor(filters, campaignPlace, cursor)[0];
      const page = await campaigns.list({ organizationId, kind, states, limit, after });
      const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.campaignId]) : null;
      return { status: 200, body: { data: page.rows.map(campaignBody), next } };
    },
  });
}

function getRoute({ campaigns }: CampaignRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/campaigns/{campaignId}',
    role: 'admin',
    tag: 'campaigns',
    summary: 'Get a campaign',
    params: campaignParams,
    answers: { 200: { description: 'The campaign.', schema: campaignWithWaves } },
    async handle({ principal: { organizationId }, params: { campaignId } }) {
      const found = await campaigns.get(organizationId, idOf(campaignId));
      return { status: 200, body: campaignWithWavesBody(found) };
    },
  });
}

function devicesRoute({ campaigns, pageRowsMax }: CampaignRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/campaigns/{campaignId}/devices',
    role: 'admin',
    tag: 'campaigns',
    summary: 'List the devices of a campaign, in their order',
    params: campaignParams,
    query: z.strictObject({
      state: listQuery(CAMPAIGN_DEVICE_STATES).describe('Only in these states.'),
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of devices.', schema: pageOf(campaignDeviceAnswer) } },
    async handle({ principal: { organizationId }, params, query }) {
      const { state: states = null, limit, cursor } = query;
      const campaignId = idOf(params.campaignId);
      const filters = ['campaign devices', organizationId, campaignId, states];
      const after = cursor === undefined ? null : readCursor(filters, devicePlace, cursor)[0];
      const page = await campaigns.devices({ organizationId, campaignId, states, limit, after });
      const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.position]) : null;
      return { status: 200, body: { data: page.rows.map(campaignDeviceBody), next } };
    },
  });
}

function changeRoute(
  verb: 'pause' | 'resume' | 'cancel',
  summary: string,
  change: (author: CommandAuthor, campaignId: string) => Promise<CampaignDetail>,
): Route {
  return defineRoute({
    method: 'POST',
    path: `/api/v1/campaigns/{campaignId}/${verb}`,
    role: 'admin',
    tag: 'campaigns',
    summary,
    description: `Devices under way ${verb === 'cancel' ? 'that cannot be withdrawn ' : ''}go on.`,
    params: campaignParams,
    answers: { 200: { description: 'The campaign as it is now.', schema: campaignWithWaves } },
    async handle({ principal, params: { campaignId } }) {
      const changed = await change(authorOf(principal), idOf(campaignId));
      return { status: 200, body: campaignWithWavesBody(changed) };
    },
  });
}

function retryRoute({ campaigns }: CampaignRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/campaigns/{campaignId}/retry-failed',
    role: 'admin',
    tag: 'campaigns',
    summary: 'Do the same again, to the devices that failed',
    description: `Makes a new campaign, with the policy of the one that has ended. With unfinished=true it
has the devices that were skipped or never begun with too.`,
    params: campaignParams,
    query: z.strictObject({
      unfinished: flagQuery.describe('All devices that did not succeed.'),
    }),
    answers: {
      200: {
        description: 'The campaign that the same Idempotency-Key made before.',
        schema: campaignWithWaves,
      },
      201: { description: 'The new campaign, which runs.', schema: campaignWithWaves },
    },
    async handle({ principal, params, query: { unfinished = false }, conditions }) {
      const made = await campaigns.retry(authorOf(principal), idOf(params.campaignId), {
        scope: unfinished ? 'unfinished' : 'failed',
        idempotencyKey: idempotencyKeyOf(conditions.idempotencyKey),
      });
      return madeAnswer(made);
    },
  });
}

function madeAnswer({ campaign, isNew }: { campaign: CampaignDetail; isNew: boolean }): Answer {
  const location = `/api/v1/campaigns/${campaign.campaignId}`;
  const status = isNew ? 201 : 200;
  return { status, body: campaignWithWavesBody(campaign), headers: { location } };
}

function idOf(text: string): string {
  return uuidOf(text, CampaignNotFoundError);
}
