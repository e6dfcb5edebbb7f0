import { Counter, type Registry } from 'prom-client';
import { scrapedCounters, scrapedGauges } from '../../scraped-metrics.ts';

/** What of rules is counted by who evaluates, as plain numbers: the hot path adds to them. */
export class RuleCounters {
  /** Samples and events that were given to rules. */
  samples = 0;
  readonly leftOut: Record<LeftOutReason, number> = { late: 0, history: 0, held: 0 };
  /** Steps of alerts that evaluation has made. */
  transitions = 0;
  readonly suspended: Record<SuspendReason, number> = { cost: 0, flood: 0, fault: 0 };
  loadFailures = 0;
  faults = 0;
  /** Evaluations of CEL expressions that ended in an error; see `ConditionCounters`. */
  celFailures = 0;
}

/**
 * Why readings were not given to rules. `late`: later ones had come. `history`: somebody imported them.
 * `held`: more waited than may.
 */
export const LEFT_OUT_REASONS = ['late', 'history', 'held'] as const;
/** One of {@link LEFT_OUT_REASONS}. */
export type LeftOutReason = (typeof LEFT_OUT_REASONS)[number];

/** Why a rule was suspended: it costs too much, changes too often, or has thrown. */
export const SUSPEND_REASONS = ['cost', 'flood', 'fault'] as const;
/** One of {@link SUSPEND_REASONS}. */
export type SuspendReason = (typeof SUSPEND_REASONS)[number];

/** What evaluation holds at this moment. */
export interface RuleGauges {
  readonly rules: number;
  readonly devices: number;
  readonly heldReadings: number;
  readonly heldReadingsMax: number;
  readonly evaluations: number;
  /** Seconds that the slowest rule takes for an evaluation, in the mean. */
  readonly slowestSeconds: number;
  readonly isPaused: boolean;
}

/** Makes the metrics of evaluation. `gauges` is asked at each scrape. */
export function registerRuleMetrics(
  registry: Registry,
  counters: RuleCounters,
  gauges: () => RuleGauges,
): void {
  registerCounters(registry, counters, gauges);
  const scraped = scrapedGauges(registry);
  const gauge = (name: string, help: string, read: (now: RuleGauges) => number): void =>
    scraped(name, help, () => read(gauges()));
  gauge('puback_rules_active_rules', 'Alert rules that are evaluated.', ({ rules }) => rules);
  gauge('puback_rules_devices', 'Devices whose rules are in memory.', ({ devices }) => devices);
  gauge(
    'puback_rules_held_readings',
    'Readings, events and changes that wait for their device to be loaded or for steps of alerts to be written.',
    ({ heldReadings }) => heldReadings,
  );
  gauge(
    'puback_rules_held_readings_max',
    'Bound of puback_rules_held_readings.',
    ({ heldReadingsMax }) => heldReadingsMax,
  );
  gauge(
    'puback_rules_slowest_evaluation_seconds',
    'Mean time of one evaluation of the rule that takes longest.',
    ({ slowestSeconds }) => slowestSeconds,
  );
  gauge(
    'puback_rules_paused',
    '1 while evaluation waits for steps of alerts to be written.',
    ({ isPaused }) => Number(isPaused),
  );
}

function registerCounters(
  registry: Registry,
  counters: RuleCounters,
  gauges: () => RuleGauges,
): void {
  const registers = [registry];
  const counter = scrapedCounters(registry);
  counter(
    'puback_rules_evaluations_total',
    'Evaluations of a rule for a device.',
    () => gauges().evaluations,
  );
  counter(
    'puback_rules_samples_total',
    'Samples and events that were given to rules.',
    () => counters.samples,
  );
  counter(
    'puback_rules_steps_total',
    'Steps of alerts that evaluation has made.',
    () => counters.transitions,
  );
  counter(
    'puback_rules_load_failures_total',
    'Attempts to load devices that failed and are repeated.',
    () => counters.loadFailures,
  );
  counter(
    'puback_rules_faults_total',
    'Faults of rules that were caught; each is in the log.',
    () => counters.faults,
  );
  counter(
    'puback_rules_cel_failures_total',
    'Evaluations of CEL expressions that ended in an error and count as not holding.',
    () => counters.celFailures,
  );
  new Counter({
    name: 'puback_rules_readings_left_out_total',
    help: 'Readings that were stored and not given to rules.',
    labelNames: ['reason'],
    registers,
    collect() {
      this.reset();
      for (const reason of LEFT_OUT_REASONS) this.inc({ reason }, counters.leftOut[reason]);
    },
  });
  new Counter({
    name: 'puback_rules_suspended_total',
    help: 'Rules that were suspended.',
    labelNames: ['reason'],
    registers,
    collect() {
      this.reset();
      for (const reason of SUSPEND_REASONS) this.inc({ reason }, counters.suspended[reason]);
    },
  });
}
