import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';

/**
 * Whether a program is installed. When not, says loudly what is left out, so that a green run without it
 * is not taken for a whole one.
 */
export function hasProgram(program: string, leftOut: string): boolean {
  const isThere = spawnSync(program, ['--help'], { stdio: 'ignore' }).error === undefined;
  if (!isThere) console.warn(`SKIPPED: ${leftOut}: ${program} is not installed`);
  return isThere;
}

/**
 * Whether a header of C is there, and with it a library. When not, says loudly which tests are left out
 * and what brings it.
 */
export function hasHeader(header: string, debianPackage: string): boolean {
  if (spawnSync('gcc', ['--version'], { stdio: 'ignore' }).error !== undefined) return false;
  const include = spawnSync('gcc', ['-E', '-include', header, '-xc', '/dev/null']);
  const isThere = include.status === 0;
  if (!isThere) console.warn(`SKIPPED: a client over ${header}: ${debianPackage} is not installed`);
  return isThere;
}

/** Runs a program to its end. Rejects when it fails, with what it printed. */
export async function run(
  program: string,
  args: readonly string[],
  timeoutMs = 60_000,
): Promise<{ stdout: string; stderr: string }> {
  return promisify(execFile)(program, [...args], { timeout: timeoutMs });
}
