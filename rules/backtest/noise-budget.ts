import { RuleNoisyError } from '../../rule-errors.ts';
import type { RuleDefinition } from '../rule.ts';
import type { Backtests } from './backtests.ts';

const DAY_MICROS = 86_400_000_000;

/**
 * Holds a rule with a noise budget against the last days of history.
 * @param toMicros the end of those days, microseconds since 1970.
 * @throws {RuleNoisyError} when it would have sent more a day than its budget allows.
 * @throws {BacktestBusyError} when it cannot be tried now.
 */
export async function assertWithinBudget(
  backtests: Backtests,
  { organizationId, rule }: { readonly organizationId: number; readonly rule: RuleDefinition },
  { days, toMicros }: { readonly days: number; readonly toMicros: number },
): Promise<void> {
  const budget = rule.noiseBudgetPerDay;
  if (budget === null) return;
  const compiled = backtests.compile(organizationId, rule, {
    ruleId: 0,
    publicId: '',
    version: 0,
  });
  const { tallies } = await backtests.run({
    organizationId,
    rules: [compiled],
    fromMicros: toMicros - days * DAY_MICROS,
    toMicros,
  });
  const perDay = (tallies[0]?.notificationCount ?? 0) / days;
  if (perDay > budget) throw new RuleNoisyError(perDay, budget, days);
}
