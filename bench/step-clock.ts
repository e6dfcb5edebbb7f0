import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where Debian, Fedora, Arch and Alpine put it. */
const LIBRARIES = [
  `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/faketime/libfaketime.so.1`,
  '/usr/lib64/faketime/libfaketime.so.1',
  '/usr/lib/faketime/libfaketime.so.1',
];

/** The wall clock of one process, moved by libfaketime while the process runs. Its monotonic clock is left alone. */
export class StepClock {
  readonly #file: string;

  private constructor(file: string) {
    this.#file = file;
  }

  /** @param file takes the offset; the process reads it each time that it looks at its clock. */
  static async make(file: string): Promise<StepClock> {
    const clock = new StepClock(file);
    await clock.set(0);
    return clock;
  }

  /** What the environment of the process must hold. */
  get environment(): Readonly<Record<string, string>> {
    return {
      LD_PRELOAD: findLibrary() ?? '',
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
  }

  /** Sets the clock this many seconds ahead of the real time, or behind it. */
  async set(offsetS: number): Promise<void> {
    const next = `${this.#file}.next`;
    await writeFile(next, `${offsetS < 0 ? '' : '+'}${offsetS}s\n`);
    await rename(next, this.#file);
  }
}

/** @returns why clocks cannot be stepped here, or null: tried on a process of its own. */
export async function stepClockObstacle(): Promise<string | null> {
  if (findLibrary() === null) return 'libfaketime is not installed (apt install faketime)';
  const file = join(tmpdir(), `puback-clock-${process.pid}`);
  const clock = await StepClock.make(file);
  await clock.set(-3600);
  const { stdout } = spawnSync(process.execPath, ['-p', 'Date.now()'], {
    env: { ...process.env, ...clock.environment },
    encoding: 'utf8',
  });
  const behindMs = Date.now() - Number(stdout.trim());
  await rm(file);
  return Math.abs(behindMs - 3_600_000) < 60_000
    ? null
    : 'libfaketime does not move the clock of node';
}

function findLibrary(): string | null {
  return LIBRARIES.find((path) => existsSync(path)) ?? null;
}
