import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../support/programs.ts';

const TOOL = fileURLToPath(new URL('../../bench/rules.ts', import.meta.url));
const EXAMPLE = fileURLToPath(new URL('../rules/timing.yaml', import.meta.url));
const TSX = fileURLToPath(new URL('../../node_modules/tsx/dist/cli.mjs', import.meta.url));

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function runTool(...args: string[]): Promise<Ended> {
  return run(process.execPath, [TSX, TOOL, ...args]).then(
    (output) => ({ status: 0, ...output }),
    (error: unknown) => {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { status: code, stdout, stderr };
    },
  );
}

describe('npm run rules', () => {
  let folder: string;
  let wrong: string;
  let broken: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'puback-rules-'));
    wrong = join(folder, 'wrong.yaml');
    broken = join(folder, 'broken.yaml');
    await writeFile(
      wrong,
      `rules: [{ name: hot, severity: high, when: { metric: temp, op: '>', value: 80 } }]
tests: [{ name: a test, series: { temp: 20 85 }, expect: inactive*2 }]`,
    );
    await writeFile(broken, 'tests: [{ name: a test, series: { temp: 20 } }]');
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('ends with 0 when all tests passed, and says how many those are', async () => {
    const { status, stdout } = await runTool('test', EXAMPLE);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^\d+ tests in 1 file: all passed\n$/);
  });

  it('ends with 1 when a test failed, and shows what differs', async () => {
    const { status, stdout } = await runTool('test', EXAMPLE, wrong);
    expect(status).toBe(1);
    expect(stdout).toMatch(/> 1s +temp=85 +inactive +firing:high\n/);
    expect(stdout).toMatch(/tests in 2 files: 1 FAILED\n$/);
  });

  it('ends with 2 when a file cannot be used, or it is not said what to do', async () => {
    const ends = await Promise.all([
      runTool('test', broken),
      runTool('test', join(folder, 'none.yaml')),
      runTool('test'),
      runTool('tset', EXAMPLE),
      runTool('--help'),
    ]);
    expect(ends.map(({ status }) => status)).toEqual([2, 2, 2, 2, 0]);
    expect(ends[0]?.stderr).toContain('tests.0: expects nothing');
    expect(ends[1]?.stderr).toContain('cannot be read');
    expect(ends[3]?.stderr).toContain('npm run rules -- test FILE.yaml');
    expect(ends[4]?.stdout).toContain('Exit status');
  });
});
