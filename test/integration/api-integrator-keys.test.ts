import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';

let t: TestApi;
beforeAll(async () => {
  t = await createTestApi();
  await t.send('POST', '/api/v1/devices', { device: 'boiler-7' });
});
afterAll(() => t.stop());

const wanted = { name: 'dashboard', scopes: ['data'], devices: null, expiresAt: null };

describe('routes of integrator keys', () => {
  it('makes a key once, and shows it without the key afterwards', async () => {
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const made = await t.send('POST', '/api/v1/keys', {
      name: 'dashboard',
      scopes: ['data', 'cmd:write'],
      devices: ['boiler-7'],
      expiresAt,
    });
    expect(made.status).toBe(201);
    const { key, ...shown } = made.body;
    expect(key).toMatch(/^pbi_[0-9A-Za-z]{8}_[0-9A-Za-z]{33}$/);
    expect(shown).toMatchObject({
      name: 'dashboard',
      scopes: ['data', 'cmd:write'],
      devices: ['boiler-7'],
      state: 'active',
      expiresAt,
      lastUsedAt: null,
      revokedAt: null,
    });
    const location = made.headers.get('location') ?? '';
    expect(location).toBe(`/api/v1/keys/${shown.keyId}`);
    expect(await t.send('GET', location)).toMatchObject({ status: 200, body: shown });
    const { body } = await t.send('GET', '/api/v1/keys');
    expect(body).toEqual({ data: [shown], next: null });
    expect(JSON.stringify(body)).not.toContain(key);
  });

  it('takes null, or nothing, for all devices and no end', async () => {
    const made = await t.send('POST', '/api/v1/keys', { name: 'a', scopes: ['status'] });
    expect(made).toMatchObject({ status: 201, body: { devices: null, expiresAt: null } });
  });

  it.each([
    ['no name', { scopes: ['data'] }],
    ['no scopes', { name: 'x' }],
    ['an empty list of scopes', { ...wanted, scopes: [] }],
    ['a scope that does not exist', { ...wanted, scopes: ['everything'] }],
    ['a scope twice', { ...wanted, scopes: ['data', 'data'] }],
    ['an empty list of devices', { ...wanted, devices: [] }],
    ['a device twice', { ...wanted, devices: ['boiler-7', 'boiler-7'] }],
    ['a device name that breaks the grammar', { ...wanted, devices: ['+'] }],
    ['101 devices', { ...wanted, devices: Array.from({ length: 101 }, (_, at) => `d${at}`) }],
    ['an end in the past', { ...wanted, expiresAt: '2020-01-01T00:00:00Z' }],
    ['an end that is no time', { ...wanted, expiresAt: 'tomorrow' }],
    ['an organization in the body [A-14]', { ...wanted, organizationId: 1 }],
    ['a kind in the body [A-14]', { ...wanted, kind: 'admin' }],
  ])('refuses %s with 400', async (_what, body) => {
    const answer = await t.send('POST', '/api/v1/keys', body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
  });

  it('refuses a device that the organization does not have with 404', async () => {
    const answer = await t.send('POST', '/api/v1/keys', { ...wanted, devices: ['nope'] });
    expect(answer).toMatchObject({ status: 404, body: { code: 'DEVICE_NOT_FOUND' } });
  });

  it('revokes a key, once and again, and pages through what there is', async () => {
    const { body: made } = await t.send('POST', '/api/v1/keys', wanted);
    const path = `/api/v1/keys/${made.keyId}`;
    for (let turn = 0; turn < 2; turn += 1) {
      expect(await t.send('DELETE', path)).toMatchObject({ status: 204 });
    }
    expect(await t.send('GET', path)).toMatchObject({ body: { state: 'revoked' } });
    const first = await t.send('GET', '/api/v1/keys?limit=2');
    expect(first.body.data).toHaveLength(2);
    const rest = await t.send('GET', `/api/v1/keys?limit=2&cursor=${first.body.next}`);
    expect(rest.body.data.map(({ keyId }: { keyId: string }) => keyId)).toEqual([made.keyId]);
    const cursor = first.body.next as string;
    const foreign = `/api/v1/keys?limit=2&cursor=${cursor}`;
    expect(await t.send('GET', foreign, undefined, t.other.adminKey)).toMatchObject({
      status: 400,
      body: { code: 'CURSOR_INVALID' },
    });
  });

  it('shows a key past its end as expired', async () => {
    const { body: made } = await t.send('POST', '/api/v1/keys', wanted);
    await t.test.database.pool.query(
      `UPDATE api_key SET expires_at = now() - interval '1 second' WHERE key_id = $1`,
      [made.keyId],
    );
    expect(await t.send('GET', `/api/v1/keys/${made.keyId}`)).toMatchObject({
      body: { state: 'expired' },
    });
  });

  it('answers 409 with KEY_LIMIT at the bound', async () => {
    const statuses = [];
    for (let at = 0; at < 6; at += 1) {
      const { status, body } = await t.send('POST', '/api/v1/keys', wanted, t.other.adminKey);
      statuses.push(status);
      if (status !== 201) expect(body.code).toBe('KEY_LIMIT');
    }
    expect(statuses).toEqual([201, 201, 201, 201, 201, 409]);
  });
});
