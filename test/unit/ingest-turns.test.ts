import { describe, expect, it, vi } from 'vitest';
import { Turns } from '../../ingest/turns.ts';

/** Work that ends when it is told to, and what has begun. */
function createWork(limits = { all: 2, waitMs: 1000 }) {
  const turns = new Turns(limits);
  const begun: string[] = [];
  const ends = new Map<string, (fails?: boolean) => void>();
  const ask = (organizationId: number, name: string): Promise<string> =>
    turns.run(organizationId, () => {
      begun.push(name);
      return new Promise((resolve, reject) => {
        ends.set(name, (fails) => (fails === true ? reject(new Error(name)) : resolve(name)));
      });
    });
  return { ask, begun, end: (name: string, fails?: boolean) => ends.get(name)?.(fails) };
}

const settle = () => vi.advanceTimersByTimeAsync(0);

describe('turns', () => {
  it('are one at a time for an organization and a bounded number in all, in order', async () => {
    vi.useFakeTimers();
    const { ask, begun, end } = createWork();
    const all = [ask(1, 'a'), ask(1, 'b'), ask(2, 'c'), ask(3, 'd'), ask(1, 'e')];
    await settle();
    expect(begun).toEqual(['a', 'c']);
    end('c');
    await settle();
    expect(begun).toEqual(['a', 'c', 'd']);
    end('a');
    await settle();
    expect(begun).toEqual(['a', 'c', 'd', 'b']);
    for (const name of ['d', 'b']) end(name);
    await settle();
    end('e');
    expect(await Promise.all(all)).toEqual(['a', 'b', 'c', 'd', 'e']);
    vi.useRealTimers();
  });

  it('that do not come in time are refused, and a failure gives its turn back', async () => {
    vi.useFakeTimers();
    const { ask, begun, end } = createWork();
    const failing = ask(1, 'a').catch((error: Error) => error.message);
    const late = ask(1, 'b').catch((error: { code: string }) => error.code);
    await vi.advanceTimersByTimeAsync(1000);
    expect(await late).toBe('QUESTIONS_BUSY');
    end('a', true);
    expect(await failing).toBe('a');
    void ask(1, 'c');
    await settle();
    expect(begun).toEqual(['a', 'c']);
    vi.useRealTimers();
  });
});
