import { mkdir } from 'node:fs/promises';
import { openDatabase, type Database } from '../drizzle/database.ts';
import { startEmbedded } from '../drizzle/embedded.ts';
import { createLog } from '../log.ts';
import { runBacktest } from '../rules/backtest/backtest.ts';
import { compileRule } from '../rules/compile.ts';
import { parseRule } from '../rules/rule-schema.ts';
import { runTool } from './command-line.ts';
import { formatCount } from './figures.ts';
import { stopLeftDatabase } from './program.ts';
import { makeScratchFolder } from './scratch-folder.ts';

const HELP = `Measures how many stored readings a second a backtest evaluates: a day of 20 devices with a reading a
second, in an embedded PostgreSQL of its own.

  npm run bench:backtest

Exit status: 0 every rule reaches 200 000 readings a second, 1 otherwise.
`;

const DEVICES = 20;
const WANTED_PER_S = 200_000;
const FROM = '2026-01-01T00:00:00Z';
const DAY_MICROS = 86_400_000_000;
const WHEN = {
  threshold: { metric: 'temp', op: '>', value: 80, clear: 70 },
  'mean over 5m': { metric: 'temp', window: '5m', fn: 'avg', op: '>', value: 80 },
};

await runTool(HELP, {}, async () => {
  const scratch = await makeScratchFolder('backtest');
  const log = createLog('error');
  try {
    await mkdir(scratch.dataDir, { recursive: true, mode: 0o700 });
    const embedded = await startEmbedded({ dataDir: scratch.dataDir, log });
    const options = { url: embedded.url, connectionsMax: 4, timeoutMs: 120_000, log };
    const database = await openDatabase(options);
    try {
      const organizationId = await fill(database);
      const rates = [];
      for (const name of Object.keys(WHEN))
        rates.push(await measure(database, organizationId, name));
      return rates.every((rate) => rate >= WANTED_PER_S) ? 0 : 1;
    } finally {
      await database.close();
      await embedded.stop();
    }
  } finally {
    await stopLeftDatabase(scratch.dataDir);
    await scratch.remove();
  }
});

/** @returns the key of an organization with readings that swing about 50 once in ten minutes. */
async function fill({ pool }: Database): Promise<number> {
  const { rows } = await pool.query<{ organization_id: number }>(
    `INSERT INTO organization (slug, display_name) VALUES ('bench', 'bench') RETURNING organization_id`,
  );
  const organizationId = rows[0]?.organization_id ?? 0;
  await pool.query(
    `INSERT INTO device (organization_id, slug, display_name)
     SELECT $1, 'd' || number, 'd' || number FROM generate_series(1, $2::int4) AS number`,
    [organizationId, DEVICES],
  );
  await pool.query(
    `INSERT INTO metric (organization_id, name, kind) VALUES ($1, 'temp', 'number')`,
    [organizationId],
  );
  await pool.query('SELECT reading_partition_ensure($1::date)', [FROM.slice(0, 10)]);
  await pool.query(
    `INSERT INTO reading
     SELECT time, device_id, metric_id, 50 + 40 * sin(extract(epoch FROM time) / 100), NULL, time, 0
     FROM device, metric, generate_series($1::timestamptz, $1::timestamptz + '86399 s', '1 s') AS time`,
    [FROM],
  );
  await pool.query('ANALYZE');
  return organizationId;
}

async function measure(database: Database, organizationId: number, name: string): Promise<number> {
  const when = WHEN[name as keyof typeof WHEN];
  const definition = parseRule({ name, severity: 'low', for: '5s', when });
  const keys = { ruleId: 1, publicId: '', organizationId, version: 1, mode: 'enabled' } as const;
  const rule = compileRule({ ...keys, definition }, { windowSamplesMax: 4096 });
  const fromMicros = Date.parse(FROM) * 1000;
  const startedMs = performance.now();
  const request = { organizationId, rules: [rule], fromMicros, toMicros: fromMicros + DAY_MICROS };
  const { readings, tallies } = await runBacktest(database, request);
  const perS = (readings / (performance.now() - startedMs)) * 1000;
  const fired = tallies[0]?.firedCount ?? 0;
  const figures = `${formatCount(readings)} readings, fired ${formatCount(fired)} times`;
  process.stdout.write(`${name}: ${formatCount(perS)} readings/s (${figures})\n`);
  return perS;
}
