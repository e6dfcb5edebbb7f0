import { startGenerator } from './generator-process.ts';
import type { GeneratorResult } from './generator.ts';
import type { PayloadKind } from './publish-ring.ts';

/** One run of the load generator. */
export interface LoadRun {
  readonly mqttUrl: string;
  /** One device and key for each connection. */
  readonly keysFile: string;
  readonly payload: PayloadKind;
  readonly connections: number;
  /** Messages in flight on each connection. */
  readonly window: number;
  readonly warmupS: number;
  readonly measuredS: number;
  /** Messages a second in all; without it as fast as they are acknowledged. */
  readonly ratePerS?: number;
  /** Topic name; `{device}` is replaced. */
  readonly topic?: string;
}

/**
 * Runs the generator and marks the beginning and the end of what it measures.
 * @param mark called at both moments; what it reads should be read at once
 * @throws {ToolFailedError} when the generator fails, with what it said.
 */
export async function runLoad<T>(
  run: LoadRun,
  mark: () => Promise<T>,
): Promise<{ generator: GeneratorResult; before: T; after: T }> {
  const marks: { before?: Promise<T>; after?: Promise<T> } = {};
  const options = [
    ...['--mqtt-url', run.mqttUrl, '--keys', run.keysFile, '--payload', run.payload],
    ...['--connections', String(run.connections), '--window', String(run.window)],
    ...['--warmup', String(run.warmupS), '--seconds', String(run.measuredS)],
    ...(run.ratePerS === undefined ? [] : ['--rate', String(Math.round(run.ratePerS))]),
    ...(run.topic === undefined ? [] : ['--topic', run.topic]),
  ];
  const generator = await startGenerator(options, ({ phase }) => {
    if (phase === 'measuring') marks.before ??= mark();
    if (phase === 'measured') marks.after ??= mark();
  }).result;
  return {
    generator,
    before: await (marks.before ?? mark()),
    after: await (marks.after ?? mark()),
  };
}
