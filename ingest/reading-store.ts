import pg from 'pg';
import type { Logger } from '../log.ts';
import { StoreUnavailableError } from '../errors.ts';
import type { Batch, LatestColumns, SequenceRow } from './batch.ts';
import {
  float8Array,
  int2Array,
  int4Array,
  int8Array,
  textArray,
  timestamptzArray,
} from './binary-array.ts';
import { lateHours } from './late-hours.ts';
import type { Message } from './message.ts';
import { OCCURRENCE_STATEMENTS, occurrenceRows } from './occurrence-rows.ts';
import { commitSteps, prepareStatements, type Step } from './pipelined-transaction.ts';
import { quarantineRows } from './quarantine-rows.ts';
import { multirangeArray, sequenceStatement } from './sequence-statement.ts';

/** What became of the rows of a committed run of messages. */
export interface Stored {
  readonly insertedRows: number;
  /** Rows whose key (device, metric, time) was there already. */
  readonly duplicateRows: number;
  readonly quarantinedMessages: number;
}

/** Where the store finds its database. */
export interface ReadingStoreOptions {
  readonly url: string;
  /** False: `reading` has native partitions, made here for each day that is written to. */
  readonly hypertables: boolean;
  /** Bound of a connect and of a transaction. */
  readonly timeoutMs: number;
  /** Readings from before this, in microseconds since 1970, make their hours dirty. */
  readonly lateBefore: () => number;
  readonly log: Logger;
}

/**
 * Writes batches over one connection of its own, which it opens when needed and again after a fault.
 * Errors are those of `pg`: see {@link classifyStoreFault}. After a connection's error it is not known
 * whether the transaction was committed; writing the same rows again is harmless.
 */
export class ReadingStore {
  readonly #options: ReadingStoreOptions;
  readonly #daysReady = new Set<number>();
  #connection: Promise<pg.Client> | null = null;
  /** The client of a connection that is not ready yet. */
  #opening: pg.Client | null = null;

  constructor(options: ReadingStoreOptions) {
    this.#options = options;
  }

  /** Commits a whole batch by binary COPY. Fails with 23505 when one key is there already. */
  async insert(batch: Batch, latest: LatestColumns): Promise<Stored> {
    const steps: Step[] = [];
    const rows = batch.rowsOf(0, batch.messages.length);
    if (rows.length > 0) steps.push({ name: 'copy_reading', values: [], copyRows: rows });
    if (latest.deviceIds.length > 0) steps.push(latestStep(latest));
    const quarantined = quarantineRows(batch.messages);
    if (quarantined.length > 0) steps.push(quarantineStep(quarantined));
    addOccurrences(steps, batch.messages);
    addSequences(steps, batch, 0, batch.messages.length);
    this.#addLate(steps, batch, rows);
    if (steps.length > 0) await this.#commit(batch.days, steps);
    return {
      insertedRows: batch.rowCount,
      duplicateRows: 0,
      quarantinedMessages: quarantined.length,
    };
  }

  /** Commits the messages from `first` up to `end`, and skips rows whose key is there already. */
  async insertNew(batch: Batch, first: number, end: number): Promise<Stored> {
    const rows = batch.rowsOf(first, end);
    const steps: Step[] = [
      { name: 'copy_stage', values: [], copyRows: rows },
      { name: 'insert_stage', values: [] },
      { name: 'latest_stage', values: [] },
    ];
    const messages = batch.messages.slice(first, end);
    const quarantined = quarantineRows(messages);
    if (quarantined.length > 0) steps.push(quarantineStep(quarantined));
    addOccurrences(steps, messages);
    addSequences(steps, batch, first, end);
    this.#addLate(steps, batch, rows);
    const [staged = 0, inserted = 0] = await this.#commit(batch.days, steps);
    return {
      insertedRows: inserted,
      duplicateRows: staged - inserted,
      quarantinedMessages: quarantined.length,
    };
  }

  /** Commits the quarantine row of a message whose readings the database refuses. */
  async insertQuarantine(batch: Batch, index: number): Promise<Stored> {
    const quarantined = quarantineRows(batch.messages.slice(index, index + 1));
    const steps = [quarantineStep(quarantined)];
    addSequences(steps, batch, index, index + 1);
    await this.#commit([], steps);
    return { insertedRows: 0, duplicateRows: 0, quarantinedMessages: 1 };
  }

  /** Makes the partitions of some days, for example of those ahead. Nothing on hypertables. */
  async ensurePartitions(days: Iterable<number>): Promise<void> {
    if (this.#options.hypertables) return;
    const missing = [...days].filter((day) => !this.#daysReady.has(day));
    if (missing.length === 0) return;
    const client = await this.#connect();
    for (const day of missing) {
      await this.#bounded(
        client,
        client.query('SELECT reading_partition_ensure($1::date)', [isoDay(day)]),
      );
      this.#daysReady.add(day);
    }
  }

  /** Forgets which partitions exist: something else has dropped one. */
  forgetPartitions(): void {
    this.#daysReady.clear();
  }

  /** Ends the connection. */
  async close(): Promise<void> {
    const connection = this.#connection;
    this.#connection = null;
    if (this.#opening !== null) cut(this.#opening);
    // A connect that fails now has nothing to close; its error went to who asked for the connection.
    const client = await connection?.catch(() => null);
    await client?.end();
  }

  /** Asked at each attempt anew: what was in time at the first may be late at the last. */
  #addLate(steps: Step[], batch: Batch, rows: Buffer): void {
    const lateBefore = this.#options.lateBefore();
    if (batch.oldestMicros >= lateBefore) return;
    const late = lateHours(rows, lateBefore);
    if (late.length === 0) return;
    const deviceIds = int4Array(late.map(({ deviceId }) => deviceId));
    const hours = timestamptzArray(late.map(({ hourMicros }) => hourMicros));
    steps.push({ name: 'dirty', values: [deviceIds, hours] });
  }

  async #commit(days: Iterable<number>, steps: readonly Step[]): Promise<number[]> {
    await this.ensurePartitions(days);
    const client = await this.#connect();
    return this.#bounded(client, commitSteps(client, steps));
  }

  #connect(): Promise<pg.Client> {
    if (this.#connection !== null) return this.#connection;
    const connection = this.#open(() => {
      if (this.#connection === connection) this.#connection = null;
    });
    this.#connection = connection;
    connection.catch(() => {
      if (this.#connection === connection) this.#connection = null;
    });
    return connection;
  }

  async #open(onLost: () => void): Promise<pg.Client> {
    const { url, timeoutMs, log } = this.#options;
    const client = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: timeoutMs,
      statement_timeout: timeoutMs,
      keepAlive: true,
      application_name: 'puback writer',
    });
    client.on('error', (err) => {
      log.debug({ err: err.message }, 'writer connection lost');
      onLost();
    });
    this.#opening = client;
    try {
      await this.#bounded(client, setUp(client));
    } catch (cause) {
      client.end().catch((err: unknown) => log.debug({ err }, 'writer connection not closed'));
      throw cause;
    } finally {
      this.#opening = null;
    }
    return client;
  }

  /** A server that hangs answers nothing, not even a timeout: then the connection is given up. */
  async #bounded<T>(client: pg.Client, work: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.#connection = null;
        cut(client);
        reject(new StoreUnavailableError('the server did not answer in time'));
      }, this.#options.timeoutMs + 500);
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

async function setUp(client: pg.Client): Promise<void> {
  await client.connect();
  await client.query('SET synchronous_commit = on');
  await client.query('CREATE TEMP TABLE reading_stage (LIKE reading) ON COMMIT DELETE ROWS');
  await prepareStatements(client, STATEMENTS);
}

/** Ends a connection whose other side may not answer. */
function cut(client: pg.Client): void {
  (
    client as unknown as { connection: { stream: { destroy(): void } } }
  ).connection.stream.destroy();
}

const READING_COLUMNS = 'time, device_id, metric_id, value, text_value, received_at, quality';
const LATEST_CONFLICT = `ON CONFLICT (device_id, metric_id) DO UPDATE SET
  time = excluded.time, value = excluded.value, text_value = excluded.text_value,
  received_at = excluded.received_at, quality = excluded.quality
  WHERE device_latest.time < excluded.time`;

const STATEMENTS: Readonly<Record<string, string>> = {
  ...OCCURRENCE_STATEMENTS,
  copy_reading: `COPY reading (${READING_COLUMNS}) FROM STDIN (FORMAT binary)`,
  copy_stage: `COPY reading_stage (${READING_COLUMNS}) FROM STDIN (FORMAT binary)`,
  insert_stage: `INSERT INTO reading (${READING_COLUMNS})
    SELECT ${READING_COLUMNS} FROM reading_stage ON CONFLICT DO NOTHING`,
  // What was stored, and not what was sent: of two readings with one key the first one stays.
  latest_stage: `INSERT INTO device_latest (${READING_COLUMNS})
    SELECT DISTINCT ON (device_id, metric_id) time, device_id, metric_id, reading.value,
      reading.text_value, reading.received_at, reading.quality
    FROM reading_stage JOIN reading USING (device_id, metric_id, time)
    ORDER BY device_id, metric_id, time DESC ${LATEST_CONFLICT}`,
  latest: `INSERT INTO device_latest (device_id, metric_id, time, value, text_value, received_at, quality)
    SELECT * FROM unnest($1::int4[], $2::int4[], $3::timestamptz[], $4::float8[], $5::text[],
      $6::timestamptz[], $7::int2[]) ${LATEST_CONFLICT}`,
  quarantine: `INSERT INTO quarantine
      (quarantine_id, organization_id, device_id, received_at, topic, code, detail, payload)
    SELECT quarantine_id, organization_id, device_id, to_timestamp(received_ms / 1000.0), topic, code,
      detail, decode(payload, 'base64')
    FROM jsonb_to_recordset($1::jsonb) AS message (quarantine_id uuid, organization_id int4,
      device_id int4, received_ms float8, topic text, code text, detail text, payload text)
    ON CONFLICT DO NOTHING`,
  dirty: `INSERT INTO dirty_range (device_id, hour)
    SELECT * FROM unnest($1::int4[], $2::timestamptz[])`,
  sequence: sequenceStatement(),
};

function latestStep(latest: LatestColumns): Step {
  return {
    name: 'latest',
    values: [
      int4Array(latest.deviceIds),
      int4Array(latest.metricIds),
      timestamptzArray(latest.times),
      float8Array(latest.values),
      textArray(latest.texts),
      timestamptzArray(latest.receivedTimes),
      int2Array(latest.qualities),
    ],
  };
}

function quarantineStep(rows: readonly object[]): Step {
  return { name: 'quarantine', values: [JSON.stringify(rows)] };
}

function addOccurrences(steps: Step[], messages: readonly Message[]): void {
  if (!messages.some(({ dated }) => dated !== null)) return;
  const { events, logEntries } = occurrenceRows(messages);
  if (events.length > 0) steps.push({ name: 'event', values: [JSON.stringify(events)] });
  if (logEntries.length > 0)
    steps.push({ name: 'log_entry', values: [JSON.stringify(logEntries)] });
}

/** What is stored and which numbers it has are committed together, or neither is. */
function addSequences(steps: Step[], batch: Batch, first: number, end: number): void {
  const rows = batch.sequencesOf(first, end);
  if (rows.length > 0) steps.push(sequenceStep(rows));
}

function sequenceStep(rows: readonly SequenceRow[]): Step {
  return {
    name: 'sequence',
    values: [
      int4Array(rows.map(({ deviceId }) => deviceId)),
      int8Array(rows.map(({ boot }) => boot)),
      multirangeArray(rows.map(({ received }) => received)),
    ],
  };
}

function isoDay(day: number): string {
  return new Date(day * 86_400_000).toISOString().slice(0, 10);
}
