import { describe, expect, it } from 'vitest';
import { jsonLines } from '../../api/json-lines.ts';
import { BacktestBusyError } from '../../rule-errors.ts';

const silent = { error: () => undefined };

async function linesOf(stream: AsyncIterable<Buffer | string>): Promise<unknown[]> {
  let text = '';
  for await (const chunk of stream) text += String(chunk);
  expect(text.endsWith('\n')).toBe(true);
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
}

describe('an answer line by line', () => {
  it('ends with the result', async () => {
    expect(await linesOf(jsonLines(async () => 7, silent))).toEqual([{ result: 7 }]);
  });

  it('tells the latest progress while it is under way', async () => {
    const lines = await linesOf(
      jsonLines(async ({ onProgress }) => {
        for (const done of [1, 2, 3]) onProgress({ done });
        await new Promise((resolve) => setTimeout(resolve, 400));
        return 'end';
      }, silent),
    );
    expect(lines).toEqual([{ progress: { done: 3 } }, { result: 'end' }]);
  });

  it('ends with a problem when the work fails', async () => {
    const failing = jsonLines(async () => Promise.reject(new BacktestBusyError()), silent);
    expect(await linesOf(failing)).toMatchObject([
      { error: { code: 'BACKTEST_BUSY', status: 503 } },
    ]);
  });

  it('tells nothing of an unexpected error but an id, under which the log has it', async () => {
    const logged: unknown[] = [];
    const log = { error: (fields: unknown) => void logged.push(fields) };
    const broken = new Error('secret details');
    const lines = await linesOf(jsonLines(async () => Promise.reject(broken), log));
    expect(JSON.stringify(lines)).not.toContain('secret');
    const [{ requestId }] = logged as [{ requestId: string }];
    expect(logged).toEqual([{ err: broken, requestId }]);
    expect(lines).toMatchObject([{ error: { code: 'INTERNAL', requestId } }]);
  });

  it('ends the work when nobody reads on', async () => {
    const ended = new Promise<string>((resolve) => {
      const stream = jsonLines(
        ({ signal, onProgress }) =>
          new Promise(() => {
            onProgress({ done: 1 });
            signal.addEventListener('abort', () => resolve('aborted'));
          }),
        silent,
      );
      stream.on('data', () => stream.destroy());
    });
    expect(await ended).toBe('aborted');
  });
});
