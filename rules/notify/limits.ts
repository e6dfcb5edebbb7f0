/** Bounds of notifications; each is the config key beside it. */
export interface NotifyLimits {
  /** NOTIFY_RECEIVERS_MAX, of an organization. */
  readonly receiversMax: number;
  /** NOTIFY_ROUTES_MAX, of an organization. */
  readonly routesMax: number;
  /** NOTIFY_RECEIVER_MESSAGES_PER_H, for each receiver. */
  readonly messagesPerHour: number;
  /** NOTIFY_MESSAGE_ALERTS_MAX. */
  readonly messageAlertsMax: number;
  /** NOTIFY_GROUP_ALERTS_MAX. */
  readonly groupAlertsMax: number;
  /** NOTIFY_ATTEMPT_TIMEOUT_MS. */
  readonly attemptTimeoutMs: number;
  /** NOTIFY_ATTEMPTS_MAX. */
  readonly attemptsMax: number;
  /** NOTIFY_AGE_MAX_H. */
  readonly ageMaxMs: number;
  /** NOTIFY_CONCURRENCY_MAX. */
  readonly concurrencyMax: number;
  /** NOTIFY_RECEIVER_CONCURRENCY_MAX. */
  readonly receiverConcurrencyMax: number;
  /** NOTIFY_FLAPPING_CHANGES_MAX. */
  readonly flappingChangesMax: number;
  /** NOTIFY_FLAPPING_WINDOW_S. */
  readonly flappingWindowMs: number;
  /** NOTIFY_FLAPPING_DIGEST_S. */
  readonly flappingDigestMs: number;
  /** NOTIFY_HISTORY_MAX_D. */
  readonly historyMaxMs: number;
}

/** The bounds as the settings have them. */
export function notifyLimits(config: NotifySettings): NotifyLimits {
  return {
    receiversMax: config.NOTIFY_RECEIVERS_MAX,
    routesMax: config.NOTIFY_ROUTES_MAX,
    messagesPerHour: config.NOTIFY_RECEIVER_MESSAGES_PER_H,
    messageAlertsMax: config.NOTIFY_MESSAGE_ALERTS_MAX,
    groupAlertsMax: config.NOTIFY_GROUP_ALERTS_MAX,
    attemptTimeoutMs: config.NOTIFY_ATTEMPT_TIMEOUT_MS,
    attemptsMax: config.NOTIFY_ATTEMPTS_MAX,
    ageMaxMs: config.NOTIFY_AGE_MAX_H * 3_600_000,
    concurrencyMax: config.NOTIFY_CONCURRENCY_MAX,
    receiverConcurrencyMax: config.NOTIFY_RECEIVER_CONCURRENCY_MAX,
    flappingChangesMax: config.NOTIFY_FLAPPING_CHANGES_MAX,
    flappingWindowMs: config.NOTIFY_FLAPPING_WINDOW_S * 1000,
    flappingDigestMs: config.NOTIFY_FLAPPING_DIGEST_S * 1000,
    historyMaxMs: config.NOTIFY_HISTORY_MAX_D * 86_400_000,
  };
}

/** The settings that {@link notifyLimits} reads. */
export type NotifySettings = Readonly<
  Record<
    | 'NOTIFY_RECEIVERS_MAX'
    | 'NOTIFY_ROUTES_MAX'
    | 'NOTIFY_RECEIVER_MESSAGES_PER_H'
    | 'NOTIFY_MESSAGE_ALERTS_MAX'
    | 'NOTIFY_GROUP_ALERTS_MAX'
    | 'NOTIFY_ATTEMPT_TIMEOUT_MS'
    | 'NOTIFY_ATTEMPTS_MAX'
    | 'NOTIFY_AGE_MAX_H'
    | 'NOTIFY_CONCURRENCY_MAX'
    | 'NOTIFY_RECEIVER_CONCURRENCY_MAX'
    | 'NOTIFY_FLAPPING_CHANGES_MAX'
    | 'NOTIFY_FLAPPING_WINDOW_S'
    | 'NOTIFY_FLAPPING_DIGEST_S'
    | 'NOTIFY_HISTORY_MAX_D',
    number
  >
>;
