import { readdir, readFile } from 'node:fs/promises';

/** Ticks of /proc are 10 ms on every Linux that Node.js runs on (`getconf CLK_TCK`). */
const US_PER_TICK = 10_000;

interface ProcessTimes {
  parent: number;
  /** User and system time, µs. */
  own: number;
  /** The same of children that have ended and were waited for. */
  endedChildren: number;
}

/** CPU time of a process itself since its start, in µs, or null without /proc or without the process. */
export async function processorTime(pid: number): Promise<number | null> {
  return (await readTimes(pid))?.own ?? null;
}

/**
 * CPU time of a process and all below it since its start, in µs; of processes that have ended too.
 * Null without /proc or without the process.
 */
export async function processorTimeOfTree(pid: number): Promise<number | null> {
  const times = await readAllTimes();
  if (!times.has(pid)) return null;
  const sum = (root: number): number => {
    const { own = 0, endedChildren = 0 } = times.get(root) ?? {};
    const children = [...times.keys()].filter((child) => times.get(child)?.parent === root);
    return children.reduce((total, child) => total + sum(child), own + endedChildren);
  };
  return sum(pid);
}

/** Parent of a process, or null without /proc or without the process. */
export async function findParent(pid: number): Promise<number | null> {
  return (await readTimes(pid))?.parent ?? null;
}

async function readAllTimes(): Promise<Map<number, ProcessTimes>> {
  const names = await readdir('/proc').catch(nullWhenGone);
  const pids = (names ?? []).filter((name) => /^\d+$/.test(name)).map(Number);
  const entries = await Promise.all(pids.map(async (pid) => [pid, await readTimes(pid)] as const));
  return new Map(entries.filter((entry): entry is [number, ProcessTimes] => entry[1] !== null));
}

async function readTimes(pid: number): Promise<ProcessTimes | null> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(nullWhenGone);
  if (text === null) return null;
  // The name in parentheses may hold spaces; fields are counted from behind it, "state" is the first.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [parent = 0, utime = 0, stime = 0, cutime = 0, cstime = 0] = [1, 11, 12, 13, 14].map(
    (index) => fields[index],
  );
  return {
    parent,
    own: (utime + stime) * US_PER_TICK,
    endedChildren: (cutime + cstime) * US_PER_TICK,
  };
}

/** A process may end between the listing and the reading, and only Linux has /proc. */
function nullWhenGone(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT' || error.code === 'ESRCH') return null;
  throw error;
}
