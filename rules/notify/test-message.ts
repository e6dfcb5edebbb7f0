import type { NotificationMessage } from './message.ts';

/** What a test message says of itself. */
export interface TestMessageNames {
  /** UUID of version 7. */
  readonly notificationId: string;
  /** Slug of the organization. */
  readonly organization: string;
  readonly nowMs: number;
}

/** A message that a person sends to see whether a receiver works. It speaks of no real alert. */
export function createTestMessage({
  notificationId,
  organization,
  nowMs,
}: TestMessageNames): NotificationMessage {
  const at = new Date(nowMs).toISOString();
  const labels = { alertname: 'test', device: 'test', severity: 'info' };
  return {
    notificationId,
    kind: 'test',
    organization,
    groupKey: 'test',
    groupLabels: { alertname: 'test' },
    state: 'firing',
    alerts: [
      {
        alertId: notificationId,
        rule: 'test',
        ruleId: notificationId,
        device: 'test',
        severity: 'info',
        state: 'firing',
        value: 42,
        labels,
        annotations: { summary: 'This is a test. Nothing is wrong.' },
        activeAt: at,
        firedAt: at,
        resolvedAt: null,
      },
    ],
    truncated: 0,
    digest: null,
    createdAt: at,
  };
}
