import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Notifier } from '../../rules/notify/notifier.ts';
import { eventually } from '../support/eventually.ts';
import { createTestNotify, realSenders, SECRET, type TestNotify } from '../support/notify.ts';

const PROGRAM = fileURLToPath(new URL('../support/notify-program.ts', import.meta.url));
const KEY = Buffer.alloc(32, 7).toString('base64');

let t: TestNotify;
const servers: Server[] = [];
const notifiers: Notifier[] = [];
beforeEach(async () => {
  t = await createTestNotify({ messagesPerHour: 10_000 });
  t.nowMs = Date.now();
});
afterEach(async () => {
  await Promise.all(notifiers.splice(0).map((notifier) => notifier.stop()));
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
  await t.stop();
});

/** A receiver that counts what comes, by the id of the message. */
interface Hook {
  readonly url: string;
  /** Ids in the order of arrival. */
  readonly ids: string[];
  readonly at: number[];
}

async function listen(
  answer: (response: ServerResponse, nth: number) => void = (response) => response.end('ok'),
): Promise<Hook> {
  const ids: string[] = [];
  const at: number[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      at.push(performance.now());
      ids.push(JSON.parse(Buffer.concat(chunks).toString('utf8')).notificationId);
      answer(response, ids.length);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  servers.push(server);
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/hook`, ids, at };
}

function begin(changed: Parameters<TestNotify['notifier']>[0] = {}): Notifier {
  const senders = realSenders();
  const notifier = t.notifier({ senders, now: Date.now, random: () => 0.02, ...changed });
  notifiers.push(notifier);
  notifier.start();
  return notifier;
}

async function states(): Promise<Record<string, number>> {
  const { rows } = await t.test.database.pool.query<{ state: string; messages: number }>(
    'SELECT state, count(*)::int4 AS messages FROM notification GROUP BY state',
  );
  return Object.fromEntries(rows.map(({ state, messages }) => [state, messages]));
}

function fail(status: number, headers: Record<string, string> = {}) {
  return (response: ServerResponse): void => {
    response.writeHead(status, headers);
    response.end();
  };
}

describe('notifications', () => {
  it('leave when the alert is written, and not with the next poll, with no group wait', async () => {
    const hook = await listen();
    await t.tell({ groupBy: ['device'] }, 'fast', hook.url);
    const notifier = begin({ pollMs: 60_000 });
    for (let at = 0; at < 20; at += 1) {
      await t.fire({ device: `d${at}`, atMs: Date.now() });
      notifier.wake();
      await eventually('the request', () => hook.at.length > at);
    }
  });

  it('are sent after a restart, once, wherever the program was killed before (L-03)', async () => {
    const hook = await listen();
    await t.tell({}, 'after', hook.url);
    await t.fire({ device: 'written' });
    const first = begin();
    await eventually('the first', () => hook.ids.length === 1);
    await first.stop();
    t.nowMs = Date.now() + 61_000;
    await t.fire({ device: 'decided' });
    await t.decide();
    expect(await states()).toEqual({ sent: 1, waiting: 1 });
    begin({ now: () => Date.now() + 61_000 });
    begin({ now: () => Date.now() + 61_000 });
    await eventually('the second', async () => (await states())['sent'] === 2);
    expect(hook.ids).toHaveLength(2);
    expect(new Set(hook.ids).size).toBe(2);
  });

  it('that are being retried when the program is killed are sent by the next one, once (L-03)', async () => {
    await t.stop();
    t = await createTestNotify();
    t.nowMs = Date.now();
    let isUp = false;
    let delivered = 0;
    const hook = await listen((response) => {
      if (isUp) delivered += 1;
      fail(isUp ? 200 : 500)(response);
    });
    const { pool } = t.test.database;
    await t.tell({}, 'killed', hook.url);
    // The secret under the key that the programs have.
    const { Secrets } = await import('../../rules/notify/secrets.ts');
    const { rows } = await pool.query('SELECT receiver_id FROM receiver');
    const sealed = new Secrets([Buffer.from(KEY, 'base64')]).seal(rows[0].receiver_id, SECRET);
    await pool.query('UPDATE receiver SET secret = $1, secret_key_id = $2', [
      sealed.secret,
      sealed.keyId,
    ]);
    await t.fire({ atMs: Date.now() });
    const program = run();
    await eventually('two attempts', () => hook.ids.length >= 2, 25_000);
    program.kill('SIGKILL');
    await once(program, 'exit');
    const [row] = await t.messages();
    expect(row).toMatchObject({ state: 'waiting' });
    expect(row?.attempts).toBeGreaterThanOrEqual(2);
    isUp = true;
    const next = run();
    await eventually('its end', async () => (await states())['sent'] === 1, 40_000);
    next.kill('SIGKILL');
    await once(next, 'exit');
    expect(delivered).toBe(1);
    expect(new Set(hook.ids).size).toBe(1);
  }, 90_000);

  it('of one receiver that hangs, fails or asks to wait hold up no other (L-04)', async () => {
    const groupBy = ['device'];
    const hung = await listen(() => undefined);
    const failing = await listen(fail(500));
    const busy = await listen(fail(429, { 'retry-after': '30' }));
    const gone = await listen(fail(410));
    const good = await listen();
    for (const [name, { url }] of Object.entries({ hung, failing, busy, gone, good })) {
      await t.tell({ groupBy, continue: true }, name, url);
    }
    for (let at = 0; at < 40; at += 1) await t.fire({ device: `d${at}` });
    const startMs = performance.now();
    begin({ random: () => 0.01 });
    await eventually('what is well', () => good.ids.length === 40, 20_000);
    expect(performance.now() - startMs).toBeLessThan(10_000);
    await eventually('the dead', async () => (await states())['dead'] === 40, 20_000);
    // Two at once, and after five failures the circuit is open.
    expect(hung.ids.length).toBeLessThanOrEqual(12);
    expect(failing.ids.length).toBeLessThanOrEqual(8);
    expect(busy.ids.length).toBeLessThanOrEqual(8);
    const { rows } = await t.test.database.pool.query(
      `SELECT min(next_attempt_at - notification.created_at) > interval '20 s' AS is_later FROM notification
       JOIN receiver USING (receiver_id) WHERE receiver.name = 'busy' AND attempts > 0`,
    );
    expect(rows[0].is_later).toBe(true);
    expect(new Set(good.ids).size).toBe(40);
  }, 60_000);

  it('are sent once by two programs at work (R-07)', async () => {
    const hook = await listen();
    await t.tell({ groupBy: ['device'] }, 'twice', hook.url);
    const both = [begin(), begin()];
    for (let at = 0; at < 60; at += 1) {
      await t.fire({ device: `d${at}`, atMs: Date.now() });
      for (const notifier of both) notifier.wake();
    }
    await eventually('all of them', async () => (await states())['sent'] === 60, 20_000);
    expect(hook.ids).toHaveLength(60);
    expect(new Set(hook.ids).size).toBe(60);
  }, 60_000);

  it('of a group are told in their order: an end not before its beginning', async () => {
    let isUp = false;
    const hook = await listen((response) => fail(isUp ? 200 : 503)(response));
    await t.tell({ groupInterval: '1s' }, 'ordered', hook.url);
    const alertId = await t.fire();
    await t.decide();
    t.nowMs += 2000;
    await t.step(alertId, 'inactive');
    await t.decide();
    const [first, second] = await t.messages();
    expect([first?.content.state, second?.content.state]).toEqual(['firing', 'resolved']);
    begin({ now: () => Date.now() + 5000, random: () => 0.05 });
    await eventually('attempts', () => hook.ids.length >= 2);
    isUp = true;
    await eventually('both', async () => (await states())['sent'] === 2, 20_000);
    expect(hook.ids.slice(-2)).toEqual([first?.notification_id, second?.notification_id]);
    expect(hook.ids.slice(0, -1)).not.toContain(second?.notification_id);
  });

  it('are given up after so many attempts or at their age, and can be sent again', async () => {
    await t.stop();
    t = await createTestNotify({ attemptsMax: 3 });
    t.nowMs = Date.now();
    let isUp = false;
    const hook = await listen((response) => fail(isUp ? 200 : 500)(response));
    await t.tell({}, 'dead', hook.url);
    await t.fire();
    begin({ random: () => 0 });
    await eventually('the dead letter', async () => (await states())['dead'] === 1);
    expect(hook.ids).toHaveLength(3);
    const [dead] = await t.messages();
    expect(dead?.reason).toContain('500');
    isUp = true;
    const again = await t.stores.notifications.resend(t.acme.author, dead?.notification_id ?? '');
    expect(again).toMatchObject({ state: 'waiting', attempts: 0 });
    await eventually('that it is sent', async () => (await states())['sent'] === 1, 20_000);
    expect(hook.ids.at(-1)).toBe(again.notificationId);
    const resent = t.stores.notifications.resend(t.acme.author, again.notificationId);
    await expect(resent).rejects.toThrow('only a dead one');
  });

  it('wait while the kill switch is on', async () => {
    const hook = await listen();
    await t.tell({}, 'stopped', hook.url);
    await t.fire();
    await t.decide();
    await t.stores.policies.set(t.acme.author, true);
    const notifier = begin();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(hook.ids).toEqual([]);
    await expect(
      t.stores.test(t.acme.author, (await t.messages())[0]?.receiver_id ?? ''),
    ).rejects.toThrow('stopped');
    await t.stores.policies.set(t.acme.author, false);
    notifier.wake();
    await eventually('that it goes on', () => hook.ids.length === 1);
  });

  it('are taken up again after the database was away, and never sent twice for it', async () => {
    const hook = await listen();
    await t.tell({ groupBy: ['device'] }, 'away', hook.url);
    begin();
    const { pool } = t.test.database;
    for (let round = 0; round < 6; round += 1) {
      await t.fire({ device: `d${round}`, atMs: Date.now() });
      await pool.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()`,
      );
    }
    await eventually('all of them', async () => (await states())['sent'] === 6, 20_000);
    expect(new Set(hook.ids).size).toBe(6);
    expect(hook.ids).toHaveLength(6);
  });

  it('write no secret anywhere that is read (A-15)', async () => {
    t.answer = ({ receiver }) =>
      Promise.resolve({ ok: false, isRetryable: false, reason: `refused ${receiver.secret}` });
    const receiverId = await t.tell();
    await t.fire();
    const notifier = t.notifier({ now: Date.now });
    notifiers.push(notifier);
    notifier.start();
    await eventually('the dead letter', async () => (await states())['dead'] === 1);
    const result = await t.stores.test(t.acme.author, receiverId);
    expect(result).toMatchObject({ ok: false, reason: 'refused [redacted]' });
    const { organizationId } = t.acme.author;
    const list = { organizationId, limit: 10, after: null };
    const filter = { state: null, receiverId: null, alertId: null };
    const shown = [
      t.logged,
      await t.stores.receivers.list(list),
      await t.stores.notifications.list({ ...list, ...filter }),
      await t.metricsRegistry.metrics(),
    ];
    expect(JSON.stringify(shown)).not.toContain(SECRET);
    const { rows } = await t.test.database.pool.query(
      `SELECT string_agg(notification::text || audit_event::text || receiver::text, '') AS everything
       FROM notification, audit_event, receiver`,
    );
    expect(rows[0].everything).not.toContain(SECRET);
    expect(rows[0].everything).not.toContain(Buffer.from(SECRET).toString('hex'));
  });
});

function run(): ChildProcess {
  return spawn(process.execPath, ['--import', 'tsx', PROGRAM, t.test.url, KEY], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}
