import type pg from 'pg';
import { findCapabilities, type Capabilities } from '../capabilities.ts';

/** Something that is not as it should be, and what to do about it. */
export interface Problem {
  readonly what: string;
  readonly remedy: string;
}

/** What was looked at in one respect. */
export interface Finding {
  readonly title: string;
  /** For people, one fact a line. */
  readonly facts: readonly string[];
  readonly problems: readonly Problem[];
}

/** What every look at the database is given. */
export interface Patient {
  readonly client: pg.ClientBase;
  readonly capabilities: Omit<Capabilities, 'rowSecurity'>;
}

/** One look at the database. Reads only, and takes no lock that anybody waits for. */
export type Look = (patient: Patient) => Promise<Finding>;

/** Looks at a database in every respect, one after the other. @throws what `pg` throws. */
export async function examine(client: pg.Client, looks: readonly Look[]): Promise<Finding[]> {
  const capabilities = await findCapabilities(client);
  const findings: Finding[] = [];
  for (const look of looks) findings.push(await look({ client, capabilities }));
  return findings;
}

/** What was found, as text for a terminal. */
export function renderFindings(findings: readonly Finding[]): string {
  const sections = findings.map(({ title, facts, problems }) =>
    [
      title,
      ...facts.map((fact) => `  ${fact}`),
      ...problems.flatMap(({ what, remedy }) => [`  PROBLEM: ${what}`, `    -> ${remedy}`]),
    ].join('\n'),
  );
  const count = findings.reduce((sum, { problems }) => sum + problems.length, 0);
  const verdict = count === 0 ? 'No problems found.' : `${count} problem(s) found.`;
  return `${[...sections, verdict].join('\n\n')}\n`;
}

/** Bytes for people. */
export function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  const value = bytes / 1024 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${units[power] ?? ''}`;
}

/** A length of time for people. */
export function ageText(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800
    ? `${Math.round(seconds / 3600)} h`
    : `${Math.round(seconds / 86_400)} d`;
}
