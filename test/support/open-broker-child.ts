import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** `npm run open-broker` as a process of its own. */
export interface OpenBrokerChild {
  readonly url: string;
  /** Ends it with SIGKILL, or in order with SIGTERM. @returns its exit code; null after SIGKILL. */
  end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null>;
}

/** Starts it on a folder and a free port, and waits until it listens. */
export async function startOpenBrokerChild(dataDir: string): Promise<OpenBrokerChild> {
  const file = fileURLToPath(new URL('open-broker-program.ts', import.meta.url));
  const args = ['--import', 'tsx', file, '--port', '0', '--data', dataDir];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const lines = createInterface({ input: child.stdout });
  for await (const line of lines) {
    const url = /open broker on (mqtt:\S+),/.exec(line)?.[1];
    if (url === undefined) continue;
    return {
      url,
      async end(signal) {
        child.kill(signal);
        const [code] = await exited;
        return code;
      },
    };
  }
  throw new Error('the open broker did not start');
}
