import { afterAll, beforeAll, expect, it } from 'vitest';
import { inTransaction } from '../../drizzle/transaction.ts';
import { auditStatement, writeAudit } from '../../registry/audit.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization } from '../support/registry.ts';

let test: TestDatabase;
let organizationId: number;
beforeAll(async () => {
  test = await createTestDatabase();
  ({ organizationId } = (await createOrganization(test.database, 'acme')).author);
});
afterAll(() => test.drop());

it.each([
  ['without a change', undefined],
  ['with a change', { command: 'relay', expiresAt: new Date(0), needsApproval: false }],
  ['with what has to be escaped', { text: 'it\'s \\ "$1" \\n; --', none: null, left: undefined }],
])('a statement of the audit trail writes the same row, %s', async (what, change) => {
  const subject = `device/it's \\ ${what}`;
  const entry = { organizationId, actor: 'a\\b', action: 'command.create', subject };
  const asked = change === undefined ? entry : { ...entry, change };
  await inTransaction(test.database.pool, async ({ orm, client }) => {
    await writeAudit(orm, asked);
    await client.query(auditStatement(asked));
  });
  const { rows } = await test.database.pool.query(
    `SELECT organization_id, actor, action, subject, change, change IS NULL AS is_unchanged, occurred_at
     FROM audit_event WHERE subject = $1`,
    [subject],
  );
  expect(rows).toHaveLength(2);
  expect(rows[1]).toEqual(rows[0]);
  expect(rows[0]).toMatchObject({ actor: 'a\\b', is_unchanged: change === undefined });
});
