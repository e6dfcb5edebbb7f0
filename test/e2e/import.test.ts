import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeArguments, startProgram, type Program } from '../../bench/program.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/free-port.ts';

const ROWS = 150_000;
const DEVICES = 20;
const TS = Date.UTC(2026, 0, 1);

let folder: string;
let test: TestDatabase;
let environment: Record<string, string>;
let program: Program;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-import-'));
  test = await createTestDatabase();
  const [HTTP_PORT, MQTT_PORT] = [await freePort(), await freePort()];
  const kept = Object.fromEntries(
    ['RAW', '1M', '1H', '1D'].map((name) => [`RETENTION_${name}_D`, '3650']),
  );
  environment = { DATABASE_URL: test.url, HTTP_PORT, MQTT_PORT, ...kept };
  program = await start();
  for (let at = 0; at < DEVICES; at += 1) await addDevice(`d${at}`);
});
afterAll(async () => {
  await program.stop();
  await test.drop();
  await rm(folder, { recursive: true, force: true });
});

function start(): Promise<Program> {
  const dataDir = join(folder, 'data');
  return startProgram({ dataDir, environment, logFile: join(folder, 'log') });
}

async function addDevice(device: string): Promise<void> {
  const { httpUrl, adminKey } = program.credentials;
  const { status } = await fetch(`${httpUrl}/api/v1/devices`, {
    method: 'POST',
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ device }),
  });
  expect(status).toBe(201);
}

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the tool as `npm run import` does. */
async function runImport(...args: string[]): Promise<Ended> {
  return startImport(...args).ended;
}

function startImport(...args: string[]): { ended: Promise<Ended>; said: () => string } {
  const all = [...nodeArguments('bench/import.ts'), ...args, '--data-dir', join(folder, 'data')];
  const child = spawn(process.execPath, all);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = once(child, 'close').then(([code]: (number | null)[]) => ({
    code: code ?? null,
    stdout,
    stderr,
  }));
  return { ended, said: () => stderr };
}

async function ask<T>(text: string): Promise<T[]> {
  return (await test.database.pool.query(text)).rows as T[];
}

const stored = async () =>
  (
    await ask<{ count: string; total: string }>(
      `SELECT count(*), sum(value) AS total FROM reading JOIN metric USING (metric_id)
       WHERE metric.name = 'n'`,
    )
  ).map(({ count, total }) => [Number(count), Number(total)])[0];

describe('npm run import', () => {
  it(
    'goes on by itself after kill -9 of the program, and stores each line exactly once (D-01)',
    { timeout: 120_000 },
    async () => {
      const file = join(folder, 'history.csv');
      const lines = Array.from({ length: ROWS }, (_, at) => `d${at % DEVICES},${TS + at},${at}\n`);
      await writeFile(file, `device,time,n\n${lines.join('')}`);
      const ended = runImport(file);
      await eventually(
        'a part of it is imported',
        async () => {
          const [run] = await ask<{ lines_read: string }>('SELECT lines_read FROM import_run');
          return Number(run?.lines_read ?? 0) > 5000;
        },
        30_000,
      );
      program.kill('SIGKILL');
      await program.exited;
      const [cut] = await ask<{ state: string; lines_read: string }>(
        'SELECT state, lines_read FROM import_run',
      );
      expect(cut?.state).toBe('running');
      expect(Number(cut?.lines_read)).toBeLessThan(ROWS);
      program = await start();
      const { code, stdout, stderr } = await ended;
      expect([code, stdout]).toEqual([0, '150 001 lines read, none refused\n']);
      expect(stderr).toContain('going on in');
      expect(await stored()).toEqual([ROWS, (ROWS * (ROWS - 1)) / 2]);
      expect(await ask('SELECT state FROM import_run')).toEqual([{ state: 'done' }]);
      // Once more, which has nothing to do, and all of it again, which stores nothing.
      expect((await runImport(file)).code).toBe(0);
      expect((await runImport(file, '--again')).code).toBe(0);
      expect((await stored())?.[0]).toBe(ROWS);
    },
  );

  it('prints the lines that were refused, with their numbers, and ends with 1', async () => {
    const file = join(folder, 'mixed.ndjson');
    const good = JSON.stringify({ device: 'd1', ts: TS, other: 1 });
    await writeFile(file, `${good}\n{"device":"\u009b2Jnone","ts":${TS},"other":1}\nnothing\n`);
    const { code, stdout } = await runImport(file);
    expect(code).toBe(1);
    expect(stdout).toContain('3 lines read, 2 refused\n');
    expect(stdout).toContain('  line 2: unknown_device: there is no device "?2Jnone"\n');
    expect(stdout).toMatch(/ {2}line 3: bad_json: .+\nall of them: GET http.+\/refusals\n$/);
  });

  it(
    'shows the import of the same file that still runs, and goes on where that ends',
    { timeout: 120_000 },
    async () => {
      const { httpUrl, adminKey } = program.credentials;
      const rows = Array.from({ length: 5000 }, (_, at) => `d3,${TS + at},${at}\n`);
      const text = `device,time,busy\n${rows.join('')}`;
      const file = join(folder, 'busy.csv');
      await writeFile(file, text);
      const upload = request(`${httpUrl}/api/v1/import?format=csv&source=busy.csv`, {
        method: 'POST',
        headers: { authorization: `Bearer ${adminKey}` },
      });
      upload.on('error', () => undefined);
      const half = text.indexOf('\n', 70_000) + 1;
      upload.write(text.slice(0, half));
      await eventually('it runs', async () => {
        const [run] = await ask<{ lines_read: string }>(
          `SELECT lines_read FROM import_run WHERE source = 'busy.csv'`,
        );
        return Number(run?.lines_read ?? 0) > 1000;
      });
      const { ended, said } = startImport(file);
      const isShown = async (): Promise<boolean> => said().includes('still under way from before');
      await eventually('what runs is shown', isShown, 60_000);
      upload.destroy();
      const { code, stdout, stderr } = await ended;
      expect([code, stdout]).toEqual([0, '5 001 lines read, none refused\n']);
      expect(stderr).toMatch(/still under way from before: \d\d %/);
      expect(stderr).not.toContain('IMPORT_BUSY');
      const runs = await ask(`SELECT state FROM import_run WHERE source = 'busy.csv'`);
      expect(runs).toEqual([{ state: 'done' }]);
    },
  );

  it('renames columns, and gives a file without devices to one', async () => {
    const file = join(folder, 'export.csv');
    await writeFile(
      file,
      'Date;Temp °C\n2026-02-01 12:00:00+01:00;4,25\n2026-02-01T12:00:00Z;4.5\n',
    );
    const map = ['--map', 'Date:time', '--map', 'Temp °C:temp'];
    expect((await runImport(file, '--device', 'd2', ...map)).code).toBe(0);
    const rows = await ask(
      `SELECT value FROM reading JOIN metric USING (metric_id) WHERE metric.name = 'temp'
       ORDER BY time`,
    );
    expect(rows).toEqual([{ value: 4.25 }, { value: 4.5 }]);
  });

  it('says what is wrong, and ends with 2', async () => {
    const bad = join(folder, 'bad.csv');
    await writeFile(bad, 'a,b\n1,2\n');
    for (const [args, said] of [
      [[], 'name the file'],
      [[join(folder, 'missing.csv')], 'cannot be read'],
      [[folder], 'is not a file'],
      [[bad], 'there is no column "device"'],
      [[bad, bad], 'one file at a time'],
      [[bad, '--format', 'xml'], 'must be csv or ndjson'],
      [[bad, '--url', 'http://127.0.0.1:9'], 'does not answer'],
      [[bad, '--nonsense'], 'nonsense'],
    ] as const) {
      const { code, stderr } = await runImport(...args);
      expect([code, stderr.includes(said)], `${args.join(' ')}: ${stderr}`).toEqual([2, true]);
    }
  });
});
