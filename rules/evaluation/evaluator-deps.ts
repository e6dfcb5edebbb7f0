import type { Logger } from '../../log.ts';
import type { LateReading } from './device-evaluation.ts';
import type { DeviceLoader } from './device-load.ts';
import type { NoDataWatch } from '../no-data/no-data-port.ts';
import type { Transition } from '../alert/transition.ts';

/** Bounds of evaluation, each from one setting. */
export interface EvaluatorLimits {
  /** `RULE_EVALUATION_US_MAX`. */
  readonly evaluationUsMax: number;
  /** `RULE_TIMER_SLACK_MS`. */
  readonly timerSlackMs: number;
  /** `RULE_DEVICE_READINGS_HELD_MAX`. */
  readonly deviceReadingsHeldMax: number;
}

/** What {@link RuleEvaluator} is joined with. */
export interface RuleEvaluatorDeps {
  readonly loader: DeviceLoader;
  readonly alertLog: {
    append(transition: Transition): void;
    /** While true evaluation waits. */
    readonly isFull: boolean;
    /** While true steps may wait to be written that a device that is loaded would not know of. */
    readonly isAway: boolean;
    noteEvaluated(receivedMicros: number): void;
    drain(): Promise<void>;
  };
  /**
   * The devices of organizations some of whose rules time alone may change: they are kept in memory, also
   * while they send nothing. @throws {StoreUnavailableError}
   */
  readonly findDevices: (organizationIds: readonly number[]) => Promise<readonly number[]>;
  /** Who looks for silence; null: nobody. */
  readonly noData: {
    watch(expected: NoDataWatch): void;
    unwatch(deviceId: number, ruleId: number): void;
  } | null;
  /** Told of a rule that is not evaluated any more because of what it does, with a reason for people. */
  readonly onSuspend: (ruleId: number, reason: string) => void;
  readonly onLate?: (late: LateReading) => void;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly limits: EvaluatorLimits;
  readonly log: Logger;
}

/** Why the alerts of a rule that is not evaluated any more end. */
export type GoneReason = 'rule_disabled' | 'rule_deleted' | 'rule_suspended';
