import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
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
import type { QuarantineAuthor, QuarantineFilter, WriteAudit } from './quarantine-row.ts';
import {
  countLeft,
  selectRows,
  settle,
  type AskedRows,
  type Attempt,
  type RefusedAgain,
  type ReinjectionQuery,
  type ReinjectionRow,
} from './reinjection-rows.ts';
import type { ReplayWayIn } from './replay-port.ts';

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

/** What {@link Reinjection} is joined with. */
export interface ReinjectionParts {
  readonly database: TenantDatabase;
  readonly ingest: ReplayWayIn;
  readonly writeAudit: WriteAudit;
  /** Older samples, counted from when they were received, are refused as `too_old`. */
  readonly ageMaxMs: number;
  /** How long an organization keeps readings, in ms: older ones would be deleted at once. */
  readonly keptMs: (organizationId: number) => Promise<number>;
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

  async #run(author: QuarantineAuthor, query: AskedRows): Promise<ReinjectionResult> {
    const { database } = this.#parts;
    const { organizationId } = author;
    const rows = await inOrganization(database, organizationId, (transaction) =>
      selectRows(transaction, organizationId, query),
    );
    if (query.one !== null && rows.length === 0) throw new QuarantineNotFoundError(query.one);
    const attempts = await this.#feed(organizationId, rows);
    return inOrganization(database, organizationId, async (transaction) => {
      const { stored, refused } = await settle(transaction, attempts);
      const last = rows.at(-1)?.quarantine_id ?? null;
      const left = await countLeft(transaction, organizationId, { ...query, after: last });
      // Nothing was tried, or another one who asked at the same time has done it all.
      if (stored + refused.length === 0) return { stored, refused, last, left };
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
  async #feed(organizationId: number, rows: readonly ReinjectionRow[]): Promise<Attempt[]> {
    const { ingest, ageMaxMs, keptMs, timeoutMs } = this.#parts;
    const notBeforeMicros = (Date.now() - (await keptMs(organizationId))) * 1000;
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
        const isTooOld = row.received_micros < notBeforeMicros;
        const attempt: Attempt = { row, refusal: isTooOld ? TOO_OLD : topicRefusal(row) };
        attempts.push(attempt);
        if (attempt.refusal !== null) continue;
        let lane = lanes.get(row.device_id);
        lane ??= ingest.openReplay(organizationId, row.device_id, { ageMaxMs, notBeforeMicros });
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

/** Channels that can be stored; a `hello` has nothing to store once its connection is over. */
const CHANNELS: ReadonlySet<string> = new Set<Channel>(['data', 'scalar', 'senml', 'event', 'log']);

function uplinkOf({ topic, organization, device }: ReinjectionRow): UplinkTopic | string {
  if (topicNameFault(topic) !== null) return 'forbidden';
  const uplink = readUplinkTopic(topic, { organization, device });
  if (isTopicRefusal(uplink)) return uplink.code;
  return CHANNELS.has(uplink.channel) ? uplink : 'unknown_channel';
}

function topicRefusal(row: ReinjectionRow): Attempt['refusal'] {
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
    // Asked for only because it is null of whatever was not stored, for whatever reason.
    isWanted: () => true,
    acknowledge(canonical) {
      if (canonical === null) attempt.refusal ??= lane.device.isQuarantined ? APART : NOTHING;
      end?.();
    },
  };
  return { publication, ended };
}

const TOO_OLD = { code: 'too_old', detail: 'it came longer ago than readings are kept' };
const NOTHING = { code: 'not_stored', detail: 'nothing of it could be stored' };
const APART = { code: 'device_quarantined', detail: 'the device is in quarantine' };
