import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EndedByHand } from '../../rules/alert/alerts.ts';
import { HOT_RULE, insertAlert, type TestAlert } from '../support/alerts.ts';
import { createTestApi, type TestApi } from '../support/api.ts';

const ALERTS = '/api/v1/alerts';
/** Whole minutes, so that times read well. */
const NOW = Date.parse('2026-11-21T18:00:00Z');
const MINUTE = 60_000;
const DAY = 86_400_000;

let t: TestApi;

let rule: string;
const askedToEnd: EndedByHand[] = [];
let isHeld = true;
beforeAll(async () => {
  t = await createTestApi({
    now: () => NOW,
    ruleHooks: {
      async resolveByHand(wanted) {
        askedToEnd.push(wanted);
        if (!isHeld) return 'not held';
        await t.test.database.pool.query(
          `UPDATE alert SET state = 'resolved', resolved_at = now() WHERE alert_id = $1`,
          [wanted.alertId],
        );
        return 'ended';
      },
    },
  });
  rule = await createRule('boiler too hot');
});
afterAll(() => t.stop());

async function createRule(name: string): Promise<string> {
  const { body } = await t.send('POST', '/api/v1/rules', { ...HOT_RULE, name });
  return body.id;
}

let made = 0;
/** A device of its own for each test. */
async function createDevice(): Promise<string> {
  made += 1;
  await t.send('POST', '/api/v1/devices', { device: `board-${made}` });
  return `board-${made}`;
}

async function alertOn(device: string, rest: Partial<TestAlert> = {}): Promise<string> {
  return insertAlert(t, { rule, device, activeAt: NOW - MINUTE, ...rest });
}

const list = async (query: string) => (await t.send('GET', `${ALERTS}?${query}`)).body;
const idsOf = async (query: string): Promise<string[]> =>
  (await list(query)).data.map(({ id }: { id: string }) => id);

describe('the list of alerts', () => {
  it('shows a firing alert of a device as documented', async () => {
    const device = await createDevice();
    const id = await alertOn(device);
    expect(await list(`state=firing&device=${device}`)).toEqual({
      data: [
        {
          id,
          rule: 'boiler too hot',
          ruleId: rule,
          ruleVersion: 1,
          device,
          groupKey: '',
          state: 'firing',
          severity: 'critical',
          value: 81.5,
          labels: { team: 'heating' },
          annotations: { summary: 'hot' },
          activeAt: '2026-11-21T17:59:00.000Z',
          firedAt: '2026-11-21T17:59:02.000Z',
          resolvedAt: null,
          changedAt: '2026-11-21T17:59:00.000Z',
          occurrences: 1,
          shadow: false,
          historical: false,
          acknowledgedAt: null,
          acknowledgedBy: null,
          assignee: null,
          snoozedUntil: null,
          verdict: null,
          verdictBy: null,
          verdictAt: null,
        },
      ],
      next: null,
    });
  });

  it('filters by state, severity, rule, flags, assignee and time', async () => {
    const device = await createDevice();
    const other = await createRule('pressure');
    const at = (minutes: number) => NOW - minutes * MINUTE;
    const pending = await alertOn(device, { activeAt: at(1), state: 'pending', severity: 'low' });
    const shadow = await alertOn(device, { activeAt: at(2), state: 'resolved', isShadow: true });
    const old = await alertOn(device, { activeAt: at(3), state: 'resolved', isHistorical: true });
    const firing = await alertOn(device, { activeAt: at(4), rule: other });
    await t.send('POST', `${ALERTS}/${firing}/acknowledge`);
    await t.send('POST', `${ALERTS}/${firing}/assign`, { assignee: 'Ada' });
    const all = [pending, shadow, old, firing];
    for (const [query, expected] of [
      ['', all],
      ['state=firing,pending', [pending, firing]],
      ['state=inactive', []],
      ['severity=low', [pending]],
      ['severity=low,critical', all],
      ['rule=pressure', [firing]],
      [`rule=${rule}`, [pending, shadow, old]],
      [`rule=${rule.toUpperCase()}`, [pending, shadow, old]],
      ['acknowledged=true', [firing]],
      ['acknowledged=false', [pending, shadow, old]],
      ['shadow=true', [shadow]],
      ['shadow=false&historical=false', [pending, firing]],
      ['historical=true', [old]],
      ['assignee=Ada', [firing]],
      [`from=${at(3)}`, [pending, shadow, old]],
      [`to=${at(3)}`, [firing]],
      [`from=${at(3)}&to=${at(2)}`, [old]],
    ] as const) {
      expect(await idsOf(`device=${device}&${query}`), query).toEqual(expected);
    }
    await t.send('DELETE', `/api/v1/rules/${other}`);
    expect(await idsOf(`device=${device}&rule=pressure`)).toEqual([firing]);
  });

  it('pages through alerts of the same microsecond without losing or repeating one', async () => {
    const device = await createDevice();
    const rules: string[] = [];
    for (let at = 0; at < 7; at += 1) rules.push(await createRule(`same time ${at}`));
    for (const of of rules) await alertOn(device, { rule: of });
    const seen: string[] = [];
    for (let cursor = ''; ;) {
      const { data, next } = await list(`device=${device}&limit=2${cursor}`);
      seen.push(...data.map(({ id }: { id: string }) => id));
      if (next === null) break;
      cursor = `&cursor=${next}`;
    }
    expect(new Set(seen).size).toBe(7);
    expect(seen).toHaveLength(7);
    const { next } = await list(`device=${device}&limit=2`);
    const strange = await t.send('GET', `${ALERTS}?cursor=${next}`);
    expect(strange).toMatchObject({ status: 400, body: { code: 'CURSOR_INVALID' } });
  });

  it.each([
    'state=burning',
    'state=',
    'severity=critical,worse',
    'shadow=maybe',
    'rule=',
    'from=yesterday',
    'organization=1',
    'limit=0',
  ])('refuses ?%s with 400', async (query) => {
    expect(await t.send('GET', `${ALERTS}?${query}`)).toMatchObject({
      status: 400,
      body: { code: 'REQUEST_INVALID' },
    });
  });

  it('answers 404 for a rule that there never was, by name and by id', async () => {
    const nobody = '019a0000-0000-7000-8000-000000000009';
    for (const asked of ['none', nobody, 'a%00b']) {
      const answer = await t.send('GET', `${ALERTS}?rule=${asked}`);
      expect(answer, asked).toMatchObject({ status: 404, body: { code: 'RULE_NOT_FOUND' } });
    }
    const foreign = await t.send('GET', `${ALERTS}?rule=${rule}`, undefined, t.other.adminKey);
    expect(foreign.status).toBe(404);
  });

  it('answers 404 for a device that does not exist', async () => {
    expect(await t.send('GET', `${ALERTS}?device=nobody`)).toMatchObject({
      status: 404,
      body: { code: 'DEVICE_NOT_FOUND' },
    });
  });
});

describe('an alert', () => {
  it('is shown with its steps, notes and notifications, each in order', async () => {
    const device = await createDevice();
    const id = await alertOn(device, { state: 'resolved' });
    const { pool } = t.test.database;
    await pool.query(
      `WITH receiver AS (
         INSERT INTO receiver (receiver_id, organization_id, name, kind, settings)
         VALUES (gen_random_uuid(), $2, 'on call', 'webhook', '{}') RETURNING receiver_id),
       sent AS (
         INSERT INTO notification (notification_id, organization_id, receiver_id, group_key, kind,
           state, content, attempts, sent_at)
         SELECT gen_random_uuid(), $2, receiver_id, '', 'alert', 'sent', '{}', 2, now()
         FROM receiver RETURNING notification_id)
       INSERT INTO notification_alert SELECT $1, notification_id, $2 FROM sent`,
      [id, t.acme.author.organizationId],
    );
    await t.send('POST', `${ALERTS}/${id}/comment`, { content: 'It was\nthe sun.' });
    const { status, body } = await t.send('GET', `${ALERTS}/${id}`);
    expect(status).toBe(200);
    expect(body).toMatchObject({
      id,
      state: 'resolved',
      transitions: [
        { sequence: 0, from: 'inactive', to: 'pending', reason: 'condition_holds' },
        { sequence: 1, from: 'pending', to: 'firing', at: '2026-11-21T17:59:02.000Z' },
        { sequence: 2, from: 'firing', to: 'inactive', detail: { operands: [{ name: 'temp' }] } },
      ],
      notes: [{ kind: 'comment', content: 'It was\nthe sun.' }],
      notifications: [{ receiver: 'on call', kind: 'alert', state: 'sent', attempts: 2 }],
    });
    expect(body.notes[0].actor).toMatch(/^\w{8}$/);
  });

  it('is acknowledged by the first one; later ones leave a note', async () => {
    const id = await alertOn(await createDevice());
    const path = `${ALERTS}/${id}/acknowledge`;
    const first = await t.send('POST', path, { comment: 'I am on it' });
    expect(first).toMatchObject({ status: 200, body: { acknowledgedAt: expect.any(String) } });
    expect(first.body.acknowledgedBy).toMatch(/^\w{8}$/);
    const second = await t.send('POST', path);
    expect(second.body.acknowledgedAt).toBe(first.body.acknowledgedAt);
    const { body } = await t.send('GET', `${ALERTS}/${id}`);
    expect(body.notes).toMatchObject([
      { kind: 'acknowledge', content: 'I am on it' },
      { kind: 'acknowledge', content: '' },
    ]);
  });

  it('takes nothing from a body that is not asked for [A-14]', async () => {
    const id = await alertOn(await createDevice());
    for (const [verb, body] of [
      ['acknowledge', { acknowledgedBy: 'eve' }],
      ['assign', { assignee: 'Ada', state: 'resolved' }],
      ['comment', { content: 'x', actor: 'eve' }],
      ['snooze', { for: '1h', organizationId: 1 }],
      ['resolve', { actor: 'eve' }],
      ['verdict', { verdict: true, verdictBy: 'eve' }],
    ] as const) {
      const answer = await t.send('POST', `${ALERTS}/${id}/${verb}`, body);
      expect(answer, verb).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
    }
  });

  it('is assigned to somebody and to nobody', async () => {
    const id = await alertOn(await createDevice());
    const path = `${ALERTS}/${id}/assign`;
    for (const assignee of ['Ada Lovelace', null]) {
      const answer = await t.send('POST', path, { assignee });
      expect(answer).toMatchObject({ status: 200, body: { assignee } });
    }
    for (const body of [{}, { assignee: '' }, { assignee: 7 }, { assignee: 'x'.repeat(101) }]) {
      expect((await t.send('POST', path, body)).status).toBe(400);
    }
  });

  it('is snoozed for a duration, until a time, and no longer', async () => {
    const id = await alertOn(await createDevice());
    const path = `${ALERTS}/${id}/snooze`;
    const steps = [
      [{ for: '30m' }, '2026-11-21T18:30:00.000Z'],
      [{ until: '2026-11-22T06:00:00Z' }, '2026-11-22T06:00:00.000Z'],
      [{ until: null }, null],
    ] as const;
    for (const [body, snoozedUntil] of steps) {
      const answer = await t.send('POST', path, body);
      expect(answer).toMatchObject({ status: 200, body: { snoozedUntil } });
    }
    for (const body of [
      {},
      undefined,
      { for: '0s' },
      { for: '31d' },
      { for: 'ever' },
      { for: '1h', until: '2026-11-22T06:00:00Z' },
      { until: '2026-11-21T17:00:00Z' },
      { until: '2027-11-21T17:00:00Z' },
    ]) {
      expect((await t.send('POST', path, body)).status, JSON.stringify(body)).toBe(400);
    }
  });

  it('is judged to be true or false, and the verdict is taken back', async () => {
    const id = await alertOn(await createDevice(), { state: 'resolved' });
    const path = `${ALERTS}/${id}/verdict`;
    for (const verdict of [true, false]) {
      const answer = await t.send('POST', path, { verdict });
      expect(answer).toMatchObject({ status: 200, body: { verdict } });
      expect(answer.body.verdictBy).toMatch(/^\w{8}$/);
    }
    const back = await t.send('POST', path, { verdict: null });
    expect(back.body).toMatchObject({ verdict: null, verdictBy: null, verdictAt: null });
    expect((await t.send('POST', path, {})).status).toBe(400);
    expect((await t.send('POST', path, { verdict: 'yes' })).status).toBe(400);
  });

  it('is ended by hand by who evaluates it', async () => {
    const id = await alertOn(await createDevice());
    askedToEnd.length = 0;
    const answer = await t.send('POST', `${ALERTS}/${id}/resolve`, { comment: 'valve closed' });
    expect(answer).toMatchObject({ status: 200, body: { state: 'resolved' } });
    expect(askedToEnd).toEqual([
      {
        alertId: id,
        organizationId: t.acme.author.organizationId,
        ruleId: expect.any(Number) as number,
        deviceId: expect.any(Number) as number,
        groupKey: '',
        actor: expect.stringMatching(/^\w{8}$/) as string,
      },
    ]);
    const { body } = await t.send('GET', `${ALERTS}/${id}`);
    expect(body.notes).toMatchObject([{ kind: 'resolve', content: 'valve closed' }]);
  });

  it('that nobody has in memory cannot be ended at this moment', async () => {
    const id = await alertOn(await createDevice());
    isHeld = false;
    const answer = await t.send('POST', `${ALERTS}/${id}/resolve`);
    isHeld = true;
    expect(answer).toMatchObject({ status: 503, body: { code: 'ALERT_NOT_HELD' } });
    expect(answer.headers.get('retry-after')).toBe('5');
    expect((await t.send('GET', `${ALERTS}/${id}`)).body.notes).toEqual([]);
  });

  it('that has ended is not acknowledged, snoozed or resolved; the rest goes on', async () => {
    const device = await createDevice();
    for (const [index, state] of (['resolved', 'inactive'] as const).entries()) {
      const id = await alertOn(device, { state, activeAt: NOW - (index + 2) * MINUTE });
      for (const [verb, body] of [
        ['acknowledge', undefined],
        ['snooze', { for: '1h' }],
        ['resolve', undefined],
      ] as const) {
        const answer = await t.send('POST', `${ALERTS}/${id}/${verb}`, body);
        expect(answer, verb).toMatchObject({ status: 409, body: { code: 'ALERT_ENDED' } });
      }
      for (const [verb, body] of [
        ['comment', { content: 'x' }],
        ['assign', { assignee: 'Ada' }],
        ['verdict', { verdict: true }],
      ] as const) {
        expect((await t.send('POST', `${ALERTS}/${id}/${verb}`, body)).status, verb).toBe(200);
      }
    }
  });

  it('takes comments of 4000 characters, and a thousand notes', async () => {
    const id = await alertOn(await createDevice());
    const path = `${ALERTS}/${id}/comment`;
    expect((await t.send('POST', path, { content: 'x'.repeat(4000) })).status).toBe(200);
    for (const content of ['x'.repeat(4001), '', '\u0000']) {
      expect((await t.send('POST', path, { content })).status).toBe(400);
    }
    await t.test.database.pool.query(
      `INSERT INTO alert_note (alert_note_id, alert_id, organization_id, actor, kind, content)
       SELECT gen_random_uuid(), $1, $2, 'x', 'comment', 'x' FROM generate_series(1, 999)`,
      [id, t.acme.author.organizationId],
    );
    const full = await t.send('POST', path, { content: 'one more' });
    expect(full).toMatchObject({ status: 409, body: { code: 'ALERT_NOTE_LIMIT' } });
    expect((await t.send('GET', `${ALERTS}/${id}`)).body.notes).toHaveLength(500);
    // What is done with it goes on, and is in the audit trail.
    for (const verb of ['acknowledge', 'resolve']) {
      expect((await t.send('POST', `${ALERTS}/${id}/${verb}`)).status, verb).toBe(200);
    }
    const { rows } = await t.test.database.pool.query(
      'SELECT action FROM audit_event WHERE subject = $1 ORDER BY audit_event_id DESC LIMIT 2',
      [`alert/${id}`],
    );
    expect(rows.map(({ action }) => action)).toEqual(['alert.resolve', 'alert.acknowledge']);
  });

  it('of another organization is not found, whatever is asked of it', async () => {
    const id = await alertOn(await createDevice());
    const key = t.other.adminKey;
    for (const [method, path, body] of [
      ['GET', '', undefined],
      ['POST', '/acknowledge', undefined],
      ['POST', '/assign', { assignee: 'Eve' }],
      ['POST', '/comment', { content: 'x' }],
      ['POST', '/snooze', { for: '1h' }],
      ['POST', '/resolve', undefined],
      ['POST', '/verdict', { verdict: false }],
    ] as const) {
      const answer = await t.send(method, `${ALERTS}/${id}${path}`, body, key);
      expect(answer, path).toMatchObject({ status: 404, body: { code: 'ALERT_NOT_FOUND' } });
    }
    expect((await t.send('GET', `${ALERTS}/nope`)).status).toBe(404);
    expect((await t.send('GET', ALERTS, undefined, key)).body.data).toEqual([]);
    expect((await t.send('GET', `${ALERTS}/${id}`)).body).toMatchObject({ notes: [] });
  });

  it('goes with its device, with notes and steps', async () => {
    const device = await createDevice();
    const id = await alertOn(device);
    await t.send('POST', `${ALERTS}/${id}/comment`, { content: 'x' });
    expect((await t.send('DELETE', `/api/v1/devices/${device}`)).status).toBe(204);
    expect((await t.send('GET', `${ALERTS}/${id}`)).status).toBe(404);
    const { rows } = await t.test.database.pool.query(
      `SELECT FROM alert_note WHERE alert_id = $1
       UNION ALL SELECT FROM alert_transition WHERE alert_id = $1`,
      [id],
    );
    expect(rows).toEqual([]);
  });

  it('has every act of people in the audit trail', async () => {
    const id = await alertOn(await createDevice());
    await t.send('POST', `${ALERTS}/${id}/acknowledge`);
    await t.send('POST', `${ALERTS}/${id}/verdict`, { verdict: true });
    const { rows } = await t.test.database.pool.query(
      'SELECT action FROM audit_event WHERE subject = $1 ORDER BY audit_event_id',
      [`alert/${id}`],
    );
    expect(rows.map(({ action }) => action)).toEqual(['alert.acknowledge', 'alert.verdict']);
  });
});

describe('statistics', () => {
  it('of a rule count what fired, how soon it was acknowledged, and how often it was right, for each version', async () => {
    const device = await createDevice();
    const of = await createRule('counted');
    const path = `/api/v1/rules/${of}/statistics`;
    const none = await t.send('GET', path);
    expect(none).toMatchObject({
      status: 200,
      body: { fires: 0, timeToAcknowledge: null, precision: null, days: [], versions: [] },
    });
    const ids: string[] = [];
    for (let at = 1; at <= 10; at += 1) {
      const version = at > 6 ? 2 : 1;
      const activeAt = NOW - (at > 6 ? DAY : 0) - at * MINUTE;
      const more = { state: 'resolved', isShadow: at === 10 } as const;
      ids.push(await alertOn(device, { rule: of, activeAt, version, ...more }));
    }
    const activeAt = NOW - 20 * MINUTE;
    await alertOn(device, { rule: of, activeAt, state: 'inactive' });
    await alertOn(device, {
      rule: of,
      activeAt: activeAt - 1,
      state: 'resolved',
      isHistorical: true,
    });
    await alertOn(device, { rule: of, activeAt: NOW - 40 * DAY, state: 'resolved' });
    const { pool } = t.test.database;
    for (const [index, id] of ids.entries()) {
      if (index < 4) await t.send('POST', `${ALERTS}/${id}/verdict`, { verdict: index > 0 });
      if (index === 7) await t.send('POST', `${ALERTS}/${id}/verdict`, { verdict: false });
      // Acknowledged one to five minutes after it was written that they fire.
      if (index >= 5) continue;
      await pool.query(
        `UPDATE alert SET acknowledged_at = fired_at + $2 * interval '1 minute' WHERE alert_id = $1`,
        [id, index + 1],
      );
    }
    const { body } = await t.send('GET', path);
    expect(body).toMatchObject({
      from: '2026-10-22T18:00:00.000Z',
      to: '2026-11-21T18:00:00.000Z',
      firesPerDay: 0.333,
      fires: 10,
      shadowFires: 1,
      occurrences: 10,
      acknowledged: 5,
      timeToAcknowledge: { p50: '3m', p90: '276s' },
      trueAlerts: 3,
      falseAlerts: 2,
      precision: 0.6,
      days: [
        { day: '2026-11-20', fires: 4 },
        { day: '2026-11-21', fires: 6 },
      ],
      versions: [
        { version: 2, fires: 4, shadowFires: 1, falseAlerts: 1, precision: 0 },
        { version: 1, fires: 6, trueAlerts: 3, falseAlerts: 1, precision: 0.75 },
      ],
    });
    const half = await t.send('GET', `${path}?from=2026-11-21T00:00:00Z`);
    expect(half.body).toMatchObject({ fires: 6, firesPerDay: 8 });
  });

  it('of the organization count by severity and by rule, and what is open', async () => {
    const device = await createDevice();
    const [noisy, quiet] = [await createRule('noisy'), await createRule('quiet')];
    const time = Date.parse('2026-03-01T12:00:00Z');
    for (let at = 0; at < 3; at += 1) {
      await alertOn(device, {
        rule: noisy,
        activeAt: time + at,
        severity: 'low',
        state: 'resolved',
      });
    }
    await alertOn(device, { rule: quiet, activeAt: time });
    const { status, body } = await t.send(
      'GET',
      '/api/v1/statistics/alerts?from=2026-03-01&to=2026-03-02',
    );
    expect(status).toBe(200);
    expect(body).toMatchObject({
      fires: 4,
      firesPerDay: 4,
      severities: [
        { severity: 'critical', fires: 1 },
        { severity: 'low', fires: 3 },
      ],
      rules: [
        { id: noisy, rule: 'noisy', fires: 3 },
        { id: quiet, rule: 'quiet', fires: 1 },
      ],
    });
    expect(body.open.firing).toBeGreaterThan(0);
    expect(body.open.unacknowledged).toBeLessThanOrEqual(body.open.firing);
    const other = await t.send('GET', '/api/v1/statistics/alerts', undefined, t.other.adminKey);
    expect(other.body).toMatchObject({ fires: 0, open: { pending: 0, firing: 0 }, rules: [] });
  });

  it('refuse a time that ends before it begins, or is longer than 366 days', async () => {
    for (const query of ['from=2026-03-02&to=2026-03-01', 'from=2025-01-01&to=2026-03-01']) {
      const answer = await t.send('GET', `/api/v1/statistics/alerts?${query}`);
      expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
    }
  });
});
