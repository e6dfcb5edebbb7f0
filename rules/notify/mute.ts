import type { Transaction } from '../../drizzle/transaction.ts';
import { levelOf } from '../severity.ts';
import type { AlertView } from './alert-view.ts';
import type { Hold } from './decision.ts';
import { matchersSchema, matchesAll, type Matcher } from './matchers.ts';
import { isWithin, weekTimesSchema, type QuietHours } from './quiet-hours.ts';
import { momentOf, queryTogether } from './together.ts';

/** A silence or a maintenance window that is in force now. */
export interface ActiveSilence {
  readonly silenceId: string;
  readonly kind: 'silence' | 'maintenance';
  readonly matchers: readonly Matcher[];
}

/** What holds for an organization as a whole now. */
export interface MuteContext {
  /** The kill switch. */
  readonly isStopped: boolean;
  readonly silences: readonly ActiveSilence[];
  readonly nowMs: number;
}

/** Most silences in force that are looked at. */
const SILENCES_MAX = 1000;

/**
 * Whether people have asked not to be told of an alert now, and how. In this order: kill switch, shadow,
 * snooze, silence, maintenance, quiet hours of the route.
 */
export function muteOf(
  alert: AlertView,
  quietHours: QuietHours | null,
  { isStopped, silences, nowMs }: MuteContext,
): Hold | null {
  if (isStopped) return { reason: 'stopped', by: null };
  if (alert.isUntold) return { reason: 'shadow', by: null };
  if (alert.snoozedUntilMs !== null && alert.snoozedUntilMs > nowMs) {
    return { reason: 'snoozed', by: null };
  }
  const silence = silences.find(({ matchers }) => matchesAll(matchers, alert));
  if (silence !== undefined) {
    const reason = silence.kind === 'silence' ? 'silenced' : 'maintenance';
    return { reason, by: silence.silenceId };
  }
  return quietHours !== null && isQuiet(alert, quietHours, nowMs)
    ? { reason: 'quiet_hours', by: null }
    : null;
}

function isQuiet({ level }: AlertView, quietHours: QuietHours, nowMs: number): boolean {
  if (quietHours.except !== null && level >= levelOf(quietHours.except)) return false;
  return isWithin(quietHours, nowMs);
}

interface SilenceRow {
  silence_id: string;
  kind: 'silence' | 'maintenance';
  matchers: unknown;
  schedule: unknown;
}

/** Reads what is in force for an organization now. */
export async function loadMutes(
  { client }: Pick<Transaction, 'client'>,
  organizationId: number,
  nowMs: number,
): Promise<MuteContext> {
  const rows = await queryTogether(client, muteStatements(organizationId, nowMs));
  return mutesOf(rows, nowMs);
}

/** Two statements, of which {@link mutesOf} reads the rows. */
export function muteStatements(organizationId: number, nowMs: number): readonly string[] {
  return [
    `SELECT stopped_at FROM notification_policy WHERE organization_id = ${organizationId}`,
    `SELECT silence_id, kind, matchers, schedule FROM silence
     WHERE organization_id = ${organizationId}
       AND starts_at <= ${momentOf(nowMs)} AND ends_at > ${momentOf(nowMs)}
     ORDER BY kind DESC, silence_id LIMIT ${SILENCES_MAX}`,
  ];
}

/** What is in force, of the rows of {@link muteStatements}. */
export function mutesOf(
  [policies = [], silences = []]: readonly (readonly object[])[],
  nowMs: number,
): MuteContext {
  const [policy] = policies as { stopped_at: Date | null }[];
  return {
    isStopped: (policy?.stopped_at ?? null) !== null,
    silences: (silences as SilenceRow[]).flatMap((row) => activeOf(row, nowMs)),
    nowMs,
  };
}

/** What a newer version has stored and this one cannot read mutes nothing: rather tell too much. */
function activeOf(row: SilenceRow, nowMs: number): ActiveSilence[] {
  const matchers = matchersSchema.safeParse(row.matchers);
  if (!matchers.success) return [];
  if (row.kind === 'maintenance' && row.schedule !== null) {
    const times = weekTimesSchema.safeParse(row.schedule);
    if (!times.success || !isWithin(times.data, nowMs)) return [];
  }
  return [{ silenceId: row.silence_id, kind: row.kind, matchers: matchers.data }];
}
