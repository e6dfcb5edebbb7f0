import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** Stock Aedes in a process of its own. */
export interface StockAedes {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** False once its process has ended, whoever ended it. */
  readonly isAlive: () => boolean;
  stop(): Promise<void>;
}

/** Starts Aedes as it comes, with its persistence in memory, on a free port or the one that is given. */
export async function startStockAedes({ port = 0 }: { port?: number } = {}): Promise<StockAedes> {
  const file = fileURLToPath(new URL('stock-aedes-program.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', file, String(port)], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  let isAlive = true;
  const exited = once(child, 'exit').then(() => {
    isAlive = false;
  });
  child.stdin.on('error', () => undefined);
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([once(lines, 'line'), exited]);
  if (first === undefined) throw new Error('stock Aedes did not start');
  const listening = Number(String((first as string[])[0]));
  return {
    url: `mqtt://127.0.0.1:${listening}`,
    port: listening,
    pid: child.pid ?? 0,
    isAlive: () => isAlive,
    async stop() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}
