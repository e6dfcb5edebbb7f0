import mqtt from 'mqtt';
import pg from 'pg';
import { runTool, textOption, type OptionTable } from '../command-line.ts';

/** What the writer tells the tool that started it, twenty times a second. */
export interface WriterMessage {
  /** Rows of the messages that came, and of the INSERTs that were committed. */
  readonly received: number;
  readonly stored: number;
}

const HELP = `The program that people write between a broker and PostgreSQL: mqtt.js subscribes at QoS 1, readings
wait in an array, and one INSERT … SELECT FROM unnest(…) after the other takes what has come meanwhile.

  node dist/bench/peers/writer.js --mqtt-url URL --database-url URL --table NAME

It acknowledges a message when it comes, as mqtt.js does by itself, and not when it is stored.
`;

const OPTIONS: OptionTable = {
  'mqtt-url': { type: 'string' },
  'database-url': { type: 'string' },
  table: { type: 'string' },
};

/** Larger ones are no faster, and their arrays are. */
const BATCH_ROWS_MAX = 5000;
const TELL_EVERY_MS = 50;

/** Readings that wait, column by column as unnest wants them. */
interface Columns {
  readonly times: number[];
  readonly devices: number[];
  readonly metrics: number[];
  readonly values: number[];
}

await runTool(HELP, OPTIONS, async (options) => {
  const database = new pg.Client({ connectionString: textOption(options, 'database-url', '') });
  await database.connect();
  const devices = await readIds(database, 'SELECT slug AS name, device_id AS id FROM device');
  const metrics = await readIds(database, 'SELECT name, metric_id AS id FROM metric');
  let waiting = emptyColumns();
  let wake = (): void => undefined;
  const counts = { received: 0, stored: 0 };
  const client = await mqtt.connectAsync(textOption(options, 'mqtt-url', ''), {
    protocolVersion: 4,
    clientId: 'writer',
  });
  client.on('message', (topic, payload) => {
    const device = devices.get(topic.split('/')[1] ?? '');
    if (device === undefined) return;
    const { ts, ...values } = JSON.parse(payload.toString()) as { ts: number };
    for (const [name, value] of Object.entries<number>(values)) {
      waiting.times.push(ts);
      waiting.devices.push(device);
      waiting.metrics.push(metrics.get(name) ?? 0);
      waiting.values.push(value);
      counts.received += 1;
    }
    wake();
  });
  await client.subscribeAsync('v1/+/data', { qos: 1 });
  setInterval(() => process.send?.(counts satisfies WriterMessage), TELL_EVERY_MS);
  process.once('disconnect', () => process.exit(0));
  process.send?.(counts satisfies WriterMessage);
  const sql = insertStatement(textOption(options, 'table', ''));
  for (;;) {
    if (waiting.times.length === 0) await new Promise<void>((resolve) => (wake = resolve));
    const columns = take(waiting);
    if (columns === waiting) waiting = emptyColumns();
    const { times, devices: ids, metrics: metricIds, values } = columns;
    await database.query({ name: 'insert', text: sql, values: [times, ids, metricIds, values] });
    counts.stored += times.length;
  }
});

function emptyColumns(): Columns {
  return { times: [], devices: [], metrics: [], values: [] };
}

/** All that waits, or the oldest of it. */
function take(waiting: Columns): Columns {
  if (waiting.times.length <= BATCH_ROWS_MAX) return waiting;
  return {
    times: waiting.times.splice(0, BATCH_ROWS_MAX),
    devices: waiting.devices.splice(0, BATCH_ROWS_MAX),
    metrics: waiting.metrics.splice(0, BATCH_ROWS_MAX),
    values: waiting.values.splice(0, BATCH_ROWS_MAX),
  };
}

function insertStatement(table: string): string {
  return `INSERT INTO ${table} (time, device_id, metric_id, value, received_at, quality)
    SELECT to_timestamp(t / 1000), d, m, v, now(), 0
    FROM unnest($1::float8[], $2::int4[], $3::int4[], $4::float8[]) AS rows (t, d, m, v)
    ON CONFLICT DO NOTHING`;
}

/** Names to the integer keys that the table has, as a careful script would keep them. */
async function readIds(database: pg.Client, sql: string): Promise<ReadonlyMap<string, number>> {
  const { rows } = await database.query<{ name: string; id: number }>(sql);
  return new Map(rows.map(({ name, id }) => [name, id]));
}
