import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Pacer } from '../../broker/pacer.ts';
import type { PresencePage } from '../../broker/presence/presence-port.ts';
import type { StatusPage } from '../../broker/presence/presence.ts';
import { StatusReads } from '../../broker/presence/status-reads.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('Pacer', () => {
  /** Whether a promise has settled within so many ms. */
  async function isDoneWithin(done: Promise<void>, ms: number): Promise<boolean> {
    let isDone = false;
    void done.then(() => {
      isDone = true;
    });
    await vi.advanceTimersByTimeAsync(ms);
    return isDone;
  }

  it('does not hold up who asks for little', async () => {
    const pacer = new Pacer();
    expect(
      await isDoneWithin(
        pacer.pace(1, async () => 10),
        0,
      ),
    ).toBe(true);
  });

  it('makes an organization rest twenty times as long as its filters cost, over all connections', async () => {
    const pacer = new Pacer();
    // 1000 filters at 0.02 ms are 20 ms.
    const first = pacer.pace(1, async () => 1000);
    const second = pacer.pace(1, async () => 1000);
    const other = pacer.pace(2, async () => 0);
    expect(await isDoneWithin(other, 0)).toBe(true);
    expect(await isDoneWithin(first, 390)).toBe(false);
    expect(await isDoneWithin(first, 20)).toBe(true);
    expect(await isDoneWithin(second, 370)).toBe(false);
    expect(await isDoneWithin(second, 40)).toBe(true);
  });

  it('asks nobody to rest where nobody logs in', async () => {
    const pacer = new Pacer();
    expect(
      await isDoneWithin(
        pacer.pace(null, async () => 100_000),
        0,
      ),
    ).toBe(true);
  });
});

describe('StatusReads', () => {
  const EMPTY: StatusPage = { messages: [], after: null };
  const query = (organizationId: number): PresencePage => ({
    organizationId,
    devices: null,
    after: 0,
    limit: 1,
  });

  it('reads one page at a time for each organization, in the order of asking', async () => {
    const started: number[] = [];
    const ends: (() => void)[] = [];
    const reads = new StatusReads(({ organizationId }) => {
      started.push(organizationId);
      return new Promise((resolve) => ends.push(() => resolve(EMPTY)));
    });
    const asked = [reads.page(query(1)), reads.page(query(1)), reads.page(query(2))];
    await vi.advanceTimersByTimeAsync(0);
    expect(started).toEqual([1, 2]);
    ends[0]?.();
    await asked[0];
    await vi.advanceTimersByTimeAsync(10);
    expect(started).toEqual([1, 2, 1]);
    ends[1]?.();
    ends[2]?.();
    await Promise.all(asked);
  });

  it('rests between pages while others wait, up to four times as long as a page took', async () => {
    let reading = 0;
    const reads = new StatusReads(async () => {
      reading += 1;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return EMPTY;
    });
    const asked = Array.from({ length: 6 }, () => reads.page(query(1)));
    await vi.advanceTimersByTimeAsync(490);
    expect(reading).toBe(1);
    await vi.advanceTimersByTimeAsync(20);
    expect(reading).toBe(2);
    await vi.advanceTimersByTimeAsync(5000);
    await Promise.all(asked);
  });

  it('hands a failure on and goes on with the next', async () => {
    let isFailing = true;
    const reads = new StatusReads(async () => {
      if (isFailing) throw new Error('away');
      return EMPTY;
    });
    const failing = reads.page(query(1));
    await expect(failing).rejects.toThrow('away');
    isFailing = false;
    const next = reads.page(query(1));
    await vi.advanceTimersByTimeAsync(10);
    expect(await next).toEqual(EMPTY);
  });
});
