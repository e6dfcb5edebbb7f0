import { startStockAedes } from './stock-aedes.ts';

/** The broker under test: everything is allowed but SUBSCRIBE to `test/nosubscribe`. */
export interface Target {
  readonly url: string;
  /** False once its process has ended by itself. */
  readonly isAlive: () => boolean;
  /** Process id, where it is a process of its own. */
  readonly pid: number | null;
  stop(): Promise<void>;
}

/** True when PUBACK_TEST_TARGET says so: the same tests then run against Aedes as it comes. */
export const isStockAedes = process.env['PUBACK_TEST_TARGET'] === 'stock-aedes';

/** How a target is started. */
export interface TargetOptions {
  readonly port?: number;
  /** Folder of what outlives the process; stock Aedes has none. */
  readonly dataDir?: string;
  /** Settings of our broker by the names of their environment variables; stock Aedes has none of them. */
  readonly settings?: Record<string, string>;
}

/**
 * Starts the broker without login: ours, in this process, or stock Aedes in a child process when
 * PUBACK_TEST_TARGET is `stock-aedes`.
 */
export async function startTarget(options: TargetOptions = {}): Promise<Target> {
  if (isStockAedes) return startStockAedes(options);
  const { startOpenBroker } = await import('./open-broker.ts');
  const broker = await startOpenBroker(options);
  return { url: broker.url, isAlive: () => true, pid: null, stop: () => broker.stop() };
}
