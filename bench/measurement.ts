import type pg from 'pg';
import { measureCeiling, type Ceiling } from './copy-ceiling.ts';
import type { GeneratorResult } from './generator.ts';
import { runLoad } from './load-run.ts';
import { findParent, processorTime, processorTimeOfTree } from './processor-time.ts';
import type { Scenario } from './scenarios.ts';

/** What is measured: the program, its database, and who sends. */
export interface Subject {
  programPid: number;
  /** Null when the database runs on another machine: its CPU is not known then. */
  databasePid: number | null;
  databaseUrl: string;
  mqttUrl: string;
  client: pg.Client;
}

/** How long each part takes, in seconds. */
export interface Durations {
  warmupS: number;
  measuredS: number;
  ceilingS: number;
}

/** One line of the table. CPU in µs for a message, null where it cannot be known. */
export interface ScenarioResult {
  scenario: Scenario;
  generator: GeneratorResult;
  programCpuUs: number | null;
  databaseCpuUs: number | null;
  ceiling: Ceiling;
  /** µs of database CPU for a row. */
  ceilingCpuUs: number | null;
  /** Rows that the run added to `reading`, and as many as acknowledged messages promise. */
  rowsStored: number;
  rowsPromised: number;
}

/** CPU time of program and database at one moment, µs. */
interface CpuMark {
  program: number | null;
  database: number | null;
}

/**
 * Measures one scenario, then the ceiling for the same rows.
 * @param keysFile one device and key for each connection
 * @throws {ToolFailedError} when the generator fails, with what it said.
 */
export async function measureScenario(
  subject: Subject,
  scenario: Scenario,
  durations: Durations,
  keysFile: string,
): Promise<ScenarioResult> {
  const rowsBefore = await countReadings(subject.client);
  const load = { ...scenario, ...durations, mqttUrl: subject.mqttUrl, keysFile };
  const { generator, before, after } = await runLoad(load, () => markCpu(subject));
  const rowsStored = (await countReadings(subject.client)) - rowsBefore;
  const marks: (number | null)[] = [];
  const ceiling = await measureCeiling(
    subject.databaseUrl,
    scenario.ceiling,
    durations.ceilingS,
    async () => {
      marks.push((await markCpu(subject)).database);
    },
  );
  return {
    scenario,
    generator,
    programCpuUs: perUnit(before.program, after.program, generator.acknowledged),
    databaseCpuUs: perUnit(before.database, after.database, generator.acknowledged),
    ceiling,
    ceilingCpuUs: perUnit(marks[0] ?? null, marks[1] ?? null, ceiling.rows),
    rowsStored,
    rowsPromised: generator.acknowledgedTotal * scenario.rowsPerMessage,
  };
}

/**
 * The process id of the database server, found from inside: the parent of our own backend. Null when
 * that process is not on this machine, or there is no /proc.
 */
export async function findServerPid(client: pg.Client): Promise<number | null> {
  const { rows } = await client.query<{ pid: number; host: string | null }>(
    'SELECT pg_backend_pid() AS pid, host(inet_server_addr()) AS host',
  );
  const backend = rows[0];
  const isLocal =
    backend?.host === null || backend?.host === '127.0.0.1' || backend?.host === '::1';
  return backend === undefined || !isLocal ? null : findParent(backend.pid);
}

async function countReadings(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ count: string }>('SELECT count(*) AS count FROM reading');
  return Number(rows[0]?.count);
}

async function markCpu(subject: Subject): Promise<CpuMark> {
  const [program, database] = await Promise.all([
    processorTime(subject.programPid),
    subject.databasePid === null ? null : processorTimeOfTree(subject.databasePid),
  ]);
  return { program, database };
}

function perUnit(before: number | null, after: number | null, units: number): number | null {
  return before === null || after === null || units === 0 ? null : (after - before) / units;
}
