import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  passNumber,
  renewDocument,
  setDesired,
  takeReport,
  type ConfigurationFacts,
  type ConfigurationState,
} from '../../configuration/configuration-step.ts';
import type { Document } from '../../configuration/configuration.ts';
import { compileSchema } from '../../firmware-protocol/json-schema-check.ts';

const START = Date.parse('2026-11-21T12:00:00Z');
const HOUR = 3_600_000;

const NEW: ConfigurationFacts = {
  desired: {},
  document: {},
  version: 0,
  changedAt: new Date(START),
  changedBy: 'puback',
  madeForType: null,
  madeForVersion: 0,
  held: null,
  reportedVersion: null,
  isApplied: null,
  reported: null,
  reportedMessage: null,
  reportedAt: null,
  differsSince: null,
  organization: 'acme',
  device: 'boiler-7',
  usesAlias: true,
  bytesMax: 256,
  type: 'boiler',
  defaults: {},
  typeVersion: 0,
};
const by = (at = START) => ({ by: 'A1b2C3d4', at: new Date(at) });
const none = (): null => null;

describe('setDesired', () => {
  it('goes on counting from what the device reported', () => {
    const { state, cause } = setDesired({ ...NEW, reportedVersion: 41 }, null, { a: 1 }, by());
    expect(cause).toBe('device');
    expect(state).toMatchObject({ version: 42, changedBy: 'A1b2C3d4', madeForType: 'boiler' });
  });

  it('is held against the packet that the new number makes', () => {
    // At 41 bytes the number 1 just fits, and 100 000 does not.
    const room = { ...NEW, bytesMax: 41 };
    expect(setDesired(room, null, { a: 1 }, by()).state.version).toBe(1);
    const longer = { ...room, version: 99_999 };
    expect(() => setDesired(longer, null, { a: 1 }, by())).toThrow('44 bytes, the device takes 41');
  });
});

describe('renewDocument', () => {
  const every = compileSchema({ properties: { every: { minimum: 10 } } });

  it('makes no version of a device for which nothing is set, and nothing held', () => {
    const { state, cause } = renewDocument({ ...NEW, typeVersion: 3 }, every, by());
    expect(cause).toBeNull();
    expect(state).toMatchObject({ version: 0, madeForVersion: 3, held: null });
  });

  it('holds what does not fit, and says so of what is sent already and no longer allowed', () => {
    const small = { ...NEW, bytesMax: 64, defaults: { text: 'x'.repeat(60) }, typeVersion: 1 };
    expect(renewDocument(small, null, by()).state.held).toMatchObject({ code: 'too_big' });
    const sent = { ...NEW, version: 4, document: { every: 5 }, desired: { every: 5 } };
    const { state, cause } = renewDocument(sent, every, by());
    expect(cause).toBeNull();
    expect(state).toMatchObject({ version: 4, held: { code: 'invalid' } });
    // A device that takes less by now keeps what it has.
    expect(renewDocument({ ...sent, bytesMax: 20 }, null, by()).state.held).toBeNull();
  });
});

describe('takeReport', () => {
  it('does not let a firmware that makes up numbers go round in circles', () => {
    let state: ConfigurationState = setDesired(NEW, null, { a: 1 }, by()).state;
    let versions = 0;
    for (let round = 0; round < 100; round += 1) {
      const said = { v: state.version + 1, ok: true, isHello: false };
      const step = takeReport(state, said, none, new Date(START + round * 1000));
      versions += step.cause === null ? 0 : 1;
      state = step.state;
    }
    expect(versions).toBe(1);
  });
});

/** A database, the topic, a device and messages on their way, each of which can go wrong. */
class World {
  facts: ConfigurationFacts = NEW;
  backup: ConfigurationFacts = NEW;
  topic: { readonly v: number; readonly cfg: Document } | null = null;
  device: { v: number; cfg: Document } = { v: 0, cfg: {} };
  readonly reports: number[] = [];
  readonly history = new Map<number, Document>();
  nowMs = START;

  edit(value: number): void {
    this.note(setDesired(this.facts, null, { value }, by(this.nowMs)).state);
  }

  /** COMMIT is behind; the program may have died before this. */
  publish(): void {
    const { version, document } = this.facts;
    if (version > 0 && (this.topic?.v ?? 0) < version) this.topic = { v: version, cfg: document };
  }

  /** A new start of the program. */
  sweep(): void {
    const there = this.topic?.v ?? 0;
    const at = new Date(this.nowMs);
    if (there > this.facts.version) this.note(passNumber(this.facts, there, at));
    this.publish();
  }

  restore(): void {
    this.facts = this.backup;
    this.sweep();
  }

  /** The device reads its topic. */
  deliver(isReportLost: boolean): void {
    if (this.topic === null) return;
    if (this.topic.v !== this.device.v) this.device = { v: this.topic.v, cfg: this.topic.cfg };
    if (!isReportLost) this.reports.push(this.device.v);
  }

  /** A report arrives, out of order or twice. */
  arrive(index: number, isTwice: boolean): void {
    const at = index % Math.max(1, this.reports.length);
    const v = isTwice ? this.reports[at] : this.reports.splice(at, 1)[0];
    if (v !== undefined) this.say(v, false);
  }

  hello(): void {
    if (this.device.v > 0) this.say(this.device.v, true);
  }

  say(v: number, isHello: boolean): void {
    const documentOf = (version: number): Document | null => this.history.get(version) ?? null;
    const said = { v, ok: true, isHello };
    this.note(takeReport(this.facts, said, documentOf, new Date(this.nowMs)).state);
  }

  note(state: ConfigurationState): void {
    this.facts = { ...this.facts, ...state };
    this.history.set(state.version, state.document);
  }
}

type Step = (world: World) => void;
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.nat(9).map(
    (value): Step =>
      (world) =>
        world.edit(value),
  ),
  fc.constant<Step>((world) => world.publish()),
  fc.constant<Step>((world) => world.sweep()),
  fc.boolean().map(
    (isLost): Step =>
      (world) =>
        world.deliver(isLost),
  ),
  fc.tuple(fc.nat(9), fc.boolean()).map(
    ([index, isTwice]): Step =>
      (world) =>
        world.arrive(index, isTwice),
  ),
  fc.constant<Step>((world) => world.hello()),
  fc.nat(2 * HOUR).map((ms): Step => (world) => {
    world.nowMs += ms;
  }),
);
const backup: Step = (world) => {
  world.backup = world.facts;
};
const restore: Step = (world) => world.restore();

/** Nothing is lost any more: the program starts, the device connects, says hello, reads and reports. */
function settle(world: World): void {
  for (let round = 0; round < 4; round += 1) {
    world.nowMs += 2 * HOUR;
    world.sweep();
    world.hello();
    world.publish();
    world.deliver(false);
    while (world.reports.length > 0) world.arrive(0, false);
    world.publish();
  }
}

describe('a device and its configuration', () => {
  it('agree in the end, whatever was lost, repeated, overtaken or cut short by a crash', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const world = new World();
        let before = 0;
        for (const each of steps) {
          each(world);
          expect(world.facts.version).toBeGreaterThanOrEqual(before);
          before = world.facts.version;
          expect(world.topic?.v ?? 0).toBeLessThanOrEqual(world.facts.version);
        }
        settle(world);
        const { version, document, reportedVersion, reported, differsSince } = world.facts;
        if (version === 0) return;
        expect(world.device).toEqual({ v: version, cfg: document });
        expect([reportedVersion, reported, differsSince]).toEqual([version, document, null]);
      }),
      { numRuns: 2000 },
    );
  });

  it('agree also when the database was restored from an older backup', () => {
    const any = fc.oneof({ weight: 6, arbitrary: step }, fc.constant(backup), fc.constant(restore));
    fc.assert(
      fc.property(fc.array(any, { maxLength: 60 }), (steps) => {
        const world = new World();
        for (const each of steps) each(world);
        settle(world);
        const { version, document, reportedVersion, differsSince } = world.facts;
        if (version === 0) return;
        expect(world.device).toEqual({ v: version, cfg: document });
        expect([reportedVersion, differsSince]).toEqual([version, null]);
      }),
      { numRuns: 2000 },
    );
  });
});
