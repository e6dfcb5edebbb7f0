import { spawn, type ChildProcess } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { ToolFailedError } from '../errors.ts';
import type { GeneratorMessage, GeneratorResult } from './generator.ts';
import { nodeArguments } from './program.ts';

/** The load generator as a process of its own. */
export interface GeneratorProcess {
  /** The result; rejects with {@link ToolFailedError} when the generator failed. */
  readonly result: Promise<GeneratorResult>;
  /** Messages acknowledged when it was last heard of, four times a second. */
  readonly acknowledged: number;
  /** Ends the measurement; the result follows once nothing is in flight any more. */
  stop(): void;
  kill(): void;
}

/** @param onMessage called for each phase the generator enters, and four times a second while it measures */
export function startGenerator(
  options: readonly string[],
  onMessage: (message: GeneratorMessage) => void = () => undefined,
): GeneratorProcess {
  const child = spawn(process.execPath, [...nodeArguments('bench/generator.ts'), ...options], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // Ctrl-C in the terminal is for the tool that started it.
    detached: true,
  });
  const result = readResult(child);
  // Whoever awaits the result gets the failure; it may come before anyone does.
  result.catch(() => undefined);
  let acknowledged = 0;
  child.on('message', (message: GeneratorMessage) => {
    acknowledged = message.acknowledged;
    onMessage(message);
  });
  return {
    result,
    get acknowledged() {
      return acknowledged;
    },
    stop: () => {
      if (child.connected) child.send('stop');
    },
    kill: () => {
      child.kill('SIGKILL');
    },
  };
}

async function readResult(child: ChildProcess): Promise<GeneratorResult> {
  const { stdout, stderr } = child;
  if (stdout === null || stderr === null) throw new ToolFailedError('the generator has no output');
  const [output, faults] = await Promise.all([text(stdout), text(stderr)]);
  const line = output.trim().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) throw new ToolFailedError(`the generator failed: ${faults.trim()}`);
  return JSON.parse(line) as GeneratorResult;
}
