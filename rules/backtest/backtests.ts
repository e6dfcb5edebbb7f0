import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { BacktestBusyError, BacktestSpanError } from '../../rule-errors.ts';
import { compileRule } from '../compile.ts';
import type { CompiledRule } from '../compiled-rule.ts';
import { readStored } from '../rule-check.ts';
import type { RuleStore } from '../rule-store.ts';
import type { RuleDefinition } from '../rule.ts';
import { runBacktest, type BacktestOutcome, type BacktestProgress } from './backtest.ts';
import { outcomeOf, type BacktestResult } from './backtest-result.ts';

/** What is to be replayed: a draft, or a rule that is stored. */
export interface BacktestAsk {
  readonly organizationId: number;
  /** As the API takes a rule. Null: the stored one. */
  readonly draft: unknown;
  /** Public id of the stored rule; with a draft the one to compare with. Null: there is none. */
  readonly publicId: string | null;
  /** Null: the version in force. */
  readonly version: number | null;
  readonly fromMicros: number;
  readonly toMicros: number;
}

/** How a run can be watched and ended. */
export interface BacktestWatch {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BacktestProgress) => void) | undefined;
}

/** A backtest that was checked and may be run, once. */
export type PreparedBacktest = (watch: BacktestWatch) => Promise<BacktestResult>;

/** What {@link Backtests} needs. */
export interface BacktestsDeps {
  readonly database: TenantDatabase;
  readonly rules: Pick<RuleStore, 'get' | 'check' | 'version'>;
  /** Of each rule and device; see `compileRule`. */
  readonly windowSamplesMax: number;
  /** Backtests at once; of one organization there is one at most. */
  readonly runsMax: number;
  /** Longest span, in days. */
  readonly daysMax: number;
}

const DAY_MICROS = 86_400_000_000;

/** Runs rules over stored history, for people who want to know what a rule would have done. */
export class Backtests {
  readonly #deps: BacktestsDeps;
  /** Organizations that have one under way. */
  readonly #running = new Set<number>();

  constructor(deps: BacktestsDeps) {
    this.#deps = deps;
  }

  /** How many are under way. */
  get running(): number {
    return this.#running.size;
  }

  /**
   * Checks what is asked for; nothing is replayed before the outcome is called.
   * @throws {RuleInvalidError} @throws {RuleNotFoundError} @throws {RuleVersionNotFoundError}
   * @throws {BacktestSpanError} @throws {BacktestBusyError}, as the run does when it begins.
   */
  async prepare(ask: BacktestAsk): Promise<PreparedBacktest> {
    const { fromMicros, toMicros } = ask;
    const { daysMax } = this.#deps;
    if (toMicros <= fromMicros || toMicros - fromMicros > daysMax * DAY_MICROS) {
      throw new BacktestSpanError(daysMax);
    }
    this.#assertRoom(ask.organizationId);
    const rules = await this.#rulesOf(ask);
    return async (watch) => {
      const startedAt = performance.now();
      const outcome = await this.run({ ...ask, ...watch, rules });
      return outcomeOf(outcome, { ...ask, rules, durationMs: performance.now() - startedAt });
    };
  }

  /** @throws {BacktestBusyError} */
  async run(request: Parameters<typeof runBacktest>[1]): Promise<BacktestOutcome> {
    const { organizationId } = request;
    this.#assertRoom(organizationId);
    this.#running.add(organizationId);
    try {
      return await runBacktest(this.#deps.database, request);
    } finally {
      this.#running.delete(organizationId);
    }
  }

  #assertRoom(organizationId: number): void {
    const isFull = this.#running.size >= this.#deps.runsMax;
    if (isFull || this.#running.has(organizationId)) throw new BacktestBusyError();
  }

  /** A rule as it would be evaluated, under its own key or, of a draft without one, under none. */
  compile(organizationId: number, definition: RuleDefinition, of: RuleIdentity): CompiledRule {
    const { windowSamplesMax } = this.#deps;
    return compileRule(
      { ...of, organizationId, mode: 'enabled', definition },
      { windowSamplesMax },
    );
  }

  /** The one that is asked for, and behind it the version in force when that is another. */
  async #rulesOf(ask: BacktestAsk): Promise<CompiledRule[]> {
    const { organizationId, draft, publicId, version } = ask;
    const { rules } = this.#deps;
    const stored = publicId === null ? null : await rules.get(organizationId, publicId);
    const of = { ruleId: stored?.ruleId ?? 0, publicId: publicId ?? '' };
    const inForce =
      stored === null
        ? null
        : this.compile(organizationId, readStored(stored.definition, 'enabled'), {
            ...of,
            version: stored.version,
          });
    if (draft !== null && draft !== undefined) {
      const { definition } = await rules.check(organizationId, draft);
      const asked = this.compile(organizationId, definition, { ...of, version: 0 });
      return inForce === null ? [asked] : [asked, inForce];
    }
    if (inForce === null) return [];
    if (version === null || version === inForce.version) return [inForce];
    const old = await rules.version(organizationId, of.publicId, version);
    const definition = readStored(old.definition, 'enabled');
    return [this.compile(organizationId, definition, { ...of, version }), inForce];
  }
}

/** Under which key a rule is evaluated. */
export interface RuleIdentity {
  readonly ruleId: number;
  readonly publicId: string;
  readonly version: number;
}
