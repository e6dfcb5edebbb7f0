import type { Registry as MetricsRegistry } from 'prom-client';
import type { PresenceChange } from './broker/presence/presence.ts';
import type { Config } from './config.ts';
import type { Database } from './drizzle/database.ts';
import { createWire } from './downlink-joints.ts';
import { reasonOf } from './errors.ts';
import type { Fleet } from './fleet.ts';
import type { Ingest } from './ingest/ingest.ts';
import type { ReadingObserver } from './ingest/observer.ts';
import type { Logger } from './log.ts';
import type { ChangedDevice } from './registry/device-changes.ts';
import type { Registry } from './registry/registry.ts';
import {
  createActionRunner,
  createNotifyParts,
  createRuleParts,
  type RuleParts,
} from './rule-joints.ts';
import type { ActionRunnerDeps } from './rules/action/action-runner.ts';
import { AlertLogMetrics } from './rules/log/alert-log-metrics.ts';
import { AlertLog } from './rules/log/alert-log.ts';
import { pruneAlerts } from './rules/log/alert-pruning.ts';
import { assertWithinBudget } from './rules/backtest/noise-budget.ts';
import { ReEvaluation } from './rules/backtest/re-evaluation.ts';
import { createCadenceStore } from './rules/no-data/cadence-store.ts';
import { Checkpoint } from './rules/log/checkpoint.ts';
import { DeviceLoadMetrics } from './rules/evaluation/device-load-metrics.ts';
import type { LoadedDevice, LoadRequest } from './rules/evaluation/device-load.ts';
import { createDeviceLoader, type StartLoader } from './rules/evaluation/device-loader.ts';
import { findDevicesOf } from './rules/evaluation/devices-of.ts';
import { RuleEvaluator } from './rules/evaluation/evaluator.ts';
import { RulesInForce } from './rules/rules-in-force.ts';
import { registerRuleMetrics } from './rules/evaluation/metrics.ts';
import { registerNoDataMetrics } from './rules/no-data/no-data-metrics.ts';
import { NoData } from './rules/no-data/no-data.ts';
import { createAlertTopicRows } from './rules/notify/alert-topic-rows.ts';
import { AlertTopics, type TopicPublisher } from './rules/notify/alert-topics.ts';
import { createSenders } from './rules/notify/senders.ts';
import type { NotifyStores } from './rules/notify/stores.ts';
import { listOpenAlerts } from './rules/log/open-alerts.ts';

/** What the engine of rules is joined with. */
export interface RuleEngineDeps {
  readonly config: Config;
  readonly database: Database;
  readonly registry: Registry;
  readonly metricsRegistry: MetricsRegistry;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
  readonly onStop: (name: string, close: () => Promise<void>) => void;
}

/** What people work with. */
export interface RuleDesk extends RuleParts {
  readonly notify: NotifyStores;
}

/** What comes up behind the engine, and is asked by it. */
export interface LiveParts {
  readonly ingest: Ingest;
  readonly fleet: Fleet;
  /** Puts a command of a rule into the queue of its device. */
  readonly sendCommand: ActionRunnerDeps['send'];
}

const POLL_MS = 2000;
const PRUNE_MS = 3_600_000;

/**
 * Evaluates alert rules: told of readings and connections before {@link RuleEngine.start}, and telling
 * people from then on. Its parts in the order in which a reading meets them: evaluator, alert log, topics
 * and notifications; beside them silence, late readings and backtests.
 */
export class RuleEngine {
  readonly #deps: RuleEngineDeps;
  readonly #alertLog: AlertLog;
  readonly #loader: StartLoader;
  readonly #evaluator: RuleEvaluator;
  readonly #noData: NoData;
  readonly #lateReadings: ReEvaluation;
  readonly #inForce: RulesInForce;
  readonly #parts: RuleParts;
  #topics: AlertTopics | null = null;
  #live: LiveParts | null = null;
  #listen: () => void = () => undefined;
  /** Until it is known who is there, and what was not heard, no device is loaded. */
  readonly #listens = new Promise<void>((resolve) => {
    this.#listen = resolve;
  });
  #wakeNotifier: () => void = () => undefined;

  /** @param startCheckpointMicros see `createDeviceLoader`. */
  private constructor(deps: RuleEngineDeps, startCheckpointMicros: number | null) {
    const { config, database, metricsRegistry, now, log } = deps;
    this.#deps = deps;
    this.#parts = createRuleParts(
      config,
      { database, log, now },
      {
        onRulesChanged: () => this.#refresh(),
        beforeEnable: (organizationId, _publicId, rule) =>
          assertWithinBudget(
            this.#parts.backtests,
            { organizationId, rule },
            { days: config.RULE_NOISE_D, toMicros: now() * 1000 },
          ),
        resolveByHand: (wanted) => this.#evaluator.resolveByHand(wanted),
        onSnoozed: () => this.#wakeNotifier(),
        onSilencesChanged: () => this.#wakeNotifier(),
      },
    );
    this.#alertLog = this.#createAlertLog();
    this.#loader = createDeviceLoader({
      pool: database.pool,
      startCheckpointMicros,
      checkpointMicros: () => this.#alertLog.checkpointMicros,
      windowSamplesMax: config.RULE_WINDOW_SAMPLES_MAX,
      metrics: new DeviceLoadMetrics(metricsRegistry),
      log,
    });
    this.#evaluator = this.#createEvaluator();
    this.#noData = this.#createNoData();
    this.#inForce = new RulesInForce({
      rules: this.#parts.rules,
      windowSamplesMax: config.RULE_WINDOW_SAMPLES_MAX,
      counters: this.#evaluator.counters,
      log,
    });
    this.#lateReadings = new ReEvaluation({
      database,
      rulesOf: (organizationId) => this.#inForce.of(organizationId),
      now,
      log,
    });
  }

  /** Makes the engine and reads the rules; nothing is evaluated that it is not told of. */
  static async open(deps: RuleEngineDeps): Promise<RuleEngine> {
    const checkpoint = await new Checkpoint(deps.database.pool).begin(deps.now() * 1000);
    const engine = new RuleEngine(deps, checkpoint);
    deps.onStop('rules', () => engine.#stop());
    await engine.#inForce.refresh();
    engine.#evaluator.replaceRules(engine.#inForce.all);
    engine.#alertLog.start();
    engine.#lateReadings.start();
    deps.registry.deviceChanges.onChanged((change) => engine.#deviceChanged(change));
    deps.registry.revocations.onRevoked(({ organizationId, deviceId, keyId }) => {
      if (organizationId === undefined || deviceId !== undefined || keyId !== undefined) return;
      engine.#organizationSuspended(organizationId);
    });
    deps.registry.revocations.onRestored(() => void engine.#refresh());
    return engine;
  }

  /** Told of what devices send, before it is stored. */
  get observer(): ReadingObserver {
    const [evaluator, noData] = [this.#evaluator, this.#noData];
    return {
      seriesOf: (...series) => evaluator.seriesOf(...series),
      reading: (series, ...reading) => evaluator.reading(series, ...reading),
      sampleEnd(deviceId, sample) {
        evaluator.sampleEnd(deviceId, sample);
        if (sample.isLive) noData.received(deviceId, sample.receivedMicros);
      },
      event: (...event) => evaluator.event(...event),
      refused: (_organizationId, deviceId, receivedMicros) =>
        noData.refused(deviceId, receivedMicros),
    };
  }

  /** Topics of alerts that fire; what is retained of them says so. */
  get alertTopics(): Iterable<string> {
    return this.#topics?.topics ?? [];
  }

  /** Told of connections. */
  presenceChanged({ organizationId, deviceId, presence }: PresenceChange): void {
    const { state, sinceMs, lastContactMs, connectionNumber, hello } = presence;
    this.#noData.connectionChanged({
      organizationId,
      deviceId,
      connection: state,
      atMicros: (state === 'online' ? sinceMs : Math.max(sinceMs, lastContactMs)) * 1000,
      // Numbers of connections are the times at which they began.
      connectedMicros: connectionNumber,
    });
    if (hello.sleep !== undefined) this.#noData.setSleep(deviceId, hello.sleep);
  }

  /**
   * Begins to take timers and to tell people; to be awaited when everything else is up and before anybody
   * can connect. What was open when the program ended goes on. @throws {StoreUnavailableError}
   */
  async start(live: LiveParts): Promise<RuleDesk> {
    const { config, database, metricsRegistry, now, log, onStop } = this.#deps;
    this.#live = live;
    const publisher = topicPublisher(live.fleet);
    const topics = new AlertTopics({ publisher, rows: createAlertTopicRows(database), log });
    this.#topics = topics;
    const { notifier, notify } = await createNotifyParts(config, {
      database,
      senders: createSenders({
        privateAddresses: config.NOTIFY_PRIVATE_ADDRESSES,
        isHttpAllowed: config.NOTIFY_HTTP_ALLOWED === 'yes',
        mqtt: { topics, publisher },
      }),
      registry: metricsRegistry,
      log,
      now,
    });
    this.#wakeNotifier = () => notifier.wake();
    const actions = createActionRunner(config, {
      runs: this.#parts.actionRuns,
      registry: metricsRegistry,
      send: live.sendCommand,
      rules: () => this.#inForce.all,
      log,
      now,
    });
    this.#alertLog.onCommitted((transitions) => {
      topics.changed(transitions);
      notifier.wake();
      actions.noteRecorded(transitions);
    });
    await this.#noData.start();
    this.#listen();
    const open = await listOpenAlerts(database.pool);
    const behind = await this.#loader.devicesToCatchUp();
    this.#evaluator.start(new Set([...open.map(({ deviceId }) => deviceId), ...behind]));
    topics.start();
    notifier.start();
    actions.start();
    onStop('notifications', async () => {
      await Promise.all([notifier.stop(), topics.stop(), actions.stop()]);
    });
    this.#startHousekeeping();
    return { ...this.#parts, notify };
  }

  /** From now on it is we who hear nothing. To be called before connections are closed. */
  listensNoMore(): void {
    this.#noData.platformDown('listener');
  }

  async #stop(): Promise<void> {
    await Promise.all([this.#lateReadings.stop(), this.#noData.stop()]);
    await this.#evaluator.stop();
    await this.#alertLog.stop();
  }

  #createAlertLog(): AlertLog {
    const { config, database, metricsRegistry, log } = this.#deps;
    const metrics = new AlertLogMetrics(metricsRegistry);
    const queueMax = config.RULE_TRANSITIONS_QUEUE_MAX;
    const alertLog = new AlertLog({ pool: database.pool, limits: { queueMax }, metrics, log });
    metrics.watch(metricsRegistry, queueMax, alertLog);
    alertLog.onDiverged((deviceId) => this.#evaluator.deviceDiverged(deviceId));
    return alertLog;
  }

  #createEvaluator(): RuleEvaluator {
    const { config, database, metricsRegistry, now, log } = this.#deps;
    const evaluator = new RuleEvaluator({
      loader: {
        // Which connections count as lost is known when they are loaded, and not by what is stored.
        load: (requests) => this.#load(requests),
      },
      alertLog: this.#alertLog,
      findDevices: (organizationIds) => findDevicesOf(database.pool, organizationIds),
      noData: {
        watch: (expected) => this.#noData.watch(expected),
        unwatch: (...watched) => this.#noData.unwatch(...watched),
      },
      onSuspend: (ruleId, reason) => void this.#suspend(ruleId, reason),
      onLate: (late) => this.#lateReadings.note(late),
      now,
      limits: {
        evaluationUsMax: config.RULE_EVALUATION_US_MAX,
        timerSlackMs: config.RULE_TIMER_SLACK_MS,
        deviceReadingsHeldMax: config.RULE_DEVICE_READINGS_HELD_MAX,
      },
      log,
    });
    registerRuleMetrics(metricsRegistry, evaluator.counters, () => evaluator.gauges);
    return evaluator;
  }

  /** Which connections count as lost depends on what became of ours. */
  async #load(requests: readonly LoadRequest[]): Promise<LoadedDevice[]> {
    await this.#listens;
    const devices = await this.#loader.load(requests);
    return devices.map((loaded) => {
      const { device, connection, connectionMicros } = loaded;
      const known = this.#noData.loadedConnection(device, connection, connectionMicros);
      if (known === connection) return loaded;
      // Since when is not stored then.
      return { ...loaded, connection: known, connectionMicros: 0 };
    });
  }

  #createNoData(): NoData {
    const { config, database, metricsRegistry, now, log } = this.#deps;
    const noData = new NoData({
      store: createCadenceStore(database),
      onSilence: (change) => this.#evaluator.setSilence(change),
      onConnection: (...changed) => this.#evaluator.setConnection(...changed),
      connectionOf: (deviceId) => {
        const presence = this.#live?.fleet.presenceOf(deviceId) ?? null;
        if (presence === null) return null;
        const { state: connection, sinceMs, hello } = presence;
        return { connection, sinceMicros: sinceMs * 1000, sleepS: hello.sleep };
      },
      isAway: () => this.#live?.ingest.isDatabaseAway === true,
      now,
      graceMs: config.RULE_NO_DATA_GRACE_S * 1000,
      log,
    });
    registerNoDataMetrics(metricsRegistry, () => noData.gauges);
    return noData;
  }

  #deviceChanged(change: ChangedDevice): void {
    const { deviceId, organizationId, isDeleted, reportIntervalMs } = change;
    this.#evaluator.deviceChanged(deviceId, organizationId);
    if (reportIntervalMs !== undefined) {
      const micros = reportIntervalMs === null ? null : reportIntervalMs * 1000;
      this.#noData.declareInterval(deviceId, micros);
    }
    if (!isDeleted) return;
    this.#noData.forget(deviceId);
    this.#lateReadings.forget(deviceId);
  }

  /** What people, and other programs, have changed. */
  async #refresh(): Promise<void> {
    try {
      if (await this.#inForce.refresh()) this.#replaceRules();
    } catch (err) {
      this.#deps.log.debug({ err: reasonOf(err) }, 'rules not read, will be tried again');
    }
  }

  /** Its connections are closed next, and nobody is to be told that its devices are offline. */
  #organizationSuspended(organizationId: number): void {
    this.#inForce.suspendOrganization(organizationId);
    this.#replaceRules();
    // Again behind a read that is under way and does not know of it.
    void this.#refresh();
  }

  #replaceRules(): void {
    this.#evaluator.replaceRules(this.#inForce.all, (ruleId) => this.#inForce.goneReason(ruleId));
  }

  async #suspend(ruleId: number, reason: string): Promise<void> {
    try {
      await this.#parts.rules.suspend(ruleId, reason);
    } catch (err) {
      // It is not evaluated in this run whatever is stored.
      this.#deps.log.warn({ err: reasonOf(err), ruleId }, 'suspension of a rule not stored');
    }
  }

  #startHousekeeping(): void {
    const { config, database, now, log, onStop } = this.#deps;
    const poll = setInterval(() => void this.#refresh(), POLL_MS);
    const prune = setInterval(() => {
      pruneAlerts(database.pool, config.ALERT_AGE_MAX_D * 86_400_000, now()).catch((err: unknown) =>
        log.warn({ err: reasonOf(err) }, 'alerts not pruned, will be tried again'),
      );
    }, PRUNE_MS);
    onStop('rules read anew', async () => {
      clearInterval(poll);
      clearInterval(prune);
    });
  }
}

/** How alerts reach subscribers of MQTT. */
function topicPublisher(fleet: Fleet): TopicPublisher {
  const wire = createWire(() => fleet);
  return { ...wire, retainedTopics: () => wire.retainedTopics('v1/+/+/alert/+') };
}
