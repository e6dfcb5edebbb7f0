import { compileRule } from '../rules/compile.ts';
import type { EvaluationContext, Series } from '../rules/compiled-rule.ts';
import { conditionSchema } from '../rules/condition/condition-schema.ts';
import type { RuleDefinition } from '../rules/rule.ts';

/**
 * What one evaluation of a condition costs, by operator: `npx tsx bench/rules-conditions.ts`. A sample each
 * 100 ms, a thousand different values.
 */
const EVALUATIONS = 1_000_000;
const STEP_MICROS = 100_000;

const CONDITIONS: Readonly<Record<string, unknown>> = {
  threshold: { metric: 'temp', op: '>', value: 80 },
  hysteresis: { metric: 'temp', op: '>', value: 80, clear: 75 },
  '3 of 5 samples': { metric: 'temp', op: '>', value: 80, of: { n: 3, m: 5 } },
  'avg over 5m': { metric: 'temp', window: '5m', fn: 'avg', op: '>', value: 80 },
  'stddev over 5m': { metric: 'temp', window: '5m', fn: 'stddev', op: '>', value: 80 },
  'p95 over 5m': { metric: 'temp', window: '5m', fn: 'p95', op: '>', value: 80 },
  'count over 5m': { metric: 'temp', window: '5m', fn: 'count', op: '>', value: 80 },
  'stuck 10m': { metric: 'temp', stuck: '10m', within: 0.5 },
  'an hour ago': { metric: 'temp', op: '>', other: 'temp', ago: '1h', plus: 5 },
  schedule: {
    schedule: { timeZone: 'Europe/Berlin', days: ['mon', 'fri'], from: '22:00', to: '06:00' },
  },
  'two of three, not': {
    all: [
      {
        any: [
          { metric: 'temp', op: '>', value: 80 },
          { metric: 'rh', op: '<', value: 20 },
        ],
      },
      { not: { metric: 'door', op: '==', value: true } },
    ],
  },
  cel: { cel: 'temp > 80 && rh < 40' },
  'cel, long': { cel: 'temp * 1.8 + 32 > 176 && (rh < 40 || abs(temp - rh) > 30) && !door' },
};

for (const [name, json] of Object.entries(CONDITIONS)) {
  const run = prepare(conditionSchema.parse(json));
  run(EVALUATIONS / 5);
  const startedAt = performance.now();
  run(EVALUATIONS);
  const nanos = ((performance.now() - startedAt) * 1e6) / EVALUATIONS;
  report(name, nanos);
}

/** @returns what evaluates so many samples. */
function prepare(when: RuleDefinition['when']): (evaluations: number) => void {
  const rule = compileRule(
    {
      ruleId: 1,
      publicId: '',
      organizationId: 1,
      version: 1,
      mode: 'enabled',
      definition: of(when),
    },
    { windowSamplesMax: 4096 },
  );
  const series = rule.metrics.map((metric): Series => ({
    metric,
    timeMicros: -Infinity,
    value: NaN,
    text: null,
  }));
  const context: EvaluationContext = {
    timeMicros: 1.8e15,
    series,
    memory: rule.createMemory(),
    event: null,
    connection: 'online',
    silence: null,
    fleet: { value: () => NaN },
  };
  return (evaluations) => {
    for (let n = 0; n < evaluations; n += 1) {
      context.timeMicros += STEP_MICROS;
      for (const one of series) {
        one.timeMicros = context.timeMicros;
        one.value = ((n * 7919) % 1000) / 10;
      }
      rule.evaluate(context);
    }
  };
}

function of(when: RuleDefinition['when']): RuleDefinition {
  return {
    name: 'bench',
    description: '',
    mode: 'enabled',
    scope: {},
    severity: 'high',
    when,
    levels: [],
    forMicros: 0,
    keepFiringForMicros: 0,
    late: 'current-only',
    allowedLatenessMicros: 0,
    groupBy: null,
    labels: {},
    annotations: {},
    suppressedBy: [],
    noiseBudgetPerDay: null,
    actions: [],
  };
}

function report(name: string, nanos: number): void {
  const figures = [
    name.padEnd(20),
    `${nanos.toFixed(0).padStart(6)} ns`,
    `${(1e9 / nanos / 1e6).toFixed(2).padStart(8)} M/s`,
  ];
  process.stdout.write(`${figures.join('  ')}\n`);
}
