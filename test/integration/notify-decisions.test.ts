import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createTestNotify, type TestNotify } from '../support/notify.ts';

let t: TestNotify;
let shared: TestNotify;
beforeAll(async () => {
  shared = await createTestNotify();
});
beforeEach(async () => {
  t = shared;
  await t.reset();
});
afterEach(async () => {
  if (t !== shared) await t.stop();
});
afterAll(() => shared.stop());

const MINUTE_MS = 60_000;

/** Reasons of what nobody was told of, with how many alerts. */
async function suppressed(): Promise<Record<string, number>> {
  const { rows } = await t.test.database.pool.query<{ reason: string; alerts: number }>(
    `SELECT reason, count(*)::int4 AS alerts FROM notification
     JOIN notification_alert USING (notification_id) WHERE state = 'suppressed' GROUP BY reason`,
  );
  return Object.fromEntries(rows.map(({ reason, alerts }) => [reason, alerts]));
}

async function told(): Promise<string[]> {
  const rows = await t.messages();
  return rows.map(({ content }) => {
    const alerts = content.alerts.map(({ state, device }) => `${device} ${state}`).toSorted();
    return `${content.kind} ${content.state}: ${alerts.join(', ')}`;
  });
}

async function silence(row: Record<string, unknown>): Promise<void> {
  await t.test.database.pool.query(
    `INSERT INTO silence (silence_id, organization_id, kind, matchers, schedule, starts_at, ends_at,
       comment, created_by)
     VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, '', 'test')`,
    [
      t.acme.author.organizationId,
      row['kind'] ?? 'silence',
      JSON.stringify(row['matchers']),
      row['schedule'] === undefined ? null : JSON.stringify(row['schedule']),
      row['from'] ?? new Date(t.nowMs - 1000),
      row['to'] ?? new Date(t.nowMs + 10 * MINUTE_MS),
    ],
  );
}

describe('an alert', () => {
  it('is told when it fires and when it ends, and not in between', async () => {
    await t.tell();
    const alertId = await t.fire();
    await t.decide();
    t.nowMs += MINUTE_MS;
    await t.decide();
    await t.step(alertId, 'inactive');
    await t.decide();
    expect(await told()).toEqual([
      'alert firing: boiler-7 firing',
      'alert resolved: boiler-7 resolved',
    ]);
    const { rows } = await t.test.database.pool.query(
      `SELECT (SELECT count(*)::int4 FROM alert_transition WHERE notified_at IS NULL) AS open,
              (SELECT count(*)::int4 FROM notification_alert) AS links`,
    );
    expect(rows[0]).toEqual({ open: 0, links: 2 });
  });

  it('is told again after repeat_interval, until somebody acknowledges it', async () => {
    await t.tell({ repeatInterval: '1h' });
    const alertId = await t.fire();
    await t.decide();
    t.nowMs += 59 * MINUTE_MS;
    await t.decide();
    expect(await told()).toHaveLength(1);
    t.nowMs += MINUTE_MS;
    await t.decide();
    expect(await told()).toHaveLength(2);
    await t.test.database.pool.query(
      'UPDATE alert SET acknowledged_at = now() WHERE alert_id = $1',
      [alertId],
    );
    t.nowMs += 180 * MINUTE_MS;
    await t.decide();
    expect(await told()).toHaveLength(2);
  });

  it('is told of when its severity rises', async () => {
    await t.tell();
    const alertId = await t.fire({ severity: 'low' });
    await t.decide();
    t.nowMs += MINUTE_MS;
    await t.step(alertId, 'firing', 'critical');
    await t.decide();
    const rows = await t.messages();
    expect(rows.map(({ content }) => content.alerts[0]?.severity)).toEqual(['low', 'critical']);
  });

  it('that ended before anybody was told is recorded and not told', async () => {
    await t.tell({ groupWait: '10s' });
    const alertId = await t.fire();
    await t.decide();
    await t.step(alertId, 'inactive');
    t.nowMs += 10_000;
    await t.decide();
    expect(await told()).toEqual([]);
    expect(await suppressed()).toEqual({ ended_before_told: 1 });
  });

  it('that no route matches is recorded, and told when a route comes', async () => {
    await t.fire({ labels: { site: 'north' } });
    await t.decide();
    expect(await suppressed()).toEqual({ no_route: 1 });
    await t.tell({ matchers: [{ label: 'site', op: '=', value: 'south' }] });
    await t.decide();
    expect(await told()).toEqual([]);
    await t.tell({ matchers: [{ label: 'site', op: 'in', values: ['north'] }] });
    await t.decide();
    expect(await told()).toEqual(['alert firing: boiler-7 firing']);
    await t.tell({ matchers: [{ label: 'site', op: '=', value: 'east' }] });
    await t.decide();
    expect(await told()).toHaveLength(1);
  });

  it('of a shadow rule is told to nobody', async () => {
    await t.tell();
    await t.fire({ isShadow: true });
    await t.decide();
    expect(await told()).toEqual([]);
  });
});

describe('groups', () => {
  it('put 1 000 alerts of one second into one bounded message (L-02)', async () => {
    await t.tell({ groupWait: '1s' });
    const { pool } = t.test.database;
    await t.fire();
    await pool.query(
      `INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, group_key, state,
         severity, labels, annotations, active_at, fired_at, changed_at)
       SELECT gen_random_uuid(), organization_id, rule_id, 1, device_id, 'g' || n, 'firing', 'high',
              '{}', '{}', active_at, fired_at, changed_at
       FROM alert, generate_series(1, 999) AS n`,
    );
    await pool.query(
      `INSERT INTO alert_transition (alert_id, sequence, organization_id, rule_id, rule_version,
         device_id, at, from_state, to_state, severity, reason, detail)
       SELECT alert_id, 0, organization_id, rule_id, 1, device_id, active_at, 'inactive', 'firing',
              severity, 'condition_holds', '{}' FROM alert WHERE group_key <> ''`,
    );
    await t.decide();
    expect(await told()).toEqual([]);
    t.nowMs += 1000;
    await t.decide();
    const rows = await t.messages();
    expect(rows).toHaveLength(1);
    expect(rows[0]?.content.alerts).toHaveLength(t.limits.messageAlertsMax);
    expect(rows[0]?.content.truncated).toBe(1000 - t.limits.messageAlertsMax);
  });

  it('are made by their labels, and each is told apart', async () => {
    await t.tell({ groupBy: ['device'] });
    await t.fire({ device: 'a' });
    await t.fire({ device: 'b', rule: 'too cold' });
    await t.fire({ device: 'b' });
    await t.decide();
    expect((await told()).toSorted()).toEqual([
      'alert firing: a firing',
      'alert firing: b firing, b firing',
    ]);
    const rows = await t.messages();
    expect(rows.map(({ content }) => content.groupLabels)).toContainEqual({
      device: 'a',
    });
  });

  it('tell what comes behind a message when group_interval is over', async () => {
    await t.tell({ groupInterval: '5m' });
    await t.fire({ device: 'a' });
    await t.decide();
    t.nowMs += MINUTE_MS;
    await t.fire({ device: 'b' });
    await t.decide();
    expect(await told()).toHaveLength(1);
    t.nowMs += 4 * MINUTE_MS;
    await t.decide();
    expect(await told()).toEqual(['alert firing: a firing', 'alert firing: a firing, b firing']);
  });

  it('hold a bounded number of alerts; what is beyond it is recorded', async () => {
    t = await createTestNotify({ groupAlertsMax: 10 });
    await t.tell({ groupWait: '1s' });
    for (let at = 0; at < 12; at += 1) await t.fire({ device: `d${at}` });
    await t.decide();
    expect(await suppressed()).toEqual({ group_full: 2 });
    t.nowMs += 1000;
    await t.decide();
    expect((await t.messages())[0]?.content.alerts).toHaveLength(10);
  });

  it('go on behind a matching route only when it says so', async () => {
    const first = await t.tell({ continue: true });
    const second = await t.tell();
    await t.tell();
    await t.fire();
    await t.decide();
    expect((await t.messages()).map((row) => row.receiver_id).toSorted()).toEqual(
      [first, second].toSorted(),
    );
  });

  it('whose route is deleted end', async () => {
    const receiverId = await t.tell();
    await t.fire();
    await t.decide();
    const [route] = await t.stores.routes.list(t.acme.author.organizationId);
    await t.stores.routes.remove(t.acme.author, route?.routeId ?? '');
    t.nowMs += MINUTE_MS;
    await t.decide();
    expect(await suppressed()).toMatchObject({ route_changed: 1, no_route: 1 });
    await t.stores.receivers.remove(t.acme.author, receiverId);
  });
});

describe('nobody is told of an alert', () => {
  it('while a silence matches; when it ends what still fires is told', async () => {
    await t.tell();
    await silence({ matchers: [{ label: 'device', op: 'prefix', value: 'boiler-' }] });
    const ended = await t.fire();
    await t.fire({ device: 'boiler-8' });
    await t.fire({ device: 'pump' });
    await t.decide();
    expect(await told()).toEqual(['alert firing: pump firing']);
    expect(await suppressed()).toEqual({ silenced: 2 });
    await t.step(ended, 'inactive');
    for (let minutes = 0; minutes < 11; minutes += 1) {
      t.nowMs += MINUTE_MS;
      await t.decide();
    }
    expect(await told()).toEqual([
      'alert firing: pump firing',
      'alert firing: boiler-8 firing, pump firing',
    ]);
    expect(await suppressed()).toEqual({ silenced: 2 });
  });

  it('in the hours of a maintenance window, by the clock there', async () => {
    await t.tell();
    const windows = [{ days: ['mon'], from: '13:00', to: '14:00' }];
    await silence({
      kind: 'maintenance',
      matchers: [],
      schedule: { timeZone: 'Europe/Berlin', windows },
      to: new Date(t.nowMs + 86_400_000),
    });
    await t.fire();
    await t.decide();
    expect(await suppressed()).toEqual({ maintenance: 1 });
    for (let minutes = 0; minutes <= 60; minutes += 1) {
      t.nowMs += MINUTE_MS;
      await t.decide();
    }
    expect(await told()).toEqual(['alert firing: boiler-7 firing']);
  });

  it('while it is snoozed, and while its gateway is down', async () => {
    await t.tell();
    const snoozed = await t.fire({ device: 'a' });
    await t.test.database.pool.query('UPDATE alert SET snoozed_until = $2 WHERE alert_id = $1', [
      snoozed,
      new Date(t.nowMs + 3_600_000),
    ]);
    const suppressedBy = [{ rule: 'gateway down', device: 'gw-1' }];
    await t.fire({ device: 'b', rule: 'silent', suppressedBy });
    const gateway = await t.fire({ device: 'gw-1', rule: 'gateway down' });
    await t.decide();
    expect(await told()).toEqual(['alert firing: gw-1 firing']);
    expect(await suppressed()).toEqual({ snoozed: 1, inhibited: 1 });
    t.nowMs += MINUTE_MS;
    await t.step(gateway, 'inactive');
    await t.decide();
    expect((await told()).at(-1)).toBe('alert firing: b firing, gw-1 resolved');
  });

  it('in quiet hours, but for critical ones', async () => {
    const windows = [{ days: ['mon'], from: '12:00', to: '12:30' }];
    await t.tell({ quietHours: { timeZone: 'UTC', windows } });
    await t.fire({ device: 'a' });
    await t.fire({ device: 'b', severity: 'critical' });
    await t.decide();
    expect(await told()).toEqual(['alert firing: b firing']);
    t.nowMs += 31 * MINUTE_MS;
    await t.decide();
    expect((await told()).at(-1)).toBe('alert firing: a firing, b firing');
  });

  it('while the kill switch is on; then what still fires is told', async () => {
    await t.tell();
    await t.stores.policies.set(t.acme.author, true);
    const ended = await t.fire({ device: 'a' });
    await t.fire({ device: 'b' });
    await t.decide();
    expect(await told()).toEqual([]);
    expect(await suppressed()).toEqual({ stopped: 2 });
    await t.step(ended, 'inactive');
    t.nowMs += MINUTE_MS;
    await t.stores.policies.set(t.acme.author, false);
    await t.decide();
    expect(await told()).toEqual(['alert firing: b firing']);
  });
});

describe('an alert that flaps', () => {
  it('is told once, then in digests, and as any other when it is calm (L-01)', async () => {
    await t.tell({ groupInterval: '1s' });
    let alertId = '';
    for (let at = 0; at < 60; at += 1) {
      t.nowMs += 5000;
      alertId = await t.fire();
      await t.decide();
      t.nowMs += 5000;
      await t.step(alertId, 'inactive');
      await t.decide();
    }
    const during = await told();
    expect(during.filter((text) => text.startsWith('digest'))).toHaveLength(1);
    // Six changes are told one by one: that many are allowed.
    expect(during.length).toBeLessThanOrEqual(t.limits.flappingChangesMax + 1);
    expect((await suppressed())['ended_before_told']).toBeGreaterThan(40);
    t.nowMs += t.limits.flappingWindowMs;
    await t.decide();
    const [digest] = (await t.messages()).slice(-1);
    expect(digest?.content).toMatchObject({
      kind: 'digest',
      state: 'resolved',
      digest: { reason: 'flapping' },
    });
    expect(digest?.content.digest?.changes).toBeGreaterThan(100);
    t.nowMs += MINUTE_MS;
    await t.fire();
    await t.decide();
    expect((await told()).at(-1)).toBe('alert firing: boiler-7 firing');
    expect(await told()).toHaveLength(during.length + 2);
  });

  it('is told of now and again while it goes on', async () => {
    t = await createTestNotify({ flappingDigestMs: 10 * MINUTE_MS });
    await t.tell({ groupInterval: '1s' });
    for (let at = 0; at < 26; at += 1) {
      t.nowMs += 30_000;
      const alertId = await t.fire();
      await t.decide();
      t.nowMs += 30_000;
      await t.step(alertId, 'inactive');
      await t.decide();
    }
    const digests = (await t.messages()).filter(({ kind }) => kind === 'digest');
    expect(digests).toHaveLength(3);
  });
});

describe('the cap of a receiver', () => {
  it('puts what is beyond it into one digest at the end of the hour, which counts it', async () => {
    t = await createTestNotify({ messagesPerHour: 3 });
    await t.tell({ groupInterval: '1s', groupBy: ['device'] });
    const elsewhere = await t.tell({ matchers: [{ label: 'device', op: '=', value: 'x' }] });
    for (let at = 0; at < 8; at += 1) await t.fire({ device: `d${at}` });
    await t.decide();
    const rows = await t.messages();
    expect(rows.filter(({ kind }) => kind === 'alert')).toHaveLength(3);
    const digests = rows.filter(({ kind }) => kind === 'digest');
    expect(digests).toHaveLength(1);
    expect(digests[0]?.next_attempt_at?.toISOString()).toBe('2026-03-02T13:00:00.000Z');
    expect(digests[0]?.content.digest).toMatchObject({
      reason: 'rate_cap',
      suppressed: 5,
      changes: 5,
    });
    expect(digests[0]?.content.alerts).toHaveLength(5);
    expect(await suppressed()).toEqual({ rate_cap: 5 });
    expect(rows.some((row) => row.receiver_id === elsewhere)).toBe(false);
    t.nowMs += 61 * MINUTE_MS;
    await t.fire({ device: 'late' });
    await t.decide();
    expect((await told()).at(-1)).toBe('alert firing: late firing');
  });
});

describe('the preview', () => {
  it('says who would be told, and who not and why', async () => {
    const { organizationId } = t.acme.author;
    const loud = await t.tell({ continue: true }, 'loud');
    const windows = [{ days: ['mon'], from: '12:00', to: '13:00' }];
    const quiet = await t.tell({ quietHours: { timeZone: 'UTC', windows } }, 'quiet');
    const alertId = await t.fire();
    const { receivers } = await t.stores.preview(organizationId, { alertId });
    expect(receivers).toMatchObject([
      { receiverId: loud, name: 'loud', isTold: true, reason: null },
      { receiverId: quiet, name: 'quiet', isTold: false, reason: 'quiet_hours' },
    ]);
    await silence({ matchers: [{ label: 'tag', op: '=', value: 'hall-3' }] });
    const of = { labels: { device: 'x' }, tags: ['hall-3'], severity: 'critical' } as const;
    const imagined = await t.stores.preview(organizationId, of);
    expect(imagined.receivers).toMatchObject([
      { isTold: false, reason: 'silenced' },
      { isTold: false, reason: 'silenced' },
    ]);
    const foreign = t.stores.preview(t.other.author.organizationId, { alertId });
    await expect(foreign).rejects.toThrow('no alert');
  });
});
