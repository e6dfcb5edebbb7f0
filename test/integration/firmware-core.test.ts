import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { canCompile, compileWithCore, CORE, ROOT, SANITIZED, STRICT } from '../support/firmware.ts';
import { hasProgram, run } from '../support/programs.ts';

const hasGcc = canCompile('gcc', SANITIZED, 'the C core under sanitizers');
const hasClang = hasProgram('clang', 'the C core with clang');
const FUZZER = ['-g', '-O1', '-fsanitize=fuzzer-no-link,address,undefined'];
const hasFuzzer = hasClang && canCompile('clang', FUZZER, 'fuzzing of the C core');
const hasCxx = hasProgram('g++', 'the sketches');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-core-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe.skipIf(!hasGcc)('the C core', () => {
  it('holds every fact of fp_test.c under the sanitizers', async () => {
    const program = await compileWithCore(folder, 'fp_test');
    const { stdout } = await run(program, [makeKey('device').key]);
    expect(stdout.match(/^ok /gm)?.length).toBeGreaterThan(20);
    expect(stdout).not.toContain('not ok');
  });

  it('executes, answers and keeps time without the client loop', async () => {
    const [core = ''] = CORE;
    const program = await compileWithCore(folder, 'fp_alone', undefined, 'gcc', [core]);
    const { stdout } = await run(program, []);
    expect(stdout.match(/^ok /gm)).toHaveLength(6);
  });

  it.each(['before', 'after'])(
    'L-12 executes as often as promised when power is lost at any step, saved %s execution',
    async (policy) => {
      const program = await compileWithCore(folder, 'fp_model');
      const { stdout } = await run(program, ['5000', '1', policy]);
      const { runs, crashes, lost, unknown, awake } = JSON.parse(stdout);
      expect(runs).toBe(5000);
      expect(crashes).toBeGreaterThan(20_000);
      expect(lost).toBeGreaterThan(20_000);
      expect(unknown > 0).toBe(policy === 'before');
      expect(awake).toBe(0);
    },
  );
});

describe.skipIf(!hasFuzzer)('the fuzzer', () => {
  it('finds nothing in the C core in 100 000 runs', async () => {
    const options = ['-std=c99', '-Wall', '-Wextra', '-Werror', ...FUZZER];
    const linked = [...options, '-fsanitize=fuzzer', '-fno-sanitize-recover=all'];
    const program = await compileWithCore(folder, 'fp_fuzz', linked, 'clang');
    const args = ['-runs=100000', '-max_len=600', '-seed=1', `-artifact_prefix=${folder}/`];
    const { stderr } = await run(program, args, 60_000);
    expect(stderr).toContain('Done 100000 runs');
  }, 90_000);
});

describe('the core for a board', () => {
  const stubs = join(ROOT, 'test/firmware/stubs/freestanding');

  /** Compiles a file for a board. @returns its bytes of text. */
  async function textOf(compiler: string, options: readonly string[], source: string) {
    const object = join(folder, `${compiler}-${basename(source)}.o`);
    await run(compiler, [...STRICT, '-Os', ...options, '-c', source, '-o', object]);
    const { stdout } = await run(compiler.replace(/gcc$/, 'size'), [object]);
    const [text, ...state] = stdout.split('\n')[1]?.trim().split(/\s+/) ?? [];
    expect(state.slice(0, 2), 'no state of its own').toEqual(['0', '0']);
    return Number(text);
  }

  it.each(['gcc', 'clang'])('compiles without a warning by %s', async (compiler) => {
    if (!hasProgram(compiler, 'the core')) return;
    for (const [index, source] of CORE.entries()) {
      const object = join(folder, `${compiler}-${index}.o`);
      await run(compiler, [...STRICT, '-Os', '-c', source, '-o', object]);
    }
  });

  it.each([
    ['riscv64-unknown-elf-gcc', ['-march=rv32imc', '-mabi=ilp32'], 6700, 10_100],
    ['xtensa-lx106-elf-gcc', [], 6350, 9450],
  ] as const)(
    'compiles without a warning by %s, and is less than 7 KB without the client',
    async (compiler, options, coreMost, mostOfBoth) => {
      if (!hasProgram(compiler, 'the core for its target')) return;
      const sizes = [];
      for (const source of CORE)
        sizes.push(await textOf(compiler, [...options, '-isystem', stubs], source));
      const [core = NaN, client = NaN] = sizes;
      console.info(`${compiler}: core ${core}, client ${client}, both ${core + client} bytes`);
      expect(core).toBeLessThanOrEqual(Math.min(coreMost, 7 * 1024));
      expect(core + client).toBeLessThanOrEqual(mostOfBoth);
    },
  );
});

describe('the examples', () => {
  const include = ['-I', join(ROOT, 'firmware-protocol/src')];
  const stubs = (name: string): string[] => ['-isystem', join(ROOT, 'test/firmware/stubs', name)];
  const check = ['-fsyntax-only', '-Wall', '-Wextra', '-Wshadow', '-Werror'];

  it.skipIf(!hasCxx).each(
    ['Basic', 'DeepSleep', 'Ota'].flatMap((name) => [
      [name, 'gnu++11'],
      [name, 'gnu++17'],
    ]),
  )('%s is right C++ of %s, as far as the stub headers know', async (name, standard) => {
    const sketch = join(ROOT, `firmware-protocol/examples/${name}/${name}.ino`);
    const options = [`-std=${standard}`, ...check, ...stubs('arduino'), ...include];
    await run('g++', [...options, '-include', 'Arduino.h', '-xc++', sketch]);
  });

  it.skipIf(!hasCxx || !hasGcc).each(['gnu++11', 'gnu++17'])(
    'the glue for Arduino sets TCP_NODELAY, and changes its key in one connection, in %s',
    async (standard) => {
      const objects = CORE.map((source) => join(folder, `${standard}-${basename(source)}.o`));
      for (const [index, object] of objects.entries()) {
        await run('gcc', [...SANITIZED, '-c', CORE[index] ?? '', '-o', object]);
      }
      const program = join(folder, `arduino-glue-${standard}`);
      const source = join(ROOT, 'test/firmware/arduino_glue.cpp');
      const options = [`-std=${standard}`, ...check.slice(1), ...SANITIZED, ...stubs('arduino')];
      const inputs = ['-include', 'Arduino.h', source, ...objects];
      await run('g++', [...options, ...include, ...inputs, '-o', program], 60_000);
      await run(
        program,
        [1, 2, 3].map(() => makeKey('device').key),
      );
    },
  );

  it.skipIf(!hasGcc).each(['src/fp_esp.c', 'examples/esp_idf/main/main.c'])(
    '%s is right C, as far as the stub headers know',
    async (path) => {
      const options = ['-std=gnu17', '-DESP_PLATFORM', ...check, ...stubs('esp_idf'), ...include];
      await run('gcc', [...options, join(ROOT, 'firmware-protocol', path)]);
    },
  );
});
