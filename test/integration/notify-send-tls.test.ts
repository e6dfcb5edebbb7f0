import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SendOutcome } from '../../rules/notify/message.ts';
import { makeCa, type TestCa } from '../support/certificates.ts';
import { listen, makeMessage, makeReceiver, makeSenders } from '../support/senders.ts';
import type { TestReceiver } from '../support/senders.ts';
import { hasProgram } from '../support/programs.ts';

const hasOpenssl = hasProgram('openssl', 'webhooks over TLS');
const names: (string | false | null | undefined)[] = [];
let ca: TestCa | undefined;
let trusted = '';
const servers: TestReceiver<unknown>[] = [];

beforeAll(async () => {
  if (!hasOpenssl) return;
  ca = await makeCa();
  trusted = await readFile(ca.certFile, 'utf8');
  for (const days of [2, -1]) {
    const { certFile, keyFile } = await ca.issue('hook', days);
    const server = createServer(
      { cert: await readFile(certFile), key: await readFile(keyFile) },
      (request, response) => {
        names.push((request.socket as unknown as { servername?: string | false }).servername);
        request.resume().on('end', () => response.end());
      },
    );
    servers.push(await listen(server as unknown as Server, []));
  }
});
afterAll(async () => {
  await Promise.all(servers.map((server) => server.close()));
  await ca?.remove();
});

async function post(host: string, port: number, ca = trusted): Promise<SendOutcome> {
  const senders = makeSenders({
    isHttpAllowed: false,
    resolve: () => Promise.resolve(['127.0.0.1']),
    ...(ca === '' ? {} : { ca }),
  });
  const receiver = makeReceiver('webhook', { url: `https://${host}:${port}/` }, 's'.repeat(16));
  return senders.webhook.send(receiver, makeMessage(), new AbortController().signal);
}

describe.runIf(hasOpenssl)('webhooks over TLS', () => {
  it('connect to the address that was checked, by the name that was given', async () => {
    const port = servers[0]?.port ?? 0;
    expect(await post('localhost', port)).toEqual({ ok: true });
    expect(names.at(-1)).toBe('localhost');
    expect(await post('127.0.0.1', port)).toEqual({ ok: true });
    expect(names.at(-1)).toBe(false);
  });

  it('A-11: are not posted when the certificate is of another name, expired or of nobody known', async () => {
    const [good, expired] = servers.map(({ port }) => port);
    const before = names.length;
    expect(await post('hook.example.com', good ?? 0)).toEqual({
      ok: false,
      isRetryable: true,
      reason: 'the certificate is of another host',
    });
    expect(await post('localhost', expired ?? 0)).toMatchObject({
      reason: 'the certificate has expired',
    });
    expect(await post('localhost', good ?? 0, '')).toMatchObject({
      reason: 'the certificate is not trusted',
    });
    expect(names).toHaveLength(before);
  });
});
