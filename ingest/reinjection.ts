import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { fixedUuidV7 } from '../drizzle/uuid-v7.ts';
import { QuarantineNotFoundError, StoreUnavailableError } from '../errors.ts';
import {
  isTopicRefusal,
  readUplinkTopic,
  topicNameFault,
  type UplinkTopic,
} from '../firmware-protocol/topics.ts';
import { NO_BASIS } from '../firmware-protocol/time.ts';
import type { Lane } from './lane.ts';
import type { Channel, Publication } from './message.ts';
import {
  filterClauses,
  type QuarantineAuthor,
  type QuarantineFilter,
  type WriteAudit,
} from './quarantine-row.ts';
import type { ReplayWayIn } from './replay-port.ts';
import { microsOf } from './timestamp-text.ts';

/** A message that cannot be stored this time either, and why. */
export interface RefusedAgain {
  readonly quarantineId: string;
  readonly code: string;
  readonly detail: string;
}

/** What became of a run of messages. */
export interface ReinjectionResult {
  /** Messages that are stored now, and no longer in quarantine. */
  readonly stored: number;
  /** Messages that are in quarantine still, with their new reason. */
  readonly refused: readonly RefusedAgain[];
  /** Id of the last message that was tried; null when there was none. */
  readonly last: string | null;
  /** Messages of the filter behind it. */
  readonly left: number;
}

/** Which messages are tried, oldest first. */
export interface ReinjectionQuery extends QuarantineFilter {
  /** At most so many, and less when they are more than 8 MiB. */
  readonly limit: number;
  /** Those behind this id. */
  readonly after: string | null;
}

/** What {@link Reinjection} is joined with. */
export interface ReinjectionParts {
  readonly database: TenantDatabase;
  readonly ingest: ReplayWayIn;
  readonly writeAudit: WriteAudit;
  /** Older samples, counted from when they were received, are refused as `too_old`. */
  readonly ageMaxMs: number;
  /** Longest wait for the COMMIT of a run. */
  readonly timeoutMs: number;
}

/**
 * Sends messages of quarantine through the pipeline, as if they came with their first time of receipt: so
 * the times of what is stored are always the same, and a message that is stored twice is stored once. A
 * message leaves quarantine after the COMMIT of its readings, and only if its row is as it was read: when
 * the program ends in between, or somebody edits it, it stays and may be sent again.
 */
export class Reinjection {
  readonly #parts: ReinjectionParts;

  constructor(parts: ReinjectionParts) {
    this.#parts = parts;
  }

  /** @throws {QuarantineNotFoundError} @throws {StoreUnavailableError} also when COMMIT takes too long. */
  one(author: QuarantineAuthor, quarantineId: string): Promise<ReinjectionResult> {
    const query = { one: quarantineId, after: null, limit: 1 };
    return this.#run(author, { ...NO_FILTER, ...query });
  }

  /** @throws {StoreUnavailableError} as {@link one}; what was stored by then has left quarantine or can be sent again. */
  many(author: QuarantineAuthor, query: ReinjectionQuery): Promise<ReinjectionResult> {
    return this.#run(author, { ...query, one: null });
  }

  async #run(author: QuarantineAuthor, query: Asked): Promise<ReinjectionResult> {
    const { database } = this.#parts;
    const { organizationId } = author;
    const rows = await inOrganization(database, organizationId, (transaction) =>
      selectRows(transaction, organizationId, query),
    );
    if (query.one !== null && rows.length === 0) throw new QuarantineNotFoundError(query.one);
    const attempts = await this.#feed(organizationId, rows);
    return inOrganization(database, organizationId, async (transaction) => {
      const refused = await settle(transaction, attempts);
      const last = rows.at(-1)?.quarantine_id ?? null;
      const left = await countLeft(transaction, organizationId, { ...query, after: last });
      const stored = rows.length - refused.length;
      const subject = query.one === null ? 'quarantine' : `quarantine/${query.one}`;
      const { one: _, after: _after, limit: _limit, ...filter } = query;
      await this.#parts.writeAudit(transaction.orm, {
        ...author,
        action: 'quarantine.reinject',
        subject,
        change: { ...(query.one === null ? filter : {}), stored, refused: refused.length },
      });
      return { stored, refused, last, left };
    });
  }

  /** Resolves when the fate of all is committed. */
  async #feed(organizationId: number, rows: readonly Row[]): Promise<Attempt[]> {
    const { ingest, ageMaxMs, timeoutMs } = this.#parts;
    const lanes = new Map<number, Lane>();
    const waiting: Promise<void>[] = [];
    const run = new FeedRun();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        run.isOver = true;
        reject(new StoreUnavailableError('messages were not stored in time'));
      }, timeoutMs);
    });
    const feedAll = async (): Promise<Attempt[]> => {
      const attempts: Attempt[] = [];
      for (const row of rows) {
        if (run.isOver) break;
        const attempt: Attempt = { row, refusal: topicRefusal(row) };
        attempts.push(attempt);
        if (attempt.refusal !== null) continue;
        let lane = lanes.get(row.device_id);
        lane ??= ingest.openReplay(organizationId, row.device_id, { ageMaxMs });
        lanes.set(row.device_id, lane);
        const { publication, ended } = publicationOf(attempt, lane, run);
        waiting.push(ended);
        const receipt = { receivedMicros: row.received_micros, basis: NO_BASIS };
        if (!ingest.acceptReplay(lane, publication, receipt)) await run.whenResumed();
      }
      await Promise.all(waiting);
      return attempts;
    };
    try {
      return await Promise.race([feedAll(), late]);
    } finally {
      clearTimeout(timer);
      run.isOver = true;
      run.resume();
      for (const lane of lanes.values()) ingest.closeReplay(lane);
    }
  }
}

const NO_FILTER: QuarantineFilter = {
  deviceId: null,
  code: null,
  fromMicros: null,
  toMicros: null,
};
const RUN_PAYLOAD_BYTES_MAX = 8_388_608;
/** What is left is counted up to here. */
const LEFT_MAX = 100_000;

interface Asked extends ReinjectionQuery {
  /** Only the message of this id. */
  readonly one: string | null;
}

interface Row {
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

interface Attempt {
  readonly row: Row;
  /** As far as it is known before, or told on the way. The database has the last word. */
  refusal: { readonly code: string; readonly detail: string } | null;
}

/** Lets a run rest while a message waits before the queue. */
class FeedRun {
  isOver = false;
  #resume: (() => void) | null = null;
  #isResumed = false;

  resume(): void {
    this.#isResumed = true;
    this.#resume?.();
    this.#resume = null;
  }

  async whenResumed(): Promise<void> {
    if (!this.#isResumed && !this.isOver) {
      await new Promise<void>((resolve) => {
        this.#resume = resolve;
      });
    }
    this.#isResumed = false;
  }
}

function selectRows(
  { client }: Transaction,
  organizationId: number,
  { limit, ...query }: Asked,
): Promise<Row[]> {
  const values: unknown[] = [organizationId, limit, RUN_PAYLOAD_BYTES_MAX];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const asked = client.query<Row>(
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
  { one, after, ...filter }: Omit<Asked, 'limit'>,
  give: (value: unknown) => string,
): string {
  const clauses = [filterClauses(filter, give)];
  if (one !== null) clauses.push(`AND quarantine_id = ${give(one)}`);
  if (after !== null) clauses.push(`AND quarantine_id > ${give(after)}`);
  return clauses.join(' ');
}

async function countLeft(
  { client }: Transaction,
  organizationId: number,
  { limit: _, ...query }: Asked,
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
 */
async function settle(
  { client }: Transaction,
  attempts: readonly Attempt[],
): Promise<RefusedAgain[]> {
  const ids = attempts.map(({ row }) => row.quarantine_id);
  const fixedIds = attempts.map(({ row }) => fixedUuidV7(row.received_micros, row.device_id));
  const versions = attempts.map(({ row }) => row.version);
  const codes = attempts.map(({ refusal }) => refusal?.code ?? null);
  const details = attempts.map(({ refusal }) => refusal?.detail ?? null);
  const given = `unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])
    AS given (id, fixed_id, version, code, detail)`;
  const values = [ids, fixedIds, versions, codes, details];
  await client.query(
    `DELETE FROM quarantine USING ${given}
     WHERE quarantine_id = given.id AND quarantine.xmin::text = given.version
       AND (given.code IS NULL OR given.detail IS NULL OR given.id <> given.fixed_id AND EXISTS (
         SELECT FROM quarantine AS again WHERE again.quarantine_id = given.fixed_id))`,
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
  return rows.map(({ id, code, detail }) => ({ quarantineId: id, code, detail }));
}

/** Channels that can be stored; a `hello` has nothing to store once its connection is over. */
const CHANNELS: ReadonlySet<string> = new Set<Channel>(['data', 'scalar', 'senml', 'event', 'log']);

function uplinkOf({ topic, organization, device }: Row): UplinkTopic | string {
  if (topicNameFault(topic) !== null) return 'forbidden';
  const uplink = readUplinkTopic(topic, { organization, device });
  if (isTopicRefusal(uplink)) return uplink.code;
  return CHANNELS.has(uplink.channel) ? uplink : 'unknown_channel';
}

function topicRefusal(row: Row): Attempt['refusal'] {
  const uplink = uplinkOf(row);
  if (typeof uplink !== 'string') return null;
  return { code: uplink, detail: 'nothing that comes on this topic can be stored' };
}

function publicationOf(
  attempt: Attempt,
  lane: Lane,
  run: FeedRun,
): { publication: Publication; ended: Promise<void> } {
  const { row } = attempt;
  const uplink = uplinkOf(row);
  if (typeof uplink === 'string') throw new Error('a topic that was refused');
  let end: (() => void) | undefined;
  let fail: ((cause: unknown) => void) | undefined;
  const ended = new Promise<void>((resolve, reject) => {
    end = resolve;
    fail = reject;
  });
  // Whoever waits for all of them is told; one that fails later must not end the program.
  ended.catch(() => undefined);
  const channel = uplink.channel as Channel;
  const publication: Publication = {
    source: {
      report(code, _channel, detail) {
        // Only a warning: the message is stored under the time of receipt.
        if (code !== 'clock') attempt.refusal ??= { code, detail };
      },
      resume: () => run.resume(),
      close: (reason) => fail?.(new StoreUnavailableError(reason)),
    },
    channel,
    name: uplink.name,
    refusal: null,
    word: channel,
    topic: row.topic,
    payload: row.payload,
    qos: 1,
    isWanted: () => false,
    acknowledge() {
      if (lane.device.isQuarantined) attempt.refusal ??= APART;
      end?.();
    },
  };
  return { publication, ended };
}

const APART = { code: 'device_quarantined', detail: 'the device is in quarantine' };
