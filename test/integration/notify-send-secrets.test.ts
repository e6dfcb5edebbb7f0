import { Writable } from 'node:stream';
import { inspect } from 'node:util';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SenderReceiver } from '../../rules/notify/message.ts';
import type { ReceiverKind } from '../../rules/notify/receiver-settings.ts';
import {
  makeMessage,
  makeReceiver,
  makeSenders,
  startHttpReceiver,
  startTcpReceiver,
  type TestReceiver,
} from '../support/senders.ts';
import { startSmtpServer } from '../support/smtp-server.ts';

const SECRETS = {
  webhook: 'w3bhook-secret-key-0000',
  email: 'm4il-secret-word-0000',
  slack: 'sl4ck-secret-path-0000',
  telegram: '987654321:AAt3legram-secret-token-0000',
  ntfy: 'tk_ntfy-secret-token-0000',
} as const;

/** Servers that answer in every bad way, most of them with all that they were sent. */
const servers: TestReceiver<unknown>[] = [];

beforeAll(async () => {
  const echo = (status: number) =>
    startHttpReceiver((response, request) => {
      response.writeHead(status, {
        location: request.path,
        'x-echo': JSON.stringify(request.path),
      });
      response.end(JSON.stringify({ description: JSON.stringify(request), error: request }));
    });
  for (const status of [301, 400, 401, 404, 429, 500, 503]) servers.push(await echo(status));
  servers.push(await startTcpReceiver((socket) => socket.pipe(socket)));
  servers.push(await startTcpReceiver((socket) => socket.destroy()));
  servers.push(await startTcpReceiver(() => undefined));
  const closed = await startTcpReceiver(() => undefined);
  await closed.close();
  servers.push({ ...closed, close: () => Promise.resolve() });
  servers.push(await startSmtpServer({ answers: { AUTH: `535 ${SECRETS.email}` } }));
});
afterAll(() => Promise.all(servers.map((server) => server.close())));

function receiversOf(origin: string, port: number): SenderReceiver[] {
  return [
    makeReceiver('webhook', { url: `${origin}/hook` }, SECRETS.webhook),
    makeReceiver(
      'email',
      {
        host: new URL(origin).hostname,
        port,
        security: 'tls',
        user: 'u',
        from: 'a@plant.example',
        to: ['b@plant.example'],
      },
      SECRETS.email,
    ),
    makeReceiver('slack', { channel: null }, `${origin}/services/${SECRETS.slack}`),
    makeReceiver('telegram', { chatId: '1' }, SECRETS.telegram),
    makeReceiver('ntfy', { url: origin, topic: 't' }, SECRETS.ntfy),
  ];
}

describe('secrets of receivers', () => {
  it('A-15: are in no outcome, no answer to a check and no log, whatever goes wrong', async () => {
    const said: string[] = [];
    const write = new Writable({
      write(chunk: Buffer, _encoding, done) {
        said.push(chunk.toString());
        done();
      },
    });
    const log = pino({ level: 'trace' }, write);
    const origins = servers.map(({ port }) => ({ port, origin: `http://127.0.0.1:${port}` }));
    const refused = [
      { port: 443, origin: 'http://10.0.0.1' },
      { port: 22, origin: 'http://203.0.113.1:22' },
      { port: 443, origin: 'http://absent.invalid' },
    ];
    let attempts = 0;
    for (const { origin, port } of [...origins, ...refused]) {
      const senders = makeSenders({
        telegramOrigin: origin,
        httpTimeoutMs: 150,
        mailTimeoutMs: 150,
      });
      for (const receiver of receiversOf(origin, port)) {
        const sender = senders[receiver.kind];
        const outcome = await sender.send(receiver, makeMessage(), new AbortController().signal);
        const fault = await sender.check?.(receiver);
        expect(outcome.ok, `${receiver.kind} ${origin}`).toBe(false);
        expect(outcome.ok ? 0 : outcome.reason.length).toBeLessThanOrEqual(300);
        log.info({ outcome, fault }, inspect(outcome));
        attempts += 1;
      }
    }
    expect(attempts).toBe((servers.length + refused.length) * 5);
    const all = said.join('');
    expect(all.length).toBeGreaterThan(1000);
    for (const secret of Object.values(SECRETS)) {
      for (const form of [
        secret,
        encodeURIComponent(secret),
        Buffer.from(secret).toString('base64'),
      ]) {
        expect(all).not.toContain(form);
      }
    }
  });

  it('A-15: that are malformed are not repeated in what is said of them', async () => {
    const senders = makeSenders();
    const { signal } = new AbortController();
    const bad: [ReceiverKind, SenderReceiver][] = [
      ['slack', makeReceiver('slack', { channel: null }, 'https://user:sl4ck@127.0.0.1/x')],
      ['slack', makeReceiver('slack', { channel: null }, 'sl4ck is no url')],
      ['ntfy', makeReceiver('ntfy', { url: 'http://127.0.0.1:9', topic: 't' }, 'sl4ck\r\nx: y')],
      [
        'ntfy',
        makeReceiver('ntfy', { url: 'http://127.0.0.1:9999', topic: 't' }, 'sl4ck\u{1F4A5}'),
      ],
      ['telegram', makeReceiver('telegram', { chatId: '1' }, '../../sl4ck?x#y')],
    ];
    const closed = { ...senders, ...makeSenders({ telegramOrigin: 'http://127.0.0.1:9' }) };
    for (const [kind, receiver] of bad) {
      const outcome = await closed[kind].send(receiver, makeMessage(), signal);
      expect(outcome.ok).toBe(false);
      expect(JSON.stringify([outcome, await closed[kind].check?.(receiver)])).not.toContain(
        'sl4ck',
      );
    }
  });
});
