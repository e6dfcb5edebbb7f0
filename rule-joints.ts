import type { Registry as MetricsRegistry } from 'prom-client';
import type { Config } from './config.ts';
import type { Database } from './drizzle/database.ts';
import type { Logger } from './log.ts';
import { writeAudit } from './registry/audit.ts';
import { ActionMetrics } from './rules/action/action-metrics.ts';
import { ActionRunner, type ActionRunnerDeps } from './rules/action/action-runner.ts';
import { ActionRuns } from './rules/action/action-runs.ts';
import { createAlerts, type Alerts, type AlertsDeps } from './rules/alert/alerts.ts';
import { Backtests } from './rules/backtest/backtests.ts';
import { Explanations } from './rules/explain/explanations.ts';
import { notifyLimits } from './rules/notify/limits.ts';
import type { Senders } from './rules/notify/message.ts';
import { Notifier } from './rules/notify/notifier.ts';
import { resealSecrets } from './rules/notify/reseal.ts';
import { readSecretKeys, Secrets } from './rules/notify/secrets.ts';
import { createNotifyStores, type NotifyStores } from './rules/notify/stores.ts';
import { createRuleStore, type RuleStore, type RuleStoreDeps } from './rules/rule-store.ts';
import { createSilences, type Silences, type SilencesDeps } from './rules/notify/silences.ts';

/** What people's changes of rules, alerts and silences do to who evaluates and notifies. */
export interface RuleHooks {
  readonly onRulesChanged?: RuleStoreDeps['onChanged'];
  readonly beforeEnable?: RuleStoreDeps['beforeEnable'];
  readonly resolveByHand?: AlertsDeps['resolveByHand'];
  readonly onSnoozed?: AlertsDeps['onSnoozed'];
  readonly onSilencesChanged?: SilencesDeps['onChanged'];
}

/** What people work with: rules, their alerts, why they are what they are, and silences. */
export interface RuleParts {
  readonly rules: RuleStore;
  readonly alerts: Alerts;
  readonly silences: Silences;
  readonly explanations: Explanations;
  readonly backtests: Backtests;
  /** What actions of rules did. */
  readonly actionRuns: ActionRuns;
}

/** Makes them. @param now milliseconds since 1970. */
export function createRuleParts(
  config: Config,
  { database, log, now }: { database: Database; log: Logger; now: () => number },
  hooks: RuleHooks = {},
): RuleParts {
  const {
    onRulesChanged,
    beforeEnable,
    resolveByHand = null,
    onSnoozed,
    onSilencesChanged,
  } = hooks;
  const rules = createRuleStore({
    database,
    writeAudit,
    rulesMax: config.RULES_MAX,
    log,
    onChanged: onRulesChanged,
    beforeEnable,
  });
  return {
    rules,
    backtests: new Backtests({
      database,
      rules,
      windowSamplesMax: config.RULE_WINDOW_SAMPLES_MAX,
      runsMax: config.RULE_BACKTESTS_MAX,
      daysMax: config.RULE_BACKTEST_D_MAX,
    }),
    explanations: new Explanations(database),
    actionRuns: new ActionRuns(database),
    alerts: createAlerts({ database, writeAudit, resolveByHand, onSnoozed }),
    silences: createSilences({
      database,
      writeAudit,
      silencesMax: config.SILENCES_MAX,
      now,
      onChanged: onSilencesChanged,
    }),
  };
}

/** Who tells people of alerts, and what people do with that. */
export interface NotifyParts {
  /** To be started when everything else is up, and woken when steps of alerts are written. */
  readonly notifier: Notifier;
  readonly notify: NotifyStores;
}

/**
 * Makes them, with the keys of secrets, and encrypts secrets anew that are under an older key.
 * @throws {ConfigInvalidError} @throws {FileUnusableError} @throws {StoreUnavailableError}
 */
export async function createNotifyParts(
  config: Config,
  parts: {
    readonly database: Database;
    readonly senders: Senders;
    readonly registry: MetricsRegistry;
    readonly log: Logger;
    readonly now: () => number;
  },
): Promise<NotifyParts> {
  const secrets = new Secrets(await readSecretKeys(config));
  await resealSecrets(parts.database, secrets, parts.log);
  const limits = notifyLimits(config);
  const notifier = new Notifier({ ...parts, secrets, limits });
  const wake = (): void => notifier.wake();
  return { notifier, notify: createNotifyStores({ ...parts, writeAudit, secrets, limits, wake }) };
}

/** What takes the actions of rules. */
export function createActionRunner(
  config: Config,
  parts: {
    readonly runs: ActionRuns;
    readonly registry: MetricsRegistry;
    readonly send: ActionRunnerDeps['send'];
    readonly rules: ActionRunnerDeps['rules'];
    readonly log: Logger;
    readonly now: () => number;
  },
): ActionRunner {
  const waitingMax = config.RULE_ACTIONS_WAITING_MAX;
  return new ActionRunner({
    ...parts,
    limits: {
      ageMaxMs: config.RULE_ACTION_AGE_MAX_S * 1000,
      loopMs: config.RULE_ACTION_LOOP_S * 1000,
      loopMax: config.RULE_ACTION_LOOP_MAX,
      waitingMax,
    },
    createMetrics: (waiting) => new ActionMetrics(parts.registry, waiting, waitingMax),
  });
}
