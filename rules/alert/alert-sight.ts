import { renderAnnotations } from './annotation.ts';
import type { CompiledRule, EvaluationContext, Operand, Series } from '../compiled-rule.ts';
import type { RuleDevice } from '../evaluation/device-load.ts';
import { severityOf, type Level } from '../severity.ts';

const OPERANDS_MAX = 16;

/** What a rule looked at when a step of its alert was taken. */
export interface Sight {
  /** At most 16. */
  readonly operands: readonly Operand[];
  /** Of the first metric of the rule; null when it has none, or no reading of it. Never NaN. */
  readonly value: number | string | null;
}

/** What the last evaluation of a rule looked at. */
export function sightOf(rule: CompiledRule, context: EvaluationContext): Sight {
  const operands = rule.operands(context);
  if (operands.length > OPERANDS_MAX) operands.length = OPERANDS_MAX;
  return { operands, value: valueOf(context.series[0], rule.metrics[0]) };
}

/** The annotations of a rule, filled in. */
export function annotationsOf(
  { rule, device, context }: AnnotatedRule,
  value: Sight['value'],
  level: Level,
): Readonly<Record<string, string>> {
  const { annotations, labels, name } = rule.definition;
  return renderAnnotations(annotations, {
    device: device.slug,
    rule: name,
    severity: severityOf(level),
    value,
    labels,
    metric: (asked) => valueOf(context.series[rule.metrics.indexOf(asked)], asked),
  });
}

/** A rule, evaluated for a device. */
interface AnnotatedRule {
  readonly rule: CompiledRule;
  readonly device: RuleDevice;
  readonly context: EvaluationContext;
}

/** @param metric undefined: the rule looks at none, and the series is of something else. */
function valueOf(series: Series | undefined, metric: string | undefined): Sight['value'] {
  if (series === undefined || metric === undefined) return null;
  if (series.text !== null) return series.text;
  return Number.isFinite(series.value) ? series.value : null;
}
