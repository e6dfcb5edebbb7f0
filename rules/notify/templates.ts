import type { NotificationMessage, NotifiedAlert } from './message.ts';
import { SEVERITIES } from '../severity.ts';

/** A message as text: no control characters, each part on one line, everything bounded. */
export interface MessageText {
  /** At most 150 characters. */
  readonly title: string;
  /** What stands below it; at most 600 characters each. */
  readonly lines: readonly string[];
}

/** How a message is written for a channel. */
export interface TextBounds {
  readonly alertsMax: number;
}

const TITLE_CHARS_MAX = 150;
const PART_CHARS_MAX = 120;
const SUMMARY_CHARS_MAX = 400;
const ZERO_WIDTH_SPACE = '\u200B';

/** Writes a message for people. What does not fit is counted, never dropped without a word. */
export function textOf(message: NotificationMessage, { alertsMax }: TextBounds): MessageText {
  const shown = message.alerts.slice(0, alertsMax);
  const more = message.alerts.length - shown.length + message.truncated;
  const lines = [...digestLines(message), ...shown.flatMap((alert) => alertLines(alert))];
  if (more > 0) lines.push(`and ${more} more`);
  return { title: cut(titleOf(message), TITLE_CHARS_MAX), lines };
}

/** Severity of the worst alert of a message; `info` of none. */
export function worstSeverity({ alerts }: NotificationMessage): string {
  const ranks = alerts.map(({ severity }) => SEVERITIES.findIndex((known) => known === severity));
  return SEVERITIES[Math.max(0, ...ranks)] ?? 'info';
}

/**
 * Text for Slack and what speaks its language: `& < >` are escaped, so that no mention and no link of
 * Slack's can be made; `@channel` and links in Markdown, which others know, are broken up.
 * @param charsMax of the result.
 */
export function slackText({ title, lines }: MessageText, charsMax: number): string {
  return joinLines([title, ...lines].map(escapeSlack), charsMax);
}

/** Text without any markup, for Telegram without a parse mode, ntfy and the text part of mail. */
export function plainText({ title, lines }: MessageText, charsMax: number): string {
  return joinLines([title, ...lines], charsMax);
}

/** A page for mail: no link, no image, nothing to be fetched. */
export function htmlText({ title, lines }: MessageText): string {
  const rows = lines.map((line) => `<p style="margin:4px 0">${escapeHtml(line)}</p>`).join('\n');
  return `<!DOCTYPE html>\n<html><body><h3>${escapeHtml(title)}</h3>\n${rows}\n</body></html>\n`;
}

/**
 * Makes one line of a text that anybody may have written: without control characters, line separators,
 * and those that turn the direction of writing; cut with `…`, between characters.
 */
export function oneLine(text: string, charsMax: number): string {
  const plain = text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202A-\u202E\u2066-\u2069]+/gu, ' ');
  return cut(plain.trim(), charsMax);
}

/** Cuts a text to so many UTF-16 units, `…` among them, and never inside a character. */
export function cut(text: string, charsMax: number): string {
  if (text.length <= charsMax) return text;
  const head = text.slice(0, Math.max(charsMax - 1, 0));
  return `${head.replace(/[\uD800-\uDBFF]$/, '')}…`;
}

function titleOf(message: NotificationMessage): string {
  if (message.kind === 'test') return 'Test message of Puback: this receiver works';
  const organization = oneLine(message.organization, PART_CHARS_MAX);
  if (message.digest !== null)
    return `[DIGEST] ${message.digest.changes} changes in ${organization}`;
  const count = message.alerts.length + message.truncated;
  const state = message.state === 'firing' ? 'FIRING' : 'RESOLVED';
  const [first] = message.alerts;
  if (first === undefined) return `[${state}] ${organization}`;
  const rule = oneLine(first.rule, PART_CHARS_MAX);
  if (count > 1) return `[${state}:${count}] ${worstSeverity(message)}: ${rule} (${organization})`;
  return `[${state}] ${first.severity}: ${rule} on ${oneLine(first.device, PART_CHARS_MAX)}`;
}

function digestLines({ digest }: NotificationMessage): string[] {
  if (digest === null) return [];
  const when = `from ${digest.from} to ${digest.to}`;
  return digest.reason === 'flapping'
    ? [`${digest.changes} changes ${when}: alerts change too often to tell each time.`]
    : [
        `${digest.suppressed} messages were left out ${when}: the receiver had as many as it may have.`,
      ];
}

function alertLines(alert: NotifiedAlert): string[] {
  const { severity, state, firedAt, activeAt, resolvedAt, annotations } = alert;
  const subject = `${oneLine(alert.rule, PART_CHARS_MAX)} on ${oneLine(alert.device, PART_CHARS_MAX)}`;
  const value =
    alert.value === null ? '' : `, value ${oneLine(String(alert.value), PART_CHARS_MAX)}`;
  const when =
    state === 'firing' ? `since ${firedAt ?? activeAt}` : `resolved ${resolvedAt ?? ''}`.trim();
  const summary = annotations['summary'] ?? annotations['description'] ?? '';
  const head = `${state.toUpperCase()} ${severity}: ${subject}${value}, ${when}`;
  return summary === '' ? [head] : [head, oneLine(summary, SUMMARY_CHARS_MAX)];
}

/** As many lines as there is room for; the last one says how many are left out. */
function joinLines(lines: readonly string[], charsMax: number): string {
  const NOTE_CHARS = 40;
  let text = '';
  for (const [index, line] of lines.entries()) {
    const next = text === '' ? line : `${text}\n${line}`;
    const isLast = index === lines.length - 1;
    if (next.length > charsMax - (isLast ? 0 : NOTE_CHARS)) {
      return text === ''
        ? cut(line, charsMax)
        : `${text}\n… ${lines.length - index} lines left out`;
    }
    text = next;
  }
  return text;
}

function escapeSlack(line: string): string {
  return line
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replace(/@(?=channel|here|all|everyone)/gi, `@${ZERO_WIDTH_SPACE}`)
    .replaceAll('](', `]${ZERO_WIDTH_SPACE}(`);
}

function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}
