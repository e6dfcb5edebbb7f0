import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';

let t: TestApi;

beforeAll(async () => {
  t = await createTestApi();
  await t.send('POST', '/api/v1/devices', { device: 'boiler-7' });
});
afterAll(async () => {
  await t.stop();
});

const tomorrow = (): string => new Date(Date.now() + 86_400_000).toISOString();

describe('keys of devices', () => {
  it('come with a QR code when one is asked for, in the only answer with the key', async () => {
    const path = '/api/v1/devices/boiler-7/keys';
    const plain = await t.send('POST', path, {});
    expect(plain.body).not.toHaveProperty('qr');
    const { status, body } = await t.send('POST', `${path}?qr=svg`, { name: 'label' });
    expect(status).toBe(201);
    expect(body.qr).toMatch(/^<svg /);
    expect(body).toMatchObject({ state: 'active', expiresAt: null, replacesKeyId: null });
    const shown = await t.send('GET', `${path}/${body.keyId}`);
    expect(JSON.stringify(shown.body)).not.toContain('svg');
    expect((await t.send('POST', `${path}?qr=png`, {})).status).toBe(400);
  });

  it('are changed, looked at and rolled back', async () => {
    const path = '/api/v1/devices/boiler-7';
    const none = await t.send('GET', `${path}/rotation`);
    expect(none).toMatchObject({ status: 404, body: { code: 'KEY_ROTATION_NOT_FOUND' } });
    const asked = await t.send('POST', `${path}/keys/rotate`, { ttl: '2h' });
    expect(asked).toMatchObject({
      status: 202,
      body: { device: 'boiler-7', state: 'asked', newKeyId: null, campaignId: null },
    });
    expect(asked.headers.get('location')).toBe(`${path}/rotation`);
    const { body: command } = await t.send('GET', `/api/v1/commands/${asked.body.commandId}`);
    expect(command).toMatchObject({ command: 'sys.rekey', args: {}, origin: 'key' });
    const waitsMs = Date.parse(command.expiresAt) - Date.parse(command.createdAt);
    expect(Math.abs(waitsMs - 7_200_000)).toBeLessThan(60_000);
    expect((await t.send('GET', `${path}/rotation`)).body).toEqual(asked.body);
    const twice = await t.send('POST', `${path}/keys/rotate`);
    expect(twice).toMatchObject({ status: 409, body: { code: 'KEY_ROTATION_OPEN' } });
    expect((await t.send('DELETE', `${path}/rotation`)).status).toBe(204);
    expect((await t.send('DELETE', `${path}/rotation`)).status).toBe(404);
    const { body: cancelled } = await t.send('GET', `/api/v1/commands/${asked.body.commandId}`);
    expect(cancelled.state).toBe('cancelled');
    for (const ttl of ['1s', '400d', 'x', 5]) {
      expect((await t.send('POST', `${path}/keys/rotate`, { ttl })).status).toBe(400);
    }
  });

  it('of a device of somebody else are not there [A-01]', async () => {
    const key = t.other.adminKey;
    for (const [method, path] of [
      ['POST', '/api/v1/devices/boiler-7/keys/rotate'],
      ['GET', '/api/v1/devices/boiler-7/rotation'],
      ['DELETE', '/api/v1/devices/boiler-7/rotation'],
    ] as const) {
      const { status, body } = await t.send(method, path, undefined, key);
      expect({ status, code: body.code }).toEqual({ status: 404, code: 'DEVICE_NOT_FOUND' });
    }
  });
});

describe('claim keys', () => {
  it('are made, listed, changed and revoked', async () => {
    const { status, body, headers } = await t.send('POST', '/api/v1/claim-keys?qr=svg', {
      name: 'batch 1',
      quota: 100,
      expiresAt: tomorrow(),
      type: 'thermo',
      tags: ['hall'],
      models: ['thermo-1'],
      approval: 'manual',
    });
    expect(status).toBe(201);
    expect(body).toMatchObject({ quota: 100, claimed: 0, approval: 'manual', state: 'active' });
    expect(body.key).toMatch(/^pbc_/);
    expect(body.qr).toMatch(/^<svg /);
    const path = headers.get('location') ?? '';
    const { key: _key, qr: _qr, ...shown } = body;
    expect((await t.send('GET', path)).body).toEqual(shown);
    const list = await t.send('GET', '/api/v1/claim-keys?limit=1');
    expect(list.body).toEqual({ data: [shown], next: null });
    const changed = await t.send('PATCH', path, { quota: 5, approval: 'auto' });
    expect(changed.body).toEqual({ ...shown, quota: 5, approval: 'auto' });
    expect((await t.send('PATCH', path, {})).status).toBe(400);
    expect((await t.send('DELETE', path)).status).toBe(204);
    expect((await t.send('GET', path)).body).toMatchObject({ state: 'revoked' });
    expect((await t.send('GET', path, undefined, t.other.adminKey)).status).toBe(404);
    expect((await t.send('GET', '/api/v1/claim-keys/rotation')).status).toBe(404);
  });

  it('open nothing over HTTP', async () => {
    const { body } = await t.send('POST', '/api/v1/claim-keys', {
      name: 'x',
      quota: 1,
      expiresAt: tomorrow(),
    });
    for (const path of ['/api/v1/devices', '/api/v1/device/commands', '/api/v1/claim-keys']) {
      expect((await t.send('GET', path, undefined, body.key)).status, path).toBe(401);
    }
    expect((await t.send('POST', '/api/v1/ingest', { temp: 1 }, body.key)).status).toBe(401);
  });

  it('take no rights from a body [A-14]', async () => {
    const body = { name: 'x', quota: 1, expiresAt: tomorrow() };
    for (const more of [
      { claimed: -5 },
      { organizationId: 1 },
      { quota: 0 },
      { quota: 1e9 },
      { expiresAt: '2020-01-01' },
      { expiresAt: null },
      { models: [] },
      { models: ["'"] },
    ]) {
      const { status } = await t.send('POST', '/api/v1/claim-keys', { ...body, ...more });
      expect(status, JSON.stringify(more)).toBe(400);
    }
  });
});

describe('claims', () => {
  it('are listed, approved and denied', async () => {
    const { body: key } = await t.send('POST', '/api/v1/claim-keys', {
      name: 'manual',
      quota: 10,
      expiresAt: tomorrow(),
      approval: 'manual',
    });
    const claims = t.registry.keys.claims(() => false);
    const { organizationId } = t.acme.author;
    const board = { model: 'm', address: '192.0.2.1', isPrivate: true };
    const request = { organizationId, organization: 'acme', keyId: key.keyId, ...board };
    for (const hardwareId of ['b-1', 'b-2']) await claims.claim({ ...request, hardwareId });
    const list = await t.send('GET', '/api/v1/claims?state=waiting&limit=1');
    expect(list.body.data).toMatchObject([
      { hardwareId: 'b-1', claimKeyId: key.keyId, model: 'm' },
    ]);
    const query = `state=waiting&limit=1&cursor=${list.body.next}`;
    const rest = await t.send('GET', `/api/v1/claims?${query}`);
    expect(rest.body).toMatchObject({ data: [{ hardwareId: 'b-2' }], next: null });
    const approved = await t.send('POST', '/api/v1/claims/b-1/approve');
    expect(approved).toMatchObject({ status: 200, body: { state: 'approved' } });
    const denied = await t.send('POST', '/api/v1/claims/b-2/deny');
    expect(denied).toMatchObject({ status: 200, body: { state: 'denied' } });
    expect(await claims.claim({ ...request, hardwareId: 'b-1' })).toMatchObject({ st: 'ok' });
    const again = await t.send('POST', '/api/v1/claims/b-1/approve');
    expect(again).toMatchObject({ status: 409, body: { code: 'CLAIM_ISSUED' } });
    expect((await t.send('POST', '/api/v1/claims/nobody/approve')).body.code).toBe(
      'CLAIM_NOT_FOUND',
    );
    const foreign = await t.send('POST', '/api/v1/claims/b-2/approve', undefined, t.other.adminKey);
    expect(foreign.status).toBe(404);
  });
});

describe('a batch', () => {
  it('is numbered or named, with what a factory flashes', async () => {
    const numbered = await t.send('POST', '/api/v1/devices/batch', {
      count: 3,
      prefix: 'thermo-',
      first: 9,
      type: 'thermo',
      tags: ['batch-1'],
    });
    expect(numbered.status).toBe(201);
    expect(numbered.body.data.map(({ device }: { device: string }) => device)).toEqual([
      'thermo-0009',
      'thermo-0010',
      'thermo-0011',
    ]);
    const [{ user, key, nvs, qrText }] = numbered.body.data;
    expect(user).toBe('acme/thermo-0009');
    expect(nvs).toContain(`host,data,string,iot.example.com\n`);
    expect(nvs).toContain(`key,data,string,${key}\n`);
    expect(qrText).toBe(`puback:iot.example.com:8883/acme/thermo-0009#${key}`);
    const named = await t.send('POST', '/api/v1/devices/batch', {
      devices: ['a4:cf:12:f0:e1:b2'],
      url: 'mqtts://[2001:db8::1]:8884',
    });
    expect(named.body.data[0].nvs).toContain('host,data,string,2001:db8::1\nport,data,u16,8884\n');
  });

  it('is refused as a whole', async () => {
    for (const body of [
      {},
      { count: 1 },
      { prefix: 'x' },
      { count: 51, prefix: 'x' },
      { count: 0, prefix: 'x' },
      { devices: [] },
      { devices: ['a', 'a'] },
      { devices: ['a b'] },
      // Its last name would have 49 characters, and nobody could ask for it.
      { count: 2, prefix: 'x'.repeat(40), first: 99_999_999 },
      { devices: ['a'], count: 1 },
      { devices: ['a'], url: 'https://x' },
      { devices: ['a'], url: 'mqtts://a/"\n' },
      { devices: ['a'], organizationId: 2 },
    ]) {
      const { status } = await t.send('POST', '/api/v1/devices/batch', body);
      expect(status, JSON.stringify(body)).toBe(400);
    }
    const taken = await t.send('POST', '/api/v1/devices/batch', { devices: ['new', 'boiler-7'] });
    expect(taken).toMatchObject({ status: 409, body: { code: 'DEVICE_EXISTS' } });
    expect((await t.send('GET', '/api/v1/devices/new')).status).toBe(404);
  });

  it('leaves no key in the log [A-15]', async () => {
    const { body } = await t.send('POST', '/api/v1/devices/batch', { devices: ['logged'] });
    expect(t.logged.join('\n')).not.toContain(body.data[0].key.slice(13));
  });
});
