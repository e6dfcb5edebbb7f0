import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { resealSecrets } from '../../rules/notify/reseal.ts';
import { Secrets } from '../../rules/notify/secrets.ts';
import { createTestApi, type TestApi } from '../support/api.ts';

const SECRET = 'nobody may ever see this';
const HOOK = {
  kind: 'webhook',
  settings: { url: 'https://example.com/hook' },
  secret: SECRET,
};

let t: TestApi;
let made = 0;
beforeAll(async () => {
  t = await createTestApi();
});
afterAll(() => t.stop());

async function createReceiver(changed: Record<string, unknown> = {}): Promise<string> {
  made += 1;
  const answer = await t.send('POST', '/api/v1/receivers', {
    name: `receiver ${made}`,
    ...HOOK,
    ...changed,
  });
  expect(answer.status).toBe(201);
  return answer.body.id;
}

describe('receivers', () => {
  it('are made, read, changed and deleted, and never show their secret (A-15)', async () => {
    const id = await createReceiver({ name: 'pager' });
    const path = `/api/v1/receivers/${id}`;
    const answers = [
      await t.send('GET', path),
      await t.send('GET', '/api/v1/receivers'),
      await t.send('PATCH', path, { name: 'pager of hall 3' }),
      await t.send('POST', `${path}/test`),
      await t.send('GET', '/api/v1/notifications'),
    ];
    for (const { status } of answers) expect(status).toBe(200);
    expect(answers[0]?.body).toMatchObject({ name: 'pager', kind: 'webhook', hasSecret: true });
    expect(answers[2]?.body).toMatchObject({ name: 'pager of hall 3', hasSecret: true });
    expect(answers[3]?.body).toMatchObject({ ok: true, reason: null });
    expect(JSON.stringify(answers.map(({ body }) => body))).not.toContain(SECRET);
    expect(t.logged.join('')).not.toContain(SECRET);
    const { rows } = await t.test.database.pool.query(
      'SELECT audit_event::text AS row FROM audit_event',
    );
    expect(JSON.stringify(rows)).toContain('receiver.create');
    expect(JSON.stringify(rows)).not.toContain(SECRET);
    expect(await t.send('DELETE', path)).toMatchObject({ status: 204 });
    expect(await t.send('GET', path)).toMatchObject({
      status: 404,
      body: { code: 'RECEIVER_NOT_FOUND' },
    });
  });

  it.each([
    ['a name that is taken', { name: 'taken' }, 409],
    ['an organization in the body [A-14]', { organizationId: 2 }, 400],
    ['an id in the body [A-14]', { receiverId: 'x' }, 400],
    ['a setting of another kind', { settings: { url: 'https://a.example', topic: 'x' } }, 400],
    ['a URL with a password', { settings: { url: 'https://a:b@example.com' } }, 400],
    ['a URL that is none', { settings: { url: 'file:///etc/passwd' } }, 400],
    ['a webhook without a secret', { secret: null }, 400],
    ['a short secret', { secret: 'short' }, 400],
    ['an unknown kind', { kind: 'pigeon' }, 400],
    ['control characters', { name: 'a\u0000b' }, 400],
  ])('with %s are refused', async (_what, changed, status) => {
    await t.send('POST', '/api/v1/receivers', { ...HOOK, name: 'taken' });
    const answer = await t.send('POST', '/api/v1/receivers', {
      ...HOOK,
      name: 'other',
      ...changed,
    });
    expect(answer.status, JSON.stringify(answer.body)).toBe(status);
    expect(JSON.stringify(answer.body)).not.toContain(SECRET);
  });

  it.each([
    ['webhook', { url: 'x' }, 'settings.url: must be a URL such as https://example.com/hook'],
    ['webhook', {}, 'settings.url: is missing'],
    ['webhook', { url: 'https://a.example', x: 1 }, 'settings.x: is not known here; known are url'],
    ['webhook', { url: 'https://127.0.0.1' }, 'NOTIFY_PRIVATE_ADDRESSES can allow it'],
    ['email', { host: '' }, 'settings.host: must not be empty'],
    ['email', { from: 'duty' }, 'settings.from: must be a mail address such as duty@example.com'],
    ['email', { port: '587' }, 'settings.port: must be a number, 1 to 65535'],
    ['telegram', { chatId: -100 }, 'settings.chatId: must be the number of a chat as a text'],
    ['telegram', { chatId: 'x' }, 'settings.chatId: must be the number of a chat as a text'],
    ['ntfy', { topic: 'a b' }, 'settings.topic: must be 1 to 64 letters, digits, - and _'],
    ['pigeon', {}, 'kind: must be one of webhook, email, mqtt, slack, telegram, ntfy'],
  ])('of kind %s with %j are refused in plain words', async (kind, settings, words) => {
    const answer = await t.send('POST', '/api/v1/receivers', {
      name: 'plain',
      kind,
      settings,
      secret: SECRET,
    });
    expect(answer.status).toBe(400);
    expect(answer.body.detail).toContain(words);
    expect(answer.body.detail).not.toMatch(/Invalid|Too small|expected|\^/);
  });

  it('with a wrong secret are refused in plain words, without it', async () => {
    const settings = { chatId: '1' };
    const bot = { name: 'bot', kind: 'telegram', settings, secret: SECRET };
    const answers = [
      await t.send('POST', '/api/v1/receivers', bot),
      await t.send('POST', '/api/v1/receivers', { name: 'hook', ...HOOK, secret: 'short' }),
    ];
    expect(answers.map(({ body }) => body.detail)).toEqual([
      'secret: must be the token of a bot: its number, a colon, and 20 letters, digits, - and _ or more',
      'secret: must be at least 16 characters long',
    ]);
  });

  it('whose settings change are refused in the same words', async () => {
    const path = `/api/v1/receivers/${await createReceiver()}`;
    const { body } = await t.send('PATCH', path, { settings: { url: 'x' } });
    expect(body).toMatchObject({
      code: 'RECEIVER_INVALID',
      detail: 'settings.url: must be a URL such as https://example.com/hook',
    });
  });

  it('with a host that does not resolve are saved with a warning', async () => {
    const settings = { url: 'https://nobody.invalid/hook' };
    const made = await t.send('POST', '/api/v1/receivers', { name: 'away', ...HOOK, settings });
    const warning = 'settings.url: its host does not resolve now; nothing arrives until it does';
    expect(made).toMatchObject({ status: 201, body: { warnings: [warning] } });
    const path = `/api/v1/receivers/${made.body.id}`;
    expect((await t.send('PATCH', path, { settings })).body.warnings).toEqual([warning]);
    expect((await t.send('GET', path)).body).not.toHaveProperty('warnings');
    await t.send('DELETE', path);
  });

  it('of each kind take what they need', async () => {
    const kinds = {
      email: { host: 'mail.example.com', from: 'a@example.com', to: ['b@example.com'] },
      mqtt: {},
      slack: {},
      telegram: { chatId: '-100123' },
      ntfy: { topic: 'alarms' },
    };
    const secrets: Record<string, string> = {
      slack: 'https://hooks.slack.example/services/T0/B0/x',
      telegram: `123456:${'a'.repeat(35)}`,
    };
    for (const [kind, settings] of Object.entries(kinds)) {
      const id = await createReceiver({ kind, settings, secret: secrets[kind] ?? null });
      const { body } = await t.send('GET', `/api/v1/receivers/${id}`);
      expect(body).toMatchObject({ kind, hasSecret: secrets[kind] !== undefined });
      expect(JSON.stringify(body)).not.toContain('hooks.slack');
    }
  });

  it('do not send a password to another server than it was given for', async () => {
    const settings = {
      host: 'mail.example.com',
      user: 'puback',
      from: 'a@example.com',
      to: ['b@example.com'],
    };
    const path = `/api/v1/receivers/${await createReceiver({ kind: 'email', settings })}`;
    const moved = { ...settings, host: 'mail.evil.example' };
    expect(await t.send('PATCH', path, { settings: moved })).toMatchObject({
      status: 400,
      body: { code: 'RECEIVER_INVALID' },
    });
    const more = { ...settings, to: ['b@example.com', 'c@example.com'] };
    expect((await t.send('PATCH', path, { settings: more })).body.hasSecret).toBe(true);
    const without = await t.send('PATCH', path, { settings: moved, secret: null });
    expect(without.body).toMatchObject({
      hasSecret: false,
      settings: { host: 'mail.evil.example' },
    });
  });

  it('are tested ten times a minute at most', async () => {
    const path = `/api/v1/receivers/${await createReceiver()}/test`;
    let last = 200;
    for (let nth = 0; nth < 12; nth += 1) last = (await t.send('POST', path)).status;
    expect(last).toBe(429);
  });
});

describe('notification routes', () => {
  it('are made, ordered, replaced and deleted, with receivers that exist', async () => {
    const receiver = await createReceiver();
    const body = { name: 'all', receivers: [receiver] };
    const first = await t.send('POST', '/api/v1/notification-routes', body);
    expect(first).toMatchObject({
      status: 201,
      body: { groupWait: '1s', groupInterval: '1m', repeatInterval: '4h', matchers: [] },
    });
    const second = await t.send('POST', '/api/v1/notification-routes', {
      ...body,
      name: 'before',
      position: 1,
      matchers: [{ label: 'severity', op: 'in', values: ['critical'] }],
    });
    const list = async () =>
      (await t.send('GET', '/api/v1/notification-routes')).body.data.map(
        ({ name }: { name: string }) => name,
      );
    expect(await list()).toEqual(['before', 'all']);
    const path = `/api/v1/notification-routes/${second.body.id}`;
    expect(await t.send('PUT', path, { ...body, name: 'behind', position: 99 })).toMatchObject({
      status: 200,
      body: { matchers: [], position: 99 },
    });
    expect(await list()).toEqual(['all', 'behind']);
    expect(await t.send('DELETE', `/api/v1/receivers/${receiver}`)).toMatchObject({
      status: 409,
      body: { code: 'RECEIVER_IN_USE' },
    });
    expect((await t.send('DELETE', path)).status).toBe(204);
    const foreign = await t.send('POST', '/api/v1/notification-routes', body, t.other.adminKey);
    expect(foreign).toMatchObject({ status: 404, body: { code: 'RECEIVER_NOT_FOUND' } });
  });

  it.each([
    ['a regular expression', { matchers: [{ label: 'a', op: '=~', value: '(a+)+$' }] }],
    ['a wait that is none', { groupWait: 'soon' }],
    ['an interval below a second', { groupInterval: '10ms' }],
    ['a time zone that is none', { quietHours: { timeZone: 'Mars', windows: [] } }],
    ['an organization [A-14]', { organizationId: 2 }],
    ['a receiver twice', { receivers: ['x', 'x'] }],
    ['a severity that is none', { matchers: [{ label: 'severity', op: '=', value: 'urgent' }] }],
  ])('with %s are refused', async (_what, changed) => {
    const body = { name: 'bad', receivers: [await createReceiver()], ...changed };
    const answer = await t.send('POST', '/api/v1/notification-routes', body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
  });
});

describe('words of routes and previews', () => {
  it.each([
    [{ receivers: ['duty'] }, 'body.receivers.0: must be an id of GET /api/v1/receivers'],
    [
      { matchers: [{ label: 'severity', op: '=', value: 'urgent' }] },
      'body.matchers.0.value: must be a severity, or it never holds: info, low, medium, high, critical',
    ],
    [
      { matchers: [{ label: 'severity', op: 'in', values: ['high', 'urgent'] }] },
      'body.matchers.0.values: must be a severity',
    ],
    [
      { matchers: [{ label: 'severity', op: 'prefix', value: 'x' }] },
      'body.matchers.0.value: must be a severity',
    ],
    [
      { matchers: [{ label: 'a', op: '=~', value: 'x' }] },
      'body.matchers.0.op: must be =, !=, prefix or in',
    ],
    [{ groupWait: 5 }, 'body.groupWait: must be a duration, a text such as "2s", "5m" or "1h30m"'],
    [{ groupBy: ['a b'] }, 'body.groupBy.0: must be a label: letters, digits and _'],
    [{ name: '' }, 'body.name: must not be empty'],
  ])('a route with %j is refused with what is asked for', async (changed, words) => {
    const body = { name: 'bad', receivers: [await createReceiver()], ...changed };
    const answer = await t.send('POST', '/api/v1/notification-routes', body);
    expect(answer.status).toBe(400);
    expect(answer.body.errors.join()).toContain(words);
  });

  it('a matcher that may hold for a severity is taken', async () => {
    const made = await t.send('POST', '/api/v1/notification-routes', {
      name: 'urgent',
      receivers: [await createReceiver()],
      matchers: [
        { label: 'severity', op: 'in', values: ['high', 'critical'] },
        { label: 'severity', op: '!=', value: 'urgent' },
        { label: 'severity', op: 'prefix', value: 'crit' },
      ],
    });
    expect(made.status).toBe(201);
    await t.send('DELETE', `/api/v1/notification-routes/${made.body.id}`);
  });

  it.each([
    [{}, 'body: must have "alert", the id of an alert, or "labels"'],
    [{ alert: 'nope' }, 'body.alert: must be an id of GET /api/v1/alerts'],
    [{ labels: {}, severity: 'urgent' }, 'body.severity: must be one of info, low'],
  ])('a preview of %j is refused with what it needs', async (body, words) => {
    const answer = await t.send('POST', '/api/v1/notifications/preview', body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
    expect(answer.body.errors.join()).toContain(words);
  });
});

describe('the kill switch', () => {
  it('is turned on and off, and says by whom', async () => {
    const path = '/api/v1/notification-policy';
    expect((await t.send('GET', path)).body).toMatchObject({ stopped: false, stoppedAt: null });
    const stopped = await t.send('PUT', path, { stopped: true });
    expect(stopped.body).toMatchObject({ stopped: true });
    expect(t.acme.adminKey).toContain(stopped.body.stoppedBy);
    const again = await t.send('PUT', path, { stopped: true });
    expect(again.body.stoppedAt).toBe(stopped.body.stoppedAt);
    const test = await t.send('POST', `/api/v1/receivers/${await createReceiver()}/test`);
    expect(test).toMatchObject({ status: 409, body: { code: 'NOTIFICATIONS_STOPPED' } });
    expect((await t.send('PUT', path, { stopped: false })).body).toMatchObject({ stopped: false });
    expect((await t.send('GET', path, undefined, t.other.adminKey)).body.stopped).toBe(false);
  });
});

describe('secrets at rest', () => {
  it('are encrypted anew with the first key at start, and those that no key opens stay', async () => {
    const { database } = t.test;
    const { organizationId } = t.acme.author;
    const [old, fresh] = [randomBytes(32), randomBytes(32)];
    const lost = new Secrets([randomBytes(32)]);
    await database.pool.query('DELETE FROM notification_route');
    await database.pool.query('DELETE FROM receiver');
    const ids = [await createReceiver(), await createReceiver(), await createReceiver()];
    const [first = '', second = '', third = ''] = ids;
    for (const [id, secrets] of [
      [first, new Secrets([old])],
      [second, new Secrets([old])],
      [third, lost],
    ] as const) {
      const sealed = secrets.seal(id, `secret of ${id}`);
      await database.pool.query(
        'UPDATE receiver SET secret = $2, secret_key_id = $3 WHERE receiver_id = $1',
        [id, sealed.secret, sealed.keyId],
      );
    }
    const log = pino({ level: 'silent' });
    const both = new Secrets([fresh, old]);
    expect(await resealSecrets(database, both, log)).toEqual({ resealed: 2, unreadable: 1 });
    expect(await resealSecrets(database, both, log)).toEqual({ resealed: 0, unreadable: 1 });
    const { rows } = await database.pool.query(
      'SELECT receiver_id, secret, secret_key_id FROM receiver WHERE organization_id = $1',
      [organizationId],
    );
    const alone = new Secrets([fresh]);
    for (const row of rows.filter(({ receiver_id: id }) => id !== third)) {
      const sealed = { secret: row.secret, keyId: row.secret_key_id };
      expect(alone.open(row.receiver_id, sealed)).toBe(`secret of ${row.receiver_id}`);
    }
  });
});
