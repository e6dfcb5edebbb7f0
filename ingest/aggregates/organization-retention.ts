import type pg from 'pg';
import {
  settleRetention,
  type AskedRetention,
  type RetentionBounds,
  type RetentionClass,
  type RetentionDays,
} from '../../drizzle/retention.ts';
import { DAY_MS, floorTo } from './levels.ts';

/** What every organization keeps. */
export interface Retentions {
  /** Of those that asked for something. */
  readonly ofOrganization: ReadonlyMap<number, RetentionDays>;
  /** Of all others. */
  readonly standard: RetentionDays;
  /** The longest that any organization keeps each class. */
  readonly longest: RetentionDays;
}

/** Reads what every organization asked for, as far as it may. */
export async function readRetentions(
  client: pg.Client,
  bounds: RetentionBounds,
): Promise<Retentions> {
  const { rows } = await client.query<{ organization_id: number; asked: AskedRetention | null }>(
    `SELECT organization.organization_id, jsonb_object_agg(class, days)
              FILTER (WHERE class IS NOT NULL) AS asked
     FROM organization LEFT JOIN retention USING (organization_id) GROUP BY 1`,
  );
  const standard = settleRetention({}, bounds);
  const ofOrganization = new Map<number, RetentionDays>();
  for (const { organization_id, asked } of rows) {
    if (asked !== null) ofOrganization.set(organization_id, settleRetention(asked, bounds));
  }
  const isAnyStandard = ofOrganization.size < rows.length || rows.length === 0;
  const all = [...ofOrganization.values(), ...(isAnyStandard ? [standard] : [])];
  const longestOf = (name: RetentionClass): number => Math.max(...all.map((days) => days[name]));
  const longest = {
    raw: longestOf('raw'),
    '1m': longestOf('1m'),
    '1h': longestOf('1h'),
    '1d': longestOf('1d'),
  };
  return { ofOrganization, standard, longest };
}

/** Midnight UTC, ms since 1970, before which something kept for so many days may be deleted. */
export function cutOf(nowMs: number, days: number): number {
  return floorTo(nowMs - days * DAY_MS, DAY_MS);
}

/** Organizations that keep a class shorter than the longest, with their days. */
export function shorterOnes(
  { ofOrganization, longest }: Retentions,
  name: RetentionClass,
): { readonly organizationId: number; readonly days: number }[] {
  return [...ofOrganization]
    .map(([organizationId, days]) => ({ organizationId, days: days[name] }))
    .filter(({ days }) => days < longest[name]);
}
