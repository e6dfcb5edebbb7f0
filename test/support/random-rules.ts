import type { Random } from '../../bench/random.ts';

type Json = Record<string, unknown>;

/** A random rule for `temp`, `setpoint`, `on` (true or false) and `mode` (a text), as the API has it. */
export function randomRule(random: Random, name: string): Json {
  const when = randomCondition(random, 2);
  const value = bound(random);
  const keeps = random.pick(['0s', '0s', '2s', '10s']);
  return {
    name,
    severity: 'low',
    when,
    for: random.pick(['0s', '0s', '1500ms', '4s', '20s']),
    keepFiringFor: keeps,
    late: random.pick(['current-only', 'current-only', 'ignore', 're-evaluate']),
    allowedLateness: random.pick(['0s', '0s', '0s', '3s']),
    groupBy: random.between(0, 1) < 0.15 ? 'mode' : null,
    levels:
      random.between(0, 1) < 0.4
        ? [
            { severity: 'high', when: { metric: 'temp', op: '>', value } },
            { severity: 'critical', when: { metric: 'temp', op: '>', value: value + 3 } },
          ]
        : [],
  };
}

function randomCondition(random: Random, depth: number): Json {
  const isNested = depth > 0 && random.between(0, 1) < 0.3;
  if (!isNested) return randomLeaf(random);
  const of = [randomCondition(random, depth - 1), randomCondition(random, depth - 1)];
  return random.pick<Json>([{ all: of }, { any: of }, { not: of[0] }]);
}

function bound(random: Random): number {
  return 80 + Math.round(random.between(-3, 3) * 2) / 2;
}

function randomLeaf(random: Random): Json {
  const value = bound(random);
  const temp = { metric: 'temp', op: '>', value };
  const window = random.pick(['3s', '10s', '1m']);
  const leaves: [Json, ...Json[]] = [
    temp,
    { ...temp, clear: value - 2 },
    { metric: 'temp', op: '<', value, clear: value + 1.5 },
    { ...temp, deadBand: 1 },
    { ...temp, of: { n: 3, m: 5 } },
    { ...temp, op: random.pick(['>=', '<=', '==', '!=']) },
    { ...temp, window, fn: random.pick(['avg', 'min', 'max', 'p95', 'p50']), clear: value - 1 },
    { metric: 'temp', window, fn: 'rate', op: '>', value: random.pick([0.05, 0.3]) },
    { metric: 'temp', window, fn: 'delta', op: '<', value: -1 },
    { metric: 'temp', window, fn: 'stddev', op: '>', value: 1, clear: 0.5 },
    { metric: 'temp', window, fn: 'sum', op: '>', value: 500 },
    { metric: 'temp', window, fn: 'count', op: random.pick(['<', '>']), value: 4 },
    { ...temp, samples: 5, fn: random.pick(['avg', 'max', 'rate', 'stddev']) },
    { metric: 'temp', stuck: random.pick(['3s', '12s']), within: 1 },
    { metric: 'setpoint', stuck: '30s' },
    { metric: 'temp', op: '>', other: 'setpoint', plus: 1 },
    { metric: 'temp', op: '>', other: 'temp', ago: random.pick(['5s', '30s']), times: 1.01 },
    { metric: 'on', op: '==', value: true },
    { metric: 'mode', op: random.pick(['==', '!=']), value: 'eco' },
    { metric: 'on', window, fn: 'count', op: '>=', value: 2 },
    { cel: `temp > ${value}.5 && (on || setpoint < 80.0)`.replace('.5.5', '.5') },
    { cel: 'mode == "eco" ? temp > setpoint : temp > setpoint + 2.0' },
    { event: 'door.open', holds: random.pick(['2s', '15s']) },
    { event: 'door.open' },
  ];
  return random.pick(leaves);
}
