import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AppError } from '../../errors.ts';
import { parseKey } from '../../firmware-protocol/keys.ts';
import { keyStateOf } from '../../registry/api-keys.ts';
import type { KeyRotations } from '../../registry/keys/key-rotations.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import {
  createOrganization,
  createTestRegistry,
  type TestOrganization,
} from '../support/registry.ts';
import { FakeRekeyWire } from '../support/rekey.ts';

const HOUR_MS = 3_600_000;

let test: TestDatabase;
let registry: Registry;
let rotations: KeyRotations;
let acme: TestOrganization;
let nowMs = Date.now();
let devices = 0;

beforeAll(async () => {
  test = await createTestDatabase();
  registry = createTestRegistry(test.database, 1000, undefined, { now: () => nowMs });
  await registry.start();
  rotations = registry.keys.rotations(new FakeRekeyWire());
  acme = await createOrganization(test.database, 'acme');
});
afterAll(async () => {
  await registry.stop();
  await test.drop();
});

/** A board as the contract has it: two slots, and which one has worked last. */
class Board {
  readonly #device: string;
  readonly #deviceId: number;
  readonly #slots: [string, string];
  #used: 0 | 1 = 0;

  constructor(device: string, deviceId: number, key: string) {
    this.#device = device;
    this.#deviceId = deviceId;
    this.#slots = [key, ''];
  }

  /** Connects with the slot, or with the other one. @returns whether it was let in. */
  async connect(first: 0 | 1 = this.#used): Promise<boolean> {
    for (const slot of [first, first === 0 ? 1 : 0] as const) {
      if ((await registry.verifyKey(this.#slots[slot])).ok) {
        this.#used = slot;
        return true;
      }
    }
    return false;
  }

  /** Asks for a key, and keeps it unless the answer is lost. */
  async ask(isLost: boolean): Promise<void> {
    const { organizationId } = acme.author;
    const keyId = parseKey(this.#slots[this.#used])?.publicId ?? '';
    const names = { organization: 'acme', device: this.#device, deviceId: this.#deviceId };
    const answer = await rotations.keyRequested({ organizationId, ...names, keyId }, true);
    if (answer.st === 'ok' && !isLost) this.#slots[this.#used === 0 ? 1 : 0] = answer.key;
  }

  /** Tries the slot that it does not use. */
  switchOver(): Promise<boolean> {
    return this.connect(this.#used === 0 ? 1 : 0);
  }
}

/** What leads on is likelier, so that most runs come to a key that retires. */
const steps = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom('rotate', 'ask', 'switch') },
    { weight: 2, arbitrary: fc.constantFrom('lose', 'connect', 'roll back') },
    { weight: 1, arbitrary: fc.constantFrom(6000, HOUR_MS, 25 * HOUR_MS) },
  ),
  { minLength: 12, maxLength: 20 },
);

type Steps = typeof steps extends fc.Arbitrary<infer Value> ? Value : never;

/** A board that asks with the key that retires: found once, and tried in each run since. */
const examples: [Steps][] = [
  [['rotate', 'ask', 'switch', 'switch', 'rotate', 'ask', 'switch', 'lose']],
  [['rotate', 'ask', 'switch', 'switch', 'rotate', 'ask', 25 * HOUR_MS, 'connect', 'ask']],
];

describe('a board with two slots', () => {
  it('is let in behind whatever people, time and lost answers do to a change of its key', async () => {
    const property = fc.asyncProperty(steps, async (taken) => {
      const slug = `d-${(devices += 1)}`;
      const { deviceId } = await registry.devices.create(acme.author, { slug });
      const { key } = await registry.apiKeys.createForDevice(acme.author, slug, 'board');
      const board = new Board(slug, deviceId, key);
      for (const step of taken) {
        if (typeof step === 'number') nowMs += step;
        else await take(board, slug, step);
        await assertBounds(slug);
      }
      expect(await board.connect()).toBe(true);
    });
    await fc.assert(property, { examples, numRuns: 30, interruptAfterTimeLimit: 20_000 });
  });
});

async function take(board: Board, device: string, step: string): Promise<void> {
  try {
    if (step === 'rotate') {
      const request = { device, campaignId: null, ttlMs: 24 * HOUR_MS };
      await rotations.rotate(acme.author, request);
    } else if (step === 'roll back') await rotations.rollBack(acme.author, device);
    else if (step === 'connect') expect(await board.connect()).toBe(true);
    else if (step === 'switch') expect(await board.switchOver()).toBe(true);
    else if (await board.connect()) await board.ask(step === 'lose');
  } catch (error) {
    // Not now: it is open already, or there is nothing to roll back.
    if (!(error instanceof AppError)) throw error;
  }
}

/** One key for good, or one that ends and one that has taken its place; at most one that waits. */
async function assertBounds(device: string): Promise<void> {
  const { organizationId } = acme.author;
  const list = { organizationId, device, limit: 100, after: null };
  const { rows } = await registry.apiKeys.list(list);
  const states = rows.map((key) => keyStateOf(key, nowMs));
  expect(states.filter((state) => state === 'active')).toHaveLength(1);
  expect(states.filter((state) => state === 'pending').length).toBeLessThanOrEqual(1);
}
