import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryProgram } from '../support/memory-program.ts';
import { modelSteps, runModel, type SavePolicy } from '../support/slot-model.ts';

const STEPS_MAX = 120;
const NUM_RUNS = 300;

describe('the slot protocol, with loss, copies and crashes at every step', () => {
  it('never executes twice where the firmware saves before, and never reports what was not done', async () => {
    await fc.assert(
      fc.asyncProperty(modelSteps(STEPS_MAX, false), async (steps) => {
        expect(await runModel(new MemoryProgram(), steps, 'before')).toMatchObject({
          twice: 0,
          falselyDone: 0,
          disordered: 0,
          stuck: 0,
        });
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it('loses none where the firmware saves behind, and moves on', async () => {
    await fc.assert(
      fc.asyncProperty(modelSteps(STEPS_MAX, false), async (steps) => {
        const verdict = await runModel(new MemoryProgram(), steps, 'after');
        expect(verdict).toMatchObject({ falselyDone: 0, disordered: 0, stuck: 0 });
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it.each<SavePolicy>(['before', 'after'])(
    'moves on after a restore of an old backup, and reports nothing that was not done: %s',
    async (policy) => {
      await fc.assert(
        fc.asyncProperty(modelSteps(STEPS_MAX, true), async (steps) => {
          const verdict = await runModel(new MemoryProgram(), steps, policy);
          expect(verdict).toMatchObject({ falselyDone: 0, stuck: 0 });
          if (policy === 'before') expect(verdict.twiceUnexcused).toBe(0);
        }),
        { numRuns: NUM_RUNS },
      );
    },
  );
});
