import type { Transaction } from '../drizzle/transaction.ts';
import { fixedUuidV7 } from '../drizzle/uuid-v7.ts';
import { filterClauses, type QuarantineFilter } from './quarantine-row.ts';
import { microsOf } from '../drizzle/timestamp-text.ts';

/** A message that cannot be stored this time either, and why. */
export interface RefusedAgain {
  readonly quarantineId: string;
  readonly code: string;
  readonly detail: string;
}

/** Which messages are tried, oldest first. */
export interface ReinjectionQuery extends QuarantineFilter {
  /** At most so many, and less when they are more than 8 MiB. */
  readonly limit: number;
  /** Those behind this id. */
  readonly after: string | null;
}

/** As {@link ReinjectionQuery}, or one message. */
export interface AskedRows extends ReinjectionQuery {
  /** Only the message of this id. */
  readonly one: string | null;
}

/** A message as it is tried. */
export interface ReinjectionRow {
  quarantine_id: string;
  device_id: number;
  device: string;
  organization: string;
  received_micros: number;
  topic: string;
  payload: Buffer;
  /** Another one after each UPDATE of the row. */
  version: string;
}

/** A message that was tried, and why it was refused. */
export interface Attempt {
  readonly row: ReinjectionRow;
  /** As far as it is known before, or told on the way. The database has the last word. */
  refusal: { readonly code: string; readonly detail: string } | null;
}

const RUN_PAYLOAD_BYTES_MAX = 8_388_608;
/** What is left is counted up to here. */
const LEFT_MAX = 100_000;

/** The messages to try, oldest first, with less than 8 MiB of payload or one. */
export function selectRows(
  { client }: Transaction,
  organizationId: number,
  { limit, ...query }: AskedRows,
): Promise<ReinjectionRow[]> {
  const values: unknown[] = [organizationId, limit, RUN_PAYLOAD_BYTES_MAX];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const asked = client.query<ReinjectionRow>(
    `SELECT quarantine_id, device_id, device, organization, topic, payload, version,
            ${microsOf('received_at')} AS received_micros
     FROM (
       SELECT page.*, device.slug AS device, organization.slug AS organization,
              sum(octet_length(page.payload)) OVER (ORDER BY page.quarantine_id) AS bytes,
              row_number() OVER (ORDER BY page.quarantine_id) AS place
       FROM (
         SELECT *, xmin::text AS version FROM quarantine
         WHERE organization_id = $1 ${askedClauses(query, give)} ORDER BY quarantine_id LIMIT $2
       ) AS page
       JOIN device USING (device_id)
       JOIN organization ON organization.organization_id = device.organization_id
     ) AS measured
     WHERE place = 1 OR bytes <= $3
     ORDER BY quarantine_id`,
    values,
  );
  return asked.then(({ rows }) => rows);
}

function askedClauses(
  { one, after, ...filter }: Pick<AskedRows, 'one' | 'after' | keyof QuarantineFilter>,
  give: (value: unknown) => string,
): string {
  const clauses = [filterClauses(filter, give)];
  if (one !== null) clauses.push(`AND quarantine_id = ${give(one)}`);
  if (after !== null) clauses.push(`AND quarantine_id > ${give(after)}`);
  return clauses.join(' ');
}

/** How many messages of the filter lie behind `after`. */
export async function countLeft(
  { client }: Transaction,
  organizationId: number,
  query: AskedRows,
): Promise<number> {
  if (query.one !== null || query.after === null) return 0;
  const values: unknown[] = [organizationId, LEFT_MAX];
  const clauses = askedClauses(query, (value) => `$${values.push(value)}`);
  const { rows } = await client.query<{ messages: number }>(
    `SELECT count(*)::int4 AS messages FROM (
       SELECT FROM quarantine WHERE organization_id = $1 ${clauses} LIMIT $2) AS behind`,
    values,
  );
  return rows[0]?.messages ?? 0;
}

/**
 * Takes what is stored out of quarantine. A message that the pipeline refused again has its row written
 * by that, under the id that follows from its device and time of receipt; so has the message of an
 * older row with another id, which goes then. What was changed meanwhile by anybody stays as it is.
 * @returns how many were taken out because they are stored, and what is in quarantine still.
 */
export async function settle(
  { client }: Transaction,
  attempts: readonly Attempt[],
): Promise<{ stored: number; refused: RefusedAgain[] }> {
  const ids = attempts.map(({ row }) => row.quarantine_id);
  const fixedIds = attempts.map(({ row }) => fixedUuidV7(row.received_micros, row.device_id));
  const versions = attempts.map(({ row }) => row.version);
  const codes = attempts.map(({ refusal }) => refusal?.code ?? null);
  const details = attempts.map(({ refusal }) => refusal?.detail ?? null);
  const given = `unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])
    AS given (id, fixed_id, version, code, detail)`;
  const values = [ids, fixedIds, versions, codes, details];
  const { rows: taken } = await client.query<{ stored: boolean }>(
    `DELETE FROM quarantine USING ${given}
     WHERE quarantine_id = given.id AND quarantine.xmin::text = given.version
       AND (given.code IS NULL OR given.detail IS NULL OR given.id <> given.fixed_id AND EXISTS (
         SELECT FROM quarantine AS again WHERE again.quarantine_id = given.fixed_id))
     RETURNING given.code IS NULL AS stored`,
    values,
  );
  await client.query(
    `UPDATE quarantine SET code = given.code, detail = given.detail FROM ${given}
     WHERE quarantine_id = given.id AND quarantine.xmin::text = given.version`,
    values,
  );
  const { rows } = await client.query<{ id: string; code: string; detail: string }>(
    `SELECT DISTINCT ON (given.id) quarantine_id AS id, quarantine.code, quarantine.detail
     FROM ${given} JOIN quarantine ON quarantine_id IN (given.id, given.fixed_id)
     ORDER BY given.id`,
    values,
  );
  return {
    stored: taken.filter(({ stored }) => stored).length,
    refused: rows.map(({ id, code, detail }) => ({ quarantineId: id, code, detail })),
  };
}
