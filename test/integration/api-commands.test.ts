import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type ApiAnswer, type TestApi } from '../support/api.ts';

const BACKLOG = 20;
const DEFINITION = {
  schema: {
    type: 'object',
    properties: { on: { type: 'boolean' } },
    required: ['on'],
    additionalProperties: false,
  },
};

let t: TestApi;
let deviceKey: string;
beforeAll(async () => {
  t = await createTestApi({
    settings: { COMMAND_BACKLOG_MAX: String(BACKLOG), COMMAND_WAITS_MAX: '3' },
  });
  await t.send('POST', '/api/v1/devices', { device: 'boiler-7' });
  deviceKey = (await t.send('POST', '/api/v1/devices/boiler-7/keys', {})).body.key;
});
afterAll(() => t.stop());

let made = 0;
/** A device that nothing waits for. */
async function newDevice(more: object = {}): Promise<{ path: string; key: string; slug: string }> {
  made += 1;
  const slug = `device-${made}`;
  await t.send('POST', '/api/v1/devices', { device: slug, ...more });
  const { key } = (await t.send('POST', `/api/v1/devices/${slug}/keys`, {})).body;
  return { path: `/api/v1/devices/${slug}/commands`, key, slug };
}

async function sendWith(
  headers: Record<string, string>,
  path: string,
  body: unknown,
): Promise<ApiAnswer> {
  const answer = await fetch(t.url + path, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${t.acme.adminKey}`,
      'content-type': 'application/json',
      ...headers,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: answer.status, headers: answer.headers, body: await answer.json() };
}

const poll = (key: string) => t.send('GET', '/api/v1/device/commands', undefined, key);
const ack = (key: string, body: unknown) =>
  t.send('POST', '/api/v1/device/commands/ack', body, key);
/** Answers the head of a device's queue. */
async function answer(key: string, more: object = { st: 'ok' }): Promise<void> {
  const { command } = (await poll(key)).body;
  expect((await ack(key, { id: command.id, ...more })).status).toBe(204);
}

describe('POST /devices/{device}/commands', () => {
  it('answers 202 with the command, and a Location where it is with its steps', async () => {
    const { path, slug } = await newDevice();
    const sent = await t.send('POST', path, {
      command: 'relay',
      args: { on: true },
      ttl: '1h',
      replace: 'relay',
      retry: 'safe',
      ref: 'job42',
    });
    expect(sent.status).toBe(202);
    expect(sent.body).toMatchObject({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      device: slug,
      command: 'relay',
      args: { on: true },
      state: expect.stringMatching(/^(queued|published)$/) as string,
      result: null,
      retry: 'safe',
      replace: 'relay',
      ref: 'job42',
      origin: 'api',
      late: false,
      if: null,
    });
    const { createdAt, expiresAt } = sent.body;
    const ttlMs = Date.parse(expiresAt) - Date.parse(createdAt);
    expect(ttlMs).toBeGreaterThanOrEqual(3_600_000);
    expect(ttlMs).toBeLessThanOrEqual(3_601_000);
    const found = await t.send('GET', sent.headers.get('location') ?? '');
    expect(found.status).toBe(200);
    expect(found.body).toMatchObject({ id: sent.body.id, events: expect.any(Array) as unknown[] });
    expect(found.body.events[0]).toMatchObject({ state: 'queued' });
  });

  it('waits for the outcome, and answers 200 with the result inside the wait', async () => {
    const { path, key } = await newDevice();
    const sent = t.send('POST', `${path}?wait=20s`, { command: 'relay' });
    for (;;) {
      const { command } = (await poll(key)).body;
      if (command !== null) break;
    }
    await answer(key, { st: 'ok', r: { on: true } });
    const { status, body } = await sent;
    expect({ status, state: body.state, result: body.result }).toEqual({
      status: 200,
      state: 'succeeded',
      result: { on: true },
    });
  });

  it('answers 202 when the wait is over, and 400 to a wait that is too long', async () => {
    const { path } = await newDevice();
    const sent = await t.send('POST', `${path}?wait=50ms`, { command: 'relay' });
    expect(sent.status).toBe(202);
    for (const wait of ['61s', '1h', '10', '-1s', '']) {
      const refused = await t.send('POST', `${path}?wait=${wait}`, { command: 'relay' });
      expect(refused.status, wait).toBe(400);
    }
    expect((await t.send('GET', path)).body.data.length).toBe(1);
  });

  it('answers at once when as many wait as may, and lets another wait when a client goes away', async () => {
    const gone = new AbortController();
    const { path } = await newDevice();
    const wait = (signal?: AbortSignal) =>
      fetch(`${t.url}${path}?wait=30s`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${t.acme.adminKey}`,
          'content-type': 'application/json',
        },
        body: '{"command":"relay"}',
        signal: signal ?? null,
      });
    const waiting = [1, 2, 3].map(async () => wait(gone.signal).catch(() => null));
    const queued = async () => (await t.send('GET', path)).body.data.length;
    while ((await queued()) < 3);
    const started = performance.now();
    expect((await wait()).status).toBe(202);
    expect(performance.now() - started).toBeLessThan(5000);
    gone.abort();
    await Promise.all(waiting);
    const next = await newDevice();
    const again = t.send('POST', `${next.path}?wait=30s`, { command: 'relay' });
    for (;;) {
      if ((await poll(next.key)).body.command !== null) break;
    }
    await answer(next.key);
    expect((await again).status).toBe(200);
  });

  it('gives the same command for the same Idempotency-Key, also twenty times at once', async () => {
    const { path } = await newDevice();
    const headers = { 'idempotency-key': '"8e03978e-40d5-43dd-bc93-6894a57f9324"' };
    const body = { command: 'relay', args: { on: true } };
    const sent = await Promise.all(Array.from({ length: 20 }, () => sendWith(headers, path, body)));
    expect(new Set(sent.map(({ status }) => status))).toEqual(new Set([202]));
    expect(new Set(sent.map((one) => one.body.id)).size).toBe(1);
    expect((await t.send('GET', path)).body.data.length).toBe(1);
    const another = await sendWith(headers, path, { ...body, args: { on: false } });
    expect(another).toMatchObject({ status: 409, body: { code: 'IDEMPOTENCY_KEY_REUSED' } });
    const elsewhere = await newDevice();
    const foreign = await sendWith(headers, elsewhere.path, body);
    expect(foreign).toMatchObject({ status: 409, body: { code: 'IDEMPOTENCY_KEY_REUSED' } });
    const others = await fetch(`${t.url}/api/v1/devices`, {
      method: 'POST',
      headers: { authorization: `Bearer ${t.other.adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ device: 'boiler-7' }),
    });
    expect(others.status).toBe(201);
    const authorization = `Bearer ${t.other.adminKey}`;
    const own = await sendWith(
      { ...headers, authorization },
      '/api/v1/devices/boiler-7/commands',
      body,
    );
    expect(own.status).toBe(202);
    expect(own.body.id).not.toBe(sent[0]?.body.id);
    for (const key of ['a b', 'x'.repeat(101)]) {
      const refused = await sendWith({ 'idempotency-key': key }, path, body);
      expect(refused.status, key).toBe(400);
    }
  });

  it('takes so many commands for a device that is offline, refuses more, and forgets none of them [L-13]', async () => {
    const { path } = await newDevice();
    const counts = new Map<number, number>();
    for (let batch = 0; batch < 10; batch += 1) {
      const sent = await Promise.all(
        Array.from({ length: 50 }, () => t.send('POST', path, { command: 'relay' })),
      );
      for (const { status } of sent) counts.set(status, (counts.get(status) ?? 0) + 1);
    }
    expect(Object.fromEntries(counts)).toEqual({ 202: BACKLOG, 429: 500 - BACKLOG });
    const refused = await t.send('POST', path, { command: 'relay' });
    expect(refused).toMatchObject({ status: 429, body: { code: 'COMMAND_BACKLOG_FULL' } });
    expect(refused.headers.get('retry-after')).toBe('5');
    const { data } = (await t.send('GET', path)).body;
    expect(data.length).toBe(BACKLOG);
  });

  it('refuses what no command can be, and enqueues nothing', async () => {
    const { path } = await newDevice();
    const deep = `${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}`;
    for (const [body, status] of [
      ['', 400],
      ['{', 400],
      ['[]', 400],
      ['{"command":"Relay"}', 400],
      ['{"command":"relay","args":[]}', 400],
      ['{"command":"relay","args":{"a":"\\u0000"}}', 400],
      ['{"command":"relay","args":{"\\ud800":1}}', 400],
      ['{"command":"relay","args":{"__proto__":{"a":1}}}', 400],
      ['{"command":"relay","args":{"constructor":{"prototype":{"a":1}}}}', 400],
      [`{"command":"relay","args":${deep}}`, 413],
      [`{"command":"relay","args":${deep.slice(0, 5 * 1000)}1${'}'.repeat(1000)}}`, 400],
      [`{"command":"relay","args":{"a":1e999}}`, 400],
      [`{"command":"relay","args":{"a":"${'x'.repeat(20_000)}"}}`, 413],
      [`{"command":"relay","args":{"a":"${'x'.repeat(5000)}"}}`, 400],
      [`{"command":"relay","args":{"a":"${'x'.repeat(300)}"}}`, 422],
      [`{"command":"relay","args":{"a":[${'1,'.repeat(600)}1]}}`, 400],
      ['{"command":"sys.ota"}', 400],
      ['{"command":"sys.rekey"}', 400],
      ['{"command":"sys.cancel","args":{"id":1}}', 400],
      ['{"command":"relay","ref":"a b"}', 400],
      ['{"command":"relay","ttl":"999ms"}', 400],
    ] as const) {
      const { status: answered, body: problem } = await sendWith({}, path, body);
      expect(answered, `${body.slice(0, 60)} ${JSON.stringify(problem).slice(0, 200)}`).toBe(
        status,
      );
    }
    expect((await t.send('GET', path)).body.data).toEqual([]);
  });
});

describe('commands of another organization', () => {
  it('do not exist, whatever is done with them', async () => {
    const sent = await t.send('POST', '/api/v1/devices/boiler-7/commands', { command: 'relay' });
    const { id } = sent.body;
    const paths = [`/api/v1/commands/${id}`, `/api/v1/devices/boiler-7/commands/${id}`];
    for (const path of paths) {
      for (const method of ['GET', 'DELETE']) {
        const foreign = await t.send(method, path, undefined, t.other.adminKey);
        expect(foreign, `${method} ${path}`).toMatchObject({
          status: 404,
          body: { code: 'COMMAND_NOT_FOUND' },
        });
      }
    }
    const approve = `/api/v1/commands/${id}/approve`;
    expect((await t.send('POST', approve, undefined, t.other.adminKey)).status).toBe(404);
    const { data } = (await t.send('GET', '/api/v1/commands', undefined, t.other.adminKey)).body;
    expect(data.some((one: { id: string }) => one.id === id)).toBe(false);
    expect((await t.send('GET', paths[0] ?? '')).body.state).not.toBe('cancelled');
    await t.send('DELETE', paths[0] ?? '');
  });

  it('nor do those with ids that are none, or of another device in the path', async () => {
    for (const id of ['x', '0', '01991e6c-0000-7000-8000-000000000001', '%00']) {
      expect((await t.send('GET', `/api/v1/commands/${id}`)).status, id).toBe(404);
      expect((await t.send('DELETE', `/api/v1/commands/${id}`)).status, id).toBe(404);
      expect((await t.send('POST', `/api/v1/commands/${id}/approve`)).status, id).toBe(404);
    }
    const { path, slug } = await newDevice();
    const elsewhere = await newDevice();
    const { id } = (await t.send('POST', path, { command: 'relay' })).body;
    expect((await t.send('GET', `${elsewhere.path}/${id}`)).status).toBe(404);
    expect((await t.send('DELETE', `${elsewhere.path}/${id}`)).status).toBe(404);
    const found = await t.send('GET', `/api/v1/devices/${slug}/commands/${id}`);
    expect(found).toMatchObject({ status: 200, body: { id } });
  });
});

describe('GET /commands', () => {
  it('shows pages of all or some states, newest first, each command once', async () => {
    const { path, slug } = await newDevice();
    const ids: string[] = [];
    for (let count = 0; count < 5; count += 1) {
      ids.unshift((await t.send('POST', path, { command: `c${count}` })).body.id);
    }
    const cancelled = ids.shift();
    await t.send('DELETE', `${path}/${cancelled}`);
    const states = 'queued,published,sent';
    for (const list of [`${path}?`, `/api/v1/commands?device=${slug}&`]) {
      const seen: string[] = [];
      let cursor = '';
      for (;;) {
        const { body } = await t.send('GET', `${list}state=${states}&limit=3${cursor}`);
        seen.push(...body.data.map(({ id }: { id: string }) => id));
        if (body.next === null) break;
        cursor = `&cursor=${body.next}`;
      }
      expect(seen).toEqual(ids);
      const ended = await t.send('GET', `${list}state=cancelled`);
      expect(ended.body.data.map(({ id }: { id: string }) => id)).toEqual([cancelled]);
      expect((await t.send('GET', `${list}state=done`)).status).toBe(400);
      const page = await t.send('GET', `${list}limit=2`);
      const other = await t.send('GET', `${list}limit=2&state=queued&cursor=${page.body.next}`);
      expect(other).toMatchObject({ status: 400, body: { code: 'CURSOR_INVALID' } });
    }
    expect((await t.send('GET', '/api/v1/commands?device=nobody')).status).toBe(404);
    expect((await t.send('GET', '/api/v1/devices/nobody/commands')).status).toBe(404);
  });
});

describe('DELETE /commands/{id}', () => {
  it('cancels what waits once, and asks the device to end what runs', async () => {
    const { path, key } = await newDevice();
    const { id } = (await t.send('POST', path, { command: 'relay' })).body;
    const cancelled = await t.send('DELETE', `${path}/${id}`);
    expect(cancelled).toMatchObject({ status: 200, body: { state: 'cancelled' } });
    const again = await t.send('DELETE', `/api/v1/commands/${id}`);
    expect(again).toMatchObject({ status: 409, body: { code: 'COMMAND_ENDED' } });
    expect((await poll(key)).body).toEqual({ command: null, waiting: 0 });
    const long = (await t.send('POST', path, { command: 'grind' })).body;
    await answer(key, { st: 'run', pct: 10 });
    const asked = await t.send('DELETE', `${path}/${long.id}`);
    expect(asked).toMatchObject({ status: 202, body: { state: 'running', progress: 10 } });
    expect(asked.body.cancelAskedAt).not.toBeNull();
    expect((await poll(key)).body.command).toMatchObject({ cmd: 'sys.cancel' });
  });
});

describe('a command that needs a second person', () => {
  it('waits for another key than that of who asked', async () => {
    const { path, key } = await newDevice();
    const sent = await t.send('POST', path, { command: 'open', approval: true });
    expect(sent).toMatchObject({ status: 202, body: { state: 'awaiting_approval' } });
    expect((await poll(key)).body.command).toBeNull();
    const approve = `/api/v1/commands/${sent.body.id}/approve`;
    const own = await t.send('POST', approve);
    expect(own).toMatchObject({ status: 403, body: { code: 'APPROVAL_BY_AUTHOR' } });
    const second = (await t.send('POST', '/api/v1/admin-keys', { name: 'Ada' })).body;
    const agreed = await t.send('POST', approve, undefined, second.key);
    expect(agreed).toMatchObject({ status: 200, body: { approvedBy: second.keyId } });
    expect((await poll(key)).body.command).toMatchObject({ cmd: 'open' });
    const again = await t.send('POST', approve, undefined, second.key);
    expect(again).toMatchObject({ status: 409, body: { code: 'COMMAND_NOT_WAITING' } });
  });
});

describe('a definition of a command', () => {
  it('is checked when a command is sent, and its type takes no other commands', async () => {
    const { path } = await newDevice({ type: 'boiler' });
    const plain = await newDevice();
    const definition = '/api/v1/command-definitions/boiler/relay';
    const put = await t.send('PUT', definition, { ...DEFINITION, ttl: '10m', retry: 'safe' });
    expect(put).toMatchObject({
      status: 201,
      body: { type: 'boiler', command: 'relay', ttl: '10m', retry: 'safe', ...DEFINITION },
    });
    expect((await t.send('PUT', definition, { ...DEFINITION, ttl: '10m' })).status).toBe(200);
    expect((await t.send('GET', definition)).body).toMatchObject({ retry: 'never', ttl: '10m' });
    const wrong = await t.send('POST', path, { command: 'relay', args: { on: 'yes' } });
    expect(wrong).toMatchObject({ status: 400, body: { code: 'COMMAND_INVALID' } });
    expect(wrong.body.detail).toContain('args/on');
    const undefinedOne = await t.send('POST', path, { command: 'dance' });
    expect(undefinedOne).toMatchObject({ status: 400, body: { code: 'COMMAND_UNDEFINED' } });
    expect(undefinedOne.body.detail).toContain('relay');
    const right = await t.send('POST', path, { command: 'relay', args: { on: true } });
    expect(right.status).toBe(202);
    const ttlMs = Date.parse(right.body.expiresAt) - Date.parse(right.body.createdAt);
    expect(Math.round(ttlMs / 60_000)).toBe(10);
    expect((await t.send('POST', path, { command: 'sys.reboot' })).status).toBe(202);
    expect((await t.send('POST', plain.path, { command: 'dance' })).status).toBe(202);
    expect((await t.send('DELETE', definition)).status).toBe(204);
    expect((await t.send('GET', definition)).status).toBe(404);
    expect((await t.send('DELETE', definition)).status).toBe(404);
  });

  it('that is changed does not make another request of one that is repeated', async () => {
    const { path } = await newDevice({ type: 'kettle' });
    const definition = '/api/v1/command-definitions/kettle/relay';
    const repeat = (body: object) => sendWith({ 'idempotency-key': `changed-${made}` }, path, body);
    const body = { command: 'relay', args: { on: true } };
    await t.send('PUT', definition, { ttl: '10m', retry: 'safe' });
    const first = await repeat(body);
    expect(first.status).toBe(202);
    await t.send('PUT', definition, { ttl: '20m' });
    expect(await repeat(body)).toMatchObject({ status: 202, body: { id: first.body.id } });
    await t.send('DELETE', definition);
    expect(await repeat(body)).toMatchObject({ status: 202, body: { id: first.body.id } });
    expect((await repeat({ ...body, ttl: '10m' })).status).toBe(409);
  });

  it('of any type is asked where the own type has none, and can ask for a second person', async () => {
    const { path } = await newDevice();
    const any = '/api/v1/command-definitions/*/open';
    expect((await t.send('PUT', any, { needsApproval: true })).status).toBe(201);
    const sent = await t.send('POST', path, { command: 'open' });
    expect(sent.body.state).toBe('awaiting_approval');
    const { data } = (await t.send('GET', '/api/v1/command-definitions?type=*')).body;
    expect(data).toMatchObject([{ type: '*', command: 'open', schema: {} }]);
    expect((await t.send('GET', any, undefined, t.other.adminKey)).status).toBe(404);
    expect((await t.send('DELETE', any)).status).toBe(204);
  });

  it('is refused when it does not hold, and in pages when there are many', async () => {
    for (const [path, body, code] of [
      ['boiler/relay', { schema: { pattern: 'a' } }, 'COMMAND_DEFINITION_INVALID'],
      ['boiler/relay', { schema: { type: 'x' } }, 'COMMAND_DEFINITION_INVALID'],
      ['boiler/sys.ota', {}, 'COMMAND_DEFINITION_INVALID'],
      ['boiler/Relay', {}, 'COMMAND_DEFINITION_INVALID'],
      ['a%20b/relay', {}, 'REQUEST_INVALID'],
      ['%00/relay', {}, 'REQUEST_INVALID'],
      ['boiler/relay', { schema: [] }, 'REQUEST_INVALID'],
      ['boiler/relay', { ttl: '1ms' }, 'REQUEST_INVALID'],
      ['boiler/relay', { more: 1 }, 'REQUEST_INVALID'],
    ] as const) {
      const put = await t.send('PUT', `/api/v1/command-definitions/${path}`, body);
      expect(put, `${path} ${JSON.stringify(body)}`).toMatchObject({ status: 400, body: { code } });
    }
    const deep = `{"schema":${'{"not":'.repeat(5000)}{}${'}'.repeat(5000)}}`;
    expect((await t.send('PUT', '/api/v1/command-definitions/a/b', deep)).status).toBe(400);
    for (const path of ['boiler/x', '%00/x', 'boiler/%00']) {
      expect((await t.send('GET', `/api/v1/command-definitions/${path}`)).status).toBe(404);
    }
    for (const name of ['a', 'b', 'c']) {
      await t.send('PUT', `/api/v1/command-definitions/pump/${name}`, {});
    }
    const list = '/api/v1/command-definitions?type=pump&limit=2';
    const first = (await t.send('GET', list)).body;
    expect(first.data.map(({ command }: { command: string }) => command)).toEqual(['a', 'b']);
    const second = (await t.send('GET', `${list}&cursor=${first.next}`)).body;
    expect(second.data.map(({ command }: { command: string }) => command)).toEqual(['c']);
    expect(second.next).toBeNull();
    const elsewhere = await t.send('GET', `/api/v1/command-definitions?cursor=${first.next}`);
    expect(elsewhere.status).toBe(400);
  });
});

describe('a device that polls', () => {
  it('gets its commands one after another, and stores what became of them', async () => {
    const { path, key } = await newDevice();
    expect((await poll(key)).body).toEqual({ command: null, waiting: 0 });
    const first = (await t.send('POST', path, { command: 'one', args: { a: 1 } })).body;
    const second = (await t.send('POST', path, { command: 'two' })).body;
    const polled = await poll(key);
    expect(polled.body).toMatchObject({
      command: { cmd: 'one', args: { a: 1 }, n: 2 },
      waiting: 2,
    });
    expect((await poll(key)).body).toEqual(polled.body);
    expect((await t.send('GET', `/api/v1/commands/${first.id}`)).body.state).toBe('sent');
    const { id } = polled.body.command;
    expect((await ack(key, { id, st: 'ok', r: 1 })).status).toBe(204);
    expect((await ack(key, { id, st: 'ok', r: 1 })).status).toBe(204);
    expect((await t.send('GET', `/api/v1/commands/${first.id}`)).body).toMatchObject({
      state: 'succeeded',
      result: 1,
    });
    const next = (await poll(key)).body.command;
    expect(next).toMatchObject({ cmd: 'two', n: 1 });
    expect(next.id).toBeGreaterThan(id);
    await answer(key, { st: 'no', code: 'unknown' });
    expect((await t.send('GET', `/api/v1/commands/${second.id}`)).body).toMatchObject({
      state: 'rejected',
      code: 'unknown',
    });
    expect((await poll(key)).body).toEqual({ command: null, waiting: 0 });
  });

  it('cannot answer for another device, nor with what is no answer [L-11]', async () => {
    const { path, key } = await newDevice();
    const foreign = await newDevice();
    const { id } = (await t.send('POST', path, { command: 'one' })).body;
    const wireId = (await poll(key)).body.command.id;
    expect((await ack(foreign.key, { id: wireId, st: 'ok' })).status).toBe(204);
    expect((await t.send('GET', `/api/v1/commands/${id}`)).body.state).toBe('sent');
    for (const body of ['{', '[]', '{"id":0,"st":"ok"}', '{"id":1,"st":"fine"}', '{"st":"ok"}']) {
      const refused = await ack(key, body);
      expect(refused, body).toMatchObject({
        status: 422,
        body: { code: 'COMMAND_ANSWER_INVALID' },
      });
    }
    expect((await ack(key, `{"id":1,"st":"ok","r":"${'x'.repeat(3000)}"}`)).status).toBe(413);
    expect((await t.send('POST', '/api/v1/device/commands/ack', undefined, key)).status).toBe(400);
  });

  it('is not believed in quarantine, and let in only with a key of a device', async () => {
    const { slug, key } = await newDevice();
    await t.send('PATCH', `/api/v1/devices/${slug}`, { quarantined: true });
    expect((await ack(key, { id: 1, st: 'ok' })).status).toBe(422);
    expect((await poll(t.acme.adminKey)).status).toBe(401);
    expect((await ack(t.acme.adminKey, { id: 1, st: 'ok' })).status).toBe(401);
    expect((await t.send('GET', '/api/v1/commands', undefined, deviceKey)).status).toBe(401);
  });
});
