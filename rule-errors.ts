import { AppError } from './errors.ts';

/** What a rule says does not hold: of its shape, of its metrics' kinds, or of a bound. */
export class RuleInvalidError extends AppError {
  readonly code = 'RULE_INVALID';
  readonly status = 400;
  /** Where in the rule, as a path with dots, and what is wrong there. */
  readonly faults: readonly { readonly path: string; readonly message: string }[];
  constructor(faults: readonly { readonly path: string; readonly message: string }[]) {
    super(faults.map(({ path, message }) => `${path || 'rule'}: ${message}`).join('; '));
    this.faults = faults;
  }
}

/** No rule with this id, or it was deleted. */
export class RuleNotFoundError extends AppError {
  readonly code = 'RULE_NOT_FOUND';
  readonly status = 404;
  constructor(ruleId: string) {
    super(`no rule ${shown(ruleId)}; GET /api/v1/rules lists them`);
  }
}

/** No alert with this id. */
export class AlertNotFoundError extends AppError {
  readonly code = 'ALERT_NOT_FOUND';
  readonly status = 404;
  constructor(alertId: string) {
    super(`no alert ${shown(alertId)}; GET /api/v1/alerts lists them`);
  }
}

/** The rule never had a version of this number. */
export class RuleVersionNotFoundError extends AppError {
  readonly code = 'RULE_VERSION_NOT_FOUND';
  readonly status = 404;
  constructor(ruleId: string, version: number) {
    super(
      `rule ${ruleId} has no version ${version}; GET /api/v1/rules/${ruleId}/versions lists them`,
    );
  }
}

/** The organization has a rule of this name. */
export class RuleExistsError extends AppError {
  readonly code = 'RULE_EXISTS';
  readonly status = 409;
  constructor(name: string) {
    super(`there is a rule "${name}" already`);
  }
}

/** The rule was changed since the version that the change was made for. */
export class RuleChangedError extends AppError {
  readonly code = 'RULE_CHANGED';
  readonly status = 409;
  constructor(asked: number, version: number) {
    super(`the rule is at version ${version} and not ${asked}; get it, and change that`);
  }
}

/** The organization has as many rules as it may. */
export class RuleLimitError extends AppError {
  readonly code = 'RULE_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(`the organization has ${max} rules, which is the limit (RULES_MAX)`);
  }
}

/** The alert has ended: only comments, an assignee and a verdict can be given to it. */
export class AlertEndedError extends AppError {
  readonly code = 'ALERT_ENDED';
  readonly status = 409;
  constructor(alertId: string) {
    super(`alert ${alertId} has ended`);
  }
}

/** No program that could end the alert has it in memory at this moment. Ask again. */
export class AlertNotHeldError extends AppError {
  readonly code = 'ALERT_NOT_HELD';
  readonly status = 503;
  override readonly retryable = true;
  constructor(alertId: string) {
    super(`alert ${alertId} is not being evaluated at this moment; ask again`);
  }
}

/** The alert has ended, and the database has not taken that yet. */
export class AlertNotRecordedError extends AppError {
  readonly code = 'ALERT_NOT_RECORDED';
  readonly status = 503;
  override readonly retryable = true;
  constructor(alertId: string) {
    super(
      `the end of alert ${alertId} is not recorded yet; it will be as soon as the database takes it`,
    );
  }
}

/** The alert has as many notes as it may. */
export class AlertNoteLimitError extends AppError {
  readonly code = 'ALERT_NOTE_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(`the alert has ${max} notes, which is the limit`);
  }
}

/** No silence and no maintenance window with this id. */
export class SilenceNotFoundError extends AppError {
  readonly code = 'SILENCE_NOT_FOUND';
  readonly status = 404;
  constructor(silenceId: string) {
    super(`no silence ${shown(silenceId)}; GET /api/v1/silences lists them`);
  }
}

/** The silence has ended: it stays as it was. */
export class SilenceEndedError extends AppError {
  readonly code = 'SILENCE_ENDED';
  readonly status = 409;
  constructor(silenceId: string) {
    super(`silence ${silenceId} has ended; make a new one`);
  }
}

/** The organization has as many silences that have not ended as it may. */
export class SilenceLimitError extends AppError {
  readonly code = 'SILENCE_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `the organization has ${max} silences that have not ended, which is the limit (SILENCES_MAX)`,
    );
  }
}

/** Notifications may not be sent to an address: it is not public, and the operator has not named it. */
export class AddressRefusedError extends AppError {
  readonly code = 'ADDRESS_REFUSED';
  readonly status = 400;
  /** What is wrong with the address, for people. */
  readonly fault: string;
  /** Whether it is refused as it is written, and not for what DNS says at the moment. */
  readonly isLasting: boolean;
  constructor(fault: string, isLasting: boolean) {
    super(`the address is refused: ${fault}`);
    this.fault = fault;
    this.isLasting = isLasting;
  }
}

/** No receiver of notifications with this id. */
export class ReceiverNotFoundError extends AppError {
  readonly code = 'RECEIVER_NOT_FOUND';
  readonly status = 404;
  constructor(receiverId: string) {
    super(`no receiver ${shown(receiverId)}; GET /api/v1/receivers lists them`);
  }
}

/** The organization has a receiver of this name. */
export class ReceiverExistsError extends AppError {
  readonly code = 'RECEIVER_EXISTS';
  readonly status = 409;
  constructor(name: string) {
    super(`there is a receiver "${name}" already`);
  }
}

/** What a receiver is to be does not hold. The message never has its secret. */
export class ReceiverInvalidError extends AppError {
  readonly code = 'RECEIVER_INVALID';
  readonly status = 400;
}

/** Routes tell the receiver: it cannot be deleted. */
export class ReceiverInUseError extends AppError {
  readonly code = 'RECEIVER_IN_USE';
  readonly status = 409;
  constructor(route: string) {
    super(`the route "${route}" tells the receiver; change that first`);
  }
}

/** The organization has as many receivers as it may. */
export class ReceiverLimitError extends AppError {
  readonly code = 'RECEIVER_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(`the organization has ${max} receivers, which is the limit (NOTIFY_RECEIVERS_MAX)`);
  }
}

/** No notification route with this id. */
export class NotificationRouteNotFoundError extends AppError {
  readonly code = 'NOTIFICATION_ROUTE_NOT_FOUND';
  readonly status = 404;
  constructor(routeId: string) {
    super(`no notification route ${shown(routeId)}; GET /api/v1/notification-routes lists them`);
  }
}

/** The organization has as many notification routes as it may. */
export class NotificationRouteLimitError extends AppError {
  readonly code = 'NOTIFICATION_ROUTE_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `the organization has ${max} notification routes, which is the limit (NOTIFY_ROUTES_MAX)`,
    );
  }
}

/** No notification with this id, or it is too old. */
export class NotificationNotFoundError extends AppError {
  readonly code = 'NOTIFICATION_NOT_FOUND';
  readonly status = 404;
  constructor(notificationId: string) {
    super(`no notification ${shown(notificationId)}; GET /api/v1/notifications lists them`);
  }
}

/** Only what was given up can be sent again. */
export class NotificationNotDeadError extends AppError {
  readonly code = 'NOTIFICATION_NOT_DEAD';
  readonly status = 409;
  constructor(state: string) {
    super(`the notification is "${state}"; only a dead one can be sent again`);
  }
}

/** The kill switch is on: nothing is sent. */
export class NotificationsStoppedError extends AppError {
  readonly code = 'NOTIFICATIONS_STOPPED';
  readonly status = 409;
  constructor() {
    super('notifications are stopped; PUT /api/v1/notification-policy lets them go on');
  }
}

/** Too many tests were sent in the last minute. */
export class NotificationTestLimitError extends AppError {
  readonly code = 'NOTIFICATION_TEST_LIMIT';
  readonly status = 429;
  override readonly retryable = true;
  constructor(max: number) {
    super(`${max} tests were sent in the last minute, which is the limit; wait a minute`);
  }
}

/** The secret of a receiver cannot be decrypted. It is to be set again, or its key brought back. */
export class SecretUnreadableError extends AppError {
  readonly code = 'SECRET_UNREADABLE';
  readonly status = 500;
  constructor(fault: string) {
    super(`the secret of the receiver cannot be read: ${fault}`);
  }
}

/** A backtest is under way for this organization, or as many as may be for others. */
export class BacktestBusyError extends AppError {
  readonly code = 'BACKTEST_BUSY';
  readonly status = 503;
  override readonly retryable = true;
  constructor() {
    super('another backtest is under way; wait for its end, or close its connection to end it');
  }
}

/** The span of a backtest is empty or too long. */
export class BacktestSpanError extends AppError {
  readonly code = 'BACKTEST_SPAN';
  readonly status = 400;
  constructor(daysMax: number) {
    super(`"to" must be later than "from", by at most ${daysMax} days`);
  }
}

/** A rule would have sent more notifications a day than its own budget allows. */
export class RuleNoisyError extends AppError {
  readonly code = 'RULE_NOISY';
  readonly status = 409;
  constructor(perDay: number, budget: number, days: number) {
    super(
      `the rule would have sent ${perDay.toFixed(1)} notifications a day over the last ${days} days, its noiseBudgetPerDay is ${budget}; make it quieter, raise the budget, or try it in mode "shadow"`,
    );
  }
}

/** What somebody gave for an id or a name, as far as it can be shown in a message. */
function shown(text: string): string {
  return text.replaceAll(/\p{Cc}|\p{Cf}|\p{Cs}|\p{Zl}|\p{Zp}/gu, '').slice(0, 64);
}
