import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { connect } from 'node:net';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { espImage, sha256Of } from '../support/esp-image.ts';
import { eventually } from '../support/eventually.ts';
import { createTestOta, type TestOta } from '../support/ota.ts';

let made: TestOta;
beforeAll(async () => {
  made = await createTestOta({ imagesMax: 6 });
});
afterAll(() => made.stop());

const upload = (version: string, image: Buffer, more = '', key?: string) =>
  made.send('POST', `/api/v1/firmware?model=thermo-1&version=${version}${more}`, image, key);

async function count(table: string): Promise<number> {
  const { rows } = await made.test.database.pool.query<{ n: number }>(
    `SELECT count(*)::int4 AS n FROM ${table}`,
  );
  return rows[0]?.n ?? -1;
}

describe('the firmware repository', () => {
  it('takes an image as a stream and keeps it in parts', async () => {
    const image = espImage('1.1.0');
    const { status, body, headers } = await upload('1.1.0', image, '&notes=first');
    expect(status).toBe(201);
    expect(body).toMatchObject({
      model: 'thermo-1',
      version: '1.1.0',
      state: 'ready',
      bytes: image.length,
      sha256: sha256Of(image),
      signature: null,
      notes: 'first',
    });
    expect(headers.get('location')).toBe(`/api/v1/firmware/${body.id}`);
    const { rows } = await made.test.database.pool.query<{ content: Buffer }>(
      'SELECT content FROM firmware_part WHERE firmware_id = $1 ORDER BY part',
      [body.id],
    );
    expect(rows.map(({ content }) => content.length)).toEqual([262_144, 262_144, 75_712]);
    expect(Buffer.concat(rows.map(({ content }) => content)).equals(image)).toBe(true);
  });

  it('answers the same image again with what is there, and other bytes with 409', async () => {
    const image = espImage('1.2.0', 'thermo-1', 5000);
    const first = await upload('1.2.0', image);
    const again = await upload('1.2.0', image);
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(again.body.id).toBe(first.body.id);
    const other = await upload('1.2.0', espImage('1.2.0', 'thermo-1', 5001));
    expect([other.status, other.body.code]).toEqual([409, 'FIRMWARE_EXISTS']);
  });

  it('refuses an image that says of itself to be another one', async () => {
    const parts = await count('firmware_part');
    const version = await upload('1.2.1', espImage('1.2.2', 'thermo-1', 5000));
    expect([version.status, version.body.code]).toEqual([422, 'FIRMWARE_INVALID']);
    expect(version.body.detail).toContain('"1.2.2"');
    const model = await upload('1.2.2', espImage('1.2.2', 'hydro-1', 5000));
    expect(model.body.detail).toContain('"hydro-1"');
    expect((await upload('1.2.2', Buffer.alloc(0))).status).toBe(422);
    expect(await count('firmware_part')).toBe(parts);
  });

  it('takes the word of who uploads for what is no image of ESP-IDF', async () => {
    const { status, body } = await upload('z-1', Buffer.from('a script for another board'));
    expect(status).toBe(201);
    await made.send('DELETE', `/api/v1/firmware/${body.id}`);
  });

  it('refuses an image that is too large, announced or not', async () => {
    const large = espImage('1.3.0', 'thermo-1', 2_000_001);
    expect((await upload('1.3.0', large)).status).toBe(413);
    const response = await fetch(`${made.url}/api/v1/firmware?model=thermo-1&version=1.3.0`, {
      method: 'POST',
      headers: { authorization: `Bearer ${made.acme.adminKey}` },
      body: new Blob([new Uint8Array(large)]).stream(),
      duplex: 'half',
    } as RequestInit);
    expect(response.status).toBe(413);
  });

  it('keeps nothing of an upload that breaks off', async () => {
    const before = [await count('firmware_image'), await count('firmware_part')];
    const { port } = new URL(made.url);
    const socket = connect(Number(port), '127.0.0.1');
    await once(socket, 'connect');
    socket.write(
      [
        'POST /api/v1/firmware?model=thermo-1&version=1.3.1 HTTP/1.1',
        'host: test',
        `authorization: Bearer ${made.acme.adminKey}`,
        'content-length: 500000',
        '',
        '',
      ].join('\r\n'),
    );
    socket.write(espImage('1.3.1', 'thermo-1', 300_000));
    await new Promise((resolve) => setTimeout(resolve, 100));
    socket.destroy();
    const places = (): Promise<number[]> =>
      Promise.all([0, 1].map(async () => (await upload('cut', Buffer.alloc(0))).status));
    await eventually('the places of both uploads', async () =>
      (await places()).every((status) => status === 422),
    );
    expect([await count('firmware_image'), await count('firmware_part')]).toEqual(before);
  });

  it('takes no more uploads at once than it may, and says to come again', async () => {
    const open = [0, 1].map(async (index) => {
      const { port } = new URL(made.url);
      const socket = connect(Number(port), '127.0.0.1');
      await once(socket, 'connect');
      socket.write(
        `POST /api/v1/firmware?model=thermo-1&version=w-${index} HTTP/1.1\r\nhost: test\r\n` +
          `authorization: Bearer ${made.acme.adminKey}\r\ncontent-length: 500000\r\n\r\nabc`,
      );
      return socket;
    });
    const sockets = await Promise.all(open);
    const empty = Buffer.alloc(0);
    await eventually('no place for an upload', async () => {
      return (await upload('w-9', empty)).status === 503;
    });
    const busy = await upload('w-9', empty);
    expect(busy.body.code).toBe('FIRMWARE_BUSY');
    expect(busy.headers.get('retry-after')).toBe('5');
    for (const socket of sockets) socket.destroy();
    await eventually('a place for an upload', async () => {
      return (await upload('w-9', empty)).status === 422;
    });
  });

  it('lists the images of its own organization, page by page, newest first', async () => {
    const first = await made.send('GET', '/api/v1/firmware?limit=1&state=ready');
    expect(first.body.data).toHaveLength(1);
    const second = await made.send(
      'GET',
      `/api/v1/firmware?limit=1&state=ready&cursor=${first.body.next}`,
    );
    expect(second.body.data[0].id < first.body.data[0].id).toBe(true);
    const none = await made.send('GET', '/api/v1/firmware', undefined, made.other.adminKey);
    expect(none.body.data).toEqual([]);
    const { id } = first.body.data[0];
    const path = `/api/v1/firmware/${id}`;
    expect((await made.send('GET', path)).body.id).toBe(id);
    expect((await made.send('GET', path, undefined, made.other.adminKey)).status).toBe(404);
    expect((await made.send('DELETE', path, undefined, made.other.adminKey)).status).toBe(404);
    expect((await made.send('GET', '/api/v1/firmware/none')).status).toBe(404);
  });

  it('deletes the bytes of an image that is withdrawn, and frees its version', async () => {
    const { body } = await upload('1.4.0', espImage('1.4.0', 'thermo-1', 5000));
    const path = `/api/v1/firmware/${body.id}`;
    const { status, body: withdrawn } = await made.send('DELETE', path);
    expect([status, withdrawn.state]).toEqual([200, 'withdrawn']);
    expect((await made.send('DELETE', path)).status).toBe(200);
    const { rowCount } = await made.test.database.pool.query(
      'SELECT FROM firmware_part WHERE firmware_id = $1',
      [body.id],
    );
    expect(rowCount).toBe(0);
    const next = await upload('1.4.0', espImage('1.4.0', 'thermo-1', 6000));
    expect(next.status).toBe(201);
    await made.send('DELETE', `/api/v1/firmware/${next.body.id}`);
  });

  it('has no more images than it may', async () => {
    const images = async () =>
      (await made.send('GET', '/api/v1/firmware?state=ready')).body.data.length as number;
    for (let index = await images(); index < 6; index += 1) {
      expect((await upload(`f-${index}`, Buffer.from(`filler ${index}`))).status).toBe(201);
    }
    const full = await upload('f-9', Buffer.from('one too many'));
    expect([full.status, full.body.code]).toEqual([409, 'FIRMWARE_LIMIT']);
  });
});

describe('signed firmware', () => {
  let signed: TestOta;
  const pair = generateKeyPairSync('ed25519');
  const publicKey = pair.publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const image = espImage('2.0.0', 'thermo-1', 300_000);
  const signature = sign(null, image, pair.privateKey).toString('base64url');
  const query = (more: string) => `/api/v1/firmware?model=thermo-1&version=2.0.0${more}`;
  beforeAll(async () => {
    signed = await createTestOta({ isSignatureRequired: true });
    const body = JSON.stringify({ signer: 'build', publicKey });
    await signed.send('POST', '/api/v1/firmware-signers', body);
  });
  afterAll(() => signed.stop());

  it('is the only one that is taken where signatures are required', async () => {
    const bare = await signed.send('POST', query(''), image);
    expect([bare.status, bare.body.code]).toEqual([422, 'FIRMWARE_SIGNATURE_INVALID']);
    const half = await signed.send('POST', query('&signer=build'), image);
    expect(half.status).toBe(400);
    const changed = Buffer.from(image);
    changed[200_000] = (changed[200_000] ?? 0) ^ 1;
    const more = `&signer=build&signature=${signature}`;
    const forged = await signed.send('POST', query(more), changed);
    expect([forged.status, forged.body.code]).toEqual([422, 'FIRMWARE_SIGNATURE_INVALID']);
    const stranger = `&signer=nobody&signature=${signature}`;
    expect((await signed.send('POST', query(stranger), image)).status).toBe(422);
    const good = await signed.send('POST', query(more), image);
    expect([good.status, good.body.signer]).toEqual([201, 'build']);
    expect(Buffer.from(good.body.signature, 'base64').toString('base64url')).toBe(signature);
  });

  it('has signers with a name each, of their own organization', async () => {
    const again = JSON.stringify({ signer: 'build', publicKey });
    expect((await signed.send('POST', '/api/v1/firmware-signers', again)).status).toBe(409);
    const wrong = JSON.stringify({ signer: 'other', publicKey: 'AAAA' });
    expect((await signed.send('POST', '/api/v1/firmware-signers', wrong)).body.code).toBe(
      'SIGNER_INVALID',
    );
    const { body } = await signed.send('GET', '/api/v1/firmware-signers');
    expect(body.data).toMatchObject([{ signer: 'build', state: 'active' }]);
    const path = '/api/v1/firmware-signers/build';
    expect((await signed.send('GET', path, undefined, signed.other.adminKey)).status).toBe(404);
  });

  it('is offered to nobody any more when its signer is revoked', async () => {
    const { body } = await signed.send('GET', '/api/v1/firmware');
    const firmware = body.data[0].id as string;
    await signed.addDevice('d-1');
    await signed.addDevice('d-2');
    const begin = (device: string) =>
      signed.send('POST', `/api/v1/devices/${device}/updates`, JSON.stringify({ firmware }));
    expect((await begin('d-1')).status).toBe(202);
    const link = signed.commands.offers[0]?.args.url ?? '';
    expect((await fetch(link)).status).toBe(200);
    expect((await signed.send('DELETE', '/api/v1/firmware-signers/build')).body.state).toBe(
      'revoked',
    );
    expect((await fetch(link)).status).toBe(403);
    expect((await begin('d-2')).body.code).toBe('UPDATE_REFUSED');
    const more = `&signer=build&signature=${signature}`;
    expect((await signed.send('POST', query(more), image)).body.detail).toContain('revoked');
  });
});

describe('openssl', () => {
  it('is there, for the commands of docs/updates.md', () => {
    expect(execFileSync('openssl', ['version']).toString()).toMatch(/^OpenSSL/);
  });
});
