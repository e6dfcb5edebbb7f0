import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { AddressRefusedError } from '../../rule-errors.ts';
import { AddressGuard } from '../../rules/notify/address-guard.ts';
import { connectGuarded, guardedConnector } from '../../rules/notify/guarded-connect.ts';
import type { SendOutcome } from '../../rules/notify/message.ts';
import {
  makeMessage,
  makeReceiver,
  makeSenders,
  startFullListener,
  startHttpReceiver,
  startTcpReceiver,
  type TestReceiver,
} from '../support/senders.ts';

const SECRET = 'webhook-secret-0123456789';
const hasIpv6 = Object.values(networkInterfaces()).some((all) =>
  all?.some(({ address }) => address === '::1'),
);
const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((receiver) => receiver.close()));
});

function keep<T extends { close(): Promise<void> }>(receiver: T): T {
  open.push(receiver);
  return receiver;
}

async function post(
  url: string,
  senders = makeSenders(),
  signal = new AbortController().signal,
): Promise<SendOutcome> {
  const receiver = makeReceiver('webhook', { url }, SECRET);
  return senders.webhook.send(receiver, makeMessage(), signal);
}

const at = ({ port }: Pick<TestReceiver<unknown>, 'port'>, host = '127.0.0.1'): string =>
  `http://${host}:${port}/hook?room=1`;

describe('webhooks', () => {
  it('are posted as JSON, signed, with an id that is the same in each attempt', async () => {
    const receiver = keep(await startHttpReceiver((response) => response.end('fine')));
    const senders = makeSenders({ now: () => 1_795_264_354_415 });
    expect(await post(at(receiver), senders)).toEqual({ ok: true });
    expect(await post(at(receiver), senders)).toEqual({ ok: true });
    const [request, again] = receiver.received;
    expect(request).toMatchObject({ method: 'POST', path: '/hook?room=1' });
    expect(JSON.parse(request?.body ?? '')).toEqual({ version: 1, ...makeMessage() });
    const mac = createHmac('sha256', SECRET).update(`1795264354.${request?.body}`).digest('hex');
    expect(request?.headers).toMatchObject({
      'content-type': 'application/json',
      'x-puback-delivery': makeMessage().notificationId,
      'x-puback-signature': `t=1795264354,v1=${mac}`,
    });
    expect(again?.headers['x-puback-delivery']).toBe(request?.headers['x-puback-delivery']);
  });

  it.each([
    [200, true, null],
    [204, true, null],
    [400, false, false],
    [401, false, false],
    [404, false, false],
    [410, false, false],
    [408, false, true],
    [425, false, true],
    [429, false, true],
    [500, false, true],
    [503, false, true],
    [302, false, false],
    [304, false, false],
  ])(
    'answered with %i: sent is %s, worth another attempt is %s',
    async (status, ok, isRetryable) => {
      const receiver = keep(
        await startHttpReceiver((response) =>
          response.writeHead(status, { 'retry-after': '7' }).end(),
        ),
      );
      const outcome = await post(at(receiver));
      expect(outcome.ok).toBe(ok);
      if (outcome.ok) return;
      expect(outcome.isRetryable).toBe(isRetryable);
      expect(outcome.reason).toContain(`HTTP ${status}`);
      expect(outcome.retryAfterMs).toBe(isRetryable === true ? 7000 : undefined);
    },
  );

  it.each([
    ['0', 0],
    ['999999', 3_600_000],
    ['Sat, 21 Nov 2026 12:00:30 GMT', 30_000],
    ['Sat, 21 Nov 2020 12:00:30 GMT', 0],
    ['soon', undefined],
  ])('Retry-After %s is %s ms', async (header, waitMs) => {
    const receiver = keep(
      await startHttpReceiver((response) =>
        response.writeHead(503, { 'retry-after': header }).end(),
      ),
    );
    const senders = makeSenders({ now: () => Date.UTC(2026, 10, 21, 12) });
    expect(await post(at(receiver), senders)).toMatchObject({ ok: false, isRetryable: true });
    const outcome = await post(at(receiver), senders);
    expect(outcome.ok ? null : outcome.retryAfterMs).toBe(waitMs);
  });

  it('a receiver that is not there is worth another attempt', async () => {
    const receiver = await startTcpReceiver(() => undefined);
    await receiver.close();
    expect(await post(at(receiver))).toEqual({
      ok: false,
      isRetryable: true,
      reason: 'the connection was refused',
    });
    expect(await post('http://absent.invalid/', makeSenders({ resolve: notFound }))).toEqual({
      ok: false,
      isRetryable: true,
      reason: 'the host does not resolve',
    });
  });

  it('a receiver that speaks something else, or hangs up, is worth another attempt', async () => {
    const other = keep(await startTcpReceiver((socket) => socket.end('220 mail ESMTP\r\n')));
    expect(await post(at(other))).toMatchObject({ ok: false, isRetryable: true });
    const silent = keep(await startTcpReceiver((socket) => socket.destroy()));
    expect(await post(at(silent))).toMatchObject({ ok: false, isRetryable: true });
    const headers = keep(
      await startTcpReceiver((socket) =>
        socket.write(`HTTP/1.1 200 OK\r\nx: ${'x'.repeat(100_000)}\r\n\r\n`),
      ),
    );
    expect(await post(at(headers))).toMatchObject({
      ok: false,
      isRetryable: true,
      reason: 'the answer is not what it should be',
    });
  });

  it('an attempt that is interrupted ends at once', async () => {
    const receiver = keep(await startHttpReceiver(() => undefined));
    const interrupt = new AbortController();
    const sent = post(at(receiver), makeSenders(), interrupt.signal);
    await expect.poll(() => receiver.received.length).toBe(1);
    interrupt.abort();
    expect(await sent).toEqual({ ok: false, isRetryable: true, reason: 'it was interrupted' });
  });
});

describe('webhooks that are told to go where they must not', () => {
  it('A-10: an address literal is refused at connect, and nothing connects', async () => {
    const receiver = keep(await startHttpReceiver((response) => response.end()));
    const senders = makeSenders({ privateAddresses: '' });
    for (const host of ['127.0.0.1', '2130706433', '0x7f.1', '127.1', '[::ffff:127.0.0.1]']) {
      expect(await post(at(receiver, host), senders), host).toMatchObject({
        ok: false,
        isRetryable: false,
      });
    }
    expect(receiver.connections).toBe(0);
  });

  it('A-10: the connector itself refuses literals, and peers that are not what was looked up', async () => {
    const receiver = keep(await startHttpReceiver((response) => response.end()));
    const { signal } = new AbortController();
    const guard = new AddressGuard({
      privateAddresses: '',
      isHttpAllowed: true,
      resolve: () => Promise.resolve(['127.0.0.1']),
    });
    const blind = {
      resolve: () => Promise.resolve(['127.0.0.1']),
      addressFault: (address: string) => (address === '127.0.0.1' ? 'loopback' : null),
    } as unknown as AddressGuard;
    const open = (one: AddressGuard, hostname: string): Promise<Error | null> =>
      new Promise((resolve) => {
        const connect = guardedConnector(one, { timeoutMs: 1000, signal });
        connect({ hostname, protocol: 'http:', port: String(receiver.port) }, (...[err]) => {
          resolve(err);
        });
      });
    for (const hostname of ['127.0.0.1', '::1', '::ffff:7f00:1', '0x7f.1', 'name.example.com']) {
      expect(await open(guard, hostname), hostname).toBeInstanceOf(AddressRefusedError);
    }
    expect(receiver.connections).toBe(0);
    expect(await open(blind, 'name.example.com')).toBeInstanceOf(AddressRefusedError);
    const target = { host: 'name.example.com', port: receiver.port };
    await expect(connectGuarded(blind, target, signal)).rejects.toThrow(AddressRefusedError);
    await expect(connectGuarded(guard, target, signal)).rejects.toThrow(AddressRefusedError);
    expect(receiver.received).toEqual([]);
  });

  it('A-11: a name that is public when it is saved and private when it is used is refused', async () => {
    const receiver = keep(await startHttpReceiver((response) => response.end()));
    const answers = [['93.184.215.14'], ['127.0.0.1'], ['93.184.215.14', '127.0.0.1']];
    let asked = 0;
    const senders = makeSenders({
      privateAddresses: '',
      resolve: () => Promise.resolve(answers[asked++] ?? []),
    });
    const url = at(receiver, 'rebind.example.com');
    const saved = { ...makeReceiver('webhook', { url }, SECRET) };
    expect(await senders.webhook.check?.(saved)).toEqual({ fault: null, warning: null });
    for (const count of [2, 3]) {
      expect(await post(url, senders)).toMatchObject({ ok: false, reason: /loopback/ });
      expect(asked).toBe(count);
    }
    expect(receiver.connections).toBe(0);
  });

  it('A-11: a name is looked up once for a connection, and the connection goes to that answer', async () => {
    const receiver = keep(await startHttpReceiver((response) => response.end()));
    let asked = 0;
    const resolve = (): Promise<string[]> => {
      asked += 1;
      return Promise.resolve(asked === 1 ? ['127.0.0.1'] : ['10.255.255.1']);
    };
    const url = at(receiver, 'once.example.com');
    expect(await post(url, makeSenders({ resolve }))).toEqual({ ok: true });
    expect(asked).toBe(1);
    expect(receiver.received[0]?.headers.host).toBe(`once.example.com:${receiver.port}`);
  });

  it('of several addresses, which all were checked, the first that answers is taken', async () => {
    const receiver = keep(await startHttpReceiver((response) => response.end()));
    const senders = makeSenders({
      privateAddresses: '127.0.0.0/8',
      resolve: () => Promise.resolve(['127.0.0.2', '127.0.0.1']),
    });
    expect(await post(at(receiver, 'two.example.com'), senders)).toEqual({ ok: true });
  });

  it.runIf(hasIpv6)('an address of IPv6 is posted to', async () => {
    const server = createServer((_request, response) => response.end());
    await new Promise<void>((resolve) => server.listen(0, '::1', resolve));
    keep({ close: () => new Promise<void>((resolve) => server.close(() => resolve())) });
    const { port } = server.address() as AddressInfo;
    const senders = makeSenders({ privateAddresses: '::1' });
    expect(await post(`http://[::1]:${port}/`, senders)).toEqual({ ok: true });
  });

  it('A-12: a receiver that only ever answers 103 is given up at once', async () => {
    let isEnded = false;
    const receiver = keep(
      await startHttpReceiver((response) => {
        const babble = (): void => {
          if (response.destroyed || isEnded) return;
          for (let hint = 0; hint < 100; hint += 1) response.writeEarlyHints({ link: '</a>' });
          setImmediate(babble);
        };
        babble();
      }),
    );
    const startedAt = performance.now();
    expect(await post(at(receiver))).toEqual({
      ok: false,
      isRetryable: true,
      reason: 'the answer is not what it should be',
    });
    isEnded = true;
    expect(performance.now() - startedAt).toBeLessThan(5000);
  });

  it('A-12: a redirect is not followed', async () => {
    const inner = keep(await startHttpReceiver((response) => response.end()));
    for (const location of [at(inner), 'http://169.254.169.254/latest/meta-data/']) {
      const outer = keep(
        await startHttpReceiver((response) => response.writeHead(302, { location }).end()),
      );
      expect(await post(at(outer))).toEqual({
        ok: false,
        isRetryable: false,
        reason: 'HTTP 302, and redirects are not followed',
      });
    }
    expect(inner.connections).toBe(0);
  });

  it('A-12: of an answer of 10 GB 64 KB are read', async () => {
    let written = 0;
    const receiver = keep(
      await startHttpReceiver((response) => {
        response.writeHead(200, { 'content-length': String(10 * 1024 ** 3) });
        const chunk = Buffer.alloc(16_384);
        const more = (): void => {
          while (!response.destroyed && written < 10 * 1024 ** 3) {
            written += chunk.length;
            if (!response.write(chunk)) return;
          }
        };
        response.on('drain', more);
        more();
      }),
    );
    const startedAt = performance.now();
    expect(await post(at(receiver))).toEqual({ ok: true });
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    // What the buffers of two sockets hold comes on top of what is read.
    expect(written).toBeLessThan(32 * 1024 ** 2);
  });

  it('A-12: a gzip bomb is not unpacked', async () => {
    const bomb = gzipSync(Buffer.alloc(64 * 1024 ** 2));
    const receiver = keep(
      await startHttpReceiver((response) =>
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb),
      ),
    );
    const before = process.memoryUsage().arrayBuffers;
    expect(await post(at(receiver))).toEqual({ ok: true });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 1024 ** 2);
    expect(receiver.received[0]?.headers['accept-encoding']).toBe('identity');
  });

  it('A-12: a receiver that never answers, or drips, is given up after the time that is set', async () => {
    const senders = makeSenders({ httpTimeoutMs: 300 });
    const deaf = keep(await startHttpReceiver(() => undefined));
    const dripping = keep(
      await startTcpReceiver((socket) => {
        socket.write('HTTP/1.1 200 OK\r\n');
        const drip = setInterval(() => socket.write('x: y\r\n'), 20);
        socket.on('close', () => clearInterval(drip));
      }),
    );
    for (const receiver of [deaf, dripping]) {
      const startedAt = performance.now();
      expect(await post(at(receiver), senders)).toEqual({
        ok: false,
        isRetryable: true,
        reason: 'no answer in time',
      });
      expect(performance.now() - startedAt).toBeLessThan(10_000);
    }
  });

  it('A-12: a lookup that never answers is given up after the time that is set', async () => {
    const senders = makeSenders({
      httpTimeoutMs: 200,
      resolve: () => new Promise(() => undefined),
    });
    expect(await post('http://slow.example.com/', senders)).toEqual({
      ok: false,
      isRetryable: true,
      reason: 'no answer in time',
    });
  });

  it('A-12: a connection that is never taken is given up after the time that is set', async () => {
    // Of a listener that takes nobody, connections hang once those that may wait for it are there.
    const full = await startFullListener();
    keep(full);
    const startedAt = performance.now();
    expect(await post(at(full), makeSenders({ httpTimeoutMs: 300 }))).toMatchObject({
      isRetryable: true,
      reason: 'no answer in time',
    });
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  });

  it('A-12: an answer whose body never ends counts by its status', async () => {
    const receiver = keep(
      await startHttpReceiver((response) => response.writeHead(200).write('begun')),
    );
    expect(await post(at(receiver), makeSenders({ httpTimeoutMs: 300 }))).toEqual({ ok: true });
  });
});

function notFound(): Promise<string[]> {
  return Promise.reject(Object.assign(new Error('no'), { code: 'ENOTFOUND' }));
}
