import { z } from 'zod';
import { strictObject } from '../rule-faults.ts';

/** Ways to tell somebody. */
export const RECEIVER_KINDS = ['webhook', 'email', 'mqtt', 'slack', 'telegram', 'ntfy'] as const;

/** One of {@link RECEIVER_KINDS}. */
export type ReceiverKind = (typeof RECEIVER_KINDS)[number];

const URL_CHARS_MAX = 2048;
const ADDRESSES_MAX = 50;

const noControl = (text: string): boolean => !/\p{Cc}|\p{Cs}/u.test(text);
const plain = (charsMax: number) =>
  z.string().min(1).max(charsMax).refine(noControl, 'must not have control characters');
const formed = (form: RegExp, fault: string) => z.string({ error: said(fault) }).regex(form, fault);
/** The words for a member that is there and is not what it must be. */
const said = (fault: string) => (issue: { readonly input?: unknown }) =>
  issue.input === undefined ? undefined : fault;
const webUrl = z
  .url({ protocol: /^https?$/, error: said('must be a URL such as https://example.com/hook') })
  .max(URL_CHARS_MAX)
  .refine((text) => !/^[^/]*\/\/[^/?#]*@/.test(text), 'must not have a user or a password');
const mailAddress = z
  .email({ error: said('must be a mail address such as duty@example.com') })
  .max(254);
const PORT = 'must be a number, 1 to 65535';

/**
 * What of a receiver may be shown, for each kind; beside it stands what its secret is. Unknown members are
 * refused. Whether an address may be reached at all is asked of the sender.
 */
export const receiverSettings = {
  /** Secret: the key of the HMAC, 16 to 256 characters. */
  webhook: strictObject({ url: webUrl.describe('Where it is posted to.') }),
  /** Secret: the password of `user`; none without. */
  email: strictObject({
    host: plain(253).describe('SMTP server.'),
    port: z.number(PORT).int(PORT).min(1, PORT).max(65_535, PORT).default(587),
    security: z
      .enum(['starttls', 'tls', 'none'])
      .default('starttls')
      .describe('none: in clear; no password is sent then.'),
    user: plain(254).nullable().default(null),
    from: mailAddress,
    to: z.array(mailAddress).min(1).max(ADDRESSES_MAX),
  }),
  /** No secret: said once more on this broker, as `v1/{organization}/{device}/alert/{rule}`. */
  mqtt: strictObject({}),
  /** Secret: the URL of the incoming webhook. */
  slack: strictObject({
    channel: plain(100).nullable().default(null).describe('Null: the one of the webhook.'),
  }),
  /** Secret: the token of the bot. */
  telegram: strictObject({
    chatId: formed(
      /^(?:-?\d{1,20}|@[A-Za-z]\w{3,31})$/,
      'must be the number of a chat as a text, such as "-1001234567890", or "@channel"',
    ).describe('Number of the chat, or @channel.'),
  }),
  /** Secret: an access token, or none. */
  ntfy: strictObject({
    url: webUrl.default('https://ntfy.sh').describe('Of the server.'),
    topic: formed(/^[-_A-Za-z0-9]{1,64}$/, 'must be 1 to 64 letters, digits, - and _'),
  }),
} as const;

/** Settings of one kind, checked. */
export type SettingsOf<Kind extends ReceiverKind> = z.output<(typeof receiverSettings)[Kind]>;

/** Settings of any kind, checked. */
export type ReceiverSettings = { [Kind in ReceiverKind]: SettingsOf<Kind> }[ReceiverKind];

/** Which secrets a kind takes. */
export const SECRET_RULES: Readonly<
  Record<
    ReceiverKind,
    { readonly need: 'required' | 'optional' | 'none'; readonly shape: z.ZodType<string> }
  >
> = {
  webhook: { need: 'required', shape: plain(256).min(16) },
  email: { need: 'optional', shape: plain(256) },
  mqtt: { need: 'none', shape: z.never() },
  slack: { need: 'required', shape: webUrl },
  telegram: {
    need: 'required',
    shape: formed(
      /^\d{1,20}:[-_A-Za-z0-9]{20,100}$/,
      'must be the token of a bot: its number, a colon, and 20 letters, digits, - and _ or more',
    ),
  },
  ntfy: {
    need: 'optional',
    shape: z.string().regex(/^[\x21-\x7E]{1,256}$/, 'must be of ASCII, without white space'),
  },
};
