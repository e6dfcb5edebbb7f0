import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { createTransport } from 'nodemailer';
import type { AddressGuard } from './address-guard.ts';
import { Deadline } from './deadline.ts';
import { connectGuarded } from './guarded-connect.ts';
import type {
  NotificationMessage,
  ReceiverFinding,
  Sender,
  SenderReceiver,
  SendOutcome,
} from './message.ts';
import type { SettingsOf } from './receiver-settings.ts';
import { failureOf } from './send-failure.ts';
import { placed } from './send-webhook.ts';
import { htmlText, plainText, textOf } from './templates.ts';

/** What the sender of mail works with. */
export interface EmailSenderParts {
  readonly guard: AddressGuard;
  /** Of one attempt; servers may take their time before they greet. */
  readonly timeoutMs: number;
  /** Whether mail may go out in clear, without a password. */
  readonly isClearAllowed: boolean;
  /** Authorities to trust in place of the system's, in PEM. */
  readonly ca?: string;
}

type Settings = SettingsOf<'email'>;

const ALERTS_MAX = 50;
const TEXT_CHARS_MAX = 20_000;
const RESPONSE_BYTES_MAX = 65_536;

/**
 * Hands mail to an SMTP server, over TLS: STARTTLS is not optional where it is asked for. Connects only
 * where the guard allows. Answers: 4xx and no connection are worth another attempt, 5xx are not. When
 * the server takes some of several recipients, it is done: the others would cost these a second copy.
 */
export class EmailSender implements Sender {
  readonly #parts: EmailSenderParts;

  constructor(parts: EmailSenderParts) {
    this.#parts = parts;
  }

  /** Makes one attempt. Never rejects. */
  async send(
    receiver: SenderReceiver,
    message: NotificationMessage,
    signal: AbortSignal,
  ): Promise<SendOutcome> {
    const settings = receiver.settings as Settings;
    const fault = this.#fault(settings);
    if (fault !== null) return { ok: false, isRetryable: false, reason: fault };
    const deadline = new Deadline(signal, this.#parts.timeoutMs);
    let socket: Socket | undefined;
    try {
      const connection = await connectGuarded(this.#parts.guard, settings, deadline.signal);
      socket = connection;
      const transport = createTransport({
        ...this.#connectionOptions(settings, receiver.secret),
        getSocket: (_options, callback) => callback(null, { connection }),
      });
      await transport.sendMail({ ...mailOf(settings, message), signal: deadline.signal });
      return { ok: true };
    } catch (err) {
      socket?.destroy();
      return smtpFailure(err) ?? failureOf(err, { signal, deadline });
    } finally {
      deadline.release();
    }
  }

  /** What is wrong with the server: its port, its address, or that mail would go in clear. */
  async check({ settings }: Pick<SenderReceiver, 'settings'>): Promise<ReceiverFinding> {
    const email = settings as Settings;
    const fault = this.#fault(email);
    return placed(
      'settings',
      fault === null ? await this.#parts.guard.lookupFinding(email.host) : { fault, warning: null },
    );
  }

  #fault({ host, port, security }: Settings): string | null {
    if (security === 'none' && !this.#parts.isClearAllowed) {
      return 'mail in clear is refused (NOTIFY_HTTP_ALLOWED)';
    }
    const fault = this.#parts.guard.mailServerFault(host, port);
    return fault === null ? null : `the server is refused: ${fault}`;
  }

  #connectionOptions({ host, port, security, user, from }: Settings, secret: string | null) {
    const { timeoutMs, ca } = this.#parts;
    const hasLogin = user !== null && secret !== null && security !== 'none';
    return {
      host,
      port,
      /** What it greets with: nothing of the machine that it runs on. */
      name: domainOf(from),
      secure: security === 'tls',
      requireTLS: security === 'starttls',
      ignoreTLS: security === 'none',
      ...(hasLogin ? { auth: { user, pass: secret }, forceAuth: true } : {}),
      tls: { minVersion: 'TLSv1.2', ...(ca === undefined ? {} : { ca }) } as const,
      connectionTimeout: timeoutMs,
      greetingTimeout: timeoutMs,
      socketTimeout: timeoutMs,
      socketCloseTimeout: 1000,
      maxResponseSize: RESPONSE_BYTES_MAX,
      disableFileAccess: true,
      disableUrlAccess: true,
      logger: false,
    } as const;
  }
}

/** The same in each attempt. Mails of one group of alerts are one thread. */
function mailOf({ from, to }: Settings, message: NotificationMessage) {
  const text = textOf(message, { alertsMax: ALERTS_MAX });
  const domain = domainOf(from);
  const group = createHash('sha256').update(message.groupKey).digest('hex').slice(0, 32);
  return {
    from: { name: 'Puback', address: from },
    to: to.map((address) => ({ name: '', address })),
    subject: text.title,
    text: `${plainText({ title: text.title, lines: ['', ...text.lines] }, TEXT_CHARS_MAX)}\n`,
    html: htmlText(text),
    date: new Date(message.createdAt),
    messageId: `<${message.notificationId}@${domain}>`,
    references: `<${group}@${domain}>`,
    headers: {
      'Auto-Submitted': 'auto-generated',
      'X-Puback-Delivery': message.notificationId,
    },
  };
}

function domainOf(address: string): string {
  return address.slice(address.lastIndexOf('@') + 1);
}

/** Of the server's answer only the numbers are shown: its text may be anything. */
function smtpFailure(err: unknown): SendOutcome | null {
  const { responseCode, response, command } = (err ?? {}) as Record<string, unknown>;
  if (typeof responseCode !== 'number' || responseCode < 400) return null;
  const enhanced = /^\d{3}[ -]([245]\.\d{1,3}\.\d{1,3})\b/.exec(String(response))?.[1];
  const step = /^[A-Z ]{3,12}/.exec(String(command))?.[0].trim() ?? '';
  const reason = [`SMTP ${responseCode}`, enhanced, step === '' ? null : `at ${step}`];
  const isRetryable = responseCode < 500;
  return { ok: false, isRetryable, reason: reason.filter(Boolean).join(' ') };
}
