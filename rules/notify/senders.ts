import { AddressGuard } from './address-guard.ts';
import type { Senders } from './message.ts';
import { createResolve, type Resolve } from './resolve-host.ts';
import { NtfySender, SlackSender, TelegramSender } from './send-chat.ts';
import { EmailSender } from './send-email.ts';
import { HttpPoster } from './send-http.ts';
import { MqttSender, type MqttSenderParts } from './send-mqtt.ts';
import { WebhookSender } from './send-webhook.ts';

/** What senders work with. */
export interface SendersParts {
  /** As NOTIFY_PRIVATE_ADDRESSES has them. */
  readonly privateAddresses: string;
  /** Whether `http:` and mail in clear are allowed. */
  readonly isHttpAllowed: boolean;
  readonly mqtt: MqttSenderParts;
  readonly now?: () => number;
  readonly resolve?: Resolve;
  /** Authorities to trust in place of the system's, in PEM. */
  readonly ca?: string;
  readonly httpTimeoutMs?: number;
  readonly mailTimeoutMs?: number;
  readonly telegramOrigin?: string;
}

const HTTP_TIMEOUT_MS = 5000;
/** Servers of mail may make strangers wait before they greet. */
const MAIL_TIMEOUT_MS = 30_000;

/** Makes a sender of every kind. They keep nothing open and need not be stopped. */
export function createSenders(parts: SendersParts): Senders {
  const { isHttpAllowed, privateAddresses, now = Date.now } = parts;
  const resolve = parts.resolve ?? createResolve();
  const trust = parts.ca === undefined ? {} : { ca: parts.ca };
  const guard = new AddressGuard({ privateAddresses, isHttpAllowed, resolve });
  const timeoutMs = parts.httpTimeoutMs ?? HTTP_TIMEOUT_MS;
  const poster = new HttpPoster({ guard, timeoutMs, ...trust });
  const telegramOrigin = parts.telegramOrigin ?? 'https://api.telegram.org';
  const chat = { poster, guard, now, telegramOrigin };
  const mail = { guard, timeoutMs: parts.mailTimeoutMs ?? MAIL_TIMEOUT_MS, ...trust };
  return {
    webhook: new WebhookSender({ poster, guard, now }),
    email: new EmailSender({ ...mail, isClearAllowed: isHttpAllowed }),
    mqtt: new MqttSender(parts.mqtt),
    slack: new SlackSender(chat),
    telegram: new TelegramSender(chat),
    ntfy: new NtfySender(chat),
  };
}
