import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import type { CompiledRule } from '../compiled-rule.ts';
import type { RuleScope } from '../rule.ts';
import { DeviceReplay } from './device-replay.ts';
import { FleetReplay } from './fleet-replay.ts';
import { fleetTagsOf } from './fleet-tags.ts';
import { readBlocks, type BlockQuery, type SeriesBlock } from './history-blocks.ts';
import { readHappenings, type Happening } from './history-happenings.ts';
import { metricsToRead } from './metrics-to-read.ts';
import { ReplayOrder } from './replay-order.ts';
import { readScope, type ScopeDevice } from './scope-devices.ts';
import { silentAfterMicrosOf } from './silence-replay.ts';
import { SpanPlan } from './span-plan.ts';
import { Tally } from './tally.ts';

/** What is to be replayed. */
export interface BacktestRequest {
  readonly organizationId: number;
  /** The versions to be replayed side by side: the one that is asked for, and perhaps the one in force. */
  readonly rules: readonly CompiledRule[];
  readonly fromMicros: number;
  /** Exclusive. */
  readonly toMicros: number;
  /** Ends it early: {@link runBacktest} rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BacktestProgress) => void) | undefined;
}

/** How far a backtest has come. */
export interface BacktestProgress {
  readonly devices: number;
  readonly devicesDone: number;
  readonly readings: number;
  /** From 0 to 1. */
  readonly share: number;
}

/** What came of a backtest. */
export interface BacktestOutcome {
  readonly devices: readonly ScopeDevice[];
  /** Readings that were evaluated; those before the beginning, to fill windows, among them. */
  readonly readings: number;
  /** One for each of the rules. */
  readonly tallies: readonly Tally[];
}

/** Times of a device that are evaluated before another one, or the event loop, has its turn. */
const SLICE_TIMES = 512;
/** Before the beginning at least: for what is firing by then, and for windows that are counted in samples. */
const BEFORE_MICROS = 3_600_000_000;
/** Longest time without a turn for others, in ms: what is ingested meanwhile waits no longer. */
const TURN_MS = 4;

/**
 * Runs rules over stored history with the code that evaluates live. Devices are replayed in groups, spans
 * of time one behind the other, the next one being read meanwhile; rules that compare with the fleet see
 * all devices together. Memory is bounded by the spans, whatever the history is. What is firing or pending
 * at the beginning is found out from an hour before it, or as much as windows and timers need.
 * @throws {StoreUnavailableError} and the reason of the signal.
 */
export async function runBacktest(
  database: TenantDatabase,
  request: BacktestRequest,
): Promise<BacktestOutcome> {
  const run = new BacktestRun(database, request);
  return run.run();
}

class BacktestRun {
  readonly #database: TenantDatabase;
  readonly #request: BacktestRequest;
  readonly #tallies: readonly Tally[];
  readonly #beginMicros: number;
  readonly #plan = new SpanPlan();
  readonly #isTogether: boolean;
  #devices: readonly ScopeDevice[] = [];
  #devicesDone = 0;
  #readings = 0;
  #turnAt = performance.now();

  constructor(database: TenantDatabase, request: BacktestRequest) {
    this.#database = database;
    this.#request = request;
    const { rules, fromMicros, toMicros } = request;
    this.#tallies = rules.map(() => new Tally(fromMicros, toMicros));
    this.#beginMicros = fromMicros - Math.max(0, ...rules.map(beforeMicrosOf));
    this.#isTogether = rules.some((rule) => fleetTagsOf(rule).length > 0);
  }

  async run(): Promise<BacktestOutcome> {
    const scopes = await Promise.all(
      this.#request.rules.map(({ definition }) => this.#readScope(definition.scope)),
    );
    const tags = this.#request.rules.flatMap(fleetTagsOf);
    const compared = tags.length === 0 ? [] : await this.#readScope({ tags });
    const all = [...scopes.flat(), ...compared];
    const devices = new Map(all.map((device) => [device.deviceId, device]));
    this.#devices = [...devices.values()];
    const inScope = scopes.map((scope) => new Set(scope.map(({ deviceId }) => deviceId)));
    for (let first = 0; first < this.#devices.length;) {
      const size = this.#isTogether ? this.#devices.length : this.#plan.groupSize;
      const group = this.#devices.slice(first, first + size);
      await this.#replayGroup(group, inScope);
      first += group.length;
      this.#devicesDone = first;
      this.#plan.groupEnded(this.#request.toMicros - this.#beginMicros);
    }
    for (const tally of this.#tallies) tally.end();
    return { devices: this.#devices, readings: this.#readings, tallies: this.#tallies };
  }

  #readScope(scope: RuleScope): Promise<ScopeDevice[]> {
    return readScope(this.#database, this.#request.organizationId, scope);
  }

  async #replayGroup(
    group: readonly ScopeDevice[],
    inScope: readonly ReadonlySet<number>[],
  ): Promise<void> {
    const replays = this.#request.rules.flatMap((rule, index) => {
      const fleet = new FleetReplay();
      const isIn = ({ deviceId }: ScopeDevice): boolean => inScope[index]?.has(deviceId) === true;
      // What others are compared with is replayed too, and comes to nothing itself.
      return group
        .filter((device) => this.#isTogether || isIn(device))
        .map((device) => this.#newReplay(rule, device, { fleet, isCounted: isIn(device) }));
    });
    const { toMicros } = this.#request;
    let atMicros = this.#beginMicros;
    let next = this.#read(group, atMicros);
    while (atMicros < toMicros) {
      const { blocks, happenings, endMicros } = await next;
      this.#plan.read(blocks.reduce((sum, { count }) => sum + count, 0));
      next = this.#read(group, endMicros);
      // Its failure is met where it is awaited.
      next.catch(() => undefined);
      await this.#replaySpan(replays, blocks, happenings);
      atMicros = endMicros;
      this.#tell(group.length, atMicros);
    }
    for (const { replay } of replays) replay.finish(toMicros);
  }

  async #replaySpan(
    replays: readonly PlacedReplay[],
    blocks: readonly SeriesBlock[],
    happenings: readonly Happening[],
  ): Promise<void> {
    const blocksOf = groupByDevice(blocks);
    const happeningsOf = groupByDevice(happenings);
    for (const { deviceId, replay } of replays) {
      replay.begin(blocksOf.get(deviceId) ?? [], happeningsOf.get(deviceId) ?? []);
    }
    const before = replays.reduce((sum, { replay }) => sum + replay.readings, 0);
    if (this.#isTogether) {
      const order = new ReplayOrder(replays.map(({ replay }) => replay));
      while (order.advance(SLICE_TIMES)) await this.#turn();
    } else {
      for (const { replay } of replays) while (replay.advance(SLICE_TIMES)) await this.#turn();
    }
    const after = replays.reduce((sum, { replay }) => sum + replay.readings, 0);
    this.#readings += after - before;
    await this.#turn();
  }

  #newReplay(rule: CompiledRule, device: ScopeDevice, within: Within): PlacedReplay {
    const { fleet, isCounted } = within;
    const tally = isCounted ? this.#tallies[this.#request.rules.indexOf(rule)] : undefined;
    const replay = new DeviceReplay({
      device,
      rule,
      emit: (transition) => tally?.add(transition),
      fleet,
      noteFleet: this.#isTogether ? (...reading) => fleet.note(...reading) : null,
      fromMicros: this.#beginMicros,
      silentAfterMicros: silentAfterMicrosOf(rule, device),
    });
    return { deviceId: device.deviceId, replay };
  }

  /** Nothing at or behind the end. */
  async #read(group: readonly ScopeDevice[], fromMicros: number): Promise<Span> {
    const { organizationId, rules, toMicros } = this.#request;
    const endMicros = Math.min(fromMicros + this.#plan.spanMicros, toMicros);
    if (endMicros <= fromMicros) return { blocks: [], happenings: [], endMicros };
    const query: BlockQuery = {
      organizationId,
      deviceIds: group.map(({ deviceId }) => deviceId),
      metrics: metricsToRead(rules),
      fromMicros,
      toMicros: endMicros,
    };
    const [blocks, happenings] = await Promise.all([
      readBlocks(this.#database, query),
      readHappenings(this.#database, {
        ...query,
        events: [...new Set(rules.flatMap((rule) => rule.events))],
        isConnectionWanted: rules.some((rule) => rule.usesConnection),
      }),
    ]);
    return { blocks, happenings, endMicros };
  }

  /** Lets others have their turn, now and then, and ends when nobody waits for the outcome. */
  async #turn(): Promise<void> {
    if (performance.now() - this.#turnAt < TURN_MS) return;
    await nextTurn();
    this.#request.signal?.throwIfAborted();
    this.#turnAt = performance.now();
  }

  #tell(groupSize: number, atMicros: number): void {
    const { onProgress, toMicros } = this.#request;
    const devices = this.#devices.length;
    const ofGroup = (atMicros - this.#beginMicros) / (toMicros - this.#beginMicros);
    const share = (this.#devicesDone + groupSize * ofGroup) / Math.max(devices, 1);
    const readings = this.#readings;
    onProgress?.({ devices, devicesDone: this.#devicesDone, readings, share });
  }
}

/** How long before its beginning a rule is replayed, so that its windows are full and its timers run. */
function beforeMicrosOf({ historyMicros, definition }: CompiledRule): number {
  const timersMicros = definition.forMicros + definition.keepFiringForMicros;
  return Math.max(historyMicros + timersMicros, BEFORE_MICROS);
}

/** What a replay of a device stands in. */
interface Within {
  readonly fleet: FleetReplay;
  /** Whether the device is in the scope of the rule. */
  readonly isCounted: boolean;
}

interface PlacedReplay {
  readonly deviceId: number;
  readonly replay: DeviceReplay;
}

interface Span {
  readonly blocks: readonly SeriesBlock[];
  readonly happenings: readonly Happening[];
  readonly endMicros: number;
}

function groupByDevice<Item extends { readonly deviceId: number }>(
  items: readonly Item[],
): Map<number, Item[]> {
  const groups = new Map<number, Item[]>();
  for (const item of items) {
    const group = groups.get(item.deviceId);
    if (group === undefined) groups.set(item.deviceId, [item]);
    else group.push(item);
  }
  return groups;
}
