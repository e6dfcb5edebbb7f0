import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { Route } from '../../api/route.ts';
import { HOT_RULE, insertAlert } from '../support/alerts.ts';
import { createTestApi, type TestApi } from '../support/api.ts';

const HOSTILE = [
  '%00',
  'a%00b',
  '%ED%A0%80',
  '%0A',
  '__proto__',
  'constructor',
  `'; DROP TABLE alert; --`,
  '1e999',
  '-9007199254740993',
  '9999-12-31T23:59:59.999999Z',
  'x'.repeat(1000),
];
/** Of queries that are refused without it. */
const QUERIES: Readonly<Record<string, string>> = {
  device: 'mine',
  address: '203.0.113.7',
  metric: 'temp',
};

let t: TestApi;
let ids: Readonly<Record<string, string>>;
beforeAll(async () => {
  t = await createTestApi();
  await t.send('POST', '/api/v1/devices', { device: 'mine' });
  const ruleId: string = (await t.send('POST', '/api/v1/rules', HOT_RULE)).body.id;
  const alertId = await insertAlert(t, { rule: ruleId, device: 'mine', activeAt: Date.now() });
  ids = { device: 'mine', ruleId, alertId, version: '1' };
});
afterAll(() => t.stop());

function pathOf({ path }: Route, hostile: string | null): string {
  return path.replaceAll(/\{(\w+)\}/g, (_whole, name: string) => hostile ?? ids[name] ?? 'none');
}

function membersOf({ query }: Route): string[] {
  return query instanceof z.ZodObject ? Object.keys(query.shape) : [];
}

describe('texts in paths and queries', () => {
  it('never make an error of ours of a question, whatever they are [I-11, I-12]', async () => {
    const questions: string[] = [];
    for (const route of t.api.routes) {
      if (route.method !== 'GET') continue;
      for (const hostile of HOSTILE) {
        if (route.path.includes('{')) questions.push(pathOf(route, hostile));
        for (const member of membersOf(route)) {
          const others = membersOf(route).filter((each) => each !== member && each in QUERIES);
          const query = others.map((each) => `&${each}=${QUERIES[each]}`).join('');
          questions.push(`${pathOf(route, null)}?${member}=${hostile}${query}`);
        }
      }
    }
    expect(questions.length).toBeGreaterThan(500);
    const failed: string[] = [];
    for (const question of questions) {
      const { status } = await t.send('GET', question);
      if (status >= 500) failed.push(`${status} ${question.slice(0, 200)}`);
    }
    expect(failed).toEqual([]);
    expect(Object.hasOwn(Object.prototype, 'x')).toBe(false);
  });
});
