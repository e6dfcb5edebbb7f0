import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';

let t: TestApi;
beforeAll(async () => {
  t = await createTestApi();
});
afterAll(() => t.stop());

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

describe('routes of devices', () => {
  it('creates a device with 201 and a Location that answers', async () => {
    const wanted = { device: 'boiler-7', displayName: 'Boiler', tags: ['cellar', 'v2'] };
    const made = await t.send('POST', '/api/v1/devices', wanted);
    expect(made.status).toBe(201);
    expect(made.headers.get('location')).toBe('/api/v1/devices/boiler-7');
    expect(made.body).toEqual({
      ...wanted,
      type: null,
      reportInterval: null,
      disabled: false,
      quarantined: false,
      createdAt: expect.stringMatching(TIME) as string,
      updatedAt: expect.stringMatching(TIME) as string,
    });
    const found = await t.send('GET', '/api/v1/devices/boiler-7');
    expect(found).toMatchObject({ status: 200, body: made.body });
  });

  it('accepts a MAC address as the name of a device', async () => {
    const made = await t.send('POST', '/api/v1/devices', { device: 'a4:cf:12:f0:e1:b2' });
    const location = made.headers.get('location') ?? '';
    expect(await t.send('GET', location)).toMatchObject({ status: 200 });
    expect(await t.send('GET', '/api/v1/devices/a4:cf:12:f0:e1:b2')).toMatchObject({ status: 200 });
  });

  it('refuses a second device of one name with 409', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'twin' });
    const again = await t.send('POST', '/api/v1/devices', { device: 'twin' });
    expect(again).toMatchObject({ status: 409, body: { code: 'DEVICE_EXISTS', status: 409 } });
    expect(again.headers.get('content-type')).toContain('application/problem+json');
  });

  it.each([
    ['no body', undefined],
    ['no name', {}],
    ['a name that breaks the grammar', { device: '+/#' }],
    ['a name with NUL', { device: 'a\0' }],
    ['a name that is too long', { device: 'x'.repeat(49) }],
    ['a number for a name', { device: 7 }],
    ['an organization in the body', { device: 'x', organizationId: 1 }],
    ['a time of creation in the body', { device: 'x', createdAt: '2020-01-01T00:00:00Z' }],
    ['a display name of a control character', { device: 'x', displayName: 'a\u001b[31m' }],
    ['a type that breaks the grammar', { device: 'x', type: 'two words' }],
    ['a type that is too long', { device: 'x', type: 'x'.repeat(49) }],
    ['an empty type', { device: 'x', type: '' }],
    ['a tag twice', { device: 'x', tags: ['a', 'a'] }],
    ['a prototype in the body', '{"device":"x","__proto__":{"role":"admin"}}'],
    ['broken JSON', '{"device":'],
    ['JSON that is no object', '[]'],
  ])('refuses %s with 400 and says where', async (_what, body) => {
    const answer = await t.send('POST', '/api/v1/devices', body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
    expect(answer.body.errors.length).toBeGreaterThan(0);
    expect(({} as Record<string, unknown>)['role']).toBeUndefined();
  });

  it('names every fault of a body at once', async () => {
    const { body } = await t.send('POST', '/api/v1/devices', { device: '', tags: [1], color: 1 });
    expect(body.errors).toHaveLength(3);
    expect(body.errors.join('\n')).toMatch(/body\.device: /);
    expect(body.errors.join('\n')).toMatch(/body\.tags\.0: /);
    expect(body.errors.join('\n')).toMatch(/color/);
  });

  it('gives a device a type, changes it, leaves it and takes it away', async () => {
    const made = await t.send('POST', '/api/v1/devices', { device: 'typed', type: 'boiler-v2' });
    expect(made).toMatchObject({ status: 201, body: { type: 'boiler-v2' } });
    const path = '/api/v1/devices/typed';
    const steps = [
      [{ type: 'pump' }, 'pump'],
      [{ displayName: 'still' }, 'pump'],
      [{ type: null }, null],
    ] as const;
    for (const [change, type] of steps) {
      expect(await t.send('PATCH', path, change)).toMatchObject({ status: 200, body: { type } });
      expect(await t.send('GET', path)).toMatchObject({ body: { type } });
    }
  });

  it('has a declared interval, which can be changed and taken away', async () => {
    const asked = { device: 'paced', reportInterval: '90s' };
    const made = await t.send('POST', '/api/v1/devices', asked);
    expect(made).toMatchObject({ status: 201, body: { reportInterval: '90s' } });
    for (const reportInterval of ['5m', null]) {
      const changed = await t.send('PATCH', '/api/v1/devices/paced', { reportInterval });
      expect(changed).toMatchObject({ status: 200, body: { reportInterval } });
    }
    for (const reportInterval of ['0s', 'often', 5]) {
      const refused = await t.send('PATCH', '/api/v1/devices/paced', { reportInterval });
      expect(refused.status, String(reportInterval)).toBe(400);
    }
  });

  it('changes what is given and leaves the rest', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'changing', tags: ['a'] });
    const answer = await t.send('PATCH', '/api/v1/devices/changing', { disabled: true });
    expect(answer).toMatchObject({ status: 200, body: { disabled: true, tags: ['a'] } });
    expect(await t.send('PATCH', '/api/v1/devices/changing', {})).toMatchObject({ status: 400 });
    expect(await t.send('PATCH', '/api/v1/devices/changing', { device: 'x' })).toMatchObject({
      status: 400,
    });
  });

  it('deletes a device with 204 and does not find it afterwards', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'gone' });
    expect(await t.send('DELETE', '/api/v1/devices/gone')).toMatchObject({ status: 204, body: '' });
    expect(await t.send('DELETE', '/api/v1/devices/gone')).toMatchObject({
      status: 404,
      body: { code: 'DEVICE_NOT_FOUND' },
    });
  });

  it.each(['%00', '..%2f..%2fetc', 'no%20such', '__proto__', 'constructor', "';DROP TABLE device"])(
    'answers 404 for a device called %s',
    async (name) => {
      for (const rest of ['', '/keys', '/latest', '/readings']) {
        const answer = await t.send('GET', `/api/v1/devices/${name}${rest}`);
        expect(answer).toMatchObject({ status: 404 });
      }
    },
  );

  it('pages through devices with a cursor that belongs to the question', async () => {
    for (let at = 0; at < 5; at += 1) {
      await t.send('POST', '/api/v1/devices', { device: `page-${at}` }, t.other.adminKey);
    }
    const names: string[] = [];
    let next: string | null = null;
    do {
      const cursor: string = next === null ? '' : `&cursor=${next}`;
      const page = await t.send(
        'GET',
        `/api/v1/devices?limit=2${cursor}`,
        undefined,
        t.other.adminKey,
      );
      names.push(...page.body.data.map((row: { device: string }) => row.device));
      next = page.body.next;
      if (next !== null) {
        const foreign = await t.send('GET', `/api/v1/devices?cursor=${next}`);
        expect(foreign).toMatchObject({ status: 400, body: { code: 'CURSOR_INVALID' } });
      }
    } while (next !== null);
    expect(names).toEqual(['page-0', 'page-1', 'page-2', 'page-3', 'page-4']);
  });

  it.each([
    'limit=0',
    'limit=5001',
    'limit=1e9',
    'limit=x',
    'limit=1&limit=2',
    'offset=1',
    'x=__proto__',
  ])('refuses the query %s with 400', async (query) => {
    const answer = await t.send('GET', `/api/v1/devices?${query}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
  });

  it.each(['x', 'W10', 'bnVsbA', 'eyJhIjoxfQ', Buffer.from('["a","b"]').toString('base64url')])(
    'refuses the made-up cursor %s',
    async (cursor) => {
      const answer = await t.send('GET', `/api/v1/devices?cursor=${cursor}`);
      expect(answer).toMatchObject({ status: 400, body: { code: 'CURSOR_INVALID' } });
    },
  );
});

describe('routes of keys', () => {
  it('shows a key once, and lists it without its secret', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'keyed' });
    const made = await t.send('POST', '/api/v1/devices/keyed/keys', { name: 'board 1' });
    expect(made.status).toBe(201);
    expect(made.body.key).toMatch(/^pbd_[0-9A-Za-z]{8}_[0-9A-Za-z]{33}$/);
    const { key, ...shown } = made.body;
    expect(shown).toEqual({
      keyId: key.slice(4, 12),
      name: 'board 1',
      state: 'active',
      createdAt: expect.stringMatching(TIME) as string,
      lastUsedAt: null,
      expiresAt: null,
      activatedAt: null,
      replacesKeyId: null,
      revokedAt: null,
    });
    const list = await t.send('GET', '/api/v1/devices/keyed/keys');
    expect(list.body).toEqual({ data: [shown], next: null });
    const one = await t.send('GET', made.headers.get('location') ?? '');
    expect(one.body).toEqual(shown);
    expect(JSON.stringify([list.body, one.body])).not.toContain(key.slice(13));
  });

  it('makes a key without a body, and refuses unknown members', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'bare' });
    expect(await t.send('POST', '/api/v1/devices/bare/keys')).toMatchObject({ status: 201 });
    expect(await t.send('POST', '/api/v1/devices/bare/keys', {})).toMatchObject({ status: 201 });
    expect(await t.send('POST', '/api/v1/devices/bare/keys', { role: 'admin' })).toMatchObject({
      status: 400,
    });
  });

  it('revokes with 204, again with 204, and keeps the key in the list', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'revoking' });
    const { body } = await t.send('POST', '/api/v1/devices/revoking/keys');
    const path = `/api/v1/devices/revoking/keys/${body.keyId}`;
    expect(await t.send('DELETE', path)).toMatchObject({ status: 204 });
    expect(await t.send('DELETE', path)).toMatchObject({ status: 204 });
    const found = await t.send('GET', path);
    expect(found.body).toMatchObject({ state: 'revoked', revokedAt: expect.stringMatching(TIME) });
  });

  it('answers 404 for keys of an unknown device and unknown keys of a device', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'a' });
    await t.send('POST', '/api/v1/devices', { device: 'b' });
    const { body } = await t.send('POST', '/api/v1/devices/b/keys');
    expect(await t.send('POST', '/api/v1/devices/nope/keys')).toMatchObject({
      status: 404,
      body: { code: 'DEVICE_NOT_FOUND' },
    });
    for (const keyId of [body.keyId, 'A1b2C3d4', '%00', 'x']) {
      expect(await t.send('DELETE', `/api/v1/devices/a/keys/${keyId}`)).toMatchObject({
        status: 404,
        body: { code: 'KEY_NOT_FOUND' },
      });
    }
  });

  it('refuses an eleventh active key until one is revoked', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'many' });
    const path = '/api/v1/devices/many/keys';
    const made = await Promise.all(Array.from({ length: 12 }, () => t.send('POST', path)));
    expect(made.filter(({ status }) => status === 201)).toHaveLength(10);
    expect(made.filter(({ body }) => body.code === 'KEY_LIMIT')).toHaveLength(2);
    const list = await t.send('GET', path);
    expect(list.body.data).toHaveLength(10);
    await t.send('DELETE', `${path}/${list.body.data[0].keyId}`);
    expect(await t.send('POST', path)).toMatchObject({ status: 201 });
    const pages = await t.send('GET', `${path}?limit=6`);
    const rest = await t.send('GET', `${path}?limit=6&cursor=${pages.body.next}`);
    const ids = [...pages.body.data, ...rest.body.data].map((row: { keyId: string }) => row.keyId);
    expect(new Set(ids).size).toBe(11);
    expect(rest.body.next).toBeNull();
  });
});
