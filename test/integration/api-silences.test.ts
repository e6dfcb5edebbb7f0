import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';

const SILENCES = '/api/v1/silences';
const HOUR = 3_600_000;
const MATCHERS = [{ label: 'device', op: '=', value: 'gw-1' }];
/** A Saturday, 12:00 in Berlin. */
const NOON = Date.parse('2026-11-21T11:00:00Z');

let t: TestApi;
let nowMs = NOON;
const told: number[] = [];
beforeAll(async () => {
  t = await createTestApi({
    settings: { SILENCES_MAX: '12' },
    now: () => nowMs,
    ruleHooks: { onSilencesChanged: (organizationId) => void told.push(organizationId) },
  });
});
afterAll(() => t.stop());

const make = async (body: object) => t.send('POST', SILENCES, { matchers: MATCHERS, ...body });
const end = async (id: string) => t.send('DELETE', `${SILENCES}/${id}`);

describe('a silence', () => {
  it('is made from now on for a duration, with a Location that answers, and is told of', async () => {
    told.length = 0;
    const made = await make({ for: '2h', comment: 'new burner' });
    expect(made.status).toBe(201);
    expect(made.body).toEqual({
      id: expect.any(String) as string,
      kind: 'silence',
      state: 'active',
      inForce: true,
      matchers: MATCHERS,
      schedule: null,
      startsAt: '2026-11-21T11:00:00.000Z',
      endsAt: '2026-11-21T13:00:00.000Z',
      comment: 'new burner',
      createdBy: expect.stringMatching(/^\w{8}$/) as string,
      createdAt: expect.any(String) as string,
    });
    const location = made.headers.get('location') ?? '';
    expect(await t.send('GET', location)).toMatchObject({ status: 200, body: made.body });
    expect(told).toEqual([t.acme.author.organizationId]);
    await end(made.body.id);
  });

  it('is pending before its start, active from it on, and expired at its end', async () => {
    const startsAt = new Date(NOON + HOUR).toISOString();
    const { body } = await make({ startsAt, for: '1h' });
    const states = ['pending', 'pending', 'active', 'active', 'expired'];
    for (const [index, ms] of [0, HOUR - 1, HOUR, 2 * HOUR - 1, 2 * HOUR].entries()) {
      nowMs = NOON + ms;
      const found = await t.send('GET', `${SILENCES}/${body.id}`);
      const inForce = states[index] === 'active';
      expect(found.body, String(ms)).toMatchObject({ state: states[index], inForce });
      for (const state of ['pending', 'active', 'expired']) {
        const { data } = (await t.send('GET', `${SILENCES}?state=${state}`)).body;
        expect(data.some(({ id }: { id: string }) => id === body.id)).toBe(state === states[index]);
      }
    }
    nowMs = NOON;
    await end(body.id);
  });

  it('is changed where something is given, and stays where not', async () => {
    const { body } = await make({ for: '1h', comment: 'first' });
    const path = `${SILENCES}/${body.id}`;
    const changed = await t.send('PATCH', path, { comment: 'second' });
    expect(changed).toMatchObject({ status: 200, body: { ...body, comment: 'second' } });
    const longer = await t.send('PATCH', path, { for: '3h' });
    expect(longer.body).toMatchObject({ comment: 'second', endsAt: '2026-11-21T14:00:00.000Z' });
    expect((await t.send('PATCH', path, {})).status).toBe(400);
    expect((await t.send('PATCH', path, { kind: 'maintenance' })).status).toBe(400);
    await end(body.id);
  });

  it('is ended by hand, stays in the list, and cannot be changed any more', async () => {
    const { body } = await make({ for: '1h' });
    const path = `${SILENCES}/${body.id}`;
    const ended = await t.send('POST', `${path}/expire`);
    expect(ended).toMatchObject({ status: 200, body: { state: 'expired', inForce: false } });
    expect((await t.send('POST', `${path}/expire`)).body).toEqual(ended.body);
    const late = await t.send('PATCH', path, { for: '2h' });
    expect(late).toMatchObject({ status: 409, body: { code: 'SILENCE_ENDED' } });
    const pending = await make({ startsAt: new Date(NOON + HOUR).toISOString(), for: '1h' });
    const never = await t.send('POST', `${SILENCES}/${pending.body.id}/expire`);
    expect(never.body).toMatchObject({ state: 'expired', startsAt: never.body.endsAt });
    for (const id of [body.id, pending.body.id]) expect((await end(id)).status).toBe(204);
    expect(await t.send('GET', path)).toMatchObject({
      status: 404,
      body: { code: 'SILENCE_NOT_FOUND' },
    });
    expect(await t.send('GET', `${SILENCES}/nope`)).toMatchObject({ status: 404 });
  });

  it.each([
    ['no matcher at all', { matchers: [], for: '1h' }],
    [
      'a matcher of an unknown kind',
      { matchers: [{ label: 'a', op: '=~', value: 'b' }], for: '1h' },
    ],
    ['an author in the body [A-14]', { for: '1h', createdBy: 'eve' }],
    ['an organization in the body [A-14]', { for: '1h', organizationId: 1 }],
    ['no end', {}],
    ['two ends', { for: '1h', endsAt: '2026-11-22T00:00:00Z' }],
    [
      'an end before its start',
      { startsAt: '2026-11-23T00:00:00Z', endsAt: '2026-11-22T00:00:00Z' },
    ],
    ['an end in the past', { startsAt: '2026-11-20T00:00:00Z', endsAt: '2026-11-20T01:00:00Z' }],
    ['more than a year', { for: '366d', startsAt: '2026-11-21', endsAt: '2028-01-01' }],
    ['a duration that is none', { for: 'two hours' }],
    [
      'a severity that is none',
      { matchers: [{ label: 'severity', op: '=', value: 'urgent' }], for: '1h' },
    ],
    ['a comment of control characters', { for: '1h', comment: '\u0000' }],
    [
      'a schedule without being maintenance',
      {
        for: '1h',
        schedule: { timeZone: 'UTC', windows: [{ days: ['mon'], from: '01:00', to: '02:00' }] },
      },
    ],
  ])('with %s is refused with 400', async (_what, body) => {
    expect(await make(body)).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
  });

  it('of another organization is not found', async () => {
    const { body } = await make({ for: '1h' });
    const path = `${SILENCES}/${body.id}`;
    const key = t.other.adminKey;
    for (const [method, at, change] of [
      ['GET', path, undefined],
      ['PATCH', path, { for: '2h' }],
      ['POST', `${path}/expire`, undefined],
      ['DELETE', path, undefined],
    ] as const) {
      expect((await t.send(method, at, change, key)).status, method).toBe(404);
    }
    expect((await t.send('GET', SILENCES, undefined, key)).body.data).toEqual([]);
    await end(body.id);
  });

  it('is refused beyond SILENCES_MAX, also when many are made at once, until one ends', async () => {
    const made = await Promise.all(Array.from({ length: 15 }, () => make({ for: '1h' })));
    const refused = made.filter(({ status }) => status === 409);
    expect(refused).toHaveLength(3);
    expect(refused[0]?.body).toMatchObject({ code: 'SILENCE_LIMIT' });
    const kept = made.filter(({ status }) => status === 201).map(({ body }) => body.id as string);
    await t.send('POST', `${SILENCES}/${kept[0]}/expire`);
    const again = await make({ for: '1h' });
    expect(again.status).toBe(201);
    for (const id of [...kept, again.body.id]) await end(id);
  });

  it('is paged newest first, and each change is in the audit trail', async () => {
    const ids: string[] = [];
    for (let at = 0; at < 5; at += 1) ids.push((await make({ for: '1h' })).body.id);
    const seen: string[] = [];
    for (let cursor = ''; ;) {
      const { body } = await t.send('GET', `${SILENCES}?limit=2${cursor}`);
      seen.push(...body.data.map(({ id }: { id: string }) => id));
      if (body.next === null) break;
      cursor = `&cursor=${body.next}`;
    }
    expect(seen).toEqual(ids.toReversed());
    await t.send('PATCH', `${SILENCES}/${ids[0]}`, { comment: 'x' });
    await t.send('POST', `${SILENCES}/${ids[0]}/expire`);
    for (const id of ids) await end(id);
    const { rows } = await t.test.database.pool.query(
      'SELECT action FROM audit_event WHERE subject = $1 ORDER BY audit_event_id',
      [`silence/${ids[0]}`],
    );
    expect(rows.map(({ action }) => action)).toEqual([
      'silence.create',
      'silence.update',
      'silence.expire',
      'silence.delete',
    ]);
  });
});

describe('a maintenance window', () => {
  const night = {
    timeZone: 'Europe/Berlin',
    windows: [{ days: ['sat'], from: '22:00', to: '06:00' }],
  };

  it('is in force at the times of its schedule by the clock on the wall, over midnight too', async () => {
    const { status, body } = await make({ kind: 'maintenance', schedule: night });
    expect(status).toBe(201);
    expect(Date.parse(body.endsAt)).toBeGreaterThan(NOON + 9 * 365 * 24 * HOUR);
    for (const [time, inForce] of [
      ['2026-11-21T20:59:59Z', false],
      ['2026-11-21T21:00:00Z', true],
      ['2026-11-22T04:59:59Z', true],
      ['2026-11-22T05:00:00Z', false],
      // In summer Berlin is two hours ahead.
      ['2027-07-03T19:59:59Z', false],
      ['2027-07-03T20:00:00Z', true],
    ] as const) {
      nowMs = Date.parse(time);
      const found = await t.send('GET', `${SILENCES}/${body.id}`);
      expect(found.body, time).toMatchObject({ state: 'active', inForce });
    }
    nowMs = NOON;
    await end(body.id);
  });

  it('without a schedule is in force until its end', async () => {
    const { body } = await make({ kind: 'maintenance', for: '1h' });
    expect(body).toMatchObject({ inForce: true, schedule: null });
    await end(body.id);
  });

  it('with a time zone or a time that does not exist is refused with 400', async () => {
    for (const schedule of [
      { ...night, timeZone: 'Europe/Atlantis' },
      { ...night, windows: [{ days: ['sat'], from: '25:00', to: '06:00' }] },
      { ...night, windows: [] },
    ]) {
      expect((await make({ kind: 'maintenance', schedule })).status).toBe(400);
    }
  });
});
