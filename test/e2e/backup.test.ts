import { execFile } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { MqttClient } from 'mqtt';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findEmbeddedUrl } from '../../bench/database-client.ts';
import {
  logTail,
  nodeArguments,
  startProgram,
  stopLeftDatabase,
  type Program,
} from '../../bench/program.ts';
import { makeScratchFolder, type ScratchFolder } from '../../bench/scratch-folder.ts';
import { waitingBytes } from '../../ingest/spool/waiting-bytes.ts';
import { connectDevice } from '../support/app.ts';
import { appendAll, openTestSpool, spoolRecords } from '../support/spool.ts';

const ENVIRONMENT = {
  MQTT_PORT: '0',
  HTTP_PORT: '0',
  DATABASE_URL: '',
  DEVICE_MESSAGES_PER_S: '0',
  DEVICE_POINTS_PER_S: '0',
};

let folder: ScratchFolder;
let programs: Program[] = [];

beforeEach(async () => {
  folder = await makeScratchFolder('backup-test');
});
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(await logTail(folder.logFile));
  for (const program of programs) await program.stop();
  programs = [];
  for (const name of ['data', 'restored']) await stopLeftDatabase(join(folder.path, name));
  await folder.remove();
});

async function start(dataDir: string): Promise<Program> {
  const { logFile } = folder;
  const program = await startProgram({ dataDir, environment: ENVIRONMENT, logFile });
  programs.push(program);
  return program;
}

/** Runs `npm run backup` or `restore` without its build. */
function runCommand(
  command: 'backup' | 'restore',
  ...args: string[]
): Promise<{ stdout: string; stderr: string }> {
  return promisify(execFile)(process.execPath, [...nodeArguments(`bench/${command}.ts`), ...args], {
    env: { ...process.env, DATABASE_URL: '' },
  });
}

/** Sends one reading after the other, each with a time of its own, until it is stopped. */
class Load {
  /** Times in ms of the readings that were acknowledged. */
  readonly acknowledged: number[] = [];
  readonly #client: MqttClient;
  readonly #ended: Promise<unknown>;
  #isOn = true;
  #timeMs = Date.now();

  constructor(client: MqttClient) {
    this.#client = client;
    this.#ended = Promise.all(Array.from({ length: 10 }, () => this.#send()));
  }

  async stop(): Promise<void> {
    this.#isOn = false;
    await this.#ended;
  }

  async #send(): Promise<void> {
    while (this.#isOn) {
      const ts = (this.#timeMs += 1);
      const payload = JSON.stringify({ ts, values: { temp: ts % 1000, state: `s${ts}` } });
      await this.#client.publishAsync('v1/me/data', payload, { qos: 1 });
      this.acknowledged.push(ts);
    }
  }
}

interface Row {
  readonly ms: string;
  readonly metric: string;
  readonly row: string;
}

/** Every reading in every column, as text. */
async function readings(dataDir: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: await findEmbeddedUrl(dataDir) });
  await client.connect();
  try {
    const { rows } = await client.query<Row>(
      `SELECT (extract(epoch FROM time) * 1000)::int8::text AS ms, metric, to_json(v_reading)::text AS row
       FROM v_reading ORDER BY time, metric`,
    );
    return rows;
  } finally {
    await client.end();
  }
}

describe('backup and restore', { timeout: 120_000 }, () => {
  it('taken under load has every message acknowledged before it began; the device logs in with its key, history is the same to the row (D-17)', async () => {
    const program = await start(folder.dataDir);
    const { deviceKey, adminKey, mqttUrl } = program.credentials;
    const client = await connectDevice(mqttUrl, deviceKey);
    const load = new Load(client);
    await expect.poll(() => load.acknowledged.length, { timeout: 20_000 }).toBeGreaterThan(2000);
    const before = [...load.acknowledged];
    const file = join(folder.path, 'load.backup');
    await runCommand('backup', '--to', file, '--data-dir', folder.dataDir);
    const after = load.acknowledged.length;
    await load.stop();
    await client.endAsync();
    const all = new Map(
      (await readings(folder.dataDir)).map(({ ms, metric, row }) => [ms + metric, row]),
    );
    await program.stop();
    expect(after).toBeGreaterThan(before.length);

    const dataDir = join(folder.path, 'restored');
    const { stdout } = await runCommand('restore', '--from', file, '--data-dir', dataDir);
    const restored = await start(dataDir);
    const rows = await readings(dataDir);
    const found = new Set(rows.map(({ ms, metric }) => ms + metric));
    const lost = before
      .flatMap((ms) => [`${ms}temp`, `${ms}state`])
      .filter((key) => !found.has(key));
    expect(lost).toEqual([]);
    expect(rows.filter(({ ms, metric, row }) => all.get(ms + metric) !== row)).toEqual([]);
    expect(rows.length % 2, 'messages are whole').toBe(0);
    expect(stdout.replaceAll(' ', '')).toContain(`|reading|${rows.length}|`);
    const own = await connectDevice(restored.credentials.mqttUrl, deviceKey);
    await own.publishAsync('v1/me/data', '{"after":1}', { qos: 1 });
    await own.endAsync();
    expect(await readings(dataDir)).toHaveLength(rows.length + 1);
    const answer = await fetch(`${restored.credentials.httpUrl}/api/v1/devices`, {
      headers: { authorization: `Bearer ${adminKey}` },
    });
    expect(answer.status).toBe(200);
  });

  it('works while the program is stopped, refuses a folder in use, and moves a database aside only when told to', async () => {
    const program = await start(folder.dataDir);
    const client = await connectDevice(program.credentials.mqttUrl, program.credentials.deviceKey);
    await client.publishAsync('v1/me/data', '{"temp":2}', { qos: 1 });
    await client.endAsync();
    const file = join(folder.path, 'stopped.backup');
    const restore = ['--from', file, '--data-dir', folder.dataDir] as const;
    await runCommand('backup', '--to', file, '--data-dir', folder.dataDir);
    await expect(runCommand('restore', ...restore, '--replace-database')).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringContaining('DATA_FOLDER_IN_USE'),
    });
    await program.stop();
    await runCommand('backup', '--to', file, '--data-dir', folder.dataDir);
    await expect(runCommand('restore', ...restore)).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringContaining('RESTORE_REFUSED'),
    });
    expect((await stat(join(folder.dataDir, 'postgres'))).isDirectory()).toBe(true);
    const url = await readFile(join(folder.dataDir, 'embedded-database.url'), 'utf8');

    await runCommand('restore', ...restore, '--replace-database');
    expect(await readFile(join(folder.dataDir, 'embedded-database.url'), 'utf8')).toBe(url);
    expect(
      (await readdir(folder.dataDir)).filter((name) => name.startsWith('postgres.replaced-')),
    ).toHaveLength(1);
    expect((await readdir(folder.dataDir)).filter((name) => name.includes('unfinished'))).toEqual(
      [],
    );
    const again = await start(folder.dataDir);
    expect(again.credentials.deviceKey).toBe(program.credentials.deviceKey);
    expect(await readings(folder.dataDir)).toHaveLength(1);
  });

  it('says so when DATABASE_URL is no URL of a database', async () => {
    for (const command of ['backup', 'restore', 'doctor']) {
      const args = command === 'doctor' ? [] : [command === 'backup' ? '--to' : '--from', 'x'];
      const ended = promisify(execFile)(
        process.execPath,
        [...nodeArguments(`bench/${command}.ts`), ...args],
        { env: { ...process.env, DATABASE_URL: 'localhost/puback' } },
      );
      await expect(ended, command).rejects.toMatchObject({
        code: 2,
        stderr: expect.stringContaining('DATABASE_URL must start with postgres://'),
      });
    }
  });

  it('does not leave messages to a restored database that wait for another, and sets them aside when told to', async () => {
    await (await start(folder.dataDir)).stop();
    const file = join(folder.path, 'early.backup');
    const at = ['--data-dir', folder.dataDir] as const;
    await runCommand('backup', '--to', file, ...at);
    const spoolPath = join(folder.dataDir, 'spool');
    expect(await waitingBytes(spoolPath)).toBe(0);
    // Device 7 is of the database that is there; the backup has none of this number.
    const spool = await openTestSpool(spoolPath);
    await appendAll(spool, spoolRecords(1, 3));
    await spool.close();
    const bytes = await waitingBytes(spoolPath);
    expect(bytes).toBeGreaterThan(0);

    const { stderr } = await runCommand('backup', '--to', join(folder.path, 'b'), ...at);
    expect(stderr).toContain(`warning: ${bytes} bytes of acknowledged messages waited in`);
    const restore = ['--from', file, ...at, '--replace-database'] as const;
    await expect(runCommand('restore', ...restore)).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/RESTORE_REFUSED.*--set-spool-aside/),
    });
    expect(await waitingBytes(spoolPath)).toBe(bytes);
    const asideOf = async (name: string): Promise<string[]> =>
      (await readdir(folder.dataDir)).filter((entry) => entry.startsWith(`${name}.replaced-`));
    expect(await asideOf('postgres')).toEqual([]);

    const { stdout } = await runCommand('restore', ...restore, '--set-spool-aside');
    const [aside = ''] = await asideOf('spool');
    expect(stdout).toContain(aside);
    expect(await waitingBytes(join(folder.dataDir, aside))).toBe(bytes);
    expect(await waitingBytes(spoolPath)).toBe(0);
    await (await start(folder.dataDir)).stop();
    expect(await asideOf('spool')).toEqual([aside]);
  });
});
