import { describe, expect, it } from 'vitest';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { BacktestBusyError } from '../../rule-errors.ts';
import { Backtests } from '../../rules/backtest/backtests.ts';
import type { RuleStore } from '../../rules/rule-store.ts';

const unasked = (): never => {
  throw new Error('nothing is to be asked');
};

describe('a backtest', () => {
  it('that finds no room is refused before its answer begins, so that its status is 503', async () => {
    const rules: Pick<RuleStore, 'get' | 'check' | 'version'> = {
      get: unasked,
      check: unasked,
      version: unasked,
    };
    const database = {} as TenantDatabase;
    const full = new Backtests({ database, rules, windowSamplesMax: 16, runsMax: 0, daysMax: 1 });
    const ask = { draft: {}, publicId: null, version: null, fromMicros: 0, toMicros: 1 };
    const prepared = full.prepare({ organizationId: 1, ...ask });
    await expect(prepared).rejects.toBeInstanceOf(BacktestBusyError);
  });
});
