import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ApiClient } from '../../bench/api-client.ts';
import { provisionFleet } from '../../bench/fleet-keys.ts';
import { rekeyFleet, type RekeyOutcome } from '../../bench/rekey-run.ts';
import { startTestApp, type TestApp } from '../support/app.ts';

const BOARDS = 60;
const PLAN = {
  tag: 'fleet',
  pace: { readingMs: 250, darkMs: 150, sleepMs: 1500 },
  canaries: 2,
  waves: [100],
  settle: '0s',
  deviceTimeout: '12s',
  timeoutMs: 30_000,
};

let app: TestApp;
let outcome: RekeyOutcome;

beforeAll(async () => {
  app = await startTestApp({ KEY_GRACE_S: '4' });
  const { httpUrl, mqttUrl } = app.addresses;
  const api = new ApiClient(httpUrl, app.adminKey);
  const name = { prefix: 'board', keyName: 'first', tags: [PLAN.tag] };
  const boards = await provisionFleet(api, name, BOARDS);
  const target = { api, mqttUrl, databaseUrl: app.testDatabase.url };
  const progress = { step: () => undefined, show: () => undefined };
  outcome = await rekeyFleet(target, boards, { plan: PLAN, load: null, progress });
}, 120_000);
afterAll(async () => {
  await app.stop();
});

describe('a fleet whose keys are changed while it publishes', () => {
  it('loses no reading, and has none twice', () => {
    const { acknowledged, ...faults } = outcome.readings;
    expect(acknowledged).toBeGreaterThan(BOARDS * 10);
    expect(faults).toEqual({ missing: 0, twice: 0, different: 0, unacknowledged: 0 });
    expect(outcome.resent).toBeGreaterThan(0);
  });

  it('has all boards connected with new keys but the one that does not answer', () => {
    expect(outcome.rekeyed).toBe(BOARDS - 1);
    expect(outcome.deafConnected).toBe(1);
    const { state, devices, others } = outcome.campaign;
    expect({ state, devices }).toMatchObject({
      state: 'completed',
      devices: { succeeded: BOARDS - 1, failed: 1 },
    });
    // Its command and its time in the campaign end together.
    expect(others).toEqual([expect.stringMatching(/^board-060 (timeout|expired)$/)]);
  });

  it('locks no board out, whatever happens to it', () => {
    const { fates, counts } = outcome;
    expect([...counts.lockedOut]).toEqual([]);
    expect(counts.denied).toBe(0);
    const three = { cut_asking: 3, answer_lost: 3, forgets: 3, power_cut: 3 };
    expect(fates).toMatchObject({ ...three, falls_back: 3, asleep: 3, deaf: 1 });
    expect(outcome.campaign.commands).toMatchObject({ succeeded: BOARDS - 1 });
  });

  it('lets old keys in within their grace and refuses each of them behind it', () => {
    const { oldKeys, counts, fates } = outcome;
    expect(counts.oldKeyAccepted).toBe(fates['falls_back']);
    // Each first key, and those whose answers were lost.
    expect(oldKeys.tried).toBeGreaterThanOrEqual(BOARDS - 1 + 6);
    expect(oldKeys).toMatchObject({ refused: oldKeys.tried, others: [] });
  });
});
