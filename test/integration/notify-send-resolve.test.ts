import { describe, expect, it } from 'vitest';
import { createResolve } from '../../rules/notify/resolve-host.ts';

describe('the lookup of receivers', () => {
  it('finds what the system knows without DNS', async () => {
    const addresses = await createResolve()('localhost');
    expect(addresses.length).toBeGreaterThan(0);
    for (const address of addresses) expect(['127.0.0.1', '::1']).toContain(address);
  });
});
