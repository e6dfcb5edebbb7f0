import {
  RETENTION_CLASSES,
  settleRetention,
  type AskedRetention,
  type RetentionBounds,
  type RetentionClass,
  type RetentionDays,
} from '../drizzle/retention.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { RequestInvalidError } from '../errors.ts';
import { writeAudit } from './audit.ts';
import type { Author } from './devices.ts';

/** How long an organization's data of one class is kept. */
export interface ClassRetention {
  readonly name: RetentionClass;
  readonly days: number;
  /** What may be asked for. */
  readonly daysMin: number;
  readonly daysMax: number;
  /** Whether the organization asked for it; false: it is what the settings say. */
  readonly isAsked: boolean;
}

/** How long data is kept. */
export interface Retention {
  /** One entry a class, from raw to the coarsest. @throws {StoreUnavailableError} */
  get(organizationId: number): Promise<ClassRetention[]>;
  /**
   * Replaces what the organization asks for; classes left out go back to the settings. What is then too
   * old is deleted within the hour and does not come back.
   * @throws {RequestInvalidError} outside of the bounds, or with a class shorter than a finer one.
   * @throws {StoreUnavailableError}
   */
  put(author: Author, asked: AskedRetention): Promise<ClassRetention[]>;
}

/** Makes the organizations' part of retention; ingest does the deleting. */
export function createRetention(database: TenantDatabase, bounds: RetentionBounds): Retention {
  return {
    get: (organizationId) =>
      inOrganization(database, organizationId, async (transaction) =>
        classesOf(await readAsked(transaction, organizationId), bounds),
      ),

    put(author, asked) {
      return inOrganization(database, author.organizationId, async (transaction) => {
        assertWithin(asked, bounds);
        await replaceAsked(transaction, author.organizationId, asked);
        await writeAudit(transaction.orm, {
          ...author,
          action: 'retention.update',
          subject: 'retention',
          change: asked,
        });
        return classesOf(asked, bounds);
      });
    },
  };
}

async function readAsked({ client }: Transaction, organizationId: number): Promise<AskedRetention> {
  const { rows } = await client.query<{ class: RetentionClass; days: number }>(
    'SELECT class, days FROM retention WHERE organization_id = $1',
    [organizationId],
  );
  return Object.fromEntries(rows.map(({ class: name, days }) => [name, days]));
}

async function replaceAsked(
  { client }: Transaction,
  organizationId: number,
  asked: AskedRetention,
): Promise<void> {
  await client.query('DELETE FROM retention WHERE organization_id = $1', [organizationId]);
  for (const [name, days] of Object.entries(asked)) {
    await client.query(
      `INSERT INTO retention (organization_id, class, days) VALUES ($1, $2, $3)
       ON CONFLICT (organization_id, class) DO UPDATE SET days = excluded.days`,
      [organizationId, name, days],
    );
  }
}

/** What is asked for must be what is given, or who asks would believe something else. */
function assertWithin(asked: AskedRetention, bounds: RetentionBounds): void {
  const given = settleRetention(asked, bounds);
  const faults = RETENTION_CLASSES.flatMap((name) => {
    const days = asked[name];
    if (days === undefined || days === given[name]) return [];
    const least = leastOf(name, given, bounds);
    return [`body/${name}: must be between ${least} and ${bounds.max[name]} days`];
  });
  if (faults.length > 0) throw new RequestInvalidError(faults);
}

function classesOf(asked: AskedRetention, bounds: RetentionBounds): ClassRetention[] {
  const given = settleRetention(asked, bounds);
  return RETENTION_CLASSES.map((name) => ({
    name,
    days: given[name],
    daysMin: leastOf(name, given, bounds),
    daysMax: bounds.max[name],
    isAsked: asked[name] !== undefined,
  }));
}

/** No class is shorter than the finer one, which it is made of. */
function leastOf(name: RetentionClass, given: RetentionDays, bounds: RetentionBounds): number {
  const finer = RETENTION_CLASSES[RETENTION_CLASSES.indexOf(name) - 1];
  return finer === undefined ? bounds.rawMin : given[finer];
}
