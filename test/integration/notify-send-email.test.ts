import { readFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { NotificationMessage, SendOutcome } from '../../rules/notify/message.ts';
import type { SettingsOf } from '../../rules/notify/receiver-settings.ts';
import { makeCa, type TestCa } from '../support/certificates.ts';
import { makeMessage, makeReceiver, makeSenders, startTcpReceiver } from '../support/senders.ts';
import { hasProgram } from '../support/programs.ts';
import { startSmtpServer, type SmtpBehaviour } from '../support/smtp-server.ts';

const hasOpenssl = hasProgram('openssl', 'notifications by mail');
const PASSWORD = 'mail-password-0123456789';
const open: { close(): Promise<void> }[] = [];
let ca: TestCa | undefined;
let trusted: string;
let tls: { cert: string; key: string };

beforeAll(async () => {
  if (!hasOpenssl) return;
  ca = await makeCa();
  const issued = await ca.issue('mail');
  trusted = await readFile(ca.certFile, 'utf8');
  tls = {
    cert: await readFile(issued.certFile, 'utf8'),
    key: await readFile(issued.keyFile, 'utf8'),
  };
});
afterAll(() => ca?.remove());
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()));
});

async function serve(behaviour: SmtpBehaviour = {}) {
  const server = await startSmtpServer(behaviour);
  open.push(server);
  return server;
}

const settingsOf = (
  port: number,
  change: Partial<SettingsOf<'email'>> = {},
): SettingsOf<'email'> => ({
  host: 'localhost',
  port,
  security: 'starttls',
  user: 'puback',
  from: 'alerts@plant.example',
  to: ['shift@plant.example', 'boss@plant.example'],
  ...change,
});

interface Sending {
  readonly message?: NotificationMessage;
  readonly isHttpAllowed?: boolean;
  readonly mailTimeoutMs?: number;
  readonly secret?: string | null;
}

async function send(
  settings: SettingsOf<'email'>,
  { message = makeMessage(), secret = PASSWORD, ...parts }: Sending = {},
): Promise<SendOutcome> {
  const senders = makeSenders({
    ca: trusted,
    resolve: () => Promise.resolve(['127.0.0.1']),
    ...parts,
  });
  const receiver = makeReceiver('email', settings, secret);
  return senders.email.send(receiver, message, new AbortController().signal);
}

describe.runIf(hasOpenssl)('mail', () => {
  it('goes out over STARTTLS, logged in, to every recipient', async () => {
    const server = await serve({ tls });
    expect(await send(settingsOf(server.port))).toEqual({ ok: true });
    const [mail] = server.received;
    expect(mail).toMatchObject({
      from: 'alerts@plant.example',
      to: ['shift@plant.example', 'boss@plant.example'],
      isSecure: true,
      login: `puback ${PASSWORD}`,
      greeting: 'plant.example',
    });
    const content = mail?.content ?? '';
    expect(content).toMatch(/^Subject: \[FIRING\] critical: boiler too hot on first\r$/m);
    expect(content).toMatch(
      /^Message-ID: <0199d000-0000-7000-8000-000000000001@plant\.example>\r$/m,
    );
    expect(content).toMatch(/^X-Puback-Delivery: 0199d000-0000-7000-8000-000000000001\r$/m);
    expect(content).toMatch(/^Auto-Submitted: auto-generated\r$/m);
    expect(content).toContain('text/plain');
    expect(content).toContain('text/html');
    expect(server.commands.indexOf('STARTTLS')).toBeLessThan(
      server.commands.findIndex((line) => line.startsWith('AUTH')),
    );
  });

  it('goes out over TLS from the first byte', async () => {
    const server = await serve({ tls, isImplicitTls: true });
    expect(await send(settingsOf(server.port, { security: 'tls' }))).toEqual({ ok: true });
    expect(server.received[0]?.isSecure).toBe(true);
  });

  it('is not sent when the server does not offer STARTTLS', async () => {
    const server = await serve();
    expect(await send(settingsOf(server.port))).toMatchObject({ ok: false });
    expect(server.received).toEqual([]);
    expect(server.commands.some((line) => /^(AUTH|MAIL)/.test(line))).toBe(false);
  });

  it('is not sent when the certificate is of another host or not trusted', async () => {
    const server = await serve({ tls });
    const other = settingsOf(server.port, { host: 'mail.example.com' });
    expect(await send(other)).toMatchObject({ ok: false, isRetryable: true });
    const senders = makeSenders({ resolve: () => Promise.resolve(['127.0.0.1']) });
    const receiver = makeReceiver('email', settingsOf(server.port), PASSWORD);
    const outcome = await senders.email.send(receiver, makeMessage(), new AbortController().signal);
    expect(outcome).toMatchObject({ ok: false, isRetryable: true });
    expect(server.received).toEqual([]);
    expect(server.commands.some((line) => line.startsWith('AUTH'))).toBe(false);
  });

  it('goes out in clear only where that is allowed, and without the password', async () => {
    const server = await serve();
    const clear = settingsOf(server.port, { security: 'none' });
    expect(await send(clear, { isHttpAllowed: false })).toMatchObject({
      ok: false,
      isRetryable: false,
    });
    expect(server.connections).toBe(0);
    expect(await send(clear)).toEqual({ ok: true });
    expect(server.received[0]).toMatchObject({ login: null, isSecure: false });
  });

  it.each([
    ['MAIL', '451 4.3.0 later', true, 'SMTP 451 4.3.0 at MAIL FROM'],
    ['MAIL', '550 5.7.1 no', false, 'SMTP 550 5.7.1 at MAIL FROM'],
    ['RCPT', '452 4.2.2 full', true, 'SMTP 452 4.2.2 at RCPT TO'],
    ['RCPT', '550 5.1.1 who', false, 'SMTP 550 5.1.1 at RCPT TO'],
    ['DATA', '421 4.3.2 closing', true, 'SMTP 421 4.3.2 at DATA'],
    ['.', '554 5.6.0 spam', false, 'SMTP 554 5.6.0 at DATA'],
    ['AUTH', '535 5.7.8 wrong', false, 'SMTP 535 5.7.8 at AUTH PLAIN'],
    ['AUTH', '454 4.7.0 later', true, 'SMTP 454 4.7.0 at AUTH PLAIN'],
    ['HELLO', '554 go away', false, 'SMTP 554'],
  ])(
    '%s answered with %s: worth another attempt is %s',
    async (word, answer, isRetryable, reason) => {
      const server = await serve({ tls, answers: { [word]: `${answer} ${PASSWORD}` } });
      const outcome = await send(settingsOf(server.port));
      expect(outcome).toMatchObject({ ok: false, isRetryable });
      expect(outcome.ok ? '' : outcome.reason).toContain(reason);
      expect(JSON.stringify(outcome)).not.toContain(PASSWORD);
    },
  );

  it('that some recipients cannot get is not sent to the others twice', async () => {
    const server = await serve({ tls, refused: ['boss@plant.example'] });
    expect(await send(settingsOf(server.port))).toEqual({ ok: true });
    expect(server.received.map(({ to }) => to)).toEqual([['shift@plant.example']]);
  });

  it('has no header that a rule, a device or a value could have put there', async () => {
    const server = await serve({ tls });
    const evil =
      'x\r\nBcc: thief@evil.example\r\n\r\n<script>alert(1)</script>\u2028\u0000.\r\n.\r\nQUIT';
    const { alerts } = makeMessage();
    const hostile = alerts.map((alert) => ({
      ...alert,
      rule: evil,
      device: evil,
      value: evil,
      annotations: { summary: evil },
    }));
    const message = makeMessage({ alerts: hostile, organization: evil, groupKey: evil });
    expect(await send(settingsOf(server.port), { message })).toEqual({ ok: true });
    const [mail] = server.received;
    const [headers = ''] = (mail?.content ?? '').split('\r\n\r\n', 1);
    expect(headers).not.toMatch(/^bcc/im);
    const [, page = ''] = (mail?.content ?? '').split('text/html');
    expect(page).toContain('&lt;script&gt;');
    expect(page).not.toContain('<script>');
    expect(server.received).toHaveLength(1);
    expect(server.commands.filter((line) => line.startsWith('RCPT'))).toHaveLength(2);
  });

  it('A-10: is not handed to a server that is not public, whatever its name says', async () => {
    const server = await serve({ tls });
    for (const [host, answer] of [
      ['127.0.0.1', '127.0.0.1'],
      ['127.1', '127.0.0.1'],
      ['mail.example.com', '127.0.0.1'],
      ['mail.example.com', '10.0.0.1'],
    ] as const) {
      const senders = makeSenders({
        privateAddresses: '',
        resolve: () => Promise.resolve([answer]),
      });
      const receiver = makeReceiver('email', settingsOf(server.port, { host }), PASSWORD);
      expect(await senders.email.check?.(receiver), host).not.toBeNull();
      const { signal } = new AbortController();
      const outcome = await senders.email.send(receiver, makeMessage(), signal);
      expect(outcome, host).toMatchObject({ ok: false, reason: /refused/ });
    }
    expect(server.connections).toBe(0);
  });

  it('A-12: a server that never greets, never ends its answer or says too much is given up', async () => {
    const mute = await serve({ greets: false });
    const endless = await startTcpReceiver((socket) => {
      const drip = setInterval(() => socket.write('220-hello\r\n'), 10);
      socket.on('close', () => clearInterval(drip));
    });
    const loud = await startTcpReceiver((socket) => {
      const line = `220-${'x'.repeat(16_000)}\r\n`;
      const more = (): void => {
        while (!socket.destroyed && socket.write(line));
      };
      socket.on('drain', more);
      more();
    });
    open.push(endless, loud);
    for (const server of [mute, endless, loud]) {
      const startedAt = performance.now();
      const outcome = await send(settingsOf(server.port), { mailTimeoutMs: 400 });
      expect(outcome).toMatchObject({ ok: false, isRetryable: true });
      expect(performance.now() - startedAt).toBeLessThan(15_000);
    }
  });

  it('a server that resets connections is worth another attempt, and ends nothing else', async () => {
    for (const delayMs of [0, 0, 0, 1, 2, 5, 10]) {
      const server = await startTcpReceiver((socket) => {
        setTimeout(() => socket.resetAndDestroy(), delayMs);
      });
      open.push(server);
      const outcome = await send(settingsOf(server.port), { mailTimeoutMs: 400 });
      expect(outcome).toMatchObject({ ok: false, isRetryable: true });
    }
  });

  it('a server that is not there is worth another attempt', async () => {
    const server = await startSmtpServer();
    await server.close();
    expect(await send(settingsOf(server.port))).toEqual({
      ok: false,
      isRetryable: true,
      reason: 'the connection was refused',
    });
  });
});
