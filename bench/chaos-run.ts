import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import {
  AcknowledgementCheck,
  readAcknowledgements,
  type CheckResult,
} from './acknowledgement-check.ts';
import { compareAggregates, type AggregateResult } from './aggregate-check.ts';
import { withDatabase } from './database-client.ts';
import type { Fault, Heal } from './faults/fault.ts';
import { startGenerator, type GeneratorProcess } from './generator-process.ts';
import type { GeneratorResult } from './generator.ts';
import { LedgerWatch, readGauge, readMetrics, type LedgerResult } from './ledger-watch.ts';
import type { PoisonResult } from './poison-device.ts';
import { createRandom, type Random } from './random.ts';
import type { ScratchFolder } from './scratch-folder.ts';
import { SilenceFinder, type FaultRecord, type Strike } from './silence-finder.ts';
import { openStage, type Stage } from './stage.ts';

/** A run of faults under load. */
export interface ChaosPlan {
  folder: ScratchFolder;
  /** `embedded`: the program's own; faults that need a server are refused. */
  database: 'server' | 'embedded';
  faults: readonly [Fault, ...Fault[]];
  /** Ends after so many faults, or after this time, or when the signal aborts. */
  faultsMax: number;
  durationS: number;
  interrupted?: AbortSignal;
  /** The same seed gives the same faults at the same distances. Each fault strikes once before any does again. */
  seed: number;
  connections: number;
  window: number;
  ratePerS: number;
  /** Longest time from one recovery to the next fault, ms. */
  pauseMsMax: number;
  /** Settings of the program. */
  environment?: Readonly<Record<string, string>>;
  /** Called for each fault, once it struck, with the messages acknowledged so far. */
  onFault?: (fault: string, acknowledged: number) => void;
}

/** What a run found. Nothing may be lost, twice or altered in `check`. */
export interface ChaosReport {
  faults: FaultRecord[];
  /** Faults that cannot strike on this machine, and why. */
  skipped: { fault: string; reason: string }[];
  check: CheckResult;
  /** Null without a server of this run. */
  poison: PoisonResult | null;
  ledger: LedgerResult;
  aggregates: AggregateResult;
  generator: GeneratorResult;
  /** Messages of unruly devices that were not acknowledged at the end. */
  unrulyUnacknowledged: number;
  /** Messages that waited in the spool after the longest wait: must be 0. */
  spoolLeft: number;
  /** How often the program ended by itself, as it must not when only its database dies. */
  ownExits: number;
}

const RECOVERY_MS_MAX = 60_000;
/** More than the generator's news take, so that two looks at its count differ only by new PUBACKs. */
const LOOK_EVERY_MS = 600;
/** One fault in five strikes while the one before may still be felt. */
const STRIKES_EARLY = 0.2;
/** One fault in four strikes in the middle of another one that lasts. */
const STRIKES_WITHIN = 0.25;
const DRAIN_MS = 30_000;
const SPOOL_DRAIN_MS_MAX = 300_000;

/**
 * Runs the program under numbered load, strikes it at random moments, starts it again as an init system
 * would, and at the end compares every PUBACK that arrived with the rows. Whatever ends the run, every
 * fault is healed and everything that was started is stopped.
 * @throws {ToolFailedError} when the program cannot be started (again), with the end of its log, or does
 * not acknowledge anything for a minute after a fault was healed.
 */
export async function runChaos(plan: ChaosPlan): Promise<ChaosReport> {
  const { faults, skipped } = await withoutObstacles(plan);
  const stops: (() => Promise<void> | void)[] = [];
  try {
    return { ...(await playOn(plan, faults, (stop) => void stops.unshift(stop))), skipped };
  } finally {
    await runAll(stops);
  }
}

async function withoutObstacles(
  plan: ChaosPlan,
): Promise<{ faults: [Fault, ...Fault[]]; skipped: ChaosReport['skipped'] }> {
  const skipped: ChaosReport['skipped'] = [];
  const possible: Fault[] = [];
  for (const fault of plan.faults) {
    const lacks = fault.needsServer && plan.database === 'embedded';
    const reason = lacks ? 'it needs --database server' : ((await fault.obstacle?.()) ?? null);
    if (reason === null) possible.push(fault);
    else skipped.push({ fault: fault.name, reason });
  }
  const [first, ...rest] = possible;
  if (first !== undefined) return { faults: [first, ...rest], skipped };
  throw new ToolFailedError(skipped.map(({ fault, reason }) => `${fault}: ${reason}`).join('\n'));
}

async function playOn(
  plan: ChaosPlan,
  faults: [Fault, ...Fault[]],
  onStop: (stop: () => Promise<void> | void) => void,
): Promise<Omit<ChaosReport, 'skipped'>> {
  const has = (name: string): boolean => faults.some((fault) => fault.name.startsWith(name));
  const check = new AcknowledgementCheck();
  const stage = await openStage(
    {
      folder: plan.folder,
      hasServer: plan.database === 'server',
      hasStepClock: has('clock-'),
      hasSpoolDisk: has('fill-spool-disk'),
      boards: plan.connections,
      seed: plan.seed,
      check,
      ...(plan.environment === undefined ? {} : { environment: plan.environment }),
    },
    onStop,
  );
  const ackLog = join(plan.folder.path, 'acknowledged.log');
  const generator = await startLoad(plan, stage, ackLog);
  onStop(() => generator.kill());
  const watch = new LedgerWatch(stage.httpUrl);
  onStop(() => watch.stop());
  stage.unruly.start();
  watch.start();
  const strikes = await new Striker(plan, faults, stage, generator).run();
  generator.stop();
  const unrulyUnacknowledged = await stage.unruly.drain(DRAIN_MS);
  const result = await generator.result;
  await stage.program.program;
  const spoolLeft = await waitForSpool(stage.httpUrl);
  watch.stop();
  return {
    ...(await judge(ackLog, strikes, stage, check)),
    ledger: watch.result,
    generator: result,
    unrulyUnacknowledged,
    spoolLeft,
    ownExits: stage.program.ownExits,
  };
}

async function startLoad(plan: ChaosPlan, stage: Stage, ackLog: string): Promise<GeneratorProcess> {
  const keysFile = join(plan.folder.path, 'keys.json');
  await writeFile(keysFile, JSON.stringify(stage.boards), { mode: 0o600 });
  return startGenerator([
    ...['--mqtt-url', stage.mqttUrl, '--keys', keysFile, '--payload', 'numbered', '--reconnect'],
    ...['--connections', String(plan.connections), '--window', String(plan.window)],
    ...['--rate', String(plan.ratePerS), '--ack-log', ackLog, '--warmup', '0.1'],
    // Longer than any run: it ends when it is told to.
    ...['--seconds', '24h'],
  ]);
}

/** Strikes until the plan is done, and heals every fault whatever happens. */
class Striker {
  readonly #plan: ChaosPlan;
  readonly #faults: readonly [Fault, ...Fault[]];
  readonly #stage: Stage;
  readonly #generator: GeneratorProcess;
  readonly #random: Random;
  readonly #strikes: Strike[] = [];
  /** Faults that have not struck yet, in the order in which they will. */
  readonly #due: Fault[];
  readonly #heals: Heal[] = [];

  constructor(
    plan: ChaosPlan,
    faults: readonly [Fault, ...Fault[]],
    stage: Stage,
    generator: GeneratorProcess,
  ) {
    this.#plan = plan;
    this.#faults = faults;
    this.#stage = stage;
    this.#generator = generator;
    this.#random = createRandom(plan.seed);
    this.#due = shuffled(faults, this.#random);
  }

  async run(): Promise<Strike[]> {
    const endMs = performance.now() + this.#plan.durationS * 1000;
    await this.#waitForAcknowledgements();
    while (this.#strikes.length < this.#plan.faultsMax && performance.now() < endMs) {
      await this.#wait(this.#random.between(0, this.#plan.pauseMsMax));
      if (this.#isInterrupted) break;
      const struck = await this.#strikeOnce();
      if (struck || this.#random.between(0, 1) >= STRIKES_EARLY)
        await this.#waitForAcknowledgements();
      await this.#stage.program.program;
    }
    await this.#waitForAcknowledgements();
    return this.#strikes;
  }

  get #isInterrupted(): boolean {
    return this.#plan.interrupted?.aborted === true;
  }

  /** One fault, or one within another. @returns whether something was away until now. */
  async #strikeOnce(): Promise<boolean> {
    const fault = this.#next();
    const struck = [];
    try {
      struck.push(await this.#apply(fault));
      if (fault.durationMs > 0) {
        const within = this.#random.between(0, 1) < STRIKES_WITHIN ? this.#nextWithin(fault) : null;
        const part = within === null ? 1 : this.#random.between(0.2, 0.8);
        await this.#wait(fault.durationMs * part);
        if (within !== null && this.#strikes.length < this.#plan.faultsMax) {
          struck.push(await this.#apply(within));
        }
        await this.#wait(fault.durationMs * (1 - part));
      }
    } finally {
      await runAll(this.#heals.splice(0).reverse());
      for (const strike of struck) strike.healedAtMs = Date.now();
    }
    return fault.durationMs > 0;
  }

  async #apply(fault: Fault): Promise<Strike> {
    const { acknowledged } = this.#generator;
    const strike = { fault: fault.name, atMs: Date.now(), healedAtMs: Number.POSITIVE_INFINITY };
    this.#strikes.push(strike);
    this.#heals.push(await fault.apply({ ...this.#stage, random: this.#random }));
    this.#plan.onFault?.(fault.name, acknowledged);
    return strike;
  }

  #next(): Fault {
    return this.#due.shift() ?? this.#random.pick(this.#faults);
  }

  /** Null when there is none that may strike now. */
  #nextWithin(outer: Fault): Fault | null {
    if (outer.standsAlone === true) return null;
    const [first, ...rest] = this.#faults.filter(
      ({ name, standsAlone }) => name !== outer.name && standsAlone !== true,
    );
    return first === undefined ? null : this.#random.pick([first, ...rest]);
  }

  async #wait(ms: number): Promise<void> {
    const { interrupted } = this.#plan;
    await delay(ms, undefined, interrupted === undefined ? {} : { signal: interrupted }).catch(
      ignoreAbort,
    );
  }

  /** @throws {ToolFailedError} when none comes for a minute: the program did not recover by itself. */
  async #waitForAcknowledgements(): Promise<void> {
    const generator = this.#generator;
    const deadline = performance.now() + RECOVERY_MS_MAX;
    // What was under way when the fault struck has arrived, and been told, before the first look.
    await delay(LOOK_EVERY_MS);
    for (;;) {
      const before = generator.acknowledged;
      const ended = await Promise.race([delay(LOOK_EVERY_MS), generator.result]);
      if (ended !== undefined)
        throw new ToolFailedError('the generator ended before it was told to');
      if (generator.acknowledged > before) return;
      if (performance.now() > deadline) {
        throw new ToolFailedError('no PUBACK for a minute: the program did not recover');
      }
    }
  }
}

async function waitForSpool(httpUrl: string): Promise<number> {
  const deadline = performance.now() + SPOOL_DRAIN_MS_MAX;
  for (;;) {
    const metrics = await readMetrics(`${httpUrl}/metrics`);
    const waiting = metrics === null ? 1 : (readGauge(metrics, 'puback_spool_messages') ?? 0);
    if (waiting === 0 || performance.now() > deadline) return waiting;
    await delay(LOOK_EVERY_MS);
  }
}

async function judge(
  ackLog: string,
  strikes: readonly Strike[],
  stage: Stage,
  check: AcknowledgementCheck,
): Promise<Pick<ChaosReport, 'faults' | 'check' | 'poison' | 'aggregates'>> {
  const silences = new SilenceFinder(strikes);
  for await (const acknowledgement of readAcknowledgements(ackLog)) {
    check.add(acknowledgement);
    silences.add(acknowledgement.acknowledgedAtMs);
  }
  return withDatabase(stage.ownerDatabaseUrl, async (client) => ({
    faults: silences.records,
    check: await check.compare(client, stage.devices),
    poison: (await stage.poison?.compare(client)) ?? null,
    aggregates: await compareAggregates(client),
  }));
}

/** All of them, also when one fails. The first failure is thrown at the end. */
async function runAll(tasks: readonly (() => Promise<void> | void)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const task of tasks) {
    try {
      await task();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const left = [...items];
  const order: T[] = [];
  while (left.length > 0) {
    order.push(...left.splice(Math.floor(random.between(0, left.length)), 1));
  }
  return order;
}

function ignoreAbort(error: Error): void {
  if (error.name !== 'AbortError') throw error;
}
