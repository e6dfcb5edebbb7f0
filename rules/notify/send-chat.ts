import type { AddressGuard } from './address-guard.ts';
import type {
  NotificationMessage,
  ReceiverFinding,
  Sender,
  SenderReceiver,
  SendOutcome,
} from './message.ts';
import type { SettingsOf } from './receiver-settings.ts';
import { failureOfStatus, type SendFailure } from './send-failure.ts';
import type { HttpAnswer, HttpPost, HttpPoster } from './send-http.ts';
import { checkUrl } from './send-webhook.ts';
import { cut, oneLine, plainText, slackText, textOf, worstSeverity } from './templates.ts';

/** What the senders to chats work with. */
export interface ChatSenderParts {
  readonly poster: HttpPoster;
  readonly guard: AddressGuard;
  readonly now: () => number;
  /** Where bots of Telegram are asked; https://api.telegram.org. */
  readonly telegramOrigin: string;
}

const ALERTS_MAX = 10;
/** Slack advises against more than 4000. */
const SLACK_CHARS_MAX = 3500;
/** Telegram takes 4096. */
const TELEGRAM_CHARS_MAX = 4000;
/** ntfy makes a file of more than 4096 bytes; a UTF-16 unit is up to three. */
const NTFY_BYTES_MAX = 4000;
const NTFY_TITLE_CHARS_MAX = 120;
const DETAIL_CHARS_MAX = 150;
const NTFY_PRIORITY: Readonly<Record<string, number>> = {
  critical: 5,
  high: 4,
  medium: 3,
  low: 2,
  info: 1,
};

/** An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat). Its URL is the secret. */
export class SlackSender implements Sender {
  readonly #parts: ChatSenderParts;

  constructor(parts: ChatSenderParts) {
    this.#parts = parts;
  }

  /** Makes one attempt. Never rejects. */
  async send(
    receiver: SenderReceiver,
    message: NotificationMessage,
    signal: AbortSignal,
  ): Promise<SendOutcome> {
    const { channel } = receiver.settings as SettingsOf<'slack'>;
    const text = slackText(textOf(message, { alertsMax: ALERTS_MAX }), SLACK_CHARS_MAX);
    const post = jsonPost(receiver.secret ?? '', {
      text,
      mrkdwn: false,
      unfurl_links: false,
      unfurl_media: false,
      link_names: 0,
      ...(channel === null ? {} : { channel }),
    });
    const answer = await this.#parts.poster.post(post, signal);
    // Slack answers with one word of a small set, such as no_service: anything else is not shown.
    return outcomeOf(answer, this.#parts, ({ body }) => /^[a-z_]{1,40}$/.exec(body)?.[0] ?? '');
  }

  /** Why the URL cannot be posted to; null when it can. Does not repeat it. */
  async check({ secret }: Pick<SenderReceiver, 'secret'>): Promise<ReceiverFinding> {
    return checkUrl(this.#parts.guard, 'secret', secret ?? '');
  }
}

/**
 * A bot of Telegram. Its token stands in the URL, which nothing here ever shows. Text is sent without a
 * parse mode, so there is nothing to escape.
 */
export class TelegramSender implements Sender {
  readonly #parts: ChatSenderParts;

  constructor(parts: ChatSenderParts) {
    this.#parts = parts;
  }

  /** Makes one attempt. Never rejects. */
  async send(
    receiver: SenderReceiver,
    message: NotificationMessage,
    signal: AbortSignal,
  ): Promise<SendOutcome> {
    const { chatId } = receiver.settings as SettingsOf<'telegram'>;
    const url = `${this.#parts.telegramOrigin}/bot${receiver.secret ?? ''}/sendMessage`;
    const post = jsonPost(url, {
      chat_id: chatId,
      text: plainText(textOf(message, { alertsMax: ALERTS_MAX }), TELEGRAM_CHARS_MAX),
      link_preview_options: { is_disabled: true },
      disable_notification: message.state === 'resolved',
    });
    const answer = await this.#parts.poster.post(post, signal);
    const spoken = answer.ok ? readTelegram(answer.body) : null;
    const detail = withoutSecret(spoken?.description ?? '', receiver.secret);
    const outcome = outcomeOf(answer, this.#parts, () => detail);
    if (outcome.ok || !outcome.isRetryable || spoken?.retryAfterMs === undefined) return outcome;
    return { ...outcome, retryAfterMs: spoken.retryAfterMs };
  }
}

/** A topic of ntfy, published as JSON: texts need no encoding for headers there. */
export class NtfySender implements Sender {
  readonly #parts: ChatSenderParts;

  constructor(parts: ChatSenderParts) {
    this.#parts = parts;
  }

  /** Makes one attempt. Never rejects. */
  async send(
    receiver: SenderReceiver,
    message: NotificationMessage,
    signal: AbortSignal,
  ): Promise<SendOutcome> {
    const { url, topic } = receiver.settings as SettingsOf<'ntfy'>;
    const { title, lines } = textOf(message, { alertsMax: ALERTS_MAX });
    const isFiring = message.state === 'firing' && message.kind !== 'test';
    const post = jsonPost(url, {
      topic,
      title: cut(title, NTFY_TITLE_CHARS_MAX),
      message: cutBytes(lines.length === 0 ? title : lines.join('\n'), NTFY_BYTES_MAX),
      priority: isFiring ? (NTFY_PRIORITY[worstSeverity(message)] ?? 3) : 3,
      tags: [isFiring ? 'rotating_light' : 'white_check_mark'],
    });
    const { secret } = receiver;
    const headers = secret === null ? {} : { authorization: `Bearer ${secret}` };
    const request = { ...post, headers: { ...post.headers, ...headers } };
    return outcomeOf(await this.#parts.poster.post(request, signal), this.#parts, () => '');
  }

  /** Why the server cannot be posted to; null when it can. */
  async check({ settings }: Pick<SenderReceiver, 'settings'>): Promise<ReceiverFinding> {
    return checkUrl(this.#parts.guard, 'settings.url', (settings as SettingsOf<'ntfy'>).url);
  }
}

function jsonPost(url: string, body: object): HttpPost {
  return { url, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}

function outcomeOf(
  answer: HttpAnswer | SendFailure,
  { now }: ChatSenderParts,
  detailOf: (answer: HttpAnswer) => string,
): SendOutcome {
  if (!answer.ok) return answer;
  if (answer.status >= 200 && answer.status < 300) return { ok: true };
  const detail = detailOf(answer);
  return failureOfStatus(answer.status, answer.headers, { detail, nowMs: now() });
}

/** Telegram's host is fixed, so what it says may be shown; the wait stands in its answer alone. */
function readTelegram(body: string): { description: string; retryAfterMs?: number } {
  try {
    const { description, parameters } = JSON.parse(body) as {
      description?: unknown;
      parameters?: { retry_after?: unknown };
    };
    const wait = parameters?.retry_after;
    return {
      description: typeof description === 'string' ? oneLine(description, DETAIL_CHARS_MAX) : '',
      ...(typeof wait === 'number' && wait >= 0
        ? { retryAfterMs: Math.min(wait, 3600) * 1000 }
        : {}),
    };
  } catch {
    return { description: '' };
  }
}

function withoutSecret(text: string, secret: string | null): string {
  return secret === null || secret === '' ? text : text.replaceAll(secret, '[redacted]');
}

/** Cuts at a line where that is near, and never inside a character. */
function cutBytes(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return text;
  const head = bytes
    .subarray(0, bytesMax - 3)
    .toString()
    .replace(/\uFFFD+$/, '');
  return `${head}…`;
}
