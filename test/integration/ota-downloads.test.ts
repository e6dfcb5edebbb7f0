import { execFile } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { espImage, sha256Of } from '../support/esp-image.ts';
import { eventually } from '../support/eventually.ts';
import { createTestOta, type TestOta } from '../support/ota.ts';

const run = promisify(execFile);
const image = espImage('1.1.0', 'thermo-1', 1_000_000);
let made: TestOta;
let folder: string;
let firmwareId: string;
let devices = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-ota-'));
  made = await createTestOta();
  const path = '/api/v1/firmware?model=thermo-1&version=1.1.0';
  firmwareId = (await made.send('POST', path, image)).body.id;
});
afterAll(async () => {
  await made.stop();
  await rm(folder, { recursive: true });
});
afterEach(() => {
  made.aheadMs = 0;
});

/** An update of a device of its own, and its link. */
async function begin(): Promise<{ updateId: string; url: string; deviceId: number }> {
  devices += 1;
  const device = `d-${devices}`;
  const deviceId = await made.addDevice(device);
  const wanted = { device, firmwareId, campaignId: null, ttlMs: null, isForced: false };
  const { update } = await made.ota.updates.begin(made.acme.author, wanted);
  const { updateId } = update;
  const url = made.commands.offers.find(({ ref }) => ref === updateId)?.args.url ?? '';
  return { updateId, url, deviceId };
}

const stateOf = async (updateId: string) =>
  made.ota.updates.get(made.acme.author.organizationId, updateId);

async function eventuallyIs(updateId: string, state: string): Promise<void> {
  await eventually(state, async () => (await stateOf(updateId)).state === state);
}

describe('a download', () => {
  it('is the image with its length, its digest and no chunks', async () => {
    const { url, updateId } = await begin();
    const response = await fetch(url);
    expect(response.status).toBe(200);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-length': '1000000',
      'accept-ranges': 'bytes',
      'x-accel-buffering': 'no',
      etag: `"${sha256Of(image)}"`,
      'x-firmware-sha256': sha256Of(image),
      'x-firmware-size': '1000000',
      'x-firmware-version': '1.1.0',
    });
    expect(response.headers.get('transfer-encoding')).toBeNull();
    expect(Buffer.from(await response.arrayBuffer()).equals(image)).toBe(true);
    await eventuallyIs(updateId, 'installing');
  });

  it('tells its headers alone to HEAD, and has sent nothing then', async () => {
    const { url, updateId } = await begin();
    const response = await fetch(url, { method: 'HEAD' });
    expect([response.status, response.headers.get('content-length')]).toEqual([200, '1000000']);
    const part = await fetch(url, { method: 'HEAD', headers: { range: 'bytes=5-9' } });
    expect([part.status, part.headers.get('content-length')]).toEqual([206, '5']);
    expect((await stateOf(updateId)).state).toBe('offered');
  });

  it.each([
    ['bytes=0-0', 0, 1],
    ['bytes=262143-262144', 262_143, 262_145],
    ['bytes=-5', 999_995, 1_000_000],
    ['bytes=300000-', 300_000, 1_000_000],
  ])('gives the range %s', async (range, start, end) => {
    const { url } = await begin();
    const response = await fetch(url, { headers: { range } });
    expect(response.status).toBe(206);
    expect(response.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/1000000`);
    expect(response.headers.get('content-length')).toBe(String(end - start));
    const bytes = Buffer.from(await response.arrayBuffer());
    expect(bytes.equals(image.subarray(start, end))).toBe(true);
  });

  it('refuses a range that the image does not have with 416 and its length', async () => {
    const { url } = await begin();
    const response = await fetch(url, { headers: { range: 'bytes=1000000-' } });
    expect([response.status, response.headers.get('content-range')]).toEqual([
      416,
      'bytes */1000000',
    ]);
  });

  it('gives the whole image when If-Range names another one', async () => {
    const { url } = await begin();
    const part = { range: 'bytes=10-19' };
    const etag = `"${sha256Of(image)}"`;
    const statusOf = async (ifRange: string) =>
      (await fetch(url, { headers: { ...part, 'if-range': ifRange } })).status;
    expect(await statusOf(etag)).toBe(206);
    expect(await statusOf('"another"')).toBe(200);
    expect(await statusOf(`W/${etag}`)).toBe(200);
    expect(await statusOf('Wed, 21 Oct 2026 07:28:00 GMT')).toBe(200);
  });

  it('made of many small ranges counts as one', async () => {
    const { url, updateId } = await begin();
    const parts: Buffer[] = [];
    for (let start = 0; start < image.length; start += 16_384) {
      const range = `bytes=${start}-${Math.min(start + 16_383, image.length - 1)}`;
      const response = await fetch(url, { headers: { range } });
      parts.push(Buffer.from(await response.arrayBuffer()));
    }
    expect(Buffer.concat(parts).equals(image)).toBe(true);
    await eventuallyIs(updateId, 'installing');
    expect((await stateOf(updateId)).bytesSent).toBe(image.length);
  });

  it('of the last bytes alone is not the whole image', async () => {
    const { url, updateId } = await begin();
    await (await fetch(url, { headers: { range: 'bytes=-100' } })).arrayBuffer();
    await eventuallyIs(updateId, 'downloading');
    expect((await stateOf(updateId)).bytesSent).toBe(0);
  });

  it('that broke off is gone on with by curl -C -', async () => {
    const { url, updateId } = await begin();
    const file = join(folder, 'image.bin');
    await writeFile(file, image.subarray(0, 350_001));
    await new Promise<void>((resolve, reject) => {
      get(url, (response) => {
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > 350_001) response.destroy();
        });
        response.on('close', resolve);
      }).on('error', reject);
    });
    await eventuallyIs(updateId, 'downloading');
    const { stdout } = await run('curl', [
      ...['-sS', '-C', '-', '-o', file],
      ...['-w', '%{http_code} %{size_download}', url],
    ]);
    expect(stdout).toBe(`206 ${image.length - 350_001}`);
    expect((await readFile(file)).equals(image)).toBe(true);
  });
});

describe('a link', () => {
  it('of another device, changed, or made up is refused with 403', async () => {
    const one = await begin();
    const two = await begin();
    const mixed = `${one.url.split('?')[0]}?${two.url.split('?')[1]}`;
    const cut = one.url.slice(0, -1);
    const changed = `${cut}${one.url.endsWith('A') ? 'Q' : 'A'}`;
    for (const url of [mixed, cut, changed, `${made.url}/fw/x?t=y`, `${made.url}/fw/x?t=`]) {
      const response = await fetch(url);
      expect(response.status, url).toBe(403);
      expect(await response.json()).toMatchObject({ code: 'FIRMWARE_LINK_REFUSED' });
    }
    expect((await fetch(`${made.url}/fw/x`)).status).toBe(400);
  });

  it('opens for 15 minutes when it was sent, and anew when the device says that it runs', async () => {
    const { url, updateId } = await begin();
    made.aheadMs = 3_600_000;
    // It waited in the queue for an hour.
    expect((await fetch(url, { method: 'HEAD' })).status).toBe(200);
    made.step(updateId, { state: 'sent' });
    await eventually('heard', async () => {
      const { rows } = await made.test.database.pool.query(
        'SELECT FROM device_update WHERE update_id = $1 AND heard_at IS NOT NULL',
        [updateId],
      );
      return rows.length === 1;
    });
    made.aheadMs += 899_000;
    expect((await fetch(url, { method: 'HEAD' })).status).toBe(200);
    made.aheadMs += 2000;
    const late = await fetch(url);
    expect(late.status).toBe(403);
    expect(((await late.json()) as { detail: string }).detail).toContain('"run"');
    made.step(updateId, { state: 'running', progress: 0 });
    await eventuallyIs(updateId, 'downloading');
    expect((await fetch(url, { method: 'HEAD' })).status).toBe(200);
  });

  it('that has expired still gives what comes behind the bytes that were sent', async () => {
    const { url, updateId } = await begin();
    made.step(updateId, { state: 'sent' });
    await (await fetch(url, { headers: { range: 'bytes=0-499999' } })).arrayBuffer();
    await eventually('half of it', async () => (await stateOf(updateId)).bytesSent === 500_000);
    made.aheadMs = 7_200_000;
    const statusOf = async (range: string) =>
      (await fetch(url, { method: 'HEAD', headers: { range } })).status;
    expect(await statusOf('bytes=500000-')).toBe(206);
    expect(await statusOf('bytes=500001-')).toBe(403);
    expect(await statusOf('bytes=0-')).toBe(403);
  });

  it('is closed when its update has ended or its image was withdrawn', async () => {
    const { url, updateId } = await begin();
    await made.ota.updates.cancel(made.acme.author, updateId);
    expect((await fetch(url)).status).toBe(403);
    const path = '/api/v1/firmware?model=thermo-1&version=9.9.9';
    const { body } = await made.send('POST', path, Buffer.from('for a moment'));
    await made.addDevice('gone');
    const wanted = { device: 'gone', firmwareId: body.id, campaignId: null, ttlMs: null };
    await made.ota.updates.begin(made.acme.author, { ...wanted, isForced: false });
    const link = made.commands.offers.at(-1)?.args.url ?? '';
    expect((await fetch(link)).status).toBe(200);
    await made.send('DELETE', `/api/v1/firmware/${body.id}`);
    expect((await fetch(link)).status).toBe(403);
  });

  it('is closed to a device that is disabled', async () => {
    const { url } = await begin();
    await made.registry.devices.update(made.acme.author, `d-${devices}`, { isDisabled: true });
    expect((await fetch(url)).status).toBe(403);
  });
});

describe('downloads at once', () => {
  const held: IncomingMessage[] = [];
  let slow: TestOta;
  beforeAll(async () => {
    // So slow that none of them ends while the test looks on.
    slow = await createTestOta({ downloadBytesPerS: 100_000 });
    const path = '/api/v1/firmware?model=thermo-1&version=1.1.0';
    const { body } = await slow.send('POST', path, image);
    for (const device of ['a', 'b', 'c', 'd']) {
      await slow.addDevice(device);
      const wanted = { device, firmwareId: body.id, campaignId: null, ttlMs: null };
      await slow.ota.updates.begin(slow.acme.author, { ...wanted, isForced: false });
    }
  });
  afterAll(async () => {
    for (const response of held) response.destroy();
    await eventually('no download', () => slow.ota.downloads.count === 0);
    await slow.stop();
  });

  /** Begins a download and reads nothing of it. */
  const hold = (url: string): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      get(url, { agent: false }, (response) => {
        response.on('error', () => undefined);
        held.push(response);
        resolve(response);
      }).on('error', reject);
    });

  it('are no more than they may be; others are told to come again', async () => {
    const [a = '', b = '', c = '', d = ''] = slow.commands.offers.map(({ args }) => args.url);
    const first = await hold(a);
    const second = await hold(b);
    expect((await hold(c)).statusCode).toBe(200);
    expect(slow.ota.downloads.count).toBe(3);
    const busy = await fetch(d);
    expect([busy.status, busy.headers.get('retry-after')]).toEqual([503, '5']);
    const metrics = await slow.metricsRegistry.metrics();
    expect(metrics).toContain('puback_ota_downloads_refused_total{reason="busy"} 1');
    expect(metrics).toContain('puback_ota_downloads 3');
    second.destroy();
    await eventually('a place', () => slow.ota.downloads.count === 2);
    expect((await hold(d)).statusCode).toBe(200);
    // Of one update there is one download: a new one takes the place of the one before.
    const ended = new Promise((resolve) => first.once('close', resolve));
    expect((await hold(a)).statusCode).toBe(200);
    first.resume();
    await ended;
    expect(first.complete).toBe(false);
    expect(slow.ota.downloads.count).toBe(3);
  });
});

describe('a download under way', () => {
  it('ends when the key that signed the image is revoked', async () => {
    const paced = await createTestOta({ downloadBytesPerS: 200_000 });
    try {
      const { publicKey, privateKey } = generateKeyPairSync('ed25519');
      const pem = publicKey.export({ type: 'spki', format: 'pem' });
      const signer = JSON.stringify({ signer: 'build', publicKey: pem });
      expect((await paced.send('POST', '/api/v1/firmware-signers', signer)).status).toBe(201);
      const signature = sign(null, image, privateKey).toString('base64url');
      const query = `model=thermo-1&version=1.1.0&signer=build&signature=${signature}`;
      const { body } = await paced.send('POST', `/api/v1/firmware?${query}`, image);
      await paced.addDevice('a');
      const wanted = { device: 'a', firmwareId: body.id, campaignId: null, ttlMs: null };
      await paced.ota.updates.begin(paced.acme.author, { ...wanted, isForced: false });
      const response = await fetch(paced.commands.offers[0]?.args.url ?? '');
      expect(response.status).toBe(200);
      const { status } = await paced.send('DELETE', '/api/v1/firmware-signers/build');
      expect(status).toBe(200);
      await expect(response.arrayBuffer()).rejects.toThrow();
    } finally {
      await paced.stop();
    }
  });
});

describe('the pace of downloads', () => {
  it('is bounded for all of them together', async () => {
    const paced = await createTestOta({ downloadBytesPerS: 400_000 });
    try {
      const bytes = espImage('1.1.0', 'thermo-1', 400_000);
      const path = '/api/v1/firmware?model=thermo-1&version=1.1.0';
      const { body } = await paced.send('POST', path, bytes);
      for (const device of ['a', 'b']) {
        await paced.addDevice(device);
        const wanted = { device, firmwareId: body.id, campaignId: null, ttlMs: null };
        await paced.ota.updates.begin(paced.acme.author, { ...wanted, isForced: false });
      }
      const startedAt = performance.now();
      await Promise.all(
        paced.commands.offers.map(async ({ args }) => {
          const got = Buffer.from(await (await fetch(args.url)).arrayBuffer());
          expect(got.equals(bytes)).toBe(true);
        }),
      );
      const tookMs = performance.now() - startedAt;
      expect(tookMs).toBeGreaterThan(1700);
    } finally {
      await paced.stop();
    }
  });
});
