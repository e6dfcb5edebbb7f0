import { compileCel } from './cel-program.ts';
import type { Condition } from './condition.ts';

/** What the readings of a metric are. */
export type MetricKind = 'number' | 'bool' | 'text';

/** Something that does not hold, and where: a path with dots. */
export interface ConditionFault {
  readonly path: string;
  readonly message: string;
}

type Kinds = ReadonlyMap<string, MetricKind>;

const WORDS: Readonly<Record<MetricKind, string>> = {
  number: 'a number',
  bool: 'true or false',
  text: 'a text',
};
const KIND_OF_CEL = { double: 'number', bool: 'bool', string: 'text' } as const;

/** What of a condition does not fit the metrics that it names. Metrics that are not known fit. */
export function findKindFaults(condition: Condition, kinds: Kinds, path: string): ConditionFault[] {
  switch (condition.kind) {
    case 'all':
    case 'any':
      return condition.of.flatMap((part, index) =>
        findKindFaults(part, kinds, `${path}.${condition.kind}.${index}`),
      );
    case 'not':
      return findKindFaults(condition.of, kinds, `${path}.not`);
    case 'compare':
      return findCompareFaults(condition, kinds, path);
    case 'window':
      if (condition.fn === 'count') return [];
      return notText(condition.metric, kinds, `${path}.metric`);
    case 'stuck':
    case 'compareFleet':
      return notText(condition.metric, kinds, `${path}.metric`);
    case 'compareMetric':
      return findPairFaults(condition, kinds, path);
    case 'cel':
      return findCelFaults(condition.expression, kinds, `${path}.cel`);
    default:
      return [];
  }
}

function findCompareFaults(
  { metric, value }: Extract<Condition, { kind: 'compare' }>,
  kinds: Kinds,
  path: string,
): ConditionFault[] {
  const kind = kinds.get(metric);
  const given = kindOfValue(value);
  if (kind === undefined || kind === given) return [];
  return [{ path: `${path}.value`, message: `${metric} is ${WORDS[kind]}, not ${WORDS[given]}` }];
}

function findPairFaults(
  { metric, other }: Extract<Condition, { kind: 'compareMetric' }>,
  kinds: Kinds,
  path: string,
): ConditionFault[] {
  const faults = [
    ...notText(metric, kinds, `${path}.metric`),
    ...notText(other, kinds, `${path}.other`),
  ];
  const [kind, otherKind] = [kinds.get(metric), kinds.get(other)];
  if (faults.length > 0 || kind === undefined || otherKind === undefined) return faults;
  if (kind === otherKind) return [];
  const message = `${metric} is ${WORDS[kind]}, ${other} is ${WORDS[otherKind]}`;
  return [{ path: `${path}.other`, message }];
}

function findCelFaults(expression: string, kinds: Kinds, path: string): ConditionFault[] {
  return [...compileCel(expression).types].flatMap(([metric, type]) => {
    const kind = kinds.get(metric);
    if (kind === undefined || type === 'dyn' || KIND_OF_CEL[type] === kind) return [];
    const used = WORDS[KIND_OF_CEL[type]];
    return [{ path, message: `${metric} is ${WORDS[kind]}, it is used as ${used}` }];
  });
}

function notText(metric: string, kinds: Kinds, path: string): ConditionFault[] {
  if (kinds.get(metric) !== 'text') return [];
  return [{ path, message: `${metric} is a text: nothing can be computed of it` }];
}

function kindOfValue(value: number | boolean | string): MetricKind {
  if (typeof value === 'boolean') return 'bool';
  return typeof value === 'number' ? 'number' : 'text';
}
