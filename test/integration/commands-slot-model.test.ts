import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeDevice } from '../support/command-queues.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization } from '../support/registry.ts';
import { modelSteps, runModel } from '../support/slot-model.ts';
import { SqlProgram } from '../support/sql-program.ts';

const STEPS_MAX = 60;
const NUM_RUNS = 6;

let test: TestDatabase;
let organizationId: number;
let made = 0;

beforeAll(async () => {
  test = await createTestDatabase();
  ({
    author: { organizationId },
  } = await createOrganization(test.database, 'acme'));
});
afterAll(() => test.drop());

async function run(withRestore: boolean, wanted: object): Promise<void> {
  await fc.assert(
    fc.asyncProperty(modelSteps(STEPS_MAX, withRestore), async (steps) => {
      made += 1;
      const owner = { organizationId, organization: 'acme' };
      const device = await makeDevice(test.database, owner, `d${made}`);
      const program = new SqlProgram(test.database, device);
      expect(await runModel(program, steps, 'before')).toMatchObject(wanted);
      await program.close();
    }),
    { numRuns: NUM_RUNS, endOnFailure: true },
  );
}

describe('the slot protocol over SQL, with a program that is killed between COMMIT and publish', () => {
  it('never executes twice, never reports what was not done, keeps the order and moves on', async () => {
    await run(false, { twice: 0, falselyDone: 0, disordered: 0, stuck: 0 });
  }, 60_000);

  it('moves on after a restore of an old backup', async () => {
    await run(true, { twiceUnexcused: 0, falselyDone: 0, stuck: 0 });
  }, 60_000);
});
