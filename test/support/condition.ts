import { compileRule } from '../../rules/compile.ts';
import type {
  CompiledRule,
  ConnectionState,
  EvaluationContext,
  FleetValues,
  Operand,
  Series,
  Silence,
} from '../../rules/compiled-rule.ts';
import { conditionSchema } from '../../rules/condition/condition-schema.ts';
import type { RuleDefinition } from '../../rules/rule.ts';
import type { Level, Severity } from '../../rules/severity.ts';

/** What a sample has: metrics by name. */
export type Values = Readonly<Record<string, number | boolean | string>>;

interface Watch {
  readonly levels?: readonly { readonly severity: Severity; readonly when: unknown }[];
  readonly windowSamplesMax?: number;
  readonly fleet?: FleetValues;
}

/** A rule with the least that it must have; its condition as JSON. */
export function definitionOf(when: unknown, levels: Watch['levels'] = []): RuleDefinition {
  return {
    name: 'watched',
    description: '',
    mode: 'enabled',
    scope: {},
    severity: 'low',
    when: conditionSchema.parse(when),
    levels: levels.map((level) => ({ ...level, when: conditionSchema.parse(level.when) })),
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

/** A condition that is evaluated for one device, as the evaluator does it. Times in seconds. */
export class WatchedCondition {
  readonly rule: CompiledRule;
  readonly counters = { celFailures: 0 };
  readonly context: EvaluationContext;

  constructor(when: unknown, { levels = [], windowSamplesMax = 4096, fleet }: Watch = {}) {
    this.rule = compileRule(
      {
        ruleId: 1,
        publicId: '',
        organizationId: 1,
        version: 1,
        mode: 'enabled',
        definition: definitionOf(when, levels),
      },
      { windowSamplesMax, counters: this.counters },
    );
    this.context = {
      timeMicros: -Infinity,
      series: this.rule.metrics.map((metric): Series => ({
        metric,
        timeMicros: -Infinity,
        value: NaN,
        text: null,
      })),
      memory: this.rule.createMemory(),
      event: null,
      connection: 'online',
      silence: null,
      fleet: fleet ?? { value: () => NaN },
    };
  }

  /** One sample; metrics that the rule does not look at are left out. */
  sample(seconds: number, values: Values): Level {
    for (const series of this.context.series) {
      const value = values[series.metric];
      if (value === undefined) continue;
      series.timeMicros = seconds * 1_000_000;
      series.value = typeof value === 'string' ? NaN : Number(value);
      series.text = typeof value === 'string' ? value : null;
    }
    return this.tick(seconds);
  }

  /** The levels after each value of one metric, a second apart, from second 1 on. */
  run(metric: string, values: readonly (number | boolean | string)[]): Level[] {
    return values.map((value, index) => this.sample(index + 1, { [metric]: value }));
  }

  /** An evaluation without a reading. */
  tick(seconds: number): Level {
    this.context.timeMicros = seconds * 1_000_000;
    return this.rule.evaluate(this.context);
  }

  event(seconds: number, name: string): Level {
    this.context.event = { name, content: null };
    const level = this.tick(seconds);
    this.context.event = null;
    return level;
  }

  set(state: { readonly connection?: ConnectionState; readonly silence?: Silence | null }): this {
    Object.assign(this.context, state);
    return this;
  }

  operands(): Operand[] {
    return this.rule.operands(this.context);
  }

  /** `name value against holds`, one text each. */
  words(): string[] {
    return this.operands().map(({ name, value, against, holds }) =>
      [name, String(value), against ?? '-', holds ? 'holds' : 'does not hold'].join(' | '),
    );
  }
}
