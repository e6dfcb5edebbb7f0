import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { guardStore, isUnavailable } from '../drizzle/sqlstate.ts';
import { inTransaction } from '../drizzle/transaction.ts';
import type { Logger } from '../log.ts';
import type { ConfiguredDevice, Document, ReportOutcome } from './configuration.ts';
import {
  addRows,
  holdDevices,
  lockRows,
  saveRows,
  type ConfigurationRow,
  type ConfigurationSave,
} from './configuration-row.ts';
import {
  takeReport,
  type Cause,
  type ConfigurationState,
  type SaidReport,
} from './configuration-step.ts';
import type { ConfigurationMetrics } from './metrics.ts';
import type { Publisher } from './publisher.ts';
import { committedOf } from './renewal.ts';

/** What {@link Reports} works with. */
export interface ReportsParts {
  readonly pool: pg.Pool;
  readonly publisher: Publisher;
  readonly metrics: ConfigurationMetrics;
  /** Reports that may wait. */
  readonly heldMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
  /** Before the database is asked again after it was away. */
  readonly retryMs?: number;
}

interface Waiting {
  readonly from: ConfiguredDevice;
  readonly report: SaidReport;
  readonly done: (outcome: ReportOutcome) => void;
}

interface Taken extends ConfigurationSave {
  readonly row: ConfigurationRow;
}

/** `busy`: to be tried again. */
type BatchOutcome = ReportOutcome | 'busy';

const NONE: ReadonlySet<number> = new Set();
const BATCH_REPORTS = 200;
const RETRY_MS = 1000;

/**
 * Takes what devices say of their configuration, in the order of their saying, many in a transaction. While
 * the database is away it goes on trying.
 */
export class Reports {
  readonly #parts: ReportsParts;
  readonly #waiting: Waiting[] = [];
  #work: Promise<void> | null = null;
  readonly #stopped = new AbortController();

  constructor(parts: ReportsParts) {
    this.#parts = parts;
  }

  /** Reports that wait for the database. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Resolves once the report is committed. Above the limit that of channel `cfg` never does, so that the
   * device repeats it; a hello is left, the next one says the same. Never rejects.
   */
  take(from: ConfiguredDevice, report: SaidReport): Promise<ReportOutcome> {
    if (this.#waiting.length >= this.#parts.heldMax) {
      this.#parts.metrics.heldBack();
      return report.isHello ? Promise.resolve('repeated') : new Promise(() => undefined);
    }
    return new Promise((done) => {
      this.#waiting.push({ from, report, done });
      this.#work ??= this.#run();
    });
  }

  /** Ends with the batch under way; what waits then is not acknowledged. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#work;
  }

  async #run(): Promise<void> {
    // What comes in this turn of the event loop is one batch.
    await new Promise((resolve) => setImmediate(resolve));
    let size = BATCH_REPORTS;
    while (this.#waiting.length > 0 && !this.#stopped.signal.aborted) {
      const batch = this.#waiting.slice(0, size);
      const outcomes = await this.#commit(batch);
      if (outcomes === 'away') {
        await this.#pause();
      } else if (outcomes === 'failed' && batch.length > 1) {
        // One of them is at fault: each for itself, so that the others get through.
        size = 1;
      } else {
        this.#waiting.splice(0, batch.length);
        if (outcomes !== 'failed') size = BATCH_REPORTS;
        const busy = this.#answer(batch, outcomes);
        this.#waiting.push(...busy);
        if (busy.length === this.#waiting.length && busy.length > 0) await this.#pause();
      }
    }
    this.#work = null;
  }

  /** @returns what has to wait, because its device is being changed or deleted. */
  #answer(batch: readonly Waiting[], outcomes: readonly BatchOutcome[] | 'failed'): Waiting[] {
    const busy: Waiting[] = [];
    for (const [index, waiting] of batch.entries()) {
      const outcome = outcomes === 'failed' ? outcomes : (outcomes[index] ?? 'failed');
      if (outcome === 'busy') {
        busy.push(waiting);
        continue;
      }
      this.#parts.metrics.reported(outcome);
      waiting.done(outcome);
    }
    return busy;
  }

  async #pause(): Promise<void> {
    const { retryMs = RETRY_MS } = this.#parts;
    await delay(retryMs, undefined, { signal: this.#stopped.signal, ref: false }).catch(
      () => undefined,
    );
  }

  async #commit(batch: readonly Waiting[]): Promise<BatchOutcome[] | 'away' | 'failed'> {
    const { pool, metrics, publisher, now, log } = this.#parts;
    const startedMs = performance.now();
    try {
      const at = new Date(now());
      const { outcomes, passed } = await inTransaction(pool, ({ client }) =>
        commitReports(client, batch, at),
      );
      metrics.flushed(performance.now() - startedMs);
      metrics.versionsMade('number', passed.length);
      void publisher.publish(passed.map((save) => committedOf(save)));
      return outcomes;
    } catch (err) {
      if (isUnavailable(err)) return 'away';
      if (batch.length === 1) log.error({ err }, 'configuration report not stored');
      return 'failed';
    }
  }
}

/** @returns an outcome for each report, and the rows whose number was passed. */
async function commitReports(
  client: pg.ClientBase,
  batch: readonly Waiting[],
  at: Date,
): Promise<{ outcomes: BatchOutcome[]; passed: Taken[] }> {
  const asked = [...new Set(batch.map(({ from }) => from.deviceId))];
  const deviceIds = await holdDevices(client, asked);
  const busy = deviceIds.length < asked.length ? await findBusy(client, asked, deviceIds) : NONE;
  await addRows(client, deviceIds, at);
  const rows = new Map(
    (await lockRows(client, deviceIds, at)).map((row) => [row.deviceId, row] as const),
  );
  const documents = await documentsOf(client, batch, rows);
  const taken = new Map<number, Taken>();
  const outcomes = batch.map(({ from: { deviceId }, report }) => {
    const row = rows.get(deviceId);
    if (row === undefined) return busy.has(deviceId) ? 'busy' : 'unknown_device';
    const before = taken.get(deviceId);
    const state: ConfigurationState = before?.state ?? row;
    const documentOf = (version: number): Document | null =>
      version === row.version ? row.document : (documents.get(`${deviceId} ${version}`) ?? null);
    const { outcome, ...step } = takeReport(state, report, documentOf, at);
    const cause: Cause = step.cause ?? before?.cause ?? null;
    if (step.state !== state) taken.set(deviceId, { row, state: step.state, cause });
    return outcome;
  });
  const saves = [...taken.values()];
  await saveRows(client, saves);
  return { outcomes, passed: saves.filter(({ cause }) => cause !== null) };
}

/** Those that are there and could not be held. */
async function findBusy(
  client: pg.ClientBase,
  asked: readonly number[],
  held: readonly number[],
): Promise<ReadonlySet<number>> {
  const text = 'SELECT device_id FROM device WHERE device_id = ANY($1::int4[])';
  const { rows } = await guardStore(client.query<{ device_id: number }>(text, [[...asked]]));
  const there = new Set(rows.map((row) => row.device_id));
  for (const deviceId of held) there.delete(deviceId);
  return there;
}

/** Documents of versions before the one in force that devices say they have applied. */
async function documentsOf(
  client: pg.ClientBase,
  batch: readonly Waiting[],
  rows: ReadonlyMap<number, ConfigurationRow>,
): Promise<Map<string, Document>> {
  const asked = batch.filter(
    ({ from, report }) =>
      report.ok && report.cfg === undefined && rows.get(from.deviceId)?.version !== report.v,
  );
  if (asked.length === 0) return new Map();
  const text = `
    SELECT version.device_id, version.version::float8, version.document
    FROM unnest($1::int4[], $2::int8[]) AS asked (device_id, version)
    JOIN device_configuration_version AS version USING (device_id, version)`;
  const { rows: found } = await guardStore(
    client.query<{ device_id: number; version: number; document: Document }>(text, [
      asked.map(({ from }) => from.deviceId),
      asked.map(({ report }) => report.v),
    ]),
  );
  return new Map(
    found.map(({ device_id: id, version, document }) => [`${id} ${version}`, document]),
  );
}
