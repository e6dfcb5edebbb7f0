import type { ServerResponse } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import type { NotificationMessage, SendOutcome } from '../../rules/notify/message.ts';
import { createTestMessage } from '../../rules/notify/test-message.ts';
import {
  makeMessage,
  makeReceiver,
  makeSenders,
  startHttpReceiver,
  type ReceivedRequest,
  type TestReceiver,
} from '../support/senders.ts';

const TOKEN = '123456789:AAtelegram-token-0123456789';
const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((receiver) => receiver.close()));
});

async function serve(answer: (response: ServerResponse) => void = (response) => response.end()) {
  const receiver = await startHttpReceiver(answer);
  open.push(receiver);
  return receiver;
}

type Kind = 'slack' | 'telegram' | 'ntfy';

async function send(
  kind: Kind,
  { port }: TestReceiver<ReceivedRequest>,
  message: NotificationMessage = makeMessage(),
): Promise<SendOutcome> {
  const origin = `http://127.0.0.1:${port}`;
  const senders = makeSenders({ telegramOrigin: origin });
  const { signal } = new AbortController();
  const receiver = {
    slack: makeReceiver('slack', { channel: null }, `${origin}/services/T0/B0/slack-secret`),
    telegram: makeReceiver('telegram', { chatId: '-1001' }, TOKEN),
    ntfy: makeReceiver('ntfy', { url: origin, topic: 'plant' }, 'tk_secret'),
  }[kind];
  return senders[kind].send(receiver, message, signal);
}

function bodyOf({ received }: TestReceiver<ReceivedRequest>): Record<string, unknown> {
  return JSON.parse(received.at(-1)?.body ?? '{}') as Record<string, unknown>;
}

/** A message of alerts whose every text is hostile. */
function hostile(text: string, count = 1): NotificationMessage {
  const alerts = makeMessage().alerts.flatMap((alert) =>
    Array.from({ length: count }, () => ({
      ...alert,
      rule: text,
      device: text,
      value: text,
      annotations: { summary: text },
    })),
  );
  return makeMessage({ alerts });
}

describe('chats', () => {
  it('of Slack get a text in which nothing is a link, a mention or markup', async () => {
    const receiver = await serve();
    expect(await send('slack', receiver)).toEqual({ ok: true });
    expect(receiver.received[0]?.path).toBe('/services/T0/B0/slack-secret');
    expect(bodyOf(receiver)).toMatchObject({
      text: [
        '[FIRING] critical: boiler too hot on first',
        'FIRING critical: boiler too hot on first, value 81.5, since 2026-11-21T12:00:02.000Z',
        'first is at 81.5 °C',
      ].join('\n'),
      mrkdwn: false,
    });
    await send('slack', receiver, hostile('<!channel> & <https://evil.example|ok> @here [a](b)'));
    const { text } = bodyOf(receiver);
    expect(text).toContain('&lt;!channel&gt; &amp; &lt;https://evil.example|ok&gt;');
    expect(text).not.toMatch(/[<>]|@here|\]\(/);
  });

  it('of Telegram get a text without a parse mode', async () => {
    const receiver = await serve();
    expect(await send('telegram', receiver, hostile('_*[x](y)`<b>'))).toEqual({ ok: true });
    expect(receiver.received[0]?.path).toBe(`/bot${TOKEN}/sendMessage`);
    const body = bodyOf(receiver);
    expect(body).toMatchObject({ chat_id: '-1001', link_preview_options: { is_disabled: true } });
    expect(body).not.toHaveProperty('parse_mode');
    expect(body['text']).toContain('_*[x](y)`<b>');
  });

  it('of ntfy get title, text and priority as JSON, with the token in a header', async () => {
    const receiver = await serve();
    expect(await send('ntfy', receiver, hostile('Kühlung 温度'))).toEqual({ ok: true });
    expect(receiver.received[0]?.headers.authorization).toBe('Bearer tk_secret');
    expect(receiver.received[0]?.path).toBe('/');
    expect(bodyOf(receiver)).toMatchObject({
      topic: 'plant',
      title: '[FIRING] critical: Kühlung 温度 on Kühlung 温度',
      priority: 5,
      tags: ['rotating_light'],
    });
    await send('ntfy', receiver, makeMessage({ state: 'resolved' }));
    expect(bodyOf(receiver)).toMatchObject({ priority: 3, tags: ['white_check_mark'] });
  });

  it.each([
    ['slack', 3500],
    ['telegram', 4096],
    ['ntfy', 4096],
  ] as const)('of %s get at most %i, whatever the texts are', async (kind, max) => {
    const receiver = await serve();
    for (const text of ['💥'.repeat(5000), '&<>'.repeat(5000), 'x\n\u0000\u202E'.repeat(5000)]) {
      expect(await send(kind, receiver, hostile(text, 100))).toEqual({ ok: true });
      const body = bodyOf(receiver);
      const sent = String(body['text'] ?? body['message']);
      const size = kind === 'ntfy' ? Buffer.byteLength(sent) : sent.length;
      expect(size).toBeLessThanOrEqual(max);
      expect(size).toBeGreaterThan(100);
      expect(sent).not.toMatch(/\p{Cs}/u);
      expect(sent).not.toContain('\uFFFD');
      expect(sent).not.toMatch(/[\u0000\u202E]/);
    }
  });

  it('are told of alerts and lines that are left out', async () => {
    const receiver = await serve();
    const { alerts } = makeMessage();
    const many = Array.from({ length: 30 }, () => alerts).flat();
    await send('telegram', receiver, makeMessage({ alerts: many, truncated: 7 }));
    expect(bodyOf(receiver)['text']).toContain('[FIRING:37] critical: boiler too hot (demo)');
    expect(bodyOf(receiver)['text']).toMatch(/and 27 more$/);
  });

  it('are told what a digest stands for, and that a test is one', async () => {
    const receiver = await serve();
    const digest = {
      from: '2026-11-21T11:00:00.000Z',
      to: '2026-11-21T12:00:00.000Z',
      suppressed: 12,
      changes: 40,
    };
    for (const [reason, words] of [
      ['rate_cap', '12 messages were left out'],
      ['flapping', '40 changes'],
    ] as const) {
      const message = makeMessage({ kind: 'digest', digest: { reason, ...digest } });
      await send('telegram', receiver, message);
      const text = String(bodyOf(receiver)['text']);
      expect(text).toContain(`[DIGEST] 40 changes in demo\n${words} from 2026-11-21T11:00:00.000Z`);
    }
    const { notificationId } = makeMessage();
    const test = createTestMessage({ notificationId, organization: 'demo', nowMs: 0 });
    await send('ntfy', receiver, test);
    expect(bodyOf(receiver)).toMatchObject({ priority: 3, title: /^Test message of Puback/ });
  });

  it('that are busy say how long to wait; Telegram does so in its answer', async () => {
    const busy = {
      ok: false,
      error_code: 429,
      description: 'Too Many Requests: retry after 35',
      parameters: { retry_after: 35 },
    };
    const receiver = await serve((response) => response.writeHead(429).end(JSON.stringify(busy)));
    expect(await send('telegram', receiver)).toEqual({
      ok: false,
      isRetryable: true,
      reason: 'HTTP 429: Too Many Requests: retry after 35',
      retryAfterMs: 35_000,
    });
  });

  it('that refuse a message say why, as far as that is safe to show', async () => {
    const wrong = { ok: false, description: `Bad Request: chat not found ${TOKEN}` };
    const telegram = await serve((response) => response.writeHead(400).end(JSON.stringify(wrong)));
    expect(await send('telegram', telegram)).toEqual({
      ok: false,
      isRetryable: false,
      reason: 'HTTP 400: Bad Request: chat not found [redacted]',
    });
    const slack = await serve((response) => response.writeHead(404).end('no_service'));
    expect(await send('slack', slack)).toMatchObject({ reason: 'HTTP 404: no_service' });
    for (const kind of ['slack', 'ntfy', 'telegram'] as const) {
      const page = await serve((response) => response.writeHead(403).end('<h1>inner page</h1>'));
      expect(await send(kind, page)).toMatchObject({ isRetryable: false, reason: 'HTTP 403' });
    }
  });
});
