import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeArguments, startProgram, type Program } from '../../bench/program.ts';

let folder: string;
let program: Program | null;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-program-'));
  program = null;
});
afterEach(async () => {
  await program?.stop();
  await rm(folder, { recursive: true, force: true });
});

const ANY_PORT = { MQTT_PORT: '0', HTTP_PORT: '0', LOG_LEVEL: 'warn' };

function start(): Promise<Program> {
  return startProgram({
    dataDir: join(folder, 'data'),
    environment: ANY_PORT,
    logFile: join(folder, 'log'),
  });
}

/** Runs the program to its end. */
async function runProgram(
  args: string[],
  environment: Record<string, string>,
): Promise<{ code: number; stdout: string; stderr: string; ms: number }> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, [...nodeArguments('main.ts'), ...args], {
    env: { ...process.env, DATA_DIR: join(folder, 'data'), ...ANY_PORT, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (said.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (said.stderr += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, ...said, ms: performance.now() - startedAt };
}

async function storedValues({ credentials }: Program): Promise<number[]> {
  const answer = await fetch(`${credentials.httpUrl}/api/v1/devices/first/readings?order=asc`, {
    headers: { authorization: `Bearer ${credentials.adminKey}` },
  });
  const { data } = (await answer.json()) as { data: { value: number }[] };
  return data.map(({ value }) => value);
}

async function publish({ credentials }: Program, value: number): Promise<void> {
  const { connectDevice } = await import('../support/app.ts');
  const client = await connectDevice(credentials.mqttUrl, credentials.deviceKey);
  await client.publishAsync('v1/me/data', `{"n":${value}}`, { qos: 1 });
  await client.endAsync();
}

describe('the program', { timeout: 120_000 }, () => {
  it('finds its data again after SIGTERM, SIGINT and SIGKILL, with the same keys', async () => {
    const keys = new Set<string>();
    for (const [index, signal] of (['SIGTERM', 'SIGINT', 'SIGKILL'] as const).entries()) {
      program = await start();
      keys.add(program.credentials.adminKey);
      await publish(program, index);
      program.kill(signal);
      const exit = await program.exited;
      if (signal !== 'SIGKILL') expect(exit.code).toBe(0);
    }
    program = await start();
    expect(await storedValues(program)).toEqual([0, 1, 2]);
    expect(keys.size).toBe(1);
  });

  it('writes its credentials for its owner alone, in the agreed form', async () => {
    program = await start();
    const path = join(folder, 'data', 'credentials.json');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({
      organization: 'demo',
      adminKey: expect.stringMatching(/^pba_\w{8}_\w{33}$/),
      device: 'first',
      deviceKey: expect.stringMatching(/^pbd_\w{8}_\w{33}$/),
      mqttUrl: expect.stringMatching(/^mqtt:\/\/127\.0\.0\.1:\d+$/),
      httpUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    });
    const log = await readFile(join(folder, 'log'), 'utf8');
    const { adminKey, deviceKey } = program.credentials;
    const jsonLines = log.split('\n').filter((line) => line.startsWith('{'));
    expect(jsonLines.join()).not.toMatch(new RegExp(`${adminKey}|${deviceKey}`));
  });

  it('refuses a second start on the same folder and names the reason', async () => {
    program = await start();
    const second = await runProgram([], {});
    expect(second.code).toBe(1);
    expect(second.stderr).toContain('DATA_FOLDER_IN_USE');
    expect(second.stderr).toContain(`process ${program.pid}`);
  });

  it('names every wrong setting in one go and starts nothing (O-05)', async () => {
    const { code, stderr } = await runProgram([], { MQTT_PORT: 'x', HTTP_PORT: '-1' });
    expect(code).toBe(1);
    expect(stderr).toMatch(/CONFIG_INVALID.*MQTT_PORT.*HTTP_PORT/s);
  });

  it('names the setting when a port is taken, and leaves nothing running (O-05)', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await once(blocker, 'listening');
    const { port } = blocker.address() as AddressInfo;
    const { code, stderr } = await runProgram([], { MQTT_PORT: String(port) });
    blocker.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(/LISTEN_FAILED.*MQTT_PORT/s);
    program = await start();
  });

  it('says what it can do, and that it does not know an option', async () => {
    const help = await runProgram(['--help'], {});
    expect(help).toMatchObject({ code: 0, stdout: expect.stringContaining('--new-admin-key') });
    const unknown = await runProgram(['--nonsense'], {});
    expect(unknown).toMatchObject({ code: 2, stdout: expect.stringContaining('--nonsense') });
  });

  it('names a certificate that it cannot read', async () => {
    const certFile = join(folder, 'cert.pem');
    await writeFile(certFile, 'not a certificate');
    const { code, stderr } = await runProgram([], {
      TLS_CERT_FILE: certFile,
      TLS_KEY_FILE: certFile,
    });
    expect(code).toBe(1);
    expect(stderr).toContain('FILE_UNUSABLE');
  });
});
