import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { claimDue } from '../../rules/notify/retry.ts';
import { NotificationTestLimitError } from '../../rule-errors.ts';
import { createTestNotify, type TestNotify } from '../support/notify.ts';

let t: TestNotify;
beforeEach(async () => {
  t = await createTestNotify();
});
afterEach(() => t.stop());

describe('tests of receivers', () => {
  it('are ten a minute, however many are asked for at once', async () => {
    const receiverId = await t.tell();
    const all = await Promise.allSettled(
      Array.from({ length: 40 }, () => t.stores.test(t.acme.author, receiverId)),
    );
    const refused = all.filter((each) => each.status === 'rejected');
    expect(refused).toHaveLength(30);
    for (const { reason } of refused) expect(reason).toBeInstanceOf(NotificationTestLimitError);
    expect(t.sent).toHaveLength(10);
  });

  it('are in the audit trail, with who asked for them', async () => {
    const receiverId = await t.tell();
    const { notificationId } = await t.stores.test(t.acme.author, receiverId);
    const { rows } = await t.test.database.pool.query(
      `SELECT actor, subject, change FROM audit_event WHERE action = 'receiver.test'`,
    );
    const { actor } = t.acme.author;
    expect(rows).toEqual([
      { actor, subject: `receiver/${receiverId}`, change: { notificationId } },
    ]);
  });
});

describe('a notification that was given up', () => {
  it('is not sent again to a receiver that is deleted', async () => {
    const receiverId = await t.tell();
    await t.fire();
    await t.decide();
    const { author } = t.acme;
    for (const { routeId } of await t.stores.routes.list(author.organizationId)) {
      await t.stores.routes.remove(author, routeId);
    }
    await t.stores.receivers.remove(author, receiverId);
    const [dead] = await t.messages();
    expect(dead).toMatchObject({ state: 'dead', reason: 'the receiver is deleted' });
    const again = t.stores.notifications.resend(author, dead?.notification_id ?? '');
    await expect(again).rejects.toThrow(`no receiver ${receiverId}`);
    expect(await t.messages()).toHaveLength(1);
  });
});

describe('what waits to be sent', () => {
  const room = {
    claimsMax: 100,
    perReceiverMax: 100,
    withoutReceivers: [],
    singleReceivers: [],
    withoutMessages: [],
  };

  it('is looked for in the oldest message of each group, whatever waits behind', async () => {
    const receiverId = await t.tell();
    const { organizationId } = t.acme.author;
    const { pool } = t.test.database;
    await pool.query(
      `INSERT INTO notification (notification_id, organization_id, receiver_id, group_key, kind,
         state, content, next_attempt_at)
       SELECT gen_random_uuid(), $1, $2, 'group-' || number % 7, 'alert', 'waiting', '{}', $3
       FROM generate_series(1, 20000) AS number`,
      [organizationId, receiverId, new Date(t.nowMs - 1000)],
    );
    await pool.query('VACUUM ANALYZE notification');
    const { rows: oldest } = await pool.query<{ notification_id: string }>(
      `SELECT min(notification_id::text) AS notification_id FROM notification GROUP BY group_key`,
    );
    const claims = await claimDue(t.test.database, t.limits, room, t.nowMs);
    expect(claims.map(({ notificationId }) => notificationId).toSorted()).toEqual(
      oldest.map((row) => row.notification_id).toSorted(),
    );
  });
});
