import { createHmac } from 'node:crypto';
import type {
  NotificationMessage,
  ReceiverFinding,
  Sender,
  SenderReceiver,
  SendOutcome,
} from './message.ts';
import type { AddressGuard } from './address-guard.ts';
import type { SettingsOf } from './receiver-settings.ts';
import { failureOfStatus } from './send-failure.ts';
import type { HttpPoster } from './send-http.ts';

/** What a webhook sender works with. */
export interface WebhookSenderParts {
  readonly poster: HttpPoster;
  readonly guard: AddressGuard;
  /** Milliseconds since 1970, for the signature. */
  readonly now: () => number;
}

/** Of what is posted; rises when a member changes its meaning or goes. */
const PAYLOAD_VERSION = 1;

/**
 * Posts messages as JSON, signed with the secret of the receiver. docs/notifications.md tells what is in
 * it and how to check the signature. Delivery is at least once: `X-Puback-Delivery` is the same for each
 * attempt. Answers: 2xx done; 408, 425, 429, 5xx and none at all are worth another attempt; others not.
 */
export class WebhookSender implements Sender {
  readonly #parts: WebhookSenderParts;

  constructor(parts: WebhookSenderParts) {
    this.#parts = parts;
  }

  /** Makes one attempt. Never rejects. */
  async send(
    receiver: SenderReceiver,
    message: NotificationMessage,
    signal: AbortSignal,
  ): Promise<SendOutcome> {
    const { poster, now } = this.#parts;
    const body = JSON.stringify({ version: PAYLOAD_VERSION, ...message });
    const headers = {
      'content-type': 'application/json',
      'x-puback-delivery': message.notificationId,
      'x-puback-signature': signatureOf(body, receiver.secret ?? '', now()),
    };
    const { url } = receiver.settings as SettingsOf<'webhook'>;
    const answer = await poster.post({ url, headers, body }, signal);
    if (!answer.ok) return answer;
    if (answer.status >= 200 && answer.status < 300) return { ok: true };
    return failureOfStatus(answer.status, answer.headers, { detail: '', nowMs: now() });
  }

  /** What is wrong with the URL: its form, or an address that is not public. */
  async check({ settings }: Pick<SenderReceiver, 'settings'>): Promise<ReceiverFinding> {
    return checkUrl(this.#parts.guard, 'settings.url', (settings as SettingsOf<'webhook'>).url);
  }
}

/** `t={seconds since 1970},v1={HMAC-SHA-256 of "{t}.{body}" in hex}`. */
export function signatureOf(body: string, secret: string, nowMs: number): string {
  const seconds = Math.floor(nowMs / 1000);
  const mac = createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex');
  return `t=${seconds},v1=${mac}`;
}

/**
 * What is wrong with a URL to post to, its addresses included.
 * @param member where it stands, which the answer begins with.
 */
export async function checkUrl(
  guard: AddressGuard,
  member: string,
  url: string,
): Promise<ReceiverFinding> {
  const malformed = guard.urlFault(url);
  const found =
    malformed === null
      ? await guard.lookupFinding(new URL(url).hostname)
      : { fault: malformed, warning: null };
  return placed(member, found);
}

/** A finding with the place that it is of. */
export function placed(member: string, { fault, warning }: ReceiverFinding): ReceiverFinding {
  return {
    fault: fault === null ? null : `${member}: ${fault}`,
    warning: warning === null ? null : `${member}: ${warning}`,
  };
}
