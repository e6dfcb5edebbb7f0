import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';
import { eventually } from '../support/eventually.ts';
import { openSockets } from '../support/held-socket.ts';

const MEGABYTE = 1_048_576;
/** Of each kind of slow client; three kinds are 200 and more. */
const SLOW_CLIENTS = 70;
/** Over a megabyte: more than fits between a server and a client that does not read. */
const LARGE_FILE = '/docs/static/swagger-ui-bundle.js';

let t: TestApi;
const open: Socket[] = [];
beforeAll(async () => {
  t = await createTestApi();
  await t.send('POST', '/api/v1/devices', { device: 'mine' });
});
afterEach(() => {
  for (const socket of open.splice(0)) socket.destroy();
});
afterAll(() => t.stop());

async function hold(count: number): Promise<Socket[]> {
  const sockets = await openSockets(t.url, count);
  open.push(...sockets);
  return sockets;
}

/** What a server says before it ends the connection or falls silent. */
async function answerTo(send: (socket: Socket) => void): Promise<string> {
  const { port } = new URL(t.url);
  const socket = connect(Number(port), '127.0.0.1');
  open.push(socket);
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    socket.setTimeout(1000);
  });
  socket.on('error', () => undefined);
  socket.setTimeout(20_000, () => socket.destroy());
  await once(socket, 'connect');
  send(socket);
  await new Promise((resolve) => socket.once('close', resolve));
  return text;
}

/** The head of a request with the admin key, up to the headers that the test adds. */
function head(method: string, path: string, ...headers: string[]): string {
  const common = ['host: x', `authorization: Bearer ${t.acme.adminKey}`];
  return [`${method} ${path} HTTP/1.1`, ...common, ...headers, '', ''].join('\r\n');
}

const CHUNKED = ['content-type: application/json', 'transfer-encoding: chunked'];
const ANNOUNCED = ['content-type: application/json', `content-length: ${10 * MEGABYTE}`];

async function deviceNames(): Promise<string[]> {
  const { body } = await t.send('GET', '/api/v1/devices');
  return body.data.map(({ device }: { device: string }) => device);
}

describe('a request that is too much', () => {
  it('of 10 MB is refused with 413 by its announcement, without being read (I-18)', async () => {
    let written = 0;
    const answer = await answerTo((socket) => {
      socket.write(head('POST', '/api/v1/devices', ...ANNOUNCED));
      const push = (): void => {
        while (written < 10 * MEGABYTE && socket.writable) {
          written += 65_536;
          if (!socket.write(Buffer.alloc(65_536, 32))) break;
        }
      };
      socket.on('drain', push);
      push();
    });
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    expect(answer).toContain('"code":"REQUEST_INVALID"');
  });

  it('in chunks without end is refused with 413 soon after the bound, and ends (I-18)', async () => {
    let written = 0;
    const before = process.memoryUsage().arrayBuffers;
    const answer = await answerTo((socket) => {
      socket.write(head('POST', '/api/v1/devices', ...CHUNKED));
      const chunk = Buffer.concat([
        Buffer.from('10000\r\n'),
        Buffer.alloc(65_536, 32),
        Buffer.from('\r\n'),
      ]);
      const push = (): void => {
        if (!socket.writable || written > 100 * MEGABYTE) return;
        written += chunk.length;
        socket.write(chunk, () => setImmediate(push));
      };
      push();
    });
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    expect(written).toBeLessThan(50 * MEGABYTE);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20 * MEGABYTE);
  });

  it('in a thousand headers is refused with 431 when they are large, and harms nothing when small (I-18)', async () => {
    const large = Array.from({ length: 1000 }, (_, at) => `x-${at}: ${'y'.repeat(30)}`);
    const answer = await answerTo((socket) => {
      socket.write(head('GET', '/api/v1/devices', ...large));
    });
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
    const small = Array.from({ length: 1000 }, (_, at) => `x${at}: y`);
    const served = await answerTo((socket) => {
      socket.write(head('GET', '/api/v1/devices', ...small, 'connection: close'));
    });
    expect(served).toMatch(/^HTTP\/1\.1 (200|431) /);
  });

  it('with a body of two lengths in any spelling is refused with 400, and nothing behind it is served (I-18)', async () => {
    const smuggled = head('DELETE', '/api/v1/devices/mine');
    for (const headers of [
      ['content-length: 4', 'transfer-encoding: chunked'],
      ['transfer-encoding: chunked', 'content-length: 4'],
      ['Content-Length: 0', 'Transfer-Encoding: xchunked'],
      ['transfer-encoding: chunked, identity'],
      ['transfer-encoding: identity', 'transfer-encoding: chunked', 'content-length: 0'],
      ['content-length: 4', 'content-length: 5'],
      ['content-length: +4'],
      ['content-length: 0x4'],
      ['content-length : 4'],
      ['transfer-encoding : chunked'],
    ]) {
      const json = 'content-type: application/json';
      const answer = await answerTo((socket) => {
        socket.write(`${head('POST', '/api/v1/devices', json, ...headers)}0\r\n\r\n${smuggled}`);
      });
      expect(answer, headers.join()).toMatch(/^HTTP\/1\.1 400 /);
      expect(answer.match(/HTTP\/1\.1/g), headers.join()).toHaveLength(1);
    }
    expect(await deviceNames()).toEqual(['mine']);
  });
});

describe('a path that is made up', () => {
  it.each([
    '/api/v1/devices/%00',
    '/api/v1/devices/mine%00',
    '/api/v1/devices/..%2f..%2fhealth%2flive',
    '/api/v1/devices/mine%2f..%2fother',
    '/api/v1/devices/%2e%2e',
    '/api/v1/devices/..%5c..%5cwindows',
    '/api/v1/devices/%c0%ae%c0%ae',
    '/api/v1/devices/%ff',
    '/api/v1/devices/%zz',
    `/api/v1/devices/${'a'.repeat(200)}`,
    '/docs/..%2f..%2fpackage.json',
    '/docs/static/..%2f..%2f..%2fpackage.json',
    '/docs/static/%2e%2e/%2e%2e/package.json',
    '/docs/static/%00',
    '/api/v1/quarantine?device=%00',
    '/api/v1/devices/mine/keys/%00',
    '/api/v1/keys/%00',
    '/api/v1/devices?cursor=%00',
    '*',
    'http://127.0.0.1/api/v1/devices/%00',
  ])('finds nothing and breaks nothing: %s (I-18)', async (path) => {
    const answer = await answerTo((socket) => {
      socket.write(head('GET', path, 'connection: close'));
    });
    const status = Number(/^HTTP\/1\.1 (\d+) /.exec(answer)?.[1]);
    expect([400, 403, 404, 414]).toContain(status);
    expect(answer).not.toMatch(/"name": ?"puback"|root:|dependencies/);
    expect(t.logged.filter((line) => line.includes('request failed'))).toEqual([]);
  });

  it('and a method in a header, a query or a body is not the method of the request (I-18)', async () => {
    for (const name of ['x-http-method-override', 'x-http-method', 'x-method-override']) {
      const headers = { authorization: `Bearer ${t.acme.adminKey}`, [name]: 'DELETE' };
      for (const method of ['GET', 'POST']) {
        const { status } = await fetch(`${t.url}/api/v1/devices/mine`, { method, headers });
        expect(status).toBe(method === 'GET' ? 200 : 404);
      }
    }
    expect((await t.send('GET', '/api/v1/devices/mine?_method=DELETE')).status).toBe(400);
    for (const method of ['TRACE', 'OPTIONS', 'PROPFIND', 'PUT']) {
      const answer = await answerTo((socket) => {
        socket.write(head(method, '/api/v1/devices/mine', 'connection: close'));
      });
      expect(answer, method).toMatch(/^HTTP\/1\.1 (400|404) /);
    }
    expect(await deviceNames()).toEqual(['mine']);
  });
});

describe('slow clients', () => {
  it(
    'of headers, of bodies and of answers hold nobody up and are ended in 10 s and 30 s (I-19)',
    { timeout: 90_000 },
    async () => {
      const ofHeaders = await hold(SLOW_CLIENTS);
      const ofBodies = await hold(SLOW_CLIENTS);
      const ofAnswers = await hold(SLOW_CLIENTS);
      const startedAt = performance.now();
      const ended = (sockets: readonly Socket[]) => sockets.filter(({ closed }) => closed).length;
      for (const socket of [...ofHeaders, ...ofBodies]) socket.resume();
      for (const socket of ofHeaders) socket.write('GET /health/live HTTP/1.1\r\n');
      for (const socket of ofBodies) {
        socket.write(
          head('POST', '/api/v1/devices', 'content-type: application/json', 'content-length: 1000'),
        );
      }
      for (const socket of ofAnswers) {
        socket.pause();
        socket.write(head('GET', LARGE_FILE).repeat(5));
      }
      const drip = setInterval(() => {
        for (const socket of ofHeaders) if (socket.writable) socket.write('x-a: b\r\n');
        for (const socket of ofBodies) if (socket.writable) socket.write(' ');
      }, 1000);
      try {
        let slowestMs = 0;
        while (ended(ofBodies) < SLOW_CLIENTS && performance.now() - startedAt < 36_000) {
          const askedAt = performance.now();
          expect((await t.send('GET', '/api/v1/devices')).status).toBe(200);
          slowestMs = Math.max(slowestMs, performance.now() - askedAt);
          const elapsedMs = performance.now() - startedAt;
          if (elapsedMs > 16_000) expect(ended(ofHeaders)).toBe(SLOW_CLIENTS);
          if (elapsedMs < 9000) expect(ended(ofHeaders)).toBe(0);
          await new Promise((resolve) => setTimeout(resolve, 200));
        }
        // Held up is who waits until the slow ones are ended.
        expect(slowestMs).toBeLessThan(5000);
        expect(ended(ofBodies)).toBe(SLOW_CLIENTS);
        // Who does not read is stuck, and has its end when nothing goes out for that long.
        expect(ended(ofAnswers)).toBe(0);
        expect(t.api.server.timeout).toBe(300_000);
      } finally {
        clearInterval(drip);
      }
      for (const socket of ofAnswers) socket.destroy();
      await eventually('a new connection is served', async () => {
        return (await t.send('GET', '/health/live', undefined, null)).status === 200;
      });
    },
  );
});
