import { Counter, Gauge, type Registry } from 'prom-client';
import type { ActionBlock } from './interlock.ts';

/** What became of an action; a closed set. */
export type ActionOutcome = 'sent' | 'simulated' | 'refused' | 'lost' | ActionBlock;

/** Counts what actions of rules do. */
export class ActionMetrics {
  readonly #runs: Counter<'outcome'>;

  /** @param waiting steps that wait to be acted upon. */
  constructor(registry: Registry, waiting: () => number, waitingMax: number) {
    this.#runs = new Counter({
      name: 'puback_rule_actions_runs_total',
      help: 'Actions of rules by what became of them',
      labelNames: ['outcome'],
      registers: [registry],
    });
    new Gauge({
      name: 'puback_rule_actions_waiting_steps',
      help: 'Steps of alerts that wait for the actions of their rules',
      registers: [registry],
      collect() {
        this.set(waiting());
      },
    });
    new Gauge({
      name: 'puback_rule_actions_waiting_steps_max',
      help: 'Steps that may wait; further ones are found again by a look at the database',
      registers: [registry],
    }).set(waitingMax);
  }

  /** An action was taken, or not. */
  ran(outcome: ActionOutcome): void {
    this.#runs.inc({ outcome });
  }
}
