import { spawn, spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../../errors.ts';
import { findFreePort } from '../tls-settings.ts';

/** A mosquitto that runs. */
export interface Mosquitto {
  readonly pid: number;
  readonly mqttUrl: string;
  readonly version: string;
  stop(): Promise<void>;
}

const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/usr/local/sbin`;
const START_MS = 5000;
const POLL_MS = 20;

/** As the program says it, for example `2.0.11`; null when it is not installed. */
export function findMosquitto(): string | null {
  const { stdout, error } = spawnSync('mosquitto', ['-h'], {
    encoding: 'utf8',
    env: { ...process.env, PATH },
  });
  return error === undefined ? (/version (\S+)/.exec(stdout)?.[1] ?? 'unknown') : null;
}

/**
 * Starts mosquitto without login, without a file for messages, and without the bounds that would let it
 * drop messages for the subscriber.
 * @throws {ToolFailedError} when it does not listen within 5 s.
 */
export async function startMosquitto(folder: string, version: string): Promise<Mosquitto> {
  const port = await findFreePort();
  const file = join(folder, 'mosquitto.conf');
  await writeFile(file, settings(port));
  const child = spawn('mosquitto', ['-c', file], {
    env: { ...process.env, PATH },
    stdio: 'ignore',
    detached: true,
  });
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const deadline = performance.now() + START_MS;
  while (!(await isListening(port))) {
    if (performance.now() > deadline || child.exitCode !== null) {
      child.kill('SIGKILL');
      throw new ToolFailedError('mosquitto does not start');
    }
    await delay(POLL_MS);
  }
  return {
    pid: child.pid ?? 0,
    mqttUrl: `mqtt://127.0.0.1:${port}`,
    version,
    stop() {
      child.kill('SIGTERM');
      return exited;
    },
  };
}

function settings(port: number): string {
  return [
    `listener ${port} 127.0.0.1`,
    'allow_anonymous true',
    'persistence false',
    'set_tcp_nodelay true',
    'max_queued_messages 0',
    'max_inflight_messages 0',
    'log_type error',
    // Started by root it would become another user, who may not exist.
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    '',
  ].join('\n');
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
