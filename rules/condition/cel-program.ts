import { Environment, type ASTNode, type ParseResult } from '@marcbachmann/cel-js';
import { CelFault, faultText, metricOf, parseCel, type CelSyntax } from './cel-syntax.ts';
import { inferTypes, type CelType } from './cel-types.ts';

/** An expression that was checked and can be evaluated. */
export interface CelProgram {
  readonly syntax: CelSyntax;
  /** By metric; what the expression takes it to be. */
  readonly types: ReadonlyMap<string, CelType>;
  /** With `m0`, `m1`, … for the metrics in their order, `event` and `connection`. May throw. */
  readonly run: ParseResult;
}

/** What all expressions have; each gets its metrics besides. */
const BASIS = new Environment()
  .registerVariable('event', 'string')
  .registerVariable('connection', 'string')
  .registerFunction('abs(double): double', Math.abs)
  .registerFunction('min(double, double): double', Math.min)
  .registerFunction('max(double, double): double', Math.max);

/** A part of the source that is written in another way for the library. */
interface Replacement {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/**
 * Compiles an expression. Every number is a double: `temp > 80` is `temp > 80.0`. A metric is declared under
 * a name of its own, so that the dots in its name are not members of anything.
 * @throws {CelFault} what it says is for people.
 */
export function compileCel(source: string): CelProgram {
  const syntax = parseCel(source);
  const types = inferTypes(syntax);
  const environment = environmentFor(syntax, types);
  try {
    const run = environment.parse(rewritten(syntax));
    const { valid, type, error } = run.check();
    if (!valid) throw error ?? new CelFault('is not an expression');
    if (type !== 'bool') throw new CelFault(`must be a condition, it is a ${type}`);
    return { syntax, types, run };
  } catch (error) {
    throw new CelFault(faultText(error));
  }
}

/** The name under which the library knows a metric. */
export function inputName(index: number): string {
  return `m${index}`;
}

function environmentFor({ metrics }: CelSyntax, types: ReadonlyMap<string, CelType>): Environment {
  const environment = BASIS.clone();
  for (const [index, metric] of metrics.entries()) {
    environment.registerVariable(inputName(index), types.get(metric) ?? 'dyn');
  }
  return environment;
}

function rewritten(syntax: CelSyntax): string {
  const replacements: Replacement[] = [];
  collect(syntax.root, syntax, replacements);
  replacements.sort((one, other) => one.start - other.start);
  let text = '';
  let at = 0;
  for (const replacement of replacements) {
    text += syntax.source.slice(at, replacement.start) + replacement.text;
    at = replacement.end;
  }
  return text + syntax.source.slice(at);
}

function collect(node: ASTNode, syntax: CelSyntax, found: Replacement[]): void {
  const { metrics, source } = syntax;
  const { start, end } = node.range;
  const metric = metricOf(node);
  if (metric !== null) {
    if (source.slice(start, end).replaceAll(/\s/g, '') !== metric) {
      throw new CelFault(`must not have parentheses inside of the name ${metric}`);
    }
    found.push({ start, end, text: inputName(metrics.indexOf(metric)) });
  } else if (node.op === 'value') {
    if (typeof node.args === 'bigint') found.push({ start, end, text: `${Number(node.args)}.0` });
  } else {
    if (isSize(node)) {
      found.push({ start, end: start, text: 'double(' }, { start: end, end, text: ')' });
    }
    for (const part of flatParts(node.args)) collect(part, syntax, found);
  }
}

/** The one function whose result is not a double. */
function isSize({ op, args }: ASTNode): boolean {
  return (op === 'call' || op === 'rcall') && args[0] === 'size';
}

/** The nodes among what a node has: its operands lie at different depths, beside names. */
function flatParts(args: unknown): ASTNode[] {
  if (Array.isArray(args)) return args.flatMap(flatParts);
  return typeof args === 'object' && args !== null && 'op' in args ? [args as ASTNode] : [];
}
