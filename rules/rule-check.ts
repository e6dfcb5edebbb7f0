import { isDeepStrictEqual } from 'node:util';
import type { Transaction } from '../drizzle/transaction.ts';
import { RuleInvalidError } from '../rule-errors.ts';
import { fleetTagsOf } from './backtest/fleet-tags.ts';
import { checkKinds, compileRule } from './compile.ts';
import type { RuleJson } from './rule-row.ts';
import { formatRule, parseRule } from './rule-schema.ts';
import type { RuleDefinition, RuleMode } from './rule.ts';

/** A rule that was checked, and what people should know of it. */
export interface CheckedRule {
  readonly definition: RuleDefinition;
  /** As it is stored: as the API writes it, without its mode. */
  readonly stored: RuleJson;
  /** One line for each thing that is no error and may be a slip: a device that does not exist. */
  readonly warnings: readonly string[];
}

/** Deeper JSON is refused before it is looked into. A rule needs less: conditions end at depth 6. */
const DEPTH_MAX = 32;
/** Of a rule as JSON, in characters. */
const RULE_CHARS_MAX = 131_072;
/** Warnings of one kind. */
const WARNINGS_MAX = 20;
/** Compiled to be checked, and not to be run. */
const UNUSED_WINDOW = { windowSamplesMax: 16 };
const UNSAVED = {
  ruleId: 0,
  publicId: '',
  organizationId: 0,
  version: 0,
  mode: 'enabled',
} as const;

type Kind = 'number' | 'bool' | 'text';

/**
 * Checks a rule with all that is known of the organization's metrics.
 * @throws {RuleInvalidError} with every fault.
 */
export async function checkRule(
  transaction: Transaction,
  organizationId: number,
  draft: unknown,
): Promise<CheckedRule> {
  assertBounded(draft);
  const definition = parseRule(draft);
  const compiled = compileRule({ ...UNSAVED, definition }, UNUSED_WINDOW);
  const { metrics } = compiled;
  const kinds = await kindsOf(transaction, organizationId);
  const faults = checkKinds(definition, kinds);
  if (faults.length > 0) throw new RuleInvalidError(faults);
  const unseen = metrics.filter((metric) => !kinds.has(metric));
  const warnings = [
    ...unseen.map((metric) => `when: no device has sent a metric "${metric}" yet`),
    ...(await strangers(transaction, organizationId, {
      ...definition,
      fleet: fleetTagsOf(compiled),
    })),
  ];
  return { definition, stored: storedForm(definition), warnings };
}

/** The mode is the rule's, and not of what it says. */
export function storedForm(definition: RuleDefinition): RuleJson {
  const { mode: _mode, ...stored } = formatRule(definition) as Record<string, unknown>;
  return stored;
}

/** A rule that was stored, as it is evaluated. @throws {RuleInvalidError} of a newer program's. */
export function readStored(stored: RuleJson, mode: RuleMode): RuleDefinition {
  return parseRule({ ...stored, mode });
}

/** Whether two stored forms say the same. */
export function saysTheSame(one: RuleJson, other: RuleJson): boolean {
  return isDeepStrictEqual(JSON.parse(JSON.stringify(one)), JSON.parse(JSON.stringify(other)));
}

/** JSON that is too deep would overflow the stack of whatever walks it. */
function assertBounded(draft: unknown): void {
  let level: unknown[] = [draft];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > DEPTH_MAX) throw tooMuch(`must not be deeper than ${DEPTH_MAX} levels`);
    level = level.flatMap((value) =>
      typeof value === 'object' && value !== null ? Object.values(value) : [],
    );
  }
  if (JSON.stringify(draft ?? null).length > RULE_CHARS_MAX) {
    throw tooMuch(`must not be longer than ${RULE_CHARS_MAX} characters`);
  }
}

function tooMuch(message: string): RuleInvalidError {
  return new RuleInvalidError([{ path: '', message }]);
}

async function kindsOf(
  { client }: Transaction,
  organizationId: number,
): Promise<ReadonlyMap<string, Kind>> {
  const { rows } = await client.query<{ name: string; kind: Kind }>(
    'SELECT name, kind FROM metric WHERE organization_id = $1',
    [organizationId],
  );
  return new Map(rows.map(({ name, kind }) => [name, kind]));
}

/** What a rule names that is not there, or not yet. */
async function strangers(
  { client }: Transaction,
  organizationId: number,
  {
    scope,
    suppressedBy,
    fleet,
  }: Pick<RuleDefinition, 'scope' | 'suppressedBy'> & { readonly fleet: readonly string[] },
): Promise<string[]> {
  const { devices = [], tags = [], types = [] } = scope;
  const suppressing = suppressedBy.flatMap(({ device }) => (device === null ? [] : [device]));
  const { rows } = await client.query<{ place: string; name: string }>(
    `SELECT place, name FROM (
       SELECT 'scope.devices: there is no device' AS place, name FROM unnest($2::text[]) AS name
       UNION ALL SELECT 'suppressedBy: there is no device', unnest($6::text[])) AS device_named
     WHERE NOT EXISTS (SELECT FROM device WHERE organization_id = $1 AND slug = name)
     UNION ALL
     SELECT 'scope.tags: no device has the tag', tag FROM unnest($3::text[]) AS tag
     WHERE NOT EXISTS (SELECT FROM device WHERE organization_id = $1 AND tag = ANY (tags))
     UNION ALL
     SELECT 'when: no device has the tag', tag FROM unnest($7::text[]) AS tag
     WHERE NOT EXISTS (SELECT FROM device WHERE organization_id = $1 AND tag = ANY (tags))
     UNION ALL
     SELECT 'scope.types: no device has the type', type FROM unnest($4::text[]) AS type
     WHERE NOT EXISTS (SELECT FROM device WHERE organization_id = $1 AND device_type = type)
     UNION ALL
     SELECT 'suppressedBy: there is no rule', rule FROM unnest($5::text[]) AS rule
     WHERE NOT EXISTS (
       SELECT FROM alert_rule
       WHERE organization_id = $1 AND alert_rule.name = rule AND deleted_at IS NULL)
     LIMIT ${WARNINGS_MAX}`,
    [
      organizationId,
      devices,
      tags,
      types,
      suppressedBy.map(({ rule }) => rule),
      suppressing,
      fleet,
    ],
  );
  return rows.map(({ place, name }) => `${place} "${name}"`);
}
