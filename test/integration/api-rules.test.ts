import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RuleDefinition } from '../../rules/rule.ts';
import { RulesInForce } from '../../rules/rules-in-force.ts';
import { RuleInvalidError } from '../../rule-errors.ts';
import { HOT_RULE } from '../support/alerts.ts';
import { createTestApi, type TestApi } from '../support/api.ts';
import { ensureMetric } from '../support/readings.ts';

const RULES = '/api/v1/rules';
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

let t: TestApi;
let changes = 0;
let isSlow = false;
let refused: RuleDefinition[] = [];
beforeAll(async () => {
  t = await createTestApi({
    settings: { RULES_MAX: '12' },
    ruleHooks: {
      async onRulesChanged() {
        if (isSlow) await delay(50);
        changes += 1;
      },
      async beforeEnable(_organizationId, _publicId, rule) {
        if (rule.noiseBudgetPerDay !== 0) return;
        refused.push(rule);
        throw new RuleInvalidError([{ path: 'noiseBudgetPerDay', message: 'would be exceeded' }]);
      },
    },
  });
  await t.send('POST', '/api/v1/devices', { device: 'first', tags: ['hall'], type: 'boiler' });
  await ensureMetric(t.test.database, t.acme.author.organizationId, 'temp');
});
afterAll(() => t.stop());

let made = 0;
/** A rule with a name of its own. */
const draft = (rest: object = {}): Record<string, unknown> => {
  made += 1;
  return { ...HOT_RULE, name: `rule ${made}`, ...rest };
};
const remove = (id: string) => t.send('DELETE', `${RULES}/${id}`);
async function withRule(rest: object, work: (path: string, rule: Rule) => Promise<void>) {
  const { status, body } = await t.send('POST', RULES, draft(rest));
  expect(body).toMatchObject({ id: expect.any(String) as string });
  expect(status).toBe(201);
  await work(`${RULES}/${body.id}`, body);
  await remove(body.id);
}
function newRulesInForce(): RulesInForce {
  const log = pino({ level: 'silent' });
  return new RulesInForce({
    rules: t.rules,
    windowSamplesMax: 16,
    counters: { celFailures: 0 },
    log,
  });
}
async function activeRules() {
  const inForce = newRulesInForce();
  await inForce.refresh();
  return inForce.all;
}
interface Rule {
  id: string;
  name: string;
  version: number;
  warnings: string[];
  [member: string]: unknown;
}

describe('a rule', () => {
  it('is made with 201, an id, version 1, all defaults, and a Location that answers', async () => {
    const before = changes;
    const answer = await t.send('POST', RULES, { ...HOT_RULE, scope: { devices: ['first'] } });
    expect(answer.status).toBe(201);
    expect(changes).toBe(before + 1);
    const { warnings, ...rule } = answer.body;
    expect(warnings).toEqual([]);
    expect(rule).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      version: 1,
      name: 'boiler too hot',
      description: '',
      mode: 'enabled',
      severity: 'critical',
      scope: { devices: ['first'] },
      when: expect.objectContaining({ metric: 'temp', op: '>', value: 80, clear: 75 }) as object,
      levels: [],
      for: '2s',
      keepFiringFor: '0s',
      late: 'current-only',
      allowedLateness: '0s',
      groupBy: null,
      labels: {},
      annotations: HOT_RULE.annotations,
      suppressedBy: [],
      noiseBudgetPerDay: null,
      actions: [],
      createdAt: expect.stringMatching(TIME) as string,
      updatedAt: expect.stringMatching(TIME) as string,
      suspendedAt: null,
      suspendedReason: null,
    });
    const location = answer.headers.get('location') ?? '';
    expect(await t.send('GET', location)).toMatchObject({ status: 200, body: rule });
    await remove(rule.id);
  });

  it('that is wrong is refused with every fault and its place, and nothing is saved', async () => {
    const wrong = draft({ severity: 'terrible', for: 'a while', color: 'red' });
    for (const path of [RULES, `${RULES}/check`]) {
      const answer = await t.send('POST', path, wrong);
      expect(answer).toMatchObject({ status: 400, body: { code: 'RULE_INVALID' } });
      const faults: string[] = answer.body.errors;
      for (const place of ['severity', 'for', 'color']) {
        expect(
          faults.some((fault) => fault.startsWith(`${place}: `)),
          place,
        ).toBe(true);
      }
    }
    expect((await t.send('GET', RULES)).body.data).toEqual([]);
    for (const body of ['[]', '"x"', undefined]) {
      expect((await t.send('POST', RULES, body)).status).toBe(400);
    }
  });

  it.each(['id', 'organizationId', 'version', 'createdAt', 'suspendedAt', 'revision'])(
    'does not take "%s" from a body [A-14]',
    async (member) => {
      const made = await t.send('POST', RULES, draft({ [member]: 1 }));
      expect(made).toMatchObject({ status: 400, body: { code: 'RULE_INVALID' } });
      if (member === 'version') return;
      await withRule({}, async (path) => {
        const changed = await t.send('PATCH', path, { [member]: 1 });
        expect(changed).toMatchObject({ status: 400, body: { code: 'RULE_INVALID' } });
      });
    },
  );

  it('is checked against the kinds of the metrics', async () => {
    await t.test.database.pool.query(
      `INSERT INTO metric (organization_id, name, kind) VALUES ($1, 'door', 'text')`,
      [t.acme.author.organizationId],
    );
    const answer = await t.send(
      'POST',
      RULES,
      draft({ when: { metric: 'door', op: '>', value: 1 } }),
    );
    expect(answer).toMatchObject({ status: 400, body: { code: 'RULE_INVALID' } });
    expect(answer.body.errors.join()).toContain('door');
  });

  it('that names what is not there is saved with warnings', async () => {
    const strange = {
      when: {
        any: [
          { metric: 'tmp', op: '>', value: 80 },
          { metric: 'tmp', op: '>', fleet: 'avg', tag: 'hull', plus: 5 },
          { metric: 'tmp', op: '<', fleet: 'min', tag: 'hall' },
        ],
      },
      scope: { devices: ['first', 'frist'], tags: ['hall', 'hell'], types: ['boiler', 'broiler'] },
      suppressedBy: [{ rule: 'gateway down', device: 'gw-1' }],
    };
    await withRule(strange, async (_path, { warnings }) => {
      expect(warnings).toHaveLength(7);
      expect(warnings).toContain('when: no device has the tag "hull"');
      for (const name of ['tmp', 'frist', 'hell', 'broiler', 'gateway down', 'gw-1']) {
        expect(warnings.join('\n')).toContain(`"${name}"`);
      }
    });
  });

  it('is checked without being saved, and comes back with its defaults', async () => {
    const answer = await t.send('POST', `${RULES}/check`, draft({ annotations: {} }));
    expect(answer).toMatchObject({
      status: 200,
      body: { for: '2s', keepFiringFor: '0s', mode: 'enabled', warnings: [] },
    });
    expect((await t.send('GET', RULES)).body.data).toEqual([]);
  });

  it('that is nested too deep or too long is refused with 400 and harms nothing', async () => {
    const deep = `${'{"not":'.repeat(100_000)}{"metric":"a"}${'}'.repeat(100_000)}`;
    for (const when of [deep, `${'['.repeat(100_000)}${']'.repeat(100_000)}`]) {
      const body = `{"name":"deep","severity":"low","when":${when}}`;
      const answer = await t.send('POST', RULES, body);
      expect(answer).toMatchObject({ status: 400, body: { code: 'RULE_INVALID' } });
    }
    const long = draft({ description: 'x'.repeat(200_000) });
    expect(await t.send('POST', RULES, long)).toMatchObject({ status: 400 });
    const polluted = '{"name":"p","__proto__":{"severity":"low"}}';
    expect(await t.send('POST', RULES, polluted)).toMatchObject({ status: 400 });
  });

  it('has a name of its own, which is free again when it is deleted', async () => {
    await withRule({ name: 'unique' }, async (path, { id }) => {
      const again = await t.send('POST', RULES, draft({ name: 'unique' }));
      expect(again).toMatchObject({ status: 409, body: { code: 'RULE_EXISTS' } });
      await withRule({}, async (other) => {
        const renamed = await t.send('PATCH', other, { name: 'unique' });
        expect(renamed).toMatchObject({ status: 409, body: { code: 'RULE_EXISTS' } });
      });
      expect((await remove(id)).status).toBe(204);
      expect(await t.send('GET', path)).toMatchObject({
        status: 404,
        body: { code: 'RULE_NOT_FOUND' },
      });
    });
    await withRule({ name: 'unique' }, async () => undefined);
  });

  it('is refused beyond RULES_MAX, also when many are made at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 15 }, () => t.send('POST', RULES, draft())),
    );
    const kept = answers.filter(({ status }) => status === 201);
    expect(kept).toHaveLength(12);
    const others = answers.filter(({ status }) => status !== 201);
    expect(others.map(({ body }) => body.code)).toEqual(Array(3).fill('RULE_LIMIT'));
    for (const { body } of kept) await remove(body.id);
  });

  it('is listed by name, page by page, and by mode', async () => {
    const names = ['b', 'a', 'd', 'c', 'e'];
    const ids: string[] = [];
    for (const name of names) {
      const mode = name === 'c' ? 'shadow' : 'enabled';
      ids.push((await t.send('POST', RULES, draft({ name, mode }))).body.id);
    }
    const seen: string[] = [];
    for (let cursor = ''; ;) {
      const { body } = await t.send('GET', `${RULES}?limit=2${cursor}`);
      seen.push(...body.data.map(({ name }: Rule) => name));
      if (body.next === null) break;
      cursor = `&cursor=${body.next}`;
    }
    expect(seen).toEqual(['a', 'b', 'c', 'd', 'e']);
    const { body } = await t.send('GET', `${RULES}?mode=shadow`);
    expect(body.data.map(({ name }: Rule) => name)).toEqual(['c']);
    for (const id of ids) await remove(id);
  });

  it('is not found by a text that is no id, which the answer shows as far as that is safe', async () => {
    const text = `boiler\u0000\u202e${'x'.repeat(80)}`;
    const shown = `boiler${'x'.repeat(58)}`;
    const path = `${RULES}/${encodeURIComponent(text)}`;
    for (const answer of [
      await t.send('GET', path),
      await t.send('PATCH', path, { name: 'x' }),
      await t.send('DELETE', path),
      await t.send('POST', `${path}/enable`),
      await t.send('GET', `${path}/versions`),
      await t.send('GET', `${path}/versions/1`),
      await t.send('GET', `${path}/why-not?device=first`),
      await t.send('GET', `${path}/statistics`),
    ]) {
      expect(answer).toMatchObject({
        status: 404,
        body: { code: 'RULE_NOT_FOUND', detail: `no rule ${shown}; GET /api/v1/rules lists them` },
      });
    }
  });

  it.each([
    ['alerts', 'ALERT_NOT_FOUND'],
    ['receivers', 'RECEIVER_NOT_FOUND'],
    ['notification-routes', 'NOTIFICATION_ROUTE_NOT_FOUND'],
    ['notifications', 'NOTIFICATION_NOT_FOUND'],
    ['silences', 'SILENCE_NOT_FOUND'],
  ])('and its kin under %s are not found by a name, which the answer shows', async (kin, code) => {
    const answer = await t.send('GET', `/api/v1/${kin}/duty`);
    expect(answer).toMatchObject({ status: 404, body: { code } });
    expect(answer.body.detail).toContain(' duty; GET ');
  });

  it('to be backtested is not found by its name', async () => {
    const answer = await t.send('POST', `${RULES}/backtest`, { ruleId: 'boiler too hot' });
    expect(answer).toMatchObject({ status: 404, body: { code: 'RULE_NOT_FOUND' } });
    expect(answer.body.detail).toContain('no rule boiler too hot');
  });

  it('of another organization is not found, whatever is asked of it', async () => {
    await withRule({}, async (path, { id }) => {
      const key = t.other.adminKey;
      for (const [method, at, body] of [
        ['GET', path, undefined],
        ['PATCH', path, { for: '3s' }],
        ['DELETE', path, undefined],
        ['POST', `${path}/enable`, undefined],
        ['GET', `${path}/versions`, undefined],
        ['GET', `${path}/versions/1`, undefined],
        ['GET', `${path}/statistics`, undefined],
      ] as const) {
        const answer = await t.send(method, at, body, key);
        expect(answer, `${method} ${at}`).toMatchObject({ status: 404 });
        expect(answer.body.code).toBe('RULE_NOT_FOUND');
      }
      expect((await t.send('GET', RULES, undefined, key)).body.data).toEqual([]);
      expect((await t.send('GET', `${RULES}/nope`)).status).toBe(404);
      expect((await t.send('GET', `${RULES}/${id}`)).status).toBe(200);
    });
  });
});

describe('a change of a rule', () => {
  it('makes a new version, leaves what is not given, and keeps the old ones', async () => {
    await withRule({}, async (path) => {
      const one = (await t.send('GET', path)).body;
      const changed = await t.send('PATCH', path, { for: '5s', annotations: { a: 'b' } });
      expect(changed).toMatchObject({ status: 200, body: { version: 2, for: '5s' } });
      const { warnings: _, ...two } = changed.body;
      expect(two).toEqual({
        ...one,
        version: 2,
        for: '5s',
        annotations: { a: 'b' },
        updatedAt: two.updatedAt,
      });
      const back = await t.send('PATCH', path, { for: null });
      expect(back.body).toMatchObject({ version: 3, for: '0s', annotations: { a: 'b' } });
      const { body } = await t.send('GET', `${path}/versions`);
      expect(body.data.map(({ version }: Rule) => version)).toEqual([3, 2, 1]);
      expect(body.data[2]).toMatchObject({
        createdBy: expect.stringMatching(/^\w{8}$/) as string,
        rule: { for: '2s', annotations: HOT_RULE.annotations },
      });
      expect(await t.send('GET', `${path}/versions/2`)).toMatchObject({
        status: 200,
        body: body.data[1],
      });
      for (const version of ['4', '0', '999999999', '99999999999', 'two', '-1', '1.5']) {
        expect(await t.send('GET', `${path}/versions/${version}`)).toMatchObject({
          status: 404,
          body: { code: 'RULE_VERSION_NOT_FOUND' },
        });
      }
      const first = (await t.send('GET', `${path}/versions?limit=1`)).body;
      expect(first.data).toHaveLength(1);
      const next = (await t.send('GET', `${path}/versions?limit=1&cursor=${first.next}`)).body;
      expect(next.data[0].version).toBe(2);
    });
  });

  it('that says what is said already makes no version', async () => {
    await withRule({}, async (path) => {
      const same = { for: '2000ms', when: HOT_RULE.when, description: '' };
      expect((await t.send('PATCH', path, same)).body).toMatchObject({ version: 1, for: '2s' });
      expect((await t.send('PATCH', path, {})).status).toBe(400);
    });
  });

  it('made for another version than the one in force is refused with 409', async () => {
    await withRule({}, async (path) => {
      expect((await t.send('PATCH', path, { version: 1, for: '3s' })).status).toBe(200);
      const late = await t.send('PATCH', path, { version: 1, for: '4s' });
      expect(late).toMatchObject({ status: 409, body: { code: 'RULE_CHANGED' } });
      expect((await t.send('PATCH', path, { version: 2 })).status).toBe(400);
      const answers = await Promise.all(
        ['5s', '6s', '7s', '8s'].map((duration) => t.send('PATCH', path, { for: duration })),
      );
      const done = answers.filter(({ status }) => status === 200).length;
      expect(done).toBeGreaterThan(0);
      expect(answers.every(({ status }) => status === 200 || status === 409)).toBe(true);
      const { body } = await t.send('GET', `${path}/versions`);
      expect(body.data.map(({ version }: Rule) => version)).toHaveLength(2 + done);
    });
  });

  it('that is wrong is refused, and the rule stays', async () => {
    await withRule({}, async (path, rule) => {
      const answer = await t.send('PATCH', path, { when: { metric: 'temp', op: '~', value: 1 } });
      expect(answer).toMatchObject({ status: 400, body: { code: 'RULE_INVALID' } });
      expect((await t.send('PATCH', path, { severity: null })).status).toBe(400);
      expect((await t.send('GET', path)).body.updatedAt).toBe(rule['updatedAt']);
    });
  });

  it('of its mode makes no version and is told of', async () => {
    await withRule({}, async (path) => {
      for (const [verb, mode] of [
        ['shadow', 'shadow'],
        ['disable', 'disabled'],
        ['enable', 'enabled'],
      ]) {
        const before = changes;
        const answer = await t.send('POST', `${path}/${verb}`);
        expect(answer).toMatchObject({ status: 200, body: { mode, version: 1 } });
        expect(changes).toBe(before + 1);
      }
      const patched = await t.send('PATCH', path, { mode: 'shadow' });
      expect(patched.body).toMatchObject({ mode: 'shadow', version: 1 });
    });
  });

  it('that enables a rule above its noise budget is refused, and shadow mode is not', async () => {
    refused = [];
    const noisy = draft({ noiseBudgetPerDay: 0 });
    expect((await t.send('POST', RULES, noisy)).status).toBe(400);
    await withRule({ noiseBudgetPerDay: 0, mode: 'shadow' }, async (path) => {
      expect((await t.send('POST', `${path}/enable`)).status).toBe(400);
      expect((await t.send('PATCH', path, { mode: 'enabled' })).status).toBe(400);
      expect((await t.send('GET', path)).body.mode).toBe('shadow');
      const free = { mode: 'enabled', noiseBudgetPerDay: null };
      expect((await t.send('PATCH', path, free)).status).toBe(200);
    });
    expect(refused.map(({ mode }) => mode)).toEqual(['enabled', 'enabled', 'enabled']);
  });

  it('is in the audit trail', async () => {
    await withRule({}, async (path, { id }) => {
      await t.send('PATCH', path, { for: '9s' });
      await t.send('POST', `${path}/shadow`);
      await remove(id);
      const { rows } = await t.test.database.pool.query(
        'SELECT action, change FROM audit_event WHERE subject = $1 ORDER BY audit_event_id',
        [`rule/${id}`],
      );
      expect(rows.map(({ action }) => action)).toEqual([
        'rule.create',
        'rule.update',
        'rule.mode',
        'rule.delete',
      ]);
      expect(rows[1].change).toMatchObject({ version: 2, mode: 'enabled' });
    });
  });
});

describe('the rules that are evaluated', () => {
  it('are those that are enabled or in shadow mode, neither deleted nor suspended', async () => {
    const ids: string[] = [];
    for (const mode of ['enabled', 'shadow', 'disabled', 'enabled', 'enabled']) {
      ids.push((await t.send('POST', RULES, draft({ mode }))).body.id);
    }
    await remove(ids[3] ?? '');
    const all = await activeRules();
    const suspended = all.find(({ publicId }) => publicId === ids[4]);
    await t.rules.suspend(suspended?.ruleId ?? 0, 'it takes 3 ms');
    const active = await activeRules();
    expect(active.map(({ publicId }) => publicId)).toEqual(ids.slice(0, 2));
    expect(active[0]).toMatchObject({
      organizationId: t.acme.author.organizationId,
      version: 1,
      mode: 'enabled',
      definition: { forMicros: 2_000_000, mode: 'enabled' },
    });
    expect(active[1]).toMatchObject({ mode: 'shadow', definition: { mode: 'shadow' } });
    for (const id of ids) await remove(id);
  });

  it('say of those that are there and are not, why', async () => {
    const ids: string[] = [];
    for (let at = 0; at < 4; at += 1) ids.push((await t.send('POST', RULES, draft())).body.id);
    const inForce = newRulesInForce();
    await inForce.refresh();
    const keys = inForce.all.map(({ ruleId }) => ruleId);
    await t.send('POST', `${RULES}/${ids[0]}/disable`);
    await t.rules.suspend(keys[1] ?? 0, 'slow');
    await remove(ids[2] ?? '');
    for (const read of [inForce, newRulesInForce()]) {
      expect(await read.refresh()).toBe(true);
      expect(keys.map((ruleId) => read.goneReason(ruleId)).slice(0, 3)).toEqual([
        'rule_disabled',
        'rule_suspended',
        'rule_deleted',
      ]);
      expect(read.all.map(({ ruleId }) => ruleId)).toEqual([keys[3]]);
    }
    for (const id of ids) await remove(id);
  });

  it('are told of before a change of them is answered', async () => {
    isSlow = true;
    const before = changes;
    const { body } = await t.send('POST', RULES, draft());
    expect(changes).toBe(before + 1);
    isSlow = false;
    await remove(body.id);
  });

  it('have their new mode and version also when they were read before', async () => {
    await withRule({}, async (path, { id }) => {
      const active = async () => (await activeRules()).find((of) => of.publicId === id);
      expect(await active()).toMatchObject({ definition: { mode: 'enabled', forMicros: 2e6 } });
      await t.send('POST', `${path}/shadow`);
      expect(await active()).toMatchObject({ mode: 'shadow', definition: { mode: 'shadow' } });
      await t.send('PATCH', path, { for: '3s', name: 'renamed' });
      const definition = { mode: 'shadow', forMicros: 3e6, name: 'renamed' };
      expect(await active()).toMatchObject({ version: 2, definition });
    });
  });

  it('are read again after every committed change, also one that commits late', async () => {
    const inForce = newRulesInForce();
    const publicIds = () => inForce.all.map(({ publicId }) => publicId);
    await withRule({}, async (path, { id }) => {
      expect(await inForce.refresh()).toBe(true);
      const [before] = inForce.all;
      await t.send('PATCH', path, { for: '3s' });
      expect(await inForce.refresh()).toBe(true);
      expect(inForce.all[0]).toMatchObject({ version: 2 });
      expect(inForce.all[0]).not.toBe(before);
      const client = await t.test.database.pool.connect();
      await client.query('BEGIN');
      await client.query(`UPDATE alert_rule SET mode = 'disabled' WHERE public_id = $1`, [id]);
      await withRule({}, async (_path, other) => {
        expect(await inForce.refresh()).toBe(true);
        expect(publicIds()).toEqual([id, other.id]);
        await client.query('COMMIT');
        client.release();
        expect(await inForce.refresh()).toBe(true);
        expect(publicIds()).toEqual([other.id]);
      });
      expect(await inForce.refresh()).toBe(true);
      expect(await inForce.refresh()).toBe(false);
    });
    expect(inForce.all).toEqual([]);
  });

  it('stay the same objects while others change, and are not read again', async () => {
    await withRule({}, async () => {
      const asked: number[] = [];
      const inForce = new RulesInForce({
        rules: {
          async changes(known) {
            const found = await t.rules.changes(known);
            asked.push(found.rules.length);
            return found;
          },
        },
        windowSamplesMax: 16,
        counters: { celFailures: 0 },
        log: pino({ level: 'silent' }),
      });
      await inForce.refresh();
      const [before] = inForce.all;
      await withRule({}, async () => {
        // Who asks before a read has begun shares it.
        await Promise.all([inForce.refresh(), inForce.refresh(), inForce.refresh()]);
        expect(inForce.all).toHaveLength(2);
        expect(inForce.all[0]).toBe(before);
        expect(asked.slice(1)).toEqual([1]);
      });
    });
  });

  it('are forgotten when they are gone without a trace', async () => {
    const inForce = newRulesInForce();
    await withRule({}, async (_path, { id }) => {
      await inForce.refresh();
      const gone = `(SELECT rule_id FROM alert_rule WHERE public_id = '${id}')`;
      await t.test.database.pool.query(`DELETE FROM alert_rule_version WHERE rule_id = ${gone}`);
      await t.test.database.pool.query(`DELETE FROM alert_rule WHERE public_id = '${id}'`);
      expect(await inForce.refresh()).toBe(true);
      expect(inForce.all).toEqual([]);
      expect(await inForce.refresh()).toBe(false);
    });
  });

  it('are not those of an organization that is suspended', async () => {
    await withRule({}, async () => {
      const inForce = newRulesInForce();
      const suspend = (at: string) =>
        t.test.database.pool.query(
          `UPDATE organization SET suspended_at = ${at} WHERE slug = 'acme'`,
        );
      await inForce.refresh();
      const [rule] = inForce.all;
      await suspend('now()');
      expect(await inForce.refresh()).toBe(true);
      expect(inForce.all).toEqual([]);
      expect(inForce.goneReason(rule?.ruleId ?? 0)).toBe('rule_suspended');
      await suspend('NULL');
      expect(await inForce.refresh()).toBe(true);
      expect(inForce.all).toEqual([rule]);
      inForce.suspendOrganization(t.acme.author.organizationId);
      expect(inForce.all).toEqual([]);
      expect(await inForce.refresh()).toBe(true);
      expect(inForce.all).toEqual([rule]);
    });
  });

  it('leave one out that this program cannot read, and go on with the others', async () => {
    await withRule({}, async (_path, { id }) => {
      await withRule({}, async (_other, other) => {
        await t.test.database.pool.query(
          `UPDATE alert_rule_version SET definition = '{"newer":true}'
           WHERE rule_id = (SELECT rule_id FROM alert_rule WHERE public_id = $1)`,
          [id],
        );
        const active = await activeRules();
        expect(active.map(({ publicId }) => publicId)).toEqual([other.id]);
      });
    });
  });
});

describe('a suspended rule', () => {
  it('says why and since when, once, and is evaluated again when people touch it', async () => {
    for (const resume of [
      (path: string) => t.send('POST', `${path}/enable`),
      (path: string) => t.send('PATCH', path, { for: '3s' }),
    ]) {
      await withRule({}, async (path, { id }) => {
        const rule = (await activeRules()).find(({ publicId }) => publicId === id);
        const before = changes;
        await t.rules.suspend(rule?.ruleId ?? 0, 'it takes 3 ms');
        await t.rules.suspend(rule?.ruleId ?? 0, 'again');
        expect(changes).toBe(before + 1);
        const found = await t.send('GET', path);
        expect(found.body).toMatchObject({
          mode: 'enabled',
          suspendedAt: expect.stringMatching(TIME) as string,
          suspendedReason: 'it takes 3 ms',
        });
        const { body } = await resume(path);
        expect(body).toMatchObject({ suspendedAt: null, suspendedReason: null });
        const { rows } = await t.test.database.pool.query(
          `SELECT actor, change FROM audit_event WHERE subject = $1 AND action = 'rule.suspend'`,
          [`rule/${id}`],
        );
        expect(rows).toMatchObject([
          { actor: 'puback', change: { suspendedReason: 'it takes 3 ms' } },
        ]);
      });
    }
  });
});
