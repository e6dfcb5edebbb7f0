import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { scrapedGauges } from '../scraped-metrics.ts';
import {
  END_STATES,
  type AckOutcome,
  type Command,
  type CommandOrigin,
  type CommandState,
} from './command.ts';

const ORIGINS: readonly CommandOrigin[] = ['api', 'mqtt', 'rule', 'campaign', 'key', 'update'];
const OUTCOMES: readonly AckOutcome[] = [
  'applied',
  'late',
  'repeated',
  'unknown_id',
  'out_of_order',
];
const REPAIRS = ['published', 'cleared'] as const;

/** What the gauges look at. */
export interface WatchedCommands {
  readonly acksHeld: number;
  readonly acksHeldMax: number;
  readonly stepsUntold: number;
}

/** Metrics of commands. */
export class CommandMetrics {
  readonly #created: Counter<'origin'>;
  readonly #ended: Counter<'origin' | 'state'>;
  readonly #answers: Counter<'outcome'>;
  readonly #repaired: Counter<'repair'>;
  readonly #roundTrip: Histogram;
  readonly #waiting: Gauge;
  readonly #failures: Counter;

  constructor(registry: Registry, watched: () => WatchedCommands) {
    const registers = [registry];
    this.#created = new Counter({
      name: 'puback_commands_created_total',
      help: 'Commands that were asked for.',
      labelNames: ['origin'],
      registers,
    });
    this.#ended = new Counter({
      name: 'puback_commands_ended_total',
      help: 'Commands that ended; one that its device answers late is counted again.',
      labelNames: ['origin', 'state'],
      registers,
    });
    for (const origin of ORIGINS) {
      this.#created.inc({ origin }, 0);
      for (const state of END_STATES) this.#ended.inc({ origin, state }, 0);
    }
    this.#answers = new Counter({
      name: 'puback_commands_answers_total',
      help: 'Answers of devices by what was made of them.',
      labelNames: ['outcome'],
      registers,
    });
    for (const outcome of OUTCOMES) this.#answers.inc({ outcome }, 0);
    this.#repaired = new Counter({
      name: 'puback_commands_slots_repaired_total',
      help: 'Retained slots that did not say what the database says.',
      labelNames: ['repair'],
      registers,
    });
    for (const repair of REPAIRS) this.#repaired.inc({ repair }, 0);
    this.#roundTrip = new Histogram({
      name: 'puback_commands_round_trip_seconds',
      help: 'Time from the COMMIT that puts a command into its slot to the first answer.',
      buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 60, 3600, 86_400],
      registers,
    });
    this.#waiting = new Gauge({
      name: 'puback_commands_waiting_commands',
      help: 'Commands that wait for their devices, when slots were last compared.',
      registers,
    });
    this.#failures = new Counter({
      name: 'puback_commands_store_failures_total',
      help: 'Attempts to take an answer, to end or to compare commands that the database did not let pass.',
      registers,
    });
    const gauge = scrapedGauges(registry);
    gauge(
      'puback_commands_held_answers',
      'Answers of devices that wait for COMMIT.',
      () => watched().acksHeld,
    );
    gauge(
      'puback_commands_held_answers_max',
      'Bound of the answers that wait.',
      () => watched().acksHeldMax,
    );
    gauge(
      'puback_commands_untold_steps',
      'Steps that wait to be published on cmd/…',
      () => watched().stepsUntold,
    );
  }

  created(origin: CommandOrigin): void {
    this.#created.inc({ origin });
  }

  stepped({ origin }: Command, state: CommandState): void {
    if (END_STATES.has(state)) this.#ended.inc({ origin, state });
  }

  answered(outcome: AckOutcome): void {
    this.#answers.inc({ outcome });
  }

  roundTrip(ms: number): void {
    this.#roundTrip.observe(Math.max(ms, 0) / 1000);
  }

  repaired(repair: (typeof REPAIRS)[number]): void {
    this.#repaired.inc({ repair });
  }

  waiting(commands: number): void {
    this.#waiting.set(commands);
  }

  failed(): void {
    this.#failures.inc();
  }
}
