import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AlertTopics } from '../../rules/notify/alert-topics.ts';
import { createAlertTopicRows } from '../../rules/notify/alert-topic-rows.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization } from '../support/registry.ts';

let test: TestDatabase;
const owners = new Map<string, { organizationId: number; ruleId: number; deviceId: number }>();

beforeAll(async () => {
  test = await createTestDatabase();
  const { pool } = test.database;
  for (const slug of ['acme', 'other']) {
    const { author } = await createOrganization(test.database, slug);
    const { organizationId } = author;
    const device = await pool.query<{ device_id: number }>(
      'INSERT INTO device (organization_id, slug, display_name) VALUES ($1, $2, $2) RETURNING device_id',
      [organizationId, 'boiler-1'],
    );
    const rule = await pool.query<{ rule_id: number }>(
      `INSERT INTO alert_rule (public_id, organization_id, name, mode, version, revision)
       VALUES ($1, $2, 'Boiler too hot', 'enabled', 1, $3) RETURNING rule_id`,
      [randomUUID(), organizationId, owners.size + 1],
    );
    const [deviceId = 0, ruleId = 0] = [device.rows[0]?.device_id, rule.rows[0]?.rule_id];
    owners.set(slug, { organizationId, deviceId, ruleId });
  }
});
afterAll(() => test.drop());

interface Change {
  readonly organization?: string;
  readonly groupKey?: string;
  readonly state?: string;
  readonly isShadow?: boolean;
  readonly isHistorical?: boolean;
}

async function insertAlert(change: Change = {}): Promise<string> {
  const { organization = 'acme', groupKey = '', state = 'firing' } = change;
  const owner = owners.get(organization);
  const alertId = randomUUID();
  await test.database.pool.query(
    `INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, group_key, state,
       severity, value, labels, annotations, active_at, fired_at, changed_at, is_shadow, is_historical)
     VALUES ($1, $2, $3, 1, $4, $5, $6, 'high', 81.5, '{"hall":"3"}', '{}', $7, $7, $7, $8, $9)`,
    [
      ...[alertId, owner?.organizationId, owner?.ruleId, owner?.deviceId, groupKey, state],
      ...[new Date('2026-11-21T12:00:00Z'), change.isShadow ?? false, change.isHistorical ?? false],
    ],
  );
  return alertId;
}

describe('topics of alerts, of what is stored', () => {
  it('are those of firing alerts of all organizations, each under its own', async () => {
    const acme = await insertAlert();
    const other = await insertAlert({ organization: 'other' });
    await insertAlert({ groupKey: 'z1', isShadow: true });
    await insertAlert({ groupKey: 'z2', isHistorical: true });
    await insertAlert({ groupKey: 'z3', state: 'pending' });
    const grouped = await insertAlert({ groupKey: 'Zone 4' });
    const kept = new Map([['v1/acme/gone/alert/old', 'left by a crash']]);
    const topics = new AlertTopics({
      rows: createAlertTopicRows(test.database),
      log: pino({ level: 'silent' }),
      publisher: {
        publishRetained: (topic, payload) => {
          if (payload.length === 0) kept.delete(topic);
          else kept.set(topic, payload.toString());
          return Promise.resolve();
        },
        publish: () => Promise.resolve(),
        retained: (topic) => (kept.has(topic) ? Buffer.from(kept.get(topic) ?? '') : null),
        retainedTopics: () => kept.keys(),
      },
    });
    topics.start();
    await expect
      .poll(() => [...kept.keys()].toSorted())
      .toEqual([
        'v1/acme/boiler-1/alert/boiler-too-hot',
        'v1/acme/boiler-1/alert/boiler-too-hot.zone-4',
        'v1/other/boiler-1/alert/boiler-too-hot',
      ]);
    await topics.stop();
    const payloadOf = (topic: string): unknown => JSON.parse(kept.get(topic) ?? 'null');
    expect(payloadOf('v1/acme/boiler-1/alert/boiler-too-hot')).toMatchObject({
      alertId: acme,
      rule: 'Boiler too hot',
      device: 'boiler-1',
      severity: 'high',
      state: 'firing',
      value: 81.5,
      labels: { hall: '3' },
      firedAt: '2026-11-21T12:00:00.000Z',
      resolvedAt: null,
    });
    expect(payloadOf('v1/other/boiler-1/alert/boiler-too-hot')).toMatchObject({ alertId: other });
    expect(payloadOf('v1/acme/boiler-1/alert/boiler-too-hot.zone-4')).toMatchObject({
      alertId: grouped,
      groupKey: 'Zone 4',
    });
  });

  it('are read in pages', async () => {
    const rows = createAlertTopicRows(test.database);
    const owner = owners.get('other');
    await test.database.pool.query(
      `INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, group_key, state,
         severity, labels, annotations, active_at, fired_at, changed_at)
       SELECT gen_random_uuid(), $1, $2, 1, $3, 'p' || n, 'firing', 'low', '{}', '{}', now(), now(), now()
       FROM generate_series(1, 1100) AS n`,
      [owner?.organizationId, owner?.ruleId, owner?.deviceId],
    );
    const seen = new Set<string>();
    let last: string | null = null;
    for (let page = await rows.firing(last); page.length > 0; page = await rows.firing(last)) {
      expect(page.length).toBeLessThanOrEqual(500);
      for (const { alert } of page) seen.add(alert.alertId);
      last = page.at(-1)?.alert.alertId ?? null;
    }
    expect(seen.size).toBe(1103);
    expect(await rows.byIds([...seen].slice(0, 3))).toHaveLength(3);
    expect(await rows.byIds([randomUUID()])).toEqual([]);
  });
});
