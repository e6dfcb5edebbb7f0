import { setTimeout as delay } from 'node:timers/promises';
import { AppError, reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { AlertPhase } from '../alert/alert.ts';
import type { Transition } from '../alert/transition.ts';
import type { CompiledRule } from '../compiled-rule.ts';
import type { ActionMetrics } from './action-metrics.ts';
import type { ActionRuns, ActionStep, ActionTarget } from './action-runs.ts';
import { findBlock, type ActionLimits } from './interlock.ts';
import type { RuleAction } from './rule-action.ts';

/** A command that a rule asks for. */
export interface ActionCommand {
  readonly organizationId: number;
  /** Slug. */
  readonly device: string;
  readonly name: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly ttlMs: number;
  readonly replaceKey: string | null;
  readonly ifReported: Readonly<Record<string, unknown>> | null;
  /** Asking twice with the same key gives one command. */
  readonly idempotencyKey: string;
  /** `rule/{id}`; stands in the audit trail. */
  readonly actor: string;
}

/** What the runner works with. */
export interface ActionRunnerDeps {
  readonly runs: ActionRuns;
  /** Puts a command into the queue of its device. @throws {AppError} */
  readonly send: (command: ActionCommand) => Promise<{ readonly commandId: string }>;
  /** The rules that are evaluated now. */
  readonly rules: () => readonly CompiledRule[];
  readonly limits: ActionLimits & {
    /** Commands that were sent at most so long before a step may have led to it. */
    readonly loopMs: number;
    /** Steps that may wait in memory. */
    readonly waitingMax: number;
  };
  readonly createMetrics: (waiting: () => number) => ActionMetrics;
  readonly now: () => number;
  readonly log: Logger;
}

const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 5000;
/** How often steps are looked for that memory does not know of: those of a crash, or beyond the bound. */
const LOOK_MS = 30_000;
const MISSED_MAX = 1000;

/**
 * Takes the actions of rules behind the recording of their alerts' steps: one command for each action and
 * step, also over a crash, or a row that says why there is none. In the order of the steps, one at a time.
 */
export class ActionRunner {
  readonly #deps: ActionRunnerDeps;
  readonly #metrics: ActionMetrics;
  #waiting: ActionStep[] = [];
  #isRunning = false;
  #end = new AbortController();
  #looks: NodeJS.Timeout | undefined;
  #idle: Promise<void> = Promise.resolve();

  constructor(deps: ActionRunnerDeps) {
    this.#deps = deps;
    this.#metrics = deps.createMetrics(() => this.#waiting.length);
  }

  /** Begins with what a run before this one has left. */
  start(): void {
    this.#look();
    this.#looks = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Ends; what waits is found again by the next start. */
  async stop(): Promise<void> {
    clearInterval(this.#looks);
    this.#end.abort();
    await this.#idle;
  }

  /** Steps of alerts were recorded. Never throws. */
  noteRecorded(transitions: readonly Transition[]): void {
    for (const transition of transitions) {
      const step = stepOf(transition);
      if (step === null || this.#actionsOf(step).length === 0) continue;
      if (this.#waiting.length >= this.#deps.limits.waitingMax) return;
      this.#waiting.push(step);
    }
    this.#wake();
  }

  #look(): void {
    const { runs, limits, now, log } = this.#deps;
    if (this.#waiting.length > 0) return;
    runs.missed(now() - limits.ageMaxMs, MISSED_MAX).then(
      (missed) => {
        // What came meanwhile may be among them: each action is taken once for a step all the same.
        this.#waiting.push(...missed.filter((step) => this.#actionsOf(step).length > 0));
        this.#wake();
      },
      (err: unknown) => log.debug({ err: reasonOf(err) }, 'missed actions not looked for'),
    );
  }

  #wake(): void {
    if (this.#isRunning || this.#waiting.length === 0 || this.#end.signal.aborted) return;
    this.#isRunning = true;
    this.#idle = this.#run().finally(() => {
      this.#isRunning = false;
    });
  }

  async #run(): Promise<void> {
    for (let step = this.#waiting[0]; step !== undefined; step = this.#waiting[0]) {
      const isDone = await this.#actUntilDone(step);
      if (!isDone) return;
      this.#waiting.shift();
    }
  }

  /** @returns false at the end of the program. */
  async #actUntilDone(step: ActionStep): Promise<boolean> {
    const { log } = this.#deps;
    for (let attempt = 0; !this.#end.signal.aborted; attempt += 1) {
      try {
        await this.#act(step);
        return true;
      } catch (err) {
        if (!isRetryable(err)) {
          log.error({ err, alertId: step.alertId }, 'actions of a rule failed, left out');
          this.#metrics.ran('lost');
          return true;
        }
        const longestMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempt);
        const { signal } = this.#end;
        await delay(longestMs * (0.5 + Math.random() / 2), null, { signal }).catch(() => undefined);
      }
    }
    return false;
  }

  async #act(step: ActionStep): Promise<void> {
    for (const { action, index, rule } of this.#actionsOf(step)) {
      await this.#take(step, { action, index, rule });
    }
  }

  async #take(step: ActionStep, { action, index, rule }: Taken): Promise<void> {
    const { runs, limits, now } = this.#deps;
    const nowMs = now();
    const asked = { index, device: action.device };
    const target = await runs.target(step, asked, { nowMs, loopMs: limits.loopMs });
    if (target === null) {
      // There is no device to write of.
      this.#metrics.ran('refused');
      return;
    }
    if (target.isTaken) return;
    const { outcome, detail, commandId } = await this.#decide(
      step,
      { action, index, rule },
      target,
    );
    const { alertId, sequence, organizationId, ruleId } = step;
    await runs.record({
      ...{ alertId, action: index, sequence, organizationId, ruleId },
      deviceId: target.deviceId,
      occurredAt: new Date(nowMs),
      outcome,
      detail,
      commandId,
      depth: target.facts.depth,
    });
  }

  async #decide(step: ActionStep, taken: Taken, target: ActionTarget): Promise<Decision> {
    const { limits, now, log } = this.#deps;
    const { action, rule } = taken;
    const words = `${action.command} ${JSON.stringify(action.args)}`;
    const facts = { ...target.facts, nowMs: now(), stepMs: step.atMs };
    const found = findBlock(action, facts, limits);
    if (found !== null) {
      this.#metrics.ran(found.block);
      if (found.block === 'loop') {
        log.warn(
          { ruleId: rule.publicId, deviceId: target.deviceId },
          'action of a rule would loop',
        );
      }
      return { outcome: 'blocked', detail: `${found.block}: ${found.reason}`, commandId: null };
    }
    if (action.simulate) {
      this.#metrics.ran('simulated');
      return { outcome: 'simulated', detail: `would have sent ${words}`, commandId: null };
    }
    try {
      const { commandId } = await this.#deps.send(commandOf(step, taken, target));
      this.#metrics.ran('sent');
      return { outcome: 'sent', detail: `sent ${words}`, commandId };
    } catch (err) {
      if (!(err instanceof AppError) || isRetryable(err)) throw err;
      this.#metrics.ran('refused');
      return { outcome: 'blocked', detail: `${err.code}: ${err.message}`, commandId: null };
    }
  }

  /** Of the rule as it is evaluated now; one that is no longer does nothing more. */
  #actionsOf({ ruleId, on }: ActionStep): Taken[] {
    const rule = this.#deps.rules().find((one) => one.ruleId === ruleId);
    if (rule === undefined || rule.mode === 'shadow') return [];
    return rule.definition.actions.flatMap((action, index) =>
      action.on === on ? [{ action, index, rule }] : [],
    );
  }
}

interface Taken {
  readonly action: RuleAction;
  /** Place in the rule. */
  readonly index: number;
  readonly rule: CompiledRule;
}

interface Decision {
  readonly outcome: 'sent' | 'simulated' | 'blocked';
  readonly detail: string;
  readonly commandId: string | null;
}

function stepOf(transition: Transition): ActionStep | null {
  const { from, to, isShadow, isHistorical, atMicros } = transition;
  const on = from !== 'firing' && to === 'firing' ? 'firing' : endOf(from, to);
  if (isShadow || isHistorical || on === null) return null;
  const { alertId, sequence, organizationId, ruleId, ruleVersion, deviceId } = transition;
  const place = { alertId, sequence, organizationId, ruleId, ruleVersion, deviceId };
  return { ...place, on, atMs: atMicros / 1000 };
}

function endOf(from: AlertPhase, to: AlertPhase): 'resolved' | null {
  return from === 'firing' && to === 'inactive' ? 'resolved' : null;
}

function commandOf(step: ActionStep, { action, index, rule }: Taken, target: ActionTarget) {
  return {
    organizationId: step.organizationId,
    device: target.device,
    name: action.command,
    args: action.args,
    ttlMs: action.ttlMicros / 1000,
    replaceKey: action.replace,
    ifReported: action.ifReported,
    idempotencyKey: `action:${step.alertId}:${step.sequence}:${index}`,
    actor: `rule/${rule.publicId}`,
  } satisfies ActionCommand;
}

/** A full backlog is no reason to wait: the next step has a command of its own. */
function isRetryable(err: unknown): boolean {
  return err instanceof AppError && err.retryable && err.status === 503;
}
