import { z } from 'zod';
import { RequestInvalidError } from '../../errors.ts';
import { SilenceEndedError, SilenceNotFoundError } from '../../rule-errors.ts';
import { givenMatchersSchema } from '../../rules/notify/matchers.ts';
import { weekTimesSchema } from '../../rules/notify/quiet-hours.ts';
import {
  isInForce,
  SILENCE_STATES,
  silenceStateOf,
  type Silence,
} from '../../rules/notify/silence-row.ts';
import type { Silences } from '../../rules/notify/silences.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import {
  cursorQuery,
  durationText,
  freeText,
  limitQuery,
  pageOf,
  timeAnswer,
  timeText,
  uuidOf,
} from '../schemas.ts';
import { formatMicros } from '../time-text.ts';
import { authorOf } from './devices.ts';

/** What the routes of silences need. */
export interface SilenceRoutesDeps {
  readonly silences: Silences;
  readonly pageRowsMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

const DAY_MICROS = 86_400_000_000;
/** A silence is for a while: who forgets one is told again some day. */
const SILENCE_MICROS_MAX = 366 * DAY_MICROS;
/** A window that comes again and again. */
const MAINTENANCE_MICROS_MAX = 10 * SILENCE_MICROS_MAX;
const COMMENT_CHARS_MAX = 1000;

const silenceParams = z.strictObject({ silenceId: z.string().describe('Id of the silence.') });
const place = z.tuple([z.uuid()]);
const kind = z.enum(['silence', 'maintenance']);
const state = z.enum(SILENCE_STATES);
const matchers = givenMatchersSchema
  .min(1)
  .describe(
    'All must hold: {"label","op":"=" | "!=" | "prefix","value"} or {"label","op":"in","values"}. Labels are those of the rule, and alertname, device, device_type, severity, tag.',
  );
const schedule = weekTimesSchema
  .nullable()
  .describe('Of maintenance: only at these times of the week, in that time zone.');

const silenceAnswer = z.object({
  id: z.uuid(),
  kind,
  state: state.describe('pending: not begun. active: begun and not ended.'),
  inForce: z
    .boolean()
    .describe('Whether nobody is told at this moment: of a schedule, at its times.'),
  matchers: z.array(z.looseObject({ label: z.string(), op: z.string() })),
  schedule: weekTimesSchema.nullable(),
  startsAt: timeAnswer,
  endsAt: timeAnswer,
  comment: z.string(),
  createdBy: z.string().describe('Id of a key.'),
  createdAt: timeAnswer,
});
const answers = { 200: { description: 'The silence as it is now.', schema: silenceAnswer } };

const times = {
  startsAt: timeText.optional(),
  endsAt: timeText.optional(),
  for: durationText.optional().describe('In place of endsAt: 2h.'),
};

/** The routes of silences and maintenance windows. */
export function silenceRoutes(deps: SilenceRoutesDeps): Route[] {
  return [
    listRoute(deps),
    createRoute(deps),
    getRoute(deps),
    updateRoute(deps),
    expireRoute(deps),
    deleteRoute(deps),
  ];
}

function listRoute({ silences, pageRowsMax, now }: SilenceRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/silences',
    role: 'admin',
    tag: 'silences',
    summary: 'List silences and maintenance windows, newest first',
    query: z.strictObject({
      state: state.optional().describe('Only in this state.'),
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of silences.', schema: pageOf(silenceAnswer) } },
    async handle({ principal: { organizationId }, query }) {
      const { state: asked = null, limit, cursor } = query;
      const filters = ['silences', organizationId, asked];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const page = await silences.list({ organizationId, state: asked, limit, after });
      const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.silenceId]) : null;
      return { status: 200, body: { data: page.rows.map((row) => bodyOf(row, now)), next } };
    },
  });
}

function createRoute({ silences, now }: SilenceRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/silences',
    role: 'admin',
    tag: 'silences',
    summary: 'Tell nobody of alerts that match, once or at times of the week',
    description: `Alerts that match fire and are recorded all the same. A silence needs an end, 366 days after
its start at most. A maintenance window may have a schedule, and lasts ten years without an end.`,
    body: z.strictObject({
      kind: kind.default('silence'),
      matchers,
      schedule: schedule.default(null),
      ...times,
      comment: freeText(COMMENT_CHARS_MAX).default('').describe('Why.'),
    }),
    answers: { 201: { description: 'The silence.', schema: silenceAnswer } },
    async handle({ principal, body: { startsAt, endsAt, for: forMicros, ...rest } }) {
      const startsMicros = startsAt ?? Math.floor(now()) * 1000;
      const endsMicros = endOf(rest.kind, startsMicros, { endsAt, forMicros });
      const wanted = { ...rest, startsMicros, endsMicros };
      assertTimes(wanted, now() * 1000);
      const made = await silences.create(authorOf(principal), wanted);
      const location = `/api/v1/silences/${made.silenceId}`;
      return { status: 201, body: bodyOf(made, now), headers: { location } };
    },
  });
}

function getRoute({ silences, now }: SilenceRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/silences/{silenceId}',
    role: 'admin',
    tag: 'silences',
    summary: 'Get a silence',
    params: silenceParams,
    answers,
    async handle({ principal: { organizationId }, params }) {
      const silence = await silences.get(
        organizationId,
        uuidOf(params.silenceId, SilenceNotFoundError),
      );
      return { status: 200, body: bodyOf(silence, now) };
    },
  });
}

function updateRoute({ silences, now }: SilenceRoutesDeps): Route {
  return defineRoute({
    method: 'PATCH',
    path: '/api/v1/silences/{silenceId}',
    role: 'admin',
    tag: 'silences',
    summary: 'Change a silence that has not ended',
    description: 'What is left out stays. "for" counts from its start.',
    params: silenceParams,
    body: z
      .strictObject({
        matchers: matchers.optional(),
        schedule: schedule.optional(),
        ...times,
        comment: freeText(COMMENT_CHARS_MAX).optional(),
      })
      .refine((change) => Object.keys(change).length > 0, 'must change something'),
    answers,
    async handle({ principal, params, body: { startsAt, endsAt, for: forMicros, ...rest } }) {
      const silenceId = uuidOf(params.silenceId, SilenceNotFoundError);
      const before = await silences.get(principal.organizationId, silenceId);
      if (silenceStateOf(before, now() * 1000) === 'expired')
        throw new SilenceEndedError(silenceId);
      const startsMicros = startsAt ?? before.startsMicros;
      const end = endsAt === undefined && forMicros === undefined ? before.endsMicros : endsAt;
      const endsMicros = endOf(before.kind, startsMicros, { endsAt: end, forMicros });
      const change = { ...rest, startsMicros, endsMicros };
      const { schedule: wanted = before.schedule } = rest;
      assertTimes({ ...before, schedule: wanted, startsMicros, endsMicros }, now() * 1000);
      const silence = await silences.update(authorOf(principal), silenceId, change);
      return { status: 200, body: bodyOf(silence, now) };
    },
  });
}

function expireRoute({ silences, now }: SilenceRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/silences/{silenceId}/expire',
    role: 'admin',
    tag: 'silences',
    summary: 'End a silence now, and keep it',
    params: silenceParams,
    answers,
    async handle({ principal, params }) {
      const silence = await silences.expire(
        authorOf(principal),
        uuidOf(params.silenceId, SilenceNotFoundError),
      );
      return { status: 200, body: bodyOf(silence, now) };
    },
  });
}

function deleteRoute({ silences }: SilenceRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/silences/{silenceId}',
    role: 'admin',
    tag: 'silences',
    summary: 'Delete a silence for good, which ends it too',
    params: silenceParams,
    answers: { 204: { description: 'Gone.', schema: null } },
    async handle({ principal, params }) {
      await silences.remove(authorOf(principal), uuidOf(params.silenceId, SilenceNotFoundError));
      return { status: 204 };
    },
  });
}

function endOf(
  of: Silence['kind'],
  startsMicros: number,
  { endsAt, forMicros }: { endsAt: number | undefined; forMicros: number | undefined },
): number {
  if (endsAt !== undefined && forMicros !== undefined) {
    throw new RequestInvalidError(['body: must have "endsAt" or "for", and not both']);
  }
  if (endsAt !== undefined) return endsAt;
  if (forMicros !== undefined) return startsMicros + forMicros;
  if (of === 'maintenance') return startsMicros + MAINTENANCE_MICROS_MAX;
  throw new RequestInvalidError(['body: a silence needs "endsAt" or "for"']);
}

/** What no member says alone. */
function assertTimes(
  silence: Pick<Silence, 'kind' | 'schedule' | 'startsMicros' | 'endsMicros'>,
  nowMicros: number,
): void {
  const { startsMicros, endsMicros } = silence;
  const max = silence.kind === 'silence' ? SILENCE_MICROS_MAX : MAINTENANCE_MICROS_MAX;
  const faults: string[] = [];
  if (silence.kind === 'silence' && silence.schedule !== null) {
    faults.push('body.schedule: is for the kind "maintenance"');
  }
  if (endsMicros <= startsMicros) faults.push('body.endsAt: must be after its start');
  if (endsMicros <= nowMicros) faults.push('body.endsAt: must be after now');
  if (endsMicros - startsMicros > max) {
    faults.push(`body.endsAt: must be within ${max / DAY_MICROS} days of its start`);
  }
  if (faults.length > 0) throw new RequestInvalidError(faults);
}

function bodyOf(silence: Silence, now: () => number): z.input<typeof silenceAnswer> {
  const nowMicros = now() * 1000;
  return {
    id: silence.silenceId,
    kind: silence.kind,
    state: silenceStateOf(silence, nowMicros),
    inForce: isInForce(silence, nowMicros),
    matchers: silence.matchers.map((matcher) => ({ ...matcher })),
    schedule: silence.schedule,
    startsAt: formatMicros(silence.startsMicros),
    endsAt: formatMicros(silence.endsMicros),
    comment: silence.comment,
    createdBy: silence.createdBy,
    createdAt: formatMicros(silence.createdMicros),
  };
}
