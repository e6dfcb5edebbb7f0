import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  CommandDefinitionInvalidError,
  CommandDefinitionLimitError,
  CommandDefinitionNotFoundError,
} from '../../command-errors.ts';
import type { WantedDefinition } from '../../commands/definition.ts';
import { createCommandDefinitions, type CommandDefinitions } from '../../commands/definitions.ts';
import { writeAudit } from '../../registry/audit.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import {
  createOrganization,
  createTestRegistry,
  type TestOrganization,
} from '../support/registry.ts';

const LIMIT = 60;

let test: TestDatabase;
let registry: Registry;
let acme: TestOrganization;
let other: TestOrganization;
let definitions: CommandDefinitions;
let nowMs = 1_000_000;
beforeAll(async () => {
  test = await createTestDatabase();
  registry = createTestRegistry(test.database);
  acme = await createOrganization(test.database, 'acme');
  other = await createOrganization(test.database, 'other');
  definitions = create();
  for (const [slug, type] of [
    ['boiler-7', 'boiler'],
    ['plain', null],
  ] as const) {
    await registry.devices.create(acme.author, { slug, type });
  }
});
afterAll(() => test.drop());

function create(): CommandDefinitions {
  const { database } = test;
  return createCommandDefinitions({
    database,
    writeAudit,
    definitionsMax: LIMIT,
    now: () => nowMs,
  });
}

const wanted = (more: Partial<WantedDefinition> = {}): WantedDefinition => ({
  deviceType: 'boiler',
  name: 'relay',
  description: '',
  schema: { type: 'object', required: ['on'] },
  needsApproval: false,
  isRetrySafe: false,
  ttlMs: null,
  ...more,
});
const organizationId = () => acme.author.organizationId;
const clear = async (): Promise<void> => {
  await test.database.pool.query('DELETE FROM command_definition');
  nowMs += 10_000;
};

describe('a definition of a command', () => {
  it('is made, changed, found, and deleted, and each change stands in the audit trail', async () => {
    const made = await definitions.put(acme.author, wanted({ ttlMs: 60_000, isRetrySafe: true }));
    expect(made.isNew).toBe(true);
    expect(made.definition).toEqual({
      ...wanted({ ttlMs: 60_000, isRetrySafe: true }),
      updatedAt: expect.any(Date) as Date,
      updatedBy: 'test',
    });
    const changed = await definitions.put(acme.author, wanted({ needsApproval: true }));
    expect(changed).toMatchObject({
      isNew: false,
      definition: { needsApproval: true, ttlMs: null },
    });
    expect(await definitions.get(organizationId(), 'boiler', 'relay')).toEqual(changed.definition);
    await definitions.remove(acme.author, 'boiler', 'relay');
    const gone = definitions.get(organizationId(), 'boiler', 'relay');
    await expect(gone).rejects.toThrow(CommandDefinitionNotFoundError);
    const again = definitions.remove(acme.author, 'boiler', 'relay');
    await expect(again).rejects.toThrow(CommandDefinitionNotFoundError);
    const { rows } = await test.database.pool.query(
      `SELECT action FROM audit_event WHERE subject = 'command-definition/boiler/relay'
       ORDER BY audit_event_id`,
    );
    expect(rows.map(({ action }) => action)).toEqual([
      'command-definition.create',
      'command-definition.update',
      'command-definition.delete',
    ]);
  });

  it('is of one organization, and of no other', async () => {
    await definitions.put(acme.author, wanted());
    const foreign = other.author.organizationId;
    await expect(definitions.get(foreign, 'boiler', 'relay')).rejects.toThrow(
      CommandDefinitionNotFoundError,
    );
    await expect(definitions.remove(other.author, 'boiler', 'relay')).rejects.toThrow(
      CommandDefinitionNotFoundError,
    );
    const query = { organizationId: foreign, types: null, limit: 10, after: null };
    expect((await definitions.list(query)).rows).toEqual([]);
    expect((await definitions.forType(foreign, 'boiler', 'relay')).definition).toBeNull();
    expect((await definitions.forDevice(foreign, 'boiler-7', 'relay')).definition).toBeNull();
    await clear();
  });

  it('is refused with a schema that could run for ever, and with a name that people do not send', async () => {
    for (const schema of [
      { pattern: '^(a+)+$' },
      { properties: { a: { patternProperties: { '^(a+)+$': {} } } } },
      { $ref: 'https://example.com/schema.json' },
      { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } },
      { type: 'obj' },
      { properties: { a: 1 } },
      { title: 'a\0b' },
      { enum: ['\ud800'] },
      { properties: { 'a\udc00': {} } },
      { enum: Array.from({ length: 20_000 }, () => 'a') },
    ]) {
      const put = definitions.put(acme.author, wanted({ schema }));
      await expect(put, JSON.stringify(schema).slice(0, 60)).rejects.toThrow(
        CommandDefinitionInvalidError,
      );
    }
    for (const name of ['sys.ota', 'sys.rekey', 'sys.cancel', 'sys.x', 'Relay', '', 'x\0']) {
      const put = definitions.put(acme.author, wanted({ name }));
      await expect(put, name).rejects.toThrow(CommandDefinitionInvalidError);
    }
    const texts = { title: 'a \\u0000 \u{1f525} \\ud800', enum: ['\\\\u0000'] };
    const kept = await definitions.put(acme.author, wanted({ name: 'sys.reboot', schema: texts }));
    expect(kept.definition.schema).toEqual(texts);
    await clear();
  });

  it('is not one more than an organization may have, however many ask at once', async () => {
    const puts = Array.from({ length: LIMIT + 20 }, (_, index) =>
      definitions.put(acme.author, wanted({ name: `command${index}` })),
    );
    const outcomes = await Promise.allSettled(puts);
    const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
    expect(refused.length).toBe(20);
    for (const reason of refused) expect(reason).toBeInstanceOf(CommandDefinitionLimitError);
    await definitions.put(other.author, wanted());
    await clear();
  });

  it('stands in pages by type and name, those of any type first', async () => {
    const names = [
      [null, 'a'],
      [null, 'b'],
      ['boiler', 'a'],
      ['boiler', 'b'],
      ['pump', 'a'],
    ] as const;
    for (const [deviceType, name] of names.toReversed()) {
      await definitions.put(acme.author, wanted({ deviceType, name }));
    }
    const pageAfter = async (after: { deviceType: string | null; name: string } | null) =>
      definitions.list({ organizationId: organizationId(), types: null, limit: 2, after });
    const seen: unknown[] = [];
    let page = await pageAfter(null);
    for (;;) {
      seen.push(...page.rows.map(({ deviceType, name }) => [deviceType, name]));
      if (!page.hasMore) break;
      page = await pageAfter(page.rows.at(-1) ?? null);
    }
    expect(seen).toEqual(names);
    for (const [deviceType, count] of [
      [null, 2],
      ['boiler', 2],
      ['pump', 1],
      ['fridge', 0],
    ] as const) {
      const query = { organizationId: organizationId(), limit: 9, after: null };
      const { rows } = await definitions.list({ ...query, types: { deviceType } });
      expect(rows.length, String(deviceType)).toBe(count);
    }
    await clear();
  });
});

describe('what applies to a command', () => {
  it('is the definition of the type of its device, then that of any type', async () => {
    await definitions.put(acme.author, wanted({ deviceType: null, description: 'any' }));
    await definitions.put(acme.author, wanted({ description: 'boiler' }));
    const found = async (device: string) => {
      const { definition } = await definitions.forDevice(organizationId(), device, 'relay');
      return definition?.description;
    };
    expect(await found('boiler-7')).toBe('boiler');
    expect(await found('plain')).toBe('any');
    const ofType = await definitions.forType(organizationId(), 'pump', 'relay');
    expect(ofType.definition?.description).toBe('any');
    expect(ofType.compiled?.validate({}).length).toBe(1);
    expect(ofType.compiled?.validate({ on: 1 })).toEqual([]);
    await clear();
  });

  it('is a refusal for what is not defined where the type has definitions, and for no other type', async () => {
    await definitions.put(acme.author, wanted({ name: 'valve' }));
    await definitions.put(acme.author, wanted({ name: 'relay' }));
    await definitions.put(acme.author, wanted({ name: 'sys.reboot', needsApproval: true }));
    const applied = (device: string) => definitions.forDevice(organizationId(), device, 'dance');
    expect(await applied('boiler-7')).toMatchObject({
      deviceType: 'boiler',
      definition: null,
      defined: ['relay', 'valve'],
    });
    expect(await applied('plain')).toMatchObject({ deviceType: null, defined: [] });
    expect(await applied('nobody')).toMatchObject({ deviceType: null, defined: [] });
    await definitions.put(acme.author, wanted({ deviceType: null, name: 'dance' }));
    expect(await applied('boiler-7')).toMatchObject({ definition: { name: 'dance' }, defined: [] });
    await clear();
  });

  it('does not forbid others when only commands of Puback are defined', async () => {
    await definitions.put(acme.author, wanted({ name: 'sys.reboot', needsApproval: true }));
    const applied = await definitions.forDevice(organizationId(), 'boiler-7', 'dance');
    expect(applied).toMatchObject({ definition: null, defined: [] });
    await clear();
  });

  it('is not asked for again at once of an organization without definitions, but at once after a change', async () => {
    const relay = () => definitions.forDevice(organizationId(), 'boiler-7', 'relay');
    expect((await relay()).definition).toBeNull();
    const another = create();
    await another.put(acme.author, wanted());
    expect((await relay()).definition).toBeNull();
    nowMs += 2000;
    expect((await relay()).definition).not.toBeNull();
    await clear();
    expect((await relay()).definition).toBeNull();
    await definitions.put(acme.author, wanted());
    expect((await relay()).definition).not.toBeNull();
    await clear();
  });
});
