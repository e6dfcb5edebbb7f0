import type pg from 'pg';
import type { Connection, Submittable } from 'pg';
import { withDatabase } from './database-client.ts';

/** The rows of a scenario, for the ceiling: who sends them and in what pieces. */
export interface CeilingShape {
  devices: number;
  /** Metrics of one sample, and samples of one message. */
  metrics: number;
  samples: number;
}

/** How fast the database takes rows when nothing else has to be done. */
export interface Ceiling {
  rows: number;
  seconds: number;
  /** CPU of the process that sends them, µs. */
  clientCpuUs: number;
}

const BATCH_ROWS = 10_000;
const HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1');
const TRAILER = Buffer.from([0xff, 0xff]);
/** Seven fields: count, then length and bytes of each; text_value is null. */
const ROW_BYTES = 2 + (4 + 8) + (4 + 4) + (4 + 4) + (4 + 8) + 4 + (4 + 8) + (4 + 2);
const TIME_AT = 6;
const DEVICE_AT = 18;
const METRIC_AT = 26;
const VALUE_AT = 34;
const RECEIVED_AT = 50;
/** 2000-01-01, where PostgreSQL counts microseconds from. */
const POSTGRES_EPOCH_MS = 946_684_800_000;
const SCHEMA = 'bench_scratch';

/**
 * Copies rows of the same shape and order as a scenario sends them into a scratch copy of `reading`, in
 * the same database: binary COPY, 10 000 rows a batch, one batch a transaction, one after the other. This
 * is what the table allows; broker, decoding and acknowledgement come on top.
 * @param measure called when the copying begins and when it has ended
 */
export async function measureCeiling(
  url: string,
  shape: CeilingShape,
  seconds: number,
  measure: (phase: 'begin' | 'end') => Promise<void>,
): Promise<Ceiling> {
  return withDatabase(url, async (client) => {
    await makeScratchTable(client);
    try {
      return await copyFor(client, new RowBatch(shape), seconds, measure);
    } finally {
      await client.query(`DROP SCHEMA IF EXISTS ${SCHEMA} CASCADE`);
    }
  });
}

async function copyFor(
  client: pg.Client,
  batch: RowBatch,
  seconds: number,
  measure: (phase: 'begin' | 'end') => Promise<void>,
): Promise<Ceiling> {
  await copyBatch(client, batch.next());
  await measure('begin');
  const cpuBefore = process.cpuUsage();
  const startMs = performance.now();
  let rows = 0;
  let underWay = copyBatch(client, batch.next());
  while (performance.now() - startMs < seconds * 1000) {
    // Made while the server is busy with the batch before.
    const bytes = batch.next();
    await underWay;
    underWay = copyBatch(client, bytes);
    rows += BATCH_ROWS;
  }
  await underWay;
  rows += BATCH_ROWS;
  const cpu = process.cpuUsage(cpuBefore);
  const tookS = (performance.now() - startMs) / 1000;
  await measure('end');
  return { rows, seconds: tookS, clientCpuUs: cpu.user + cpu.system };
}

/** The bytes of two COPYs in turn. Made once; each batch only changes keys and times. */
class RowBatch {
  readonly #shape: CeilingShape;
  #bytes: Buffer;
  #other: Buffer;
  /** Time of the next sample in ms since 1970, the same for all devices. */
  #timeMs = Date.now();
  #device = 0;
  #sample = 0;
  #metric = 0;

  constructor(shape: CeilingShape) {
    this.#shape = shape;
    const row = emptyRow();
    this.#bytes = Buffer.alloc(HEADER.length + BATCH_ROWS * ROW_BYTES + TRAILER.length);
    HEADER.copy(this.#bytes);
    for (let index = 0; index < BATCH_ROWS; index += 1) {
      row.copy(this.#bytes, HEADER.length + index * ROW_BYTES);
    }
    TRAILER.copy(this.#bytes, this.#bytes.length - TRAILER.length);
    this.#other = Buffer.from(this.#bytes);
  }

  /** One message after the other, device by device: samples of a message, metrics of a sample. */
  next(): Buffer {
    [this.#bytes, this.#other] = [this.#other, this.#bytes];
    const receivedAt = microseconds(Date.now());
    for (let index = 0; index < BATCH_ROWS; index += 1) {
      const at = HEADER.length + index * ROW_BYTES;
      this.#bytes.writeBigInt64BE(microseconds(this.#timeMs + this.#sample), at + TIME_AT);
      this.#bytes.writeInt32BE(this.#device + 1, at + DEVICE_AT);
      this.#bytes.writeInt32BE(this.#metric + 1, at + METRIC_AT);
      this.#bytes.writeBigInt64BE(receivedAt, at + RECEIVED_AT);
      this.#advance();
    }
    return this.#bytes;
  }

  #advance(): void {
    this.#metric += 1;
    if (this.#metric < this.#shape.metrics) return;
    this.#metric = 0;
    this.#sample += 1;
    if (this.#sample < this.#shape.samples) return;
    this.#sample = 0;
    this.#device += 1;
    if (this.#device < this.#shape.devices) return;
    this.#device = 0;
    this.#timeMs += this.#shape.samples;
  }
}

function emptyRow(): Buffer {
  const row = Buffer.alloc(ROW_BYTES);
  row.writeInt16BE(7, 0);
  for (const [valueAt, length] of [
    [TIME_AT, 8],
    [DEVICE_AT, 4],
    [METRIC_AT, 4],
    [VALUE_AT, 8],
    [RECEIVED_AT, 8],
    [ROW_BYTES - 2, 2],
  ] as const) {
    row.writeInt32BE(length, valueAt - 4);
  }
  row.writeDoubleBE(21.5, VALUE_AT);
  row.writeInt32BE(-1, VALUE_AT + 8);
  return row;
}

function microseconds(timeMs: number): bigint {
  return BigInt(timeMs - POSTGRES_EPOCH_MS) * 1000n;
}

async function makeScratchTable(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ kind: string }>(
    `SELECT relkind AS kind FROM pg_class WHERE oid = 'public.reading'::regclass`,
  );
  const isPartitioned = rows[0]?.kind === 'p';
  await client.query(`DROP SCHEMA IF EXISTS ${SCHEMA} CASCADE`);
  await client.query(`CREATE SCHEMA ${SCHEMA}`);
  await client.query(
    `CREATE TABLE ${SCHEMA}.reading (LIKE public.reading INCLUDING ALL)
     ${isPartitioned ? 'PARTITION BY RANGE (time)' : ''}`,
  );
  if (!isPartitioned) {
    await client.query(
      `SELECT create_hypertable('${SCHEMA}.reading', by_range('time', INTERVAL '1 day'),
                                create_default_indexes => false)`,
    );
    return;
  }
  for (const day of [0, 1]) {
    await client.query(
      `CREATE TABLE ${SCHEMA}.reading_${day} PARTITION OF ${SCHEMA}.reading
       FOR VALUES FROM ('${utcDay(day)}') TO ('${utcDay(day + 1)}')`,
    );
  }
}

function utcDay(daysAhead: number): string {
  const day = new Date(Date.now() + daysAhead * 86_400_000).toISOString().slice(0, 10);
  return `${day} 00:00:00+00`;
}

function copyBatch(client: pg.Client, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    client.query(new BinaryCopy(bytes, resolve, reject));
  });
}

/** One COPY … FROM STDIN of bytes that are ready, as `pg`'s client drives it. */
class BinaryCopy implements Submittable {
  /** Has to be there: `pg` puts a caller's callback in its place otherwise. */
  readonly callback = (): void => undefined;
  readonly #bytes: Buffer;
  readonly #resolve: () => void;
  readonly #reject: (error: Error) => void;

  constructor(bytes: Buffer, resolve: () => void, reject: (error: Error) => void) {
    this.#bytes = bytes;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  submit(connection: Connection): void {
    connection.query(`COPY ${SCHEMA}.reading FROM STDIN (FORMAT binary)`);
  }

  handleCopyInResponse(connection: CopyConnection): void {
    connection.sendCopyFromChunk(this.#bytes);
    connection.endCopyFrom();
  }

  handleError(error: Error): void {
    this.#reject(error);
  }

  handleReadyForQuery(): void {
    this.#resolve();
  }

  handleCommandComplete(): void {}
}

/** What `pg`'s connection offers beyond its type declarations. */
interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
}
