import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DIAGNOSIS } from '../../firmware-protocol/diagnosis.ts';
import type { DeviceEvent } from '../../registry/device-event-row.ts';
import { createTestApi, type TestApi } from '../support/api.ts';

let t: TestApi;
let deviceId: number;
beforeAll(async () => {
  t = await createTestApi();
  await t.send('POST', '/api/v1/devices', { device: 'boiler-7' });
  ({ deviceId } = await t.registry.devices.get(t.acme.author.organizationId, 'boiler-7'));
});
afterAll(() => t.stop());

async function tell(...events: Partial<DeviceEvent>[]): Promise<void> {
  for (const replaced of events) {
    t.registry.deviceEvents.note({
      kind: 'refusal',
      code: 'rate',
      detail: 'why',
      address: '203.0.113.7',
      organizationId: t.acme.author.organizationId,
      deviceId,
      keyId: 'A1b2C3d4',
      connectionNumber: 1,
      occurredAtMs: Date.now(),
      ...replaced,
    });
  }
  await t.registry.deviceEvents.flush();
}

describe('GET /api/v1/devices/{device}/diagnostics', () => {
  const path = '/api/v1/devices/boiler-7/diagnostics';

  it('says of a device that never connected that it never connected', async () => {
    expect(await t.send('GET', path)).toMatchObject({
      status: 200,
      body: {
        device: 'boiler-7',
        presence: null,
        clock: null,
        refusals: [],
        quarantined: 0,
        events: { data: [], next: null },
      },
    });
  });

  it('tells presence, refusals of a day with hints, quarantine and the history', async () => {
    const { organizationId } = t.acme.author;
    const { pool } = t.test.database;
    await pool.query(
      `INSERT INTO device_presence
         VALUES ($1, $2, 'sleeping', now(), now(), 41, '203.0.113.7', '{"fw":"1.4.2"}', now())`,
      [deviceId, organizationId],
    );
    await pool.query(
      `INSERT INTO quarantine VALUES (gen_random_uuid(), $1, $2, now(), 't', 'rate', '', 'x')`,
      [organizationId, deviceId],
    );
    await pool.query(
      `INSERT INTO device_clock VALUES ($1, $2, 10800123.389, 49.5, 1234, '2026-11-21T08:00:00Z')`,
      [deviceId, organizationId],
    );
    await tell(
      { kind: 'connect', code: 'connected', keyId: 'first' },
      { code: 'rate' },
      { code: 'rate' },
      { code: 'bad_json', detail: 'Unexpected token n at 8' },
      { code: 'too_old', occurredAtMs: Date.now() - 2 * 86_400_000 },
      { kind: 'identity', code: 'duplicate_identity' },
      { kind: 'disconnect', code: 'keep_alive' },
      { kind: 'disconnect', code: 'client_left' },
      { code: 'a_code_of_tomorrow' },
    );
    const { body } = await t.send('GET', path);
    expect(body.presence).toMatchObject({
      state: 'sleeping',
      connectionNumber: 41,
      address: '203.0.113.7',
      hello: { fw: '1.4.2' },
    });
    expect(body.clock).toEqual({
      offsetMs: 10_800_123,
      driftPpm: 49.5,
      isCorrected: true,
      messages: 1234,
      measuredAt: '2026-11-21T08:00:00.000Z',
    });
    expect(body.quarantined).toBe(1);
    const refusals = Object.fromEntries(
      body.refusals.map(({ code, count, hint }: Record<string, unknown>) => [code, [count, hint]]),
    );
    expect(refusals).toEqual({
      rate: [2, DIAGNOSIS.rate],
      bad_json: [1, DIAGNOSIS.bad_json],
      duplicate_identity: [1, DIAGNOSIS.duplicate_identity],
      keep_alive: [1, DIAGNOSIS.keep_alive],
      a_code_of_tomorrow: [1, null],
    });
    const { data } = body.events;
    expect(data).toHaveLength(8);
    expect(data.at(-2)).toMatchObject({
      device: 'boiler-7',
      kind: 'connect',
      keyId: 'first',
      hint: DIAGNOSIS.connected,
    });
    expect(data.at(-1)).toMatchObject({ code: 'too_old' });
  });

  it('pages through the history without a gap, and takes no cursor of another list', async () => {
    const all: string[] = [];
    let next: string | null = '';
    while (next !== null) {
      const cursor: string = next === '' ? '' : `&cursor=${next}`;
      const { body } = await t.send('GET', `${path}?limit=3${cursor}`);
      expect(body.events.data.length).toBeLessThanOrEqual(3);
      all.push(...body.events.data.map(({ eventId }: { eventId: string }) => eventId));
      next = body.events.next;
      if (next !== null) {
        const elsewhere = `/api/v1/diagnostics?address=203.0.113.7&cursor=${next}`;
        expect(await t.send('GET', elsewhere)).toMatchObject({
          status: 400,
          body: { code: 'CURSOR_INVALID' },
        });
      }
    }
    expect(new Set(all).size).toBe(8);
    expect(all).toEqual(all.toSorted().toReversed());
  });

  it("does not show another organization's device, nor one that is deleted [A-01]", async () => {
    expect(await t.send('GET', path, undefined, t.other.adminKey)).toMatchObject({
      status: 404,
      body: { code: 'DEVICE_NOT_FOUND' },
    });
    await t.send('POST', '/api/v1/devices', { device: 'gone' });
    const gone = await t.registry.devices.get(t.acme.author.organizationId, 'gone');
    await tell({ deviceId: gone.deviceId });
    await t.send('DELETE', '/api/v1/devices/gone');
    const { rows } = await t.test.database.pool.query(
      'SELECT FROM device_event WHERE device_id = $1',
      [gone.deviceId],
    );
    expect(rows).toEqual([]);
  });
});

describe('GET /api/v1/diagnostics', () => {
  it('shows of an address what belongs to the organization or to nobody, and no more [A-01]', async () => {
    const { organizationId } = t.other.author;
    const nobody = { organizationId: null, deviceId: null, connectionNumber: null };
    const address = '198.51.100.1';
    await tell(
      { address, code: 'forbidden' },
      { address, code: 'too_many', organizationId, deviceId: 999_999, keyId: 'theirKey' },
      { address, code: 'key_unknown', ...nobody, keyId: 'theirKey', detail: 'other/secret-device' },
      { address: '198.51.100.2', code: 'bad_type' },
    );
    const mine = await t.send('GET', `/api/v1/diagnostics?address=${address}`);
    expect(mine.body.events.data).toMatchObject([
      { code: 'key_unknown', device: null, keyId: null, detail: '', hint: DIAGNOSIS.key_unknown },
      { code: 'forbidden', device: 'boiler-7', keyId: 'A1b2C3d4' },
    ]);
    expect(mine.body.refusals.map(({ code }: { code: string }) => code).sort()).toEqual([
      'forbidden',
      'key_unknown',
    ]);
    expect(JSON.stringify(mine.body)).not.toMatch(/theirKey|secret-device|too_many/);
    const path = `/api/v1/diagnostics?address=${address}`;
    const theirs = await t.send('GET', path, undefined, t.other.adminKey);
    expect(theirs.body.events.data.map(({ code }: { code: string }) => code)).toEqual([
      'key_unknown',
      'too_many',
    ]);
    expect(JSON.stringify(theirs.body)).not.toMatch(/boiler-7|A1b2C3d4/);
  });

  it('finds an address in any of its spellings', async () => {
    await tell({ address: '2001:db8::1', code: 'clock' }, { address: '::ffff:192.0.2.9' });
    for (const address of [
      '2001:DB8:0:0:0:0:0:1',
      '2001:db8::1',
      '192.0.2.9',
      '::ffff:192.0.2.9',
    ]) {
      const answer = await t.send('GET', `/api/v1/diagnostics?address=${address}`);
      expect(answer.body.events.data, address).toHaveLength(1);
    }
  });

  it.each(['', 'x', '1.2.3', "1.2.3.4'", '1.2.3.4/8', 'fe80::1%25eth0', '1.2.3.4%00'])(
    'refuses %j for an address with 400',
    async (address) => {
      const answer = await t.send('GET', `/api/v1/diagnostics?address=${address}`);
      expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
    },
  );
});
