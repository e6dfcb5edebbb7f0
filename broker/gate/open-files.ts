import { readFileSync } from 'node:fs';

/** File descriptors that are left to everything but MQTT: database, HTTP, disk, log. */
export const OTHER_FILES = 128;

/** Connections that there is room for at the least. */
const CONNECTIONS_MIN = 16;

/**
 * How many files this process may have open (`ulimit -n`; Node.js raises it to the hard limit), or null
 * where that cannot be told: not on Linux.
 */
export function openFilesLimit(): number | null {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    const soft = /^Max open files\s+(\d+)/m.exec(limits)?.[1];
    return soft === undefined ? null : Number(soft);
  } catch {
    // No /proc.
    return null;
  }
}

/**
 * Bounds connections to the files that may be open. Beyond them the runtime closes a new connection without
 * a word to anybody, and the database and the log have none either.
 */
export function connectionsWithin(connectionsMax: number, openFilesMax: number | null): number {
  if (openFilesMax === null) return connectionsMax;
  return Math.min(connectionsMax, Math.max(CONNECTIONS_MIN, openFilesMax - OTHER_FILES));
}
