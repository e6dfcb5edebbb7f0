import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './programs.ts';

/** Root of the repository. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** The C core: what links alone, and the client over it. */
export const CORE = ['fp.c', 'fp_client.c'].map((name) =>
  join(ROOT, 'firmware-protocol/src', name),
);
/** What C of ours must compile with, on every compiler. */
export const STRICT = [
  '-std=c99',
  '-Wall',
  '-Wextra',
  '-Wpedantic',
  '-Wconversion',
  '-Wshadow',
  '-Werror',
] as const;
/** Address and undefined-behaviour sanitizers; what they find ends the program. */
export const SANITIZED = [
  '-g',
  '-O1',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
] as const;

/** Compiles a program of test/firmware with the core. @returns its path, in `folder`. */
export async function compileWithCore(
  folder: string,
  name: string,
  options: readonly string[] = [...STRICT, ...SANITIZED],
  compiler = 'gcc',
  core: readonly string[] = CORE,
): Promise<string> {
  const program = join(folder, `${name}-${compiler}`);
  const source = join(ROOT, `test/firmware/${name}.c`);
  await run(compiler, [...options, '-o', program, source, ...core], 60_000);
  return program;
}

/** Runs a program that reads lines and answers each that begins with one of `answered`. */
export async function exchange(program: string, lines: readonly string[]): Promise<string[]> {
  const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    printed += chunk;
  });
  child.stdin.end(lines.map((line) => `${line}\n`).join(''));
  const [status] = (await once(child, 'close')) as [number | null];
  if (status !== 0) throw new Error(`${program} ended with ${status}`);
  return printed.split('\n').slice(0, -1);
}

/** Whether a compiler can do this, for example link a sanitizer; says loudly when not. */
export function canCompile(compiler: string, options: readonly string[], leftOut: string): boolean {
  const main = 'int main(void) { return 0; }';
  const made = spawnSync(compiler, [...options, '-xc', '-o', '/dev/null', '-'], { input: main });
  const isAble = made.status === 0;
  if (!isAble) console.warn(`SKIPPED: ${leftOut}: ${compiler} ${options.join(' ')} does not work`);
  return isAble;
}
