import { INACTIVE } from '../alert/alert.ts';
import type { OpenAlert, RuleDevice } from './device-load.ts';
import { severityOf } from '../severity.ts';
import type { Transition, TransitionReason } from '../alert/transition.ts';

/**
 * The end of an alert whose rule is not evaluated for the device any more, so that it does not stay open
 * for ever. Nothing is known of the rule but its id: it has no labels, and its annotations are empty.
 * @param atMicros event time; the alert's last step counts when that is later.
 */
export function endOfOrphan(
  open: OpenAlert,
  device: RuleDevice,
  reason: TransitionReason,
  atMicros: number,
): Transition {
  return {
    alertId: open.alertId,
    sequence: open.sequence + 1,
    organizationId: device.organizationId,
    ruleId: open.ruleId,
    ruleVersion: open.ruleVersion,
    deviceId: open.deviceId,
    groupKey: open.groupKey,
    atMicros: Math.max(atMicros, open.changedMicros),
    from: open.state.phase,
    to: 'inactive',
    severity: severityOf(open.state.level),
    reason,
    operands: [],
    value: null,
    state: INACTIVE,
    occurrences: open.occurrences,
    labels: {},
    annotations: {},
    isShadow: false,
    isHistorical: false,
  };
}
