import type { ReceiverKind, ReceiverSettings } from './receiver-settings.ts';

/** What a message is: of alerts, a summary of many that were held back, or a test by a person. */
export type NotificationKind = 'alert' | 'digest' | 'test';

/** One alert as a receiver is told of it. Times are ISO 8601 in UTC. */
export interface NotifiedAlert {
  readonly alertId: string;
  /** Name of the rule. */
  readonly rule: string;
  /** Public id of the rule. */
  readonly ruleId: string;
  /** Slug of the device. */
  readonly device: string;
  readonly severity: string;
  readonly state: 'firing' | 'resolved';
  /** Of the first metric of the rule; null when there is none. */
  readonly value: number | string | null;
  /** Of the rule, and `alertname`, `device`, `severity`. */
  readonly labels: Readonly<Record<string, string>>;
  /** With their places filled in. */
  readonly annotations: Readonly<Record<string, string>>;
  readonly activeAt: string;
  readonly firedAt: string | null;
  readonly resolvedAt: string | null;
}

/** What a receiver is sent; stored as it is, so that each attempt sends the same. */
export interface NotificationMessage {
  /** The same in every attempt: receivers may tell copies by it. UUID of version 7. */
  readonly notificationId: string;
  readonly kind: NotificationKind;
  /** Slug of the organization. */
  readonly organization: string;
  /** The same for all messages of one group of alerts. */
  readonly groupKey: string;
  readonly groupLabels: Readonly<Record<string, string>>;
  /** `resolved`: no alert of the group is firing any more. */
  readonly state: 'firing' | 'resolved';
  /** Those that changed first, then the worst ones; at most NOTIFY_MESSAGE_ALERTS_MAX. */
  readonly alerts: readonly NotifiedAlert[];
  /** Alerts of the group that are left out of `alerts`. */
  readonly truncated: number;
  /** Of a digest: why there is one, and how much it stands for. Null of every other message. */
  readonly digest: NotificationDigest | null;
  /** When it was decided on, ISO 8601 in UTC. */
  readonly createdAt: string;
}

/** What a digest stands for. */
export interface NotificationDigest {
  /** `rate_cap`: the receiver was at its cap. `flapping`: alerts changed too often to tell each time. */
  readonly reason: 'rate_cap' | 'flapping';
  /** Start and end of the time it speaks of, ISO 8601 in UTC. */
  readonly from: string;
  readonly to: string;
  /** Messages that were left out. */
  readonly suppressed: number;
  /** Changes of alerts that were in them. */
  readonly changes: number;
}

/** A receiver as its sender gets it. */
export interface SenderReceiver {
  readonly receiverId: string;
  readonly organizationId: number;
  readonly name: string;
  readonly kind: ReceiverKind;
  readonly settings: ReceiverSettings;
  /** In clear: what each kind keeps there is told in receiver-settings.ts. Null when it has none. */
  readonly secret: string | null;
}

/** How an attempt ended. `reason` is shown to people and logged: never a secret, at most 300 characters. */
export type SendOutcome =
  | { readonly ok: true }
  | {
      readonly ok: false;
      /** Whether trying again may help. */
      readonly isRetryable: boolean;
      readonly reason: string;
      /** What the receiver asked for. */
      readonly retryAfterMs?: number;
    };

/** What is to be said of a receiver that is being saved, for people. */
export interface ReceiverFinding {
  /** Why it cannot be saved. */
  readonly fault: string | null;
  /** What may be a slip, and is saved. */
  readonly warning: string | null;
}

/** Sends to receivers of one kind. */
export interface Sender {
  /**
   * Makes one attempt. Ends soon after `signal` is aborted. Does not reject: what is thrown counts as a
   * failure that may be retried.
   */
  send(
    receiver: SenderReceiver,
    message: NotificationMessage,
    signal: AbortSignal,
  ): Promise<SendOutcome>;
  /**
   * Whether a receiver could be sent to, asked when it is saved: of a URL, its scheme, host and port.
   */
  check?(receiver: Pick<SenderReceiver, 'kind' | 'settings' | 'secret'>): Promise<ReceiverFinding>;
}

/** Senders of every kind. */
export type Senders = Readonly<Record<ReceiverKind, Sender>>;
