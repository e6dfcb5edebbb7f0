import { execFile } from 'node:child_process';
import { cpus, release, totalmem, type } from 'node:os';
import { promisify } from 'node:util';
import type pg from 'pg';
import { formatCount, formatMs, formatTable } from './figures.ts';
import type { Durations, ScenarioResult } from './measurement.ts';

/** Where a run was made, and of what. */
export interface MachineDescription {
  machine: string;
  /** Processes that wanted a processor before the run, as a mean of a minute. Above 1: not a quiet machine. */
  loadBefore: number;
  node: string;
  commit: string;
  date: string;
}

/** The same with the database. */
export interface RunDescription extends MachineDescription {
  /** Version and durability settings. */
  database: string;
  command: string;
}

const HEADER = [
  'load',
  'messages/s',
  'rows/s',
  'program µs',
  'database µs',
  'together µs',
  'PUBACK p50',
  'p99',
  'generator µs',
  'ceiling rows/s',
  'ceiling µs/row',
  'share',
];

/** Finds out where a run takes place. */
export async function describeMachine(loadBefore: number): Promise<MachineDescription> {
  const processors = cpus();
  const memoryGb = Math.round(totalmem() / 2 ** 30);
  return {
    machine: `${processors.length} × ${processors[0]?.model.trim()}, ${memoryGb} GB, ${type()} ${release()}`,
    loadBefore,
    node: process.version,
    commit: await findCommit(),
    date: new Date().toISOString().slice(0, 16).replace('T', ' ') + ' UTC',
  };
}

/** Finds out where a run with a database takes place. `client` is connected to it. */
export async function describeRun(
  client: pg.Client,
  command: string,
  loadBefore: number,
): Promise<RunDescription> {
  const settings = ['server_version', 'fsync', 'synchronous_commit', 'full_page_writes'] as const;
  const values = new Map<string, string>();
  for (const name of settings) {
    const { rows } = await client.query<Record<string, string>>(`SHOW ${name}`);
    values.set(name, rows[0]?.[name] ?? '');
  }
  const durability = settings.slice(1).map((name) => `${name}=${values.get(name)}`);
  return {
    ...(await describeMachine(loadBefore)),
    database: `PostgreSQL ${values.get('server_version')}, ${durability.join(' ')}`,
    command,
  };
}

/** The table alone, for the terminal and the file. */
export function resultTable(results: readonly ScenarioResult[]): string {
  return formatTable(HEADER, results.map(tableRow));
}

/** A line for each goal, and for each run that stored other rows than it acknowledged. */
export function verdicts(results: readonly ScenarioResult[]): string[] {
  return results.flatMap((result) => [goalVerdict(result), rowVerdict(result)]);
}

/** Whether the run stored what it acknowledged; unacknowledged messages may be stored or not. */
export function isConserved({
  rowsStored,
  rowsPromised,
  generator,
  scenario,
}: ScenarioResult): boolean {
  const unacknowledgedRows = generator.unacknowledged * scenario.rowsPerMessage;
  return rowsStored >= rowsPromised && rowsStored <= rowsPromised + unacknowledgedRows;
}

/** What stands above the sections of bench/RESULTS.md. */
export function resultsDocument(
  run: RunDescription,
  durations: Durations,
  results: readonly ScenarioResult[],
): string {
  return `# Bench results

Made by \`${run.command}\`. Every message was acknowledged after its COMMIT; generator, program and
database shared the processors.

- Machine: ${run.machine}; load before the run: ${run.loadBefore.toFixed(1)}
- Node.js ${run.node}; ${run.database}
- Commit ${run.commit}, ${run.date}
- ${durations.warmupS} s of warm-up, ${durations.measuredS} s measured, ${durations.ceilingS} s of ceiling

${resultTable(results)}

µs are processor time for a message: of the program, of the database server with all its processes, and
of the generator itself. PUBACK is the time from the write of a PUBLISH to the read of its PUBACK with
the window full. The ceiling is what plain binary COPY reaches with rows of the same shape and order,
into a scratch copy of the table in the same database, 10 000 rows a transaction; \`share\` is the
program's part of its rows/s.

${verdicts(results)
  .map((verdict) => `- ${verdict}`)
  .join('\n')}
`;
}

function tableRow(result: ScenarioResult): string[] {
  const { scenario, generator, ceiling } = result;
  return [
    `(${scenario.id}) ${scenario.title}`,
    formatCount(generator.acknowledged / generator.seconds),
    formatCount(rowsPerS(result)),
    microseconds(result.programCpuUs),
    microseconds(result.databaseCpuUs),
    microseconds(cpuTogether(result)),
    formatMs(generator.p50Ms),
    formatMs(generator.p99Ms),
    microseconds(generator.cpuUs),
    formatCount(ceiling.rows / ceiling.seconds),
    result.ceilingCpuUs === null ? '–' : result.ceilingCpuUs.toFixed(2),
    percent(ceilingShare(result)),
  ];
}

function goalVerdict(result: ScenarioResult): string {
  const { id, goal } = result.scenario;
  if ('ceilingShareMin' in goal) {
    const share = ceilingShare(result);
    const isMet = share >= goal.ceilingShareMin;
    return `(${id}) ${percent(share)} of the ceiling, at least ${percent(goal.ceilingShareMin)} wanted: ${met(isMet)}`;
  }
  const cpuUs = cpuTogether(result);
  if (cpuUs === null) return `(${id}) the processor time of the database is not known`;
  return `(${id}) ${microseconds(cpuUs)} µs a message, at most ${goal.cpuUsMax} wanted: ${met(cpuUs <= goal.cpuUsMax)}`;
}

function rowVerdict(result: ScenarioResult): string {
  const rows = `${formatCount(result.rowsStored)} rows stored, ${formatCount(result.rowsPromised)} acknowledged`;
  return `(${result.scenario.id}) ${rows}: ${isConserved(result) ? 'equal' : 'NOT EQUAL'}`;
}

function met(isMet: boolean): string {
  return isMet ? 'met' : 'NOT MET';
}

function rowsPerS({ generator, scenario }: ScenarioResult): number {
  return (generator.acknowledged * scenario.rowsPerMessage) / generator.seconds;
}

function ceilingShare(result: ScenarioResult): number {
  return rowsPerS(result) / (result.ceiling.rows / result.ceiling.seconds);
}

function cpuTogether({ programCpuUs, databaseCpuUs }: ScenarioResult): number | null {
  return programCpuUs === null || databaseCpuUs === null ? null : programCpuUs + databaseCpuUs;
}

function microseconds(value: number | null): string {
  return value === null ? '–' : value.toFixed(1);
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

async function findCommit(): Promise<string> {
  try {
    const run = promisify(execFile);
    const { stdout: commit } = await run('git', ['rev-parse', '--short', 'HEAD']);
    // The file that this run is about to write does not count as a change.
    const { stdout: changes } = await run('git', [
      'status',
      '--porcelain',
      '--',
      ':!bench/RESULTS.md',
    ]);
    return changes.trim() === '' ? commit.trim() : `${commit.trim()} with changes`;
  } catch {
    // An unpacked archive, or no git.
    return 'unknown';
  }
}
