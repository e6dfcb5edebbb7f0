import type { DeviceEvaluation } from '../evaluation/device-evaluation.ts';
import type { RuleEvaluatorDeps } from '../evaluation/evaluator-deps.ts';
import type { LiveDevice } from '../evaluation/live-device.ts';

/** Has somebody look for the silence of devices, for the rules that each of them has. */
export class SilenceWatches {
  readonly #noData: RuleEvaluatorDeps['noData'];

  constructor(noData: RuleEvaluatorDeps['noData']) {
    this.#noData = noData;
  }

  /** Begins and ends what the rules of a device ask for. */
  follow(device: LiveDevice, evaluation: DeviceEvaluation): void {
    const wanted = evaluation.rules.filter(({ noData }) => noData !== null);
    if (wanted.length === 0 && device.watchedRules.length === 0) return;
    const { deviceId, organizationId } = evaluation.device;
    const ids = new Set(wanted.map(({ ruleId }) => ruleId));
    for (const ruleId of device.watchedRules) {
      if (!ids.has(ruleId)) this.#noData?.unwatch(deviceId, ruleId);
    }
    device.watchedRules = [...ids];
    for (const { ruleId, noData } of wanted) {
      if (noData === null) continue;
      this.#noData?.watch({ deviceId, organizationId, ruleId, afterMicros: noData.afterMicros });
    }
  }

  /** Ends all of a device. */
  leave({ deviceId, watchedRules }: LiveDevice): void {
    for (const ruleId of watchedRules) this.#noData?.unwatch(deviceId, ruleId);
  }
}
