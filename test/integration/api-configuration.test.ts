import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type ApiAnswer, type TestApi } from '../support/api.ts';

let api: TestApi;

beforeAll(async () => {
  api = await createTestApi();
  for (const device of ['boiler-1', 'boiler-2']) {
    await api.send('POST', '/api/v1/devices', { device, type: 'boiler' });
  }
});
afterAll(() => api.stop());

const DEVICE = '/api/v1/devices/boiler-1/configuration';
const TYPE = '/api/v1/device-types/boiler/configuration';

/** A request with `If-Match`; null sends none. */
async function send(
  method: string,
  path: string,
  ifMatch: string | null,
  body?: unknown,
  contentType = 'application/json',
): Promise<ApiAnswer> {
  const answer = await fetch(api.url + path, {
    method,
    headers: {
      authorization: `Bearer ${api.acme.adminKey}`,
      ...(ifMatch === null ? {} : { 'if-match': ifMatch }),
      ...(body === undefined ? {} : { 'content-type': contentType }),
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  return {
    status: answer.status,
    headers: answer.headers,
    body: text === '' ? '' : JSON.parse(text),
  };
}

describe('the configuration of a device over HTTP', () => {
  it('begins with version 0', async () => {
    const { status, body, headers } = await api.send('GET', DEVICE);
    expect(status).toBe(200);
    expect(headers.get('etag')).toBe('"0"');
    expect(body).toEqual({
      device: 'boiler-1',
      type: 'boiler',
      version: 0,
      desired: {},
      document: {},
      changedAt: null,
      changedBy: null,
      published: false,
      packet: { bytes: 0, bytesMax: 256 },
      reported: null,
      drift: { drifting: false, since: null },
      held: null,
    });
  });

  it('is set whole, changed by a merge patch, and tells its version as the ETag', async () => {
    const put = await send('PUT', DEVICE, '"0"', { every: 60, mode: 'auto' });
    expect(put.status).toBe(200);
    expect(put.headers.get('etag')).toBe('"1"');
    const type = 'application/merge-patch+json';
    const patched = await send('PATCH', DEVICE, put.headers.get('etag'), { mode: null }, type);
    expect(patched.status).toBe(200);
    expect(patched.body).toMatchObject({
      version: 2,
      desired: { every: 60 },
      drift: { drifting: false, since: expect.any(String) },
    });
    expect(patched.body.changedBy).toBe(api.acme.adminKey.split('_')[1]?.slice(0, 8));
  });

  it('is changed by nobody who does not say for which version', async () => {
    const { status, body } = await send('PATCH', DEVICE, null, { a: 1 });
    expect(status).toBe(428);
    expect(body.code).toBe('CONFIGURATION_VERSION_REQUIRED');
    expect(body.detail).toContain('If-Match: "7"');
    expect((await send('PATCH', DEVICE, '"1"', { a: 1 })).status).toBe(412);
    expect((await send('PATCH', DEVICE, '"1"', { a: 1 })).body.detail).toContain('version 2');
    for (const bad of ['"x"', 'W/"2"', '"1", "2"', '-1', '99999999999']) {
      expect((await send('PATCH', DEVICE, bad, { a: 1 })).status, bad).toBe(400);
    }
    expect((await send('PATCH', DEVICE, '2', { every: 61 })).body.version).toBe(3);
    expect((await send('PATCH', DEVICE, '*', { every: 62 })).body.version).toBe(4);
  });

  it('is refused when it is no object, or will not fit', async () => {
    for (const body of ['[]', '1', 'null', '"x"']) {
      expect((await send('PUT', DEVICE, '*', body)).status, body).toBe(400);
    }
    expect((await send('PUT', DEVICE, '*')).status).toBe(400);
    const big = await send('PUT', DEVICE, '*', { a: 'x'.repeat(300) });
    expect(big.status).toBe(422);
    expect(big.body).toMatchObject({ code: 'CONFIGURATION_TOO_BIG' });
    expect(big.body.detail).toMatch(/packet of 3\d\d bytes, the device takes 256/);
    const deep = `${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}`;
    expect((await send('PUT', DEVICE, '*', deep)).body.code).toBe('CONFIGURATION_INVALID');
    expect((await send('PUT', DEVICE, '*', '{"a":1e400}')).body.code).toBe('CONFIGURATION_INVALID');
    expect((await send('PUT', DEVICE, '*', '{"__proto__":{"a":1}}')).status).toBe(400);
  });

  it('has a history, out of which a version is restored', async () => {
    const page = await api.send('GET', `${DEVICE}/versions?limit=2`);
    expect(page.body.data.map(({ version }: { version: number }) => version)).toEqual([4, 3]);
    const rest = await api.send('GET', `${DEVICE}/versions?limit=2&cursor=${page.body.next}`);
    expect(rest.body.data.map(({ version }: { version: number }) => version)).toEqual([2, 1]);
    expect(rest.body.next).toBeNull();
    const first = await api.send('GET', `${DEVICE}/versions/1`);
    expect(first.body).toMatchObject({ desired: { every: 60, mode: 'auto' }, cause: 'device' });
    const restored = await send('POST', `${DEVICE}/versions/1/restore`, '"4"');
    expect(restored.body).toMatchObject({ version: 5, desired: { every: 60, mode: 'auto' } });
    for (const version of ['9', '0', 'x', '99999999999', '-1']) {
      expect((await api.send('GET', `${DEVICE}/versions/${version}`)).status).toBe(404);
    }
    expect((await send('POST', `${DEVICE}/versions/1/restore`, null)).status).toBe(428);
  });

  it('is one of those in the list', async () => {
    const all = await api.send('GET', '/api/v1/configurations?type=boiler');
    expect(all.body.data.map(({ device }: { device: string }) => device)).toEqual(['boiler-1']);
    expect((await api.send('GET', '/api/v1/configurations?drift=true')).body.data).toEqual([]);
  });

  it('is that of nobody else', async () => {
    const key = api.other.adminKey;
    expect((await api.send('GET', DEVICE, undefined, key)).status).toBe(404);
    expect((await api.send('GET', `${DEVICE}/versions`, undefined, key)).status).toBe(404);
    expect((await api.send('GET', TYPE, undefined, key)).status).toBe(404);
    expect((await api.send('GET', '/api/v1/configurations', undefined, key)).body.data).toEqual([]);
    expect((await api.send('GET', DEVICE, undefined, null)).status).toBe(401);
  });
});

describe('the configuration of a type over HTTP', () => {
  it('is set with its schema, and tells what it did to devices', async () => {
    const schema = { properties: { every: { type: 'integer', minimum: 10 } } };
    const defaults = { every: 30, thr: 21.5 };
    const put = await send('PUT', TYPE, '"0"', { defaults, schema });
    expect(put.status).toBe(200);
    expect(put.headers.get('etag')).toBe('"1"');
    expect(put.body).toMatchObject({
      type: 'boiler',
      version: 1,
      defaults,
      schema,
      effect: { changed: 2, heldCount: 0, held: [], complete: true },
    });
    const second = await api.send('GET', '/api/v1/devices/boiler-2/configuration');
    expect(second.body).toMatchObject({ version: 1, desired: {}, document: defaults });
    const bad = await send('PATCH', DEVICE, '*', { every: 5 });
    expect(bad.body).toMatchObject({ status: 422, code: 'CONFIGURATION_INVALID' });
    expect(bad.body.detail).toContain('/every: 5 is less than 10');
  });

  it('lists devices that cannot take it', async () => {
    const put = await send('PUT', TYPE, '*', { defaults: { text: 'x'.repeat(300) } });
    expect(put.body.effect).toMatchObject({ changed: 0, heldCount: 2, complete: true });
    expect(put.body.effect.held[0]).toMatchObject({ device: 'boiler-1', code: 'too_big' });
    const held = await api.send('GET', '/api/v1/devices/boiler-2/configuration');
    expect(held.body.held.detail).toMatch(/3\d\d bytes/);
  });

  it('is refused with a schema that is not checked in bounded time', async () => {
    const schema = { properties: { a: { pattern: '(a+)+$' } } };
    const put = await send('PUT', TYPE, '*', { schema });
    expect(put.body).toMatchObject({ status: 422, code: 'CONFIGURATION_INVALID' });
    expect(put.body.detail).toContain('/properties/a/pattern');
    expect((await send('PUT', TYPE, null, {})).status).toBe(428);
    expect((await send('PUT', '/api/v1/device-types/%20/configuration', '*', {})).status).toBe(400);
  });

  it('is listed, and removed', async () => {
    const list = await api.send('GET', '/api/v1/configuration-types');
    expect(list.body.data).toHaveLength(1);
    expect((await send('DELETE', TYPE, '"1"')).status).toBe(412);
    expect((await send('DELETE', TYPE, '"2"')).status).toBe(200);
    expect((await api.send('GET', TYPE)).body.code).toBe('CONFIGURATION_TYPE_NOT_FOUND');
    const second = await api.send('GET', '/api/v1/devices/boiler-2/configuration');
    expect(second.body).toMatchObject({ document: {}, held: null });
  });
});
