import { cutPage, type Page } from '../../drizzle/page.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { SilenceEndedError, SilenceLimitError, SilenceNotFoundError } from '../../rule-errors.ts';
import { timestampText } from '../../drizzle/timestamp-text.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';
import { SILENCE_COLUMNS, silenceStateOf, type Silence, type SilenceState } from './silence-row.ts';

/** What is asked of a new silence. */
export type NewSilence = Pick<
  Silence,
  'kind' | 'matchers' | 'schedule' | 'startsMicros' | 'endsMicros' | 'comment'
>;

/** What is to become different; what is left out stays. */
export type SilenceChange = {
  readonly [Member in Exclude<keyof NewSilence, 'kind'>]?: NewSilence[Member] | undefined;
};

/** Which silences a page shows, newest first. */
export interface SilenceQuery {
  readonly organizationId: number;
  /** Null: in every state. */
  readonly state: SilenceState | null;
  readonly limit: number;
  /** Id of the last one of the page before. */
  readonly after: string | null;
}

/** What {@link createSilences} needs. */
export interface SilencesDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  /** Most silences of one organization that have not ended. */
  readonly silencesMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Told after COMMIT of each change, so that notifications follow it at once. */
  readonly onChanged?: ((organizationId: number) => void) | undefined;
}

/** Makes it. */
export function createSilences(deps: SilencesDeps): Silences {
  return new Silences(deps);
}

/**
 * The silences and maintenance windows of all organizations. Alerts that match fire and are recorded all
 * the same; nobody is told of them. All throw {@link StoreUnavailableError}.
 */
export class Silences {
  readonly #deps: SilencesDeps;

  constructor(deps: SilencesDeps) {
    this.#deps = deps;
  }

  /** One page, newest first. */
  async list({ organizationId, state, limit, after }: SilenceQuery): Promise<Page<Silence>> {
    const { rows } = await this.#within(organizationId, ({ client }) =>
      client.query<Silence>(
        `SELECT ${SILENCE_COLUMNS} FROM silence
         WHERE organization_id = $1 AND ($2::uuid IS NULL OR silence_id < $2)
           ${state === null ? '' : `AND ${STATE_CLAUSES[state]}`}
         ORDER BY silence_id DESC LIMIT $3`,
        [organizationId, after, limit + 1, ...(state === null ? [] : [this.#nowText()])],
      ),
    );
    return cutPage(rows, limit);
  }

  /** @throws {SilenceNotFoundError} */
  get(organizationId: number, silenceId: string): Promise<Silence> {
    return this.#within(organizationId, (transaction) =>
      getSilence(transaction, organizationId, silenceId),
    );
  }

  /** @throws {SilenceLimitError} */
  async create(author: RuleAuthor, wanted: NewSilence): Promise<Silence> {
    const made = await this.#within(author.organizationId, async (transaction) => {
      await this.#assertRoom(transaction, author.organizationId);
      const silence = await insertSilence(transaction, author, wanted);
      await this.#audit(transaction, author, 'create', silence);
      return silence;
    });
    this.#deps.onChanged?.(author.organizationId);
    return made;
  }

  /** @throws {SilenceNotFoundError} @throws {SilenceEndedError} */
  async update(author: RuleAuthor, silenceId: string, change: SilenceChange): Promise<Silence> {
    const { organizationId } = author;
    const updated = await this.#within(organizationId, async (transaction) => {
      const before = await getSilence(transaction, organizationId, silenceId, true);
      if (this.#isExpired(before)) throw new SilenceEndedError(silenceId);
      const silence = await writeSilence(transaction, organizationId, {
        ...before,
        ...withoutUndefined(change),
      });
      await this.#audit(transaction, author, 'update', silence);
      return silence;
    });
    this.#deps.onChanged?.(organizationId);
    return updated;
  }

  /**
   * Ends it now; one that has ended stays as it is. One that has not begun never does.
   * @throws {SilenceNotFoundError}
   */
  async expire(author: RuleAuthor, silenceId: string): Promise<Silence> {
    const { organizationId } = author;
    const ended = await this.#within(organizationId, async (transaction) => {
      const before = await getSilence(transaction, organizationId, silenceId, true);
      if (this.#isExpired(before)) return before;
      const endsMicros = Math.floor(this.#deps.now()) * 1000;
      const startsMicros = Math.min(before.startsMicros, endsMicros);
      const end = { ...before, startsMicros, endsMicros };
      const silence = await writeSilence(transaction, organizationId, end);
      await this.#audit(transaction, author, 'expire', silence);
      return silence;
    });
    this.#deps.onChanged?.(organizationId);
    return ended;
  }

  /** Deletes it for good. @throws {SilenceNotFoundError} */
  async remove(author: RuleAuthor, silenceId: string): Promise<void> {
    const { organizationId } = author;
    await this.#within(organizationId, async (transaction) => {
      const silence = await getSilence(transaction, organizationId, silenceId, true);
      await transaction.client.query(
        'DELETE FROM silence WHERE organization_id = $1 AND silence_id = $2',
        [organizationId, silenceId],
      );
      await this.#audit(transaction, author, 'delete', silence);
    });
    this.#deps.onChanged?.(organizationId);
  }

  async #assertRoom({ client }: Transaction, organizationId: number): Promise<void> {
    const { silencesMax } = this.#deps;
    // One at a time for each organization, so that the count stays true until COMMIT.
    await client.query('SELECT FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE', [
      organizationId,
    ]);
    const { rows } = await client.query<{ silences: number }>(
      `SELECT count(*)::int4 AS silences FROM silence WHERE organization_id = $1 AND ends_at > $2`,
      [organizationId, this.#nowText()],
    );
    if ((rows[0]?.silences ?? 0) >= silencesMax) throw new SilenceLimitError(silencesMax);
  }

  #isExpired(silence: Silence): boolean {
    return silenceStateOf(silence, this.#deps.now() * 1000) === 'expired';
  }

  #nowText(): string {
    return timestampText(Math.floor(this.#deps.now() * 1000));
  }

  #within<T>(organizationId: number, work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return inOrganization(this.#deps.database, organizationId, work);
  }

  #audit(
    { orm }: Transaction,
    { organizationId, actor }: RuleAuthor,
    verb: string,
    silence: Silence,
  ): Promise<void> {
    const { silenceId, kind, matchers, schedule, startsMicros, endsMicros } = silence;
    return this.#deps.writeAudit(orm, {
      organizationId,
      actor,
      action: `silence.${verb}`,
      subject: `silence/${silenceId}`,
      change: {
        kind,
        matchers,
        schedule,
        startsAt: timestampText(startsMicros),
        endsAt: timestampText(endsMicros),
      },
    });
  }
}

/** $4 is now. */
const STATE_CLAUSES: Readonly<Record<SilenceState, string>> = {
  pending: 'starts_at > $4 AND ends_at > $4',
  active: 'starts_at <= $4 AND ends_at > $4',
  expired: 'ends_at <= $4',
};

async function getSilence(
  { client }: Transaction,
  organizationId: number,
  silenceId: string,
  isLocked = false,
): Promise<Silence> {
  const { rows } = await client.query<Silence>(
    `SELECT ${SILENCE_COLUMNS} FROM silence WHERE organization_id = $1 AND silence_id = $2
     ${isLocked ? 'FOR UPDATE' : ''}`,
    [organizationId, silenceId],
  );
  const [silence] = rows;
  if (silence === undefined) throw new SilenceNotFoundError(silenceId);
  return silence;
}

async function insertSilence(
  { client }: Transaction,
  { organizationId, actor }: RuleAuthor,
  wanted: NewSilence,
): Promise<Silence> {
  const { rows } = await client.query<Silence>(
    `INSERT INTO silence (silence_id, organization_id, kind, matchers, schedule, starts_at, ends_at,
       comment, created_by)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ${SILENCE_COLUMNS}`,
    [
      makeUuidV7(Date.now()),
      organizationId,
      wanted.kind,
      JSON.stringify(wanted.matchers),
      jsonOf(wanted.schedule),
      timestampText(wanted.startsMicros),
      timestampText(wanted.endsMicros),
      wanted.comment,
      actor,
    ],
  );
  const [silence] = rows;
  if (silence === undefined) throw new Error('an inserted silence was not returned');
  return silence;
}

async function writeSilence(
  { client }: Transaction,
  organizationId: number,
  wanted: Silence,
): Promise<Silence> {
  const { rows } = await client.query<Silence>(
    `UPDATE silence SET matchers = $3, schedule = $4, starts_at = $5, ends_at = $6, comment = $7
     WHERE organization_id = $1 AND silence_id = $2 RETURNING ${SILENCE_COLUMNS}`,
    [
      organizationId,
      wanted.silenceId,
      JSON.stringify(wanted.matchers),
      jsonOf(wanted.schedule),
      timestampText(wanted.startsMicros),
      timestampText(wanted.endsMicros),
      wanted.comment,
    ],
  );
  const [silence] = rows;
  if (silence === undefined) throw new Error('a locked silence is gone');
  return silence;
}

function withoutUndefined(change: SilenceChange): Partial<NewSilence> {
  return Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
}

/** SQL's NULL, and not the one of JSON. */
function jsonOf(value: unknown): string | null {
  return value === null ? null : JSON.stringify(value);
}
