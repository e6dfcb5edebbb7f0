import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';

const KEYS = '/api/v1/admin-keys';

let t: TestApi;
beforeAll(async () => {
  t = await createTestApi();
});
afterAll(() => t.stop());

const keyIdOf = (key: string): string => key.slice(4, 12);
const list = async (key = t.acme.adminKey) => {
  const seen: { keyId: string; name: string; revokedAt: string | null }[] = [];
  for (let cursor = ''; ;) {
    const { body } = await t.send('GET', `${KEYS}?limit=2${cursor}`, undefined, key);
    seen.push(...body.data);
    if (body.next === null) return seen;
    cursor = `&cursor=${body.next}`;
  }
};

describe('keys of admins', () => {
  it('are made for others, who may do the same, and end when they are revoked', async () => {
    const made = await t.send('POST', KEYS, { name: 'Ada' });
    expect(made).toMatchObject({
      status: 201,
      body: { name: 'Ada', key: expect.stringMatching(/^pba_/) as string, revokedAt: null },
    });
    const { key, keyId } = made.body;
    const third = (await t.send('POST', KEYS, { name: 'Bo' }, key)).body;
    expect((await list()).map(({ name }) => name)).toEqual(['test', 'Ada', 'Bo']);
    expect(JSON.stringify(await list())).not.toContain(key);
    expect((await t.send('DELETE', `${KEYS}/${keyId}`)).status).toBe(204);
    expect((await t.send('GET', KEYS, undefined, key)).status).toBe(401);
    expect((await t.send('DELETE', `${KEYS}/${keyId}`)).status).toBe(204);
    expect((await list()).find((one) => one.keyId === keyId)?.revokedAt).not.toBeNull();
    expect((await t.send('DELETE', `${KEYS}/${third.keyId}`)).status).toBe(204);
  });

  it('are never all revoked, also when two people revoke each other at once', async () => {
    const last = await t.send('DELETE', `${KEYS}/${keyIdOf(t.acme.adminKey)}`);
    expect(last).toMatchObject({ status: 409, body: { code: 'LAST_ADMIN_KEY' } });
    const { author } = t.other;
    const { key, keyId } = (await t.send('POST', KEYS, { name: 'Ada' }, t.other.adminKey)).body;
    const revoked = await Promise.all([
      t.send('DELETE', `${KEYS}/${keyId}`, undefined, t.other.adminKey),
      t.send('DELETE', `${KEYS}/${keyIdOf(t.other.adminKey)}`, undefined, key),
    ]);
    expect(revoked.filter(({ status }) => status === 204).length).toBe(1);
    const { rows } = await t.test.database.pool.query(
      `SELECT FROM api_key
       WHERE organization_id = $1 AND kind = 'admin' AND revoked_at IS NULL`,
      [author.organizationId],
    );
    expect(rows.length).toBe(1);
  });

  it('are of one organization, and no keys of devices or integrators are among them', async () => {
    const reader = { name: 'reader', scopes: ['data'] };
    const { keyId } = (await t.send('POST', '/api/v1/keys', reader)).body;
    await t.send('POST', '/api/v1/devices', { device: 'd' });
    const device = (await t.send('POST', '/api/v1/devices/d/keys', {})).body.keyId;
    for (const id of [keyId, device, keyIdOf(t.other.adminKey), 'x', '%00', '0000000']) {
      const revoked = await t.send('DELETE', `${KEYS}/${id}`);
      expect(revoked, id).toMatchObject({ status: 404, body: { code: 'KEY_NOT_FOUND' } });
    }
    expect((await list()).some((one) => [keyId, device].includes(one.keyId))).toBe(false);
  });

  it('are not more than a hundred that are in use', async () => {
    const { data } = (await t.send('GET', `${KEYS}?limit=1000`)).body;
    const active = data.filter((one: { revokedAt: string | null }) => one.revokedAt === null);
    for (let count = active.length; count < 100; count += 1) {
      expect((await t.send('POST', KEYS, { name: 'x' })).status).toBe(201);
    }
    const refused = await t.send('POST', KEYS, { name: 'x' });
    expect(refused).toMatchObject({ status: 409, body: { code: 'KEY_LIMIT' } });
    expect(refused.body.detail).toContain('admins');
    expect((await t.send('POST', KEYS, { name: '' })).status).toBe(400);
  });
});
