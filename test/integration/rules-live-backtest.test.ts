import { isDeepStrictEqual } from 'node:util';
import type { MqttClient } from 'mqtt';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createRandom, type Random } from '../../bench/random.ts';
import { microsOf } from '../../drizzle/timestamp-text.ts';
import { runBacktest } from '../../rules/backtest/backtest.ts';
import type { BacktestAlert } from '../../rules/backtest/tally.ts';
import { compileRule } from '../../rules/compile.ts';
import type { CompiledRule } from '../../rules/compiled-rule.ts';
import { formatRule, parseRule } from '../../rules/rule-schema.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { randomRule } from '../support/random-rules.ts';

/** Another seed, or more of them, finds more: `SEED=7 RULES=250 STEPS=200 npx vitest run …` */
const SEED = Number(process.env['SEED'] ?? 1);
const RULES = Number(process.env['RULES'] ?? 80);
const STEPS = Number(process.env['STEPS'] ?? 120);
const RESTARTS = Number(process.env['RESTARTS'] ?? 4);
/** The longest `allowedLateness` of random rules. */
const LATENESS_MICROS_MAX = 3_000_000;
const DEVICES = ['north', 'south', 'west'];

let app: TestApp;
/** The clock of the program, ahead of the real one; it moves with the readings alone. */
let nowMs = Math.floor(Date.now() / 1000) * 1000;
beforeEach(async () => {
  app = await startTestApp({}, { now: () => nowMs });
});
afterEach(() => app.stop());

interface Sender {
  client: MqttClient;
  readonly key: string;
  temp: number;
}

/** What a device says next: all of its metrics or some of them, in one message, and now and then an event. */
async function say(sender: Sender, random: Random): Promise<void> {
  const chance = (share: number): boolean => random.between(0, 1) < share;
  const values: Record<string, unknown> = {};
  sender.temp += random.between(-2, 2) + (80 - sender.temp) * 0.08;
  if (chance(0.9)) values['temp'] = chance(0.1) ? 80 : Math.round(sender.temp * 2) / 2;
  if (chance(0.2)) values['setpoint'] = Math.round(random.between(78, 82));
  if (chance(0.2)) values['on'] = chance(0.5);
  if (chance(0.1)) values['mode'] = random.pick(['eco', 'boost', 'off']);
  const sent: Promise<unknown>[] = [];
  const publish = (topic: string, body: unknown): void => {
    sent.push(sender.client.publishAsync(topic, JSON.stringify(body), { qos: 1 }));
  };
  if (Object.keys(values).length > 0) publish('v1/me/data', values);
  if (chance(0.05)) publish('v1/me/event/door.open', {});
  await Promise.all(sent);
}

/** What is held against one another: an alert that has fired. */
interface Fired {
  readonly alertId: string;
  readonly device: number;
  readonly groupKey: string;
  readonly active: number;
  readonly fired: number;
  readonly resolved: number | null;
}

/** Alerts that were recorded live, by rule. */
async function recorded(): Promise<Map<number, Fired[]>> {
  const { rows } = await app.testDatabase.database.pool.query<Fired & { rule_id: number }>(
    `SELECT rule_id, alert_id AS "alertId", device_id AS device, group_key AS "groupKey",
       ${microsOf('active_at')} AS active, ${microsOf('fired_at')} AS fired,
       ${microsOf('resolved_at')} AS resolved
     FROM alert WHERE fired_at IS NOT NULL AND NOT is_historical ORDER BY fired_at, alert_id`,
  );
  const byRule = new Map<number, Fired[]>();
  for (const { rule_id: ruleId, ...alert } of rows) {
    const alerts = byRule.get(ruleId) ?? [];
    alerts.push(alert);
    byRule.set(ruleId, alerts);
  }
  return byRule;
}

function firedOf(alert: BacktestAlert): Fired {
  const { alertId, deviceId: device, groupKey, activeMicros, firedMicros, resolvedMicros } = alert;
  return {
    alertId,
    device,
    groupKey,
    active: activeMicros,
    fired: firedMicros,
    resolved: resolvedMicros,
  };
}

async function makeRules(random: Random): Promise<CompiledRule[]> {
  const jsons = new Map<string, object>();
  for (let number = 1; number <= RULES; number += 1) {
    const rule = randomRule(random, `rule ${number}`);
    const { status, body } = await app.api('POST', '/api/v1/rules', rule);
    expect(status, JSON.stringify({ rule, body })).toBe(201);
    jsons.set(`rule ${number}`, rule);
  }
  const { rows } = await app.testDatabase.database.pool.query<RuleKeys>(
    `SELECT rule_id AS "ruleId", public_id AS "publicId", organization_id AS "organizationId",
       version, mode, name FROM alert_rule ORDER BY rule_id`,
  );
  return rows.map(({ name, ...keys }) =>
    compileRule({ ...keys, definition: parseRule(jsons.get(name)) }, { windowSamplesMax: 4096 }),
  );
}

interface RuleKeys {
  readonly ruleId: number;
  readonly publicId: string;
  readonly organizationId: number;
  readonly version: number;
  readonly mode: 'enabled';
  readonly name: string;
}

/** Has all devices send, and the program end and start again between. @returns the end of the period. */
async function live(senders: readonly Sender[], random: Random, restarts: number): Promise<number> {
  const stepsOfRun = Math.ceil(STEPS / (restarts + 1));
  for (let step = 0; step < STEPS; step += 1) {
    if (step > 0 && step % stepsOfRun === 0) await restart(senders);
    nowMs += random.pick([500, 1000, 1000, 2000, 3000, 700]);
    if (random.between(0, 1) < 0.02) nowMs += 40_000;
    const saying = senders.filter(() => random.between(0, 1) < 0.8);
    await Promise.all(saying.map((sender) => say(sender, random)));
  }
  const untilMicros = nowMs * 1000 + 30_000_000;
  // Timers that are due behind the last reading.
  nowMs += 60_000;
  return untilMicros;
}

async function restart(senders: readonly Sender[]): Promise<void> {
  await app.restart();
  for (const sender of senders) sender.client = await app.connect(sender.key);
}

describe('random rules over random readings of several devices', () => {
  it.each([
    ['live', 0],
    ['over restarts', RESTARTS],
  ])(
    'fire and resolve %s when a backtest of the same period says',
    async (_, restarts) => {
      const random = createRandom(SEED);
      const rules = await makeRules(random);
      const [{ organizationId }] = rules as [CompiledRule];
      const fromMicros = nowMs * 1000;
      const senders: Sender[] = [];
      for (const device of DEVICES) {
        const key = await app.addDevice(device);
        senders.push({ client: await app.connect(key), key, temp: 79 });
      }
      nowMs += 5000;
      const toMicros = await live(senders, random, restarts);
      // A replay ends earlier for a rule that waits for the order of readings.
      const period = { fromMicros, untilMicros: toMicros - LATENESS_MICROS_MAX };
      const request = { organizationId, rules, fromMicros, toMicros };
      const { tallies } = await runBacktest(app.testDatabase.database, request);
      const replayed = rules.map(({ ruleId, definition }, index) => ({
        ruleId,
        rule: formatRule(definition),
        alerts: shown((tallies[index]?.alerts ?? []).map(firedOf), period),
      }));
      const count = replayed.reduce((sum, { alerts }) => sum + alerts.length, 0);
      expect(count).toBeGreaterThan(5 * RULES);
      const lived = async (): Promise<typeof replayed> => {
        const byRule = await recorded();
        return replayed.map(({ ruleId, rule }) => {
          return { ruleId, rule, alerts: shown(byRule.get(ruleId) ?? [], period) };
        });
      };
      const isSame = async (): Promise<boolean> => isDeepStrictEqual(await lived(), replayed);
      // What was live may still be written; when it differs behind that, it is shown which rule it is of.
      await eventually('the same', isSame).catch(() => undefined);
      for (const [index, each] of (await lived()).entries()) {
        expect(each, JSON.stringify(each.rule)).toEqual(replayed[index]);
      }
    },
    120_000,
  );
});

/** Alerts in one line each, with times in seconds from the beginning. */
function shown(
  alerts: readonly Fired[],
  { fromMicros, untilMicros }: { readonly fromMicros: number; readonly untilMicros: number },
): string[] {
  // What holds before anything is sent has held since the device is there, or since the replay begins.
  const begun = alerts.filter(({ active, fired }) => active > fromMicros && fired < untilMicros);
  const lines = begun.map(({ alertId, device, groupKey, active, fired, resolved }) => {
    const ended = resolved !== null && resolved < untilMicros ? resolved : Infinity;
    const times = [active, fired, ended].map((at) => (at - fromMicros) / 1_000_000);
    return `${alertId} of ${device} ${groupKey} at ${times.join(' ')}`;
  });
  // Ids begin with the time.
  return lines.toSorted();
}
