import type { ASTNode } from '@marcbachmann/cel-js';
import { metricOf, type CelSyntax } from './cel-syntax.ts';

/** What an expression takes a metric to be; `dyn`: it compares for equality only, and takes it as it is. */
export type CelType = 'double' | 'bool' | 'string' | 'dyn';

type Known = Exclude<CelType, 'dyn'>;

const ARITHMETIC: ReadonlySet<string> = new Set(['-', '*', '/']);

/**
 * What each metric of an expression must be, by how it is used there: conditions are booleans, what stands
 * beside a text is a text, what is added or ordered is a number. Whether the expression agrees with itself
 * is then for its type check to say.
 */
export function inferTypes({ root, metrics }: CelSyntax): ReadonlyMap<string, CelType> {
  const inference = new Inference();
  // What is learnt of one metric may say something of another that stands beside it.
  for (let known = -1; known < inference.types.size;) {
    known = inference.types.size;
    inference.expect(root, 'bool');
  }
  return new Map(metrics.map((metric) => [metric, inference.types.get(metric) ?? 'dyn']));
}

class Inference {
  readonly types = new Map<string, Known>();

  /** Learns from a part that is expected to be of a type; null: nothing is known of it. */
  expect(node: ASTNode, type: Known | null): void {
    switch (node.op) {
      case 'value':
        return;
      case 'id':
      case '.':
        return this.#learn(node, type);
      case '!_':
      case '-_':
        return this.expect(node.args, node.op === '!_' ? 'bool' : 'double');
      case '?:':
        this.expect(node.args[0], 'bool');
        return this.#all(node.args.slice(1), type ?? this.#typeOf(node));
      case 'in':
        return this.#membership(node.args);
      case 'call':
        return this.#all(node.args[1], node.args[0] === 'size' ? 'string' : 'double');
      case 'rcall':
        return this.#all([node.args[1], ...node.args[2]], 'string');
      default:
        // Every operator that is left stands between two parts: `parseCel` allows no other.
        return this.#expectBoth(node.op, node.args as readonly ASTNode[]);
    }
  }

  #expectBoth(op: string, parts: readonly ASTNode[]): void {
    if (op === '&&' || op === '||') this.#all(parts, 'bool');
    else if (ARITHMETIC.has(op)) this.#all(parts, 'double');
    else if (op === '==' || op === '!=') this.#all(parts, this.#typeOfOne(parts));
    else this.#all(parts, this.#typeOfOne(parts) ?? 'double');
  }

  #learn(node: ASTNode, type: Known | null): void {
    const metric = metricOf(node);
    if (metric !== null && type !== null && !this.types.has(metric)) this.types.set(metric, type);
  }

  #all(nodes: readonly ASTNode[], type: Known | null): void {
    for (const node of nodes) this.expect(node, type);
  }

  #membership([item, list]: readonly [ASTNode, ASTNode]): void {
    const types = list.op === 'list' ? list.args : [];
    this.expect(item, this.#typeOfOne(types) ?? this.#typeOf(item));
  }

  #typeOfOne(nodes: readonly ASTNode[]): Known | null {
    for (const node of nodes) {
      const type = this.#typeOf(node);
      if (type !== null) return type;
    }
    return null;
  }

  /** Null of a metric of which nothing is known. */
  #typeOf(node: ASTNode): Known | null {
    switch (node.op) {
      case 'value':
        return typeOfLiteral(node.args);
      case 'id':
      case '.': {
        const metric = metricOf(node);
        return metric === null ? 'string' : (this.types.get(metric) ?? null);
      }
      case '+':
        return this.#typeOfOne(node.args) ?? 'double';
      case '?:':
        return this.#typeOfOne(node.args.slice(1));
      case '-_':
      case 'call':
        return 'double';
      case 'rcall':
        return node.args[0] === 'size' ? 'double' : 'bool';
      default:
        return ARITHMETIC.has(node.op) ? 'double' : 'bool';
    }
  }
}

function typeOfLiteral(value: unknown): Known {
  if (typeof value === 'boolean') return 'bool';
  return typeof value === 'string' ? 'string' : 'double';
}
