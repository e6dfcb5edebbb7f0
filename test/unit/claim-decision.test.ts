import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CLAIM_STATES,
  decideClaim,
  KEYS_PER_CLAIM_MAX,
  type ClaimFacts,
} from '../../registry/keys/claim-decision.ts';

const count = (max: number) => fc.nat({ max });
const keyId = fc.constantFrom('own', 'other');
const facts: fc.Arbitrary<ClaimFacts> = fc.record({
  rules: fc.record({
    keyId: fc.constant('own'),
    quota: fc.integer({ min: 1, max: 3 }),
    claimed: count(3),
    models: fc.option(fc.constantFrom(['a'], ['a', 'b'])),
    needsApproval: fc.boolean(),
  }),
  model: fc.option(fc.constantFrom('a', 'b')),
  claim: fc.option(
    fc.record({ keyId, state: fc.constantFrom(...CLAIM_STATES), requestedMs: count(10_000) }),
  ),
  device: fc.option(
    fc.record({
      isDisabled: fc.boolean(),
      hasConnected: fc.boolean(),
      hasForeignKeys: fc.boolean(),
      keys: count(KEYS_PER_CLAIM_MAX + 1),
      openKeys: count(2),
    }),
  ),
  waiting: count(3),
  waitingMax: fc.constant(2),
  reissueMs: fc.constant(5000),
  nowMs: fc.constant(10_000),
});
const all = (holds: (facts: ClaimFacts) => boolean): void =>
  fc.assert(fc.property(facts, holds), { numRuns: 5000 });

describe('a claim', () => {
  it('is never given the name of a device that somebody has used or made [A-17]', () => {
    all((given) => {
      const { device } = given;
      if (device === null) return true;
      if (!device.hasConnected && !device.hasForeignKeys && device.openKeys > 0) return true;
      return decideClaim(given).do === 'deny';
    });
  });

  it('is never given a key without the approval that its claim key needs', () => {
    all((given) => {
      const { do: done } = decideClaim(given);
      if (done !== 'create' && done !== 'reissue') return true;
      const { claim, rules } = given;
      return !rules.needsApproval || (claim?.state === 'approved' && claim.keyId === rules.keyId);
    });
  });

  it('is never given a key when it was denied, is of another model, or for a disabled device', () => {
    all((given) => {
      const { do: done } = decideClaim(given);
      if (done !== 'create' && done !== 'reissue') return true;
      const { models } = given.rules;
      const isModel = models === null || (given.model !== null && models.includes(given.model));
      return isModel && given.claim?.state !== 'denied' && given.device?.isDisabled !== true;
    });
  });

  it('makes no device beyond the quota, and none that is there', () => {
    all((given) => {
      if (decideClaim(given).do !== 'create') return true;
      return given.device === null && given.rules.claimed < given.rules.quota;
    });
  });

  it('waits in a list that is not longer than it may be', () => {
    all((given) => {
      const decision = decideClaim(given);
      return decision.do !== 'wait' || !decision.isNoted || given.waiting < given.waitingMax;
    });
  });

  it('says when to ask again, in whole seconds that are not none', () => {
    all((given) => {
      const decision = decideClaim(given);
      return decision.do !== 'wait' || (decision.retryS >= 1 && Number.isInteger(decision.retryS));
    });
  });

  it('gives every outcome that there is', () => {
    const seen = new Set<string>();
    for (const given of fc.sample(facts, 5000)) {
      const decision = decideClaim(given);
      seen.add(decision.do === 'deny' ? decision.code : decision.do);
    }
    expect([...seen].toSorted()).toEqual(
      ['claimed', 'create', 'denied', 'model', 'quota', 'reissue', 'wait'].toSorted(),
    );
  });
});
