import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { ToolFailedError } from '../../errors.ts';
import { nodeArguments } from '../program.ts';
import type { WriterMessage } from './writer.ts';

/** The writer as a process of its own. */
export interface PeerWriter {
  readonly pid: number;
  /** Rows stored since its start, when it was last heard of. @throws {ToolFailedError} it has ended. */
  stored(): number;
  stop(): Promise<void>;
}

/** Starts it and waits until it has subscribed. @throws {ToolFailedError} with what it said. */
export async function startPeerWriter(
  mqttUrl: string,
  databaseUrl: string,
  table: string,
): Promise<PeerWriter> {
  const options = ['--mqtt-url', mqttUrl, '--database-url', databaseUrl, '--table', table];
  const child = spawn(process.execPath, [...nodeArguments('bench/peers/writer.ts'), ...options], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    detached: true,
  });
  let last: WriterMessage = { received: 0, stored: 0 };
  let failure: string | null = null;
  const said = child.stderr === null ? Promise.resolve('') : text(child.stderr);
  const exited = once(child, 'exit').then(async () => {
    failure = `the writer ended: ${(await said).trim()}`;
  });
  child.on('message', (message: WriterMessage) => (last = message));
  await Promise.race([once(child, 'message'), exited]);
  const stored = (): number => {
    if (failure !== null) throw new ToolFailedError(failure);
    return last.stored;
  };
  stored();
  return {
    pid: child.pid ?? 0,
    stored,
    async stop() {
      child.kill('SIGTERM');
      await exited;
    },
  };
}
