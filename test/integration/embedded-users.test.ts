import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  copyProject,
  isRunning,
  processesIn,
  queryOnce,
  startHolder,
  type Holder,
  type HolderOptions,
} from '../support/embedded-program.ts';

const NOBODY = 65_534;
/** Has no line in /etc/passwd. */
const NAMELESS = 54_321;
const isRoot = process.getuid?.() === 0;
if (!isRoot) {
  console.warn('SKIPPED: the embedded database as root and as other users; run the tests as root');
}

let root = '';
let project = '';
let holders: Holder[] = [];
const canNobodyRunNode = isRoot && runsAsNobody();
if (isRoot && !canNobodyRunNode) {
  console.warn(`SKIPPED: the embedded database as "nobody", who cannot run ${process.execPath}`);
}

beforeAll(() => {
  if (!isRoot) return;
  root = mkdtempSync(join(tmpdir(), 'puback-users-'));
  // Only the folders in it are closed: tsx needs a place for its cache.
  chmodSync(root, 0o1777);
  project = join(root, 'closed', 'project');
  copyProject(project);
});
afterAll(() => {
  if (root !== '') rmSync(root, { recursive: true, force: true });
});
afterEach(async () => {
  for (const holder of holders) await holder.end('SIGTERM');
  holders = [];
});

async function hold(dataDir: string, options: HolderOptions): Promise<Holder> {
  const holder = await startHolder(dataDir, options);
  holders.push(holder);
  return holder;
}

/** Starts, writes, is killed, is started again and adopts, stops: all that a user meets. */
async function liveThrough(dataDir: string, options: HolderOptions): Promise<number> {
  const first = await hold(dataDir, options);
  expect(first.line.failure).toBeUndefined();
  await queryOnce(first.line.url, 'CREATE TABLE kept AS SELECT 1 AS n');
  const { uid } = statSync(`/proc/${first.line.pid}`);
  await first.end('SIGKILL');
  const second = await hold(dataDir, options);
  expect(second.line.pid).toBe(first.line.pid);
  await second.end('SIGTERM');
  expect(isRunning(first.line.pid)).toBe(false);
  const third = await hold(dataDir, options);
  expect(await queryOnce(third.line.url, 'SELECT n FROM kept')).toEqual([{ n: 1 }]);
  await third.end('SIGTERM');
  expect(processesIn(join(dataDir, 'postgres'))).toEqual([]);
  return uid;
}

describe.runIf(isRoot)('startEmbedded as root', () => {
  it('runs the server as another user in a project and data folder closed to it', async () => {
    chownSync(join(root, 'closed'), 0, 0);
    chmodSync(join(root, 'closed'), 0o700);
    const dataDir = join(project, 'data');
    const uid = await liveThrough(dataDir, { project });
    expect(uid).not.toBe(0);
    expect(statSync(join(dataDir, 'postgres')).uid).toBe(uid);
    expect(statSync(dataDir).uid).toBe(0);
    const copies = await readdir('/var/lib/puback');
    expect(copies.filter((name) => name.startsWith('.copy-'))).toEqual([]);
    for (const name of copies) {
      const { uid: owner, mode } = statSync(join('/var/lib/puback', name));
      expect([owner, mode & 0o777]).toEqual([0, 0o755]);
    }
  });

  it('runs the server as the owner of the data folder, whose files stay usable for it', async () => {
    const dataDir = join(root, 'of-nobody');
    mkdirSync(dataDir, { mode: 0o700 });
    chownSync(dataDir, NOBODY, NOBODY);
    expect(await liveThrough(dataDir, { project })).toBe(NOBODY);
    for (const name of await readdir(dataDir)) {
      expect([name, statSync(join(dataDir, name)).uid]).toEqual([name, NOBODY]);
    }
  });

  it('refuses a cluster that belongs to root and says what to do', async () => {
    const dataDir = join(root, 'of-root');
    mkdirSync(join(dataDir, 'postgres'), { recursive: true });
    const { line } = await hold(dataDir, { project });
    expect(line.name).toBe('EmbeddedDatabaseError');
    expect(line.failure).toContain('chown -R');
  });
});

describe.runIf(canNobodyRunNode)('startEmbedded as an ordinary user', () => {
  let open = '';
  beforeAll(() => {
    open = join(root, 'open');
    copyProject(open);
    const chown = spawnSync('chown', ['-R', `${NOBODY}:${NOBODY}`, open]);
    if (chown.status !== 0) throw new Error(`chown failed: ${String(chown.stderr)}`);
  });

  it('runs the server as that user and makes the links of skipped install scripts', async () => {
    const options = { project: open, uid: NOBODY, gid: NOBODY };
    expect(await liveThrough(join(open, 'data'), options)).toBe(NOBODY);
  });

  it('copies the programs to the data folder when links are missing in a read-only project', async () => {
    const readOnly = join(root, 'read-only');
    copyProject(readOnly);
    const dataDir = join(root, 'writable');
    mkdirSync(dataDir);
    chownSync(dataDir, NOBODY, NOBODY);
    await liveThrough(dataDir, { project: readOnly, uid: NOBODY, gid: NOBODY });
    expect(await readdir(dataDir)).toContainEqual(expect.stringMatching(/^postgres-\d+\./));
  });

  it('refuses the cluster of somebody else and says whose it is', async () => {
    const dataDir = join(root, 'of-another');
    mkdirSync(join(dataDir, 'postgres'), { recursive: true });
    chmodSync(dataDir, 0o777);
    const { line } = await hold(dataDir, { project: open, uid: NOBODY, gid: NOBODY });
    expect(line.failure).toContain('belongs to user id 0');
  });

  it('tells a user without a name what initdb needs', async () => {
    const dataDir = join(root, 'of-nameless');
    mkdirSync(dataDir);
    chownSync(dataDir, NAMELESS, NAMELESS);
    const { line } = await hold(dataDir, { project: open, uid: NAMELESS, gid: NAMELESS });
    expect(line.failure).toContain('give the user id a name');
  });
});

function runsAsNobody(): boolean {
  const user = { uid: NOBODY, gid: NOBODY, cwd: '/' };
  return spawnSync(process.execPath, ['--version'], user).status === 0;
}
