import { Environment, type ASTNode } from '@marcbachmann/cel-js';
import type { ConnectionState } from '../compiled-rule.ts';
import { CONNECTION_STATES } from './condition.ts';
import { isNameText, isReserved } from '../../firmware-protocol/metric-name.ts';

/** Longest expression, in characters. */
export const CEL_CHARS_MAX = 1000;
/** Most parts of an expression. */
const NODES_MAX = 64;
/** Deepest nesting of an expression. */
const DEPTH_MAX = 12;
/** What is not a metric: `event` is the name of the event that is evaluated, or empty. */
const INPUTS = ['event', 'connection'] as const;
/** Refused wherever a name can stand. */
const FORBIDDEN_NAMES = new Set(['__proto__', 'constructor', 'prototype']);
/** Everything that can be called. Nothing here loops, builds text, or takes a pattern. */
const FUNCTIONS: Readonly<Record<string, number>> = { size: 1, abs: 1, min: 2, max: 2 };
const METHODS: Readonly<Record<string, number>> = {
  startsWith: 1,
  endsWith: 1,
  contains: 1,
  size: 0,
};

/** Operators between two parts that need no look of their own. No `%`: there are only doubles. */
const BINARY: ReadonlySet<string> = new Set(['&&', '||', '<', '<=', '>', '>=', '+', '-', '*', '/']);
const EVENT_HINT = 'event must be compared with a text, or be in a list of texts';

/** What an expression may name besides metrics. */
export type CelInput = (typeof INPUTS)[number];

/** An expression that is nothing but what is allowed. */
export interface CelSyntax {
  readonly root: ASTNode;
  readonly source: string;
  /** In the order in which they stand first. */
  readonly metrics: readonly string[];
  readonly inputs: ReadonlySet<CelInput>;
  /** What `event` is compared with. */
  readonly events: readonly string[];
}

/** An expression that cannot be a condition; the message says why, for people. */
export class CelFault extends Error {}

const PARSER = new Environment({
  limits: {
    maxAstNodes: NODES_MAX,
    maxDepth: DEPTH_MAX,
    maxListElements: NODES_MAX,
    maxMapEntries: 0,
    maxCallArguments: 3,
  },
});

/** Of a metric whose name has dots, the whole name. Null of what is none. */
export function metricOf(node: ASTNode): string | null {
  if (node.op === 'id') return isInput(node.args) ? null : node.args;
  if (node.op !== '.') return null;
  const [left, member] = node.args;
  const group = metricOf(left);
  return group === null ? null : `${group}.${member}`;
}

/** Parses an expression and looks at every part of it. @throws {CelFault} */
export function parseCel(source: string): CelSyntax {
  if (source.length > CEL_CHARS_MAX) {
    throw new CelFault(`must not be longer than ${CEL_CHARS_MAX} characters`);
  }
  const root = parse(source);
  const walk = new Walk();
  walk.visit(root);
  const { metrics, inputs, events } = walk;
  return { root, source, metrics: [...metrics], inputs, events: [...events] };
}

/** What the library says of an expression that it refuses, without its drawing of where. */
export function faultText(error: unknown): string {
  if (error instanceof CelFault) return error.message;
  if (error instanceof Error && 'summary' in error) return `is not valid: ${String(error.summary)}`;
  return 'is not an expression';
}

function parse(source: string): ASTNode {
  try {
    return PARSER.parse(source).ast;
  } catch (error) {
    throw new CelFault(faultText(error));
  }
}

function isInput(name: string): name is CelInput {
  return (INPUTS as readonly string[]).includes(name);
}

class Walk {
  readonly metrics = new Set<string>();
  readonly inputs = new Set<CelInput>();
  readonly events = new Set<string>();

  visit(node: ASTNode): void {
    for (const part of this.#partsOf(node)) this.visit(part);
  }

  #partsOf(node: ASTNode): readonly ASTNode[] {
    switch (node.op) {
      case 'value':
        return this.#literal(node.args);
      case 'id':
      case '.':
        return this.#name(node);
      case 'call':
        return this.#call(node.args[0], node.args[1], FUNCTIONS);
      case 'rcall':
        return [node.args[1], ...this.#call(node.args[0], node.args[2], METHODS)];
      case 'in':
        return this.#membership(node.args);
      case '==':
      case '!=':
        return this.#equality(node.args);
      case '!_':
      case '-_':
        return [node.args];
      case '?:':
        return node.args;
      default:
        return binaryParts(node);
    }
  }

  #literal(value: unknown): readonly ASTNode[] {
    const isAllowed = ['string', 'number', 'bigint', 'boolean'].includes(typeof value);
    if (!isAllowed) {
      throw new CelFault('must not have other literals than numbers, texts, true and false');
    }
    if (typeof value === 'bigint' && !Number.isSafeInteger(Number(value))) {
      throw new CelFault('must not have whole numbers beyond 2^53');
    }
    return [];
  }

  #name(node: ASTNode): readonly ASTNode[] {
    if (node.op === 'id' && isInput(node.args)) {
      if (node.args === 'event') throw new CelFault(EVENT_HINT);
      this.inputs.add(node.args);
      return [];
    }
    const metric = metricOf(node);
    if (metric === null) throw new CelFault('must not ask for a member of what is no metric');
    const names = metric.split('.');
    const forbidden = names.find((name) => FORBIDDEN_NAMES.has(name));
    if (forbidden !== undefined) throw new CelFault(`must not name ${forbidden}`);
    if (metric === 'device') throw new CelFault('device is said by the scope of the rule');
    if (!isNameText(metric) || isReserved(metric))
      throw new CelFault(`"${metric}" is no metric's name`);
    this.metrics.add(metric);
    return [];
  }

  #call(
    name: string,
    args: readonly ASTNode[],
    allowed: Readonly<Record<string, number>>,
  ): readonly ASTNode[] {
    if (!Object.hasOwn(allowed, name) || allowed[name] !== args.length) {
      throw new CelFault(`must not call ${name} with ${args.length} arguments`);
    }
    return args;
  }

  #equality(args: readonly [ASTNode, ASTNode]): readonly ASTNode[] {
    const [left, right] = args;
    if (isEvent(left)) return this.#ofEvent([right]);
    if (isEvent(right)) return this.#ofEvent([left]);
    if (isConnection(left)) return this.#ofConnection(args, [right]);
    if (isConnection(right)) return this.#ofConnection(args, [left]);
    return args;
  }

  #membership([item, list]: readonly [ASTNode, ASTNode]): readonly ASTNode[] {
    if (list.op !== 'list') throw new CelFault('must have a list of literals after "in"');
    if (list.args.some(({ op }) => op !== 'value')) {
      throw new CelFault('must have nothing but literals in a list');
    }
    if (isEvent(item)) return this.#ofEvent(list.args);
    const parts = [item, ...list.args];
    return isConnection(item) ? this.#ofConnection(parts, list.args) : parts;
  }

  /** A state that there is not would never be true, and nobody would see why. */
  #ofConnection(parts: readonly ASTNode[], states: readonly ASTNode[]): readonly ASTNode[] {
    for (const { op, args } of states) {
      if (op === 'value' && !CONNECTION_STATES.includes(args as ConnectionState)) {
        throw new CelFault(`connection must be compared with ${CONNECTION_STATES.join(', ')}`);
      }
    }
    return parts;
  }

  /** The names have to be known: a rule is told only of events that it waits for. */
  #ofEvent(names: readonly ASTNode[]): readonly ASTNode[] {
    this.inputs.add('event');
    for (const { op, args } of names) {
      if (op !== 'value' || typeof args !== 'string') {
        throw new CelFault(EVENT_HINT);
      }
      if (!isNameText(args)) throw new CelFault(`"${args.slice(0, 64)}" is no event's name`);
      this.events.add(args);
    }
    return names;
  }
}

function binaryParts({ op, args }: ASTNode): readonly ASTNode[] {
  if (!BINARY.has(op)) throw new CelFault(`must not use "${op}" here`);
  return args as [ASTNode, ASTNode];
}

function isConnection(node: ASTNode): boolean {
  return node.op === 'id' && node.args === 'connection';
}

function isEvent(node: ASTNode): boolean {
  return node.op === 'id' && node.args === 'event';
}
