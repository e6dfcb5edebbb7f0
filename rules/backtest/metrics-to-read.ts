import type { CompiledRule } from '../compiled-rule.ts';

/** Metrics whose history some rules need; null: all, because one of them looks for silence. */
export function metricsToRead(rules: readonly CompiledRule[]): readonly string[] | null {
  if (rules.some(({ noData }) => noData !== null)) return null;
  return [...new Set(rules.flatMap(metricsOf))];
}

/** Its metrics, and the one that its alerts are grouped by. */
function metricsOf({ metrics, events, definition }: CompiledRule): readonly string[] {
  const { groupBy } = definition;
  return groupBy === null || events.length > 0 ? metrics : [...metrics, groupBy];
}
