import { spawn } from 'node:child_process';

/** The account that runs PostgreSQL in place of root, which PostgreSQL refuses. */
export interface ServerUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** How a program of PostgreSQL is run. `user` is null when this process is not root. */
export interface ToolOptions {
  readonly user: ServerUser | null;
  readonly cwd: string;
  /** An open file that the program finds as its file 3. */
  readonly file?: number;
}

const TOOL_TIMEOUT_MS = 180_000;
const OUTPUT_CHARS_MAX = 16_384;

/**
 * The whole environment of PostgreSQL's programs. Variables such as PGDATA or PGPORT of the caller
 * would change what they do.
 */
export const toolEnvironment: NodeJS.ProcessEnv = { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };

/** The options of `spawn` that hand a program over to the user. */
export function runAs(user: ServerUser | null): { uid?: number; gid?: number } {
  return user === null ? {} : { uid: user.uid, gid: user.gid };
}

/**
 * Runs a program to its end, in a session of its own so that Ctrl-C does not cut it short.
 * @returns what it wrote, its last 16 KiB, and its exit status; -1 when it did not start, was killed
 * or took longer than 3 minutes, with the reason in `output`. Never rejects.
 */
export function runTool(
  command: string,
  parameters: readonly string[],
  options: ToolOptions,
): Promise<{ status: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, parameters, {
      ...runAs(options.user),
      cwd: options.cwd,
      env: toolEnvironment,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', options.file ?? 'ignore'],
    });
    let output = '';
    const keep = (chunk: Buffer): void => {
      output = `${output}${chunk.toString()}`.slice(-OUTPUT_CHARS_MAX);
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    // Not the `timeout` of spawn: its timer goes on when the program cannot be started.
    const deadline = setTimeout(() => child.kill('SIGKILL'), TOOL_TIMEOUT_MS);
    const settle = (status: number, text: string): void => {
      clearTimeout(deadline);
      resolve({ status, output: text });
    };
    child.once('error', (err) => settle(-1, err.message));
    child.once('close', (status, signal) =>
      settle(status ?? -1, signal ? `${output} (${signal})` : output),
    );
  });
}
