import { pino } from 'pino';
import type { ConnectionState, Silence } from '../../rules/compiled-rule.ts';
import type {
  CadenceRow,
  NoDataStore,
  SilenceChange,
  StoredActivity,
} from '../../rules/no-data/no-data-port.ts';
import { NoData } from '../../rules/no-data/no-data.ts';
import type { Outage } from '../../rules/no-data/outages.ts';

/** One second in microseconds. */
export const SECOND = 1_000_000;
/** When all of these tests begin, in ms since 1970. */
export const START_MS = 1_795_235_431_857;

/** What a run of the program leaves in the database, as far as it concerns missing readings. */
export class StoredFleet implements NoDataStore {
  readonly activities = new Map<number, StoredActivity>();
  uptime: { outages: readonly Outage[]; upMicros: number | null } = { outages: [], upMicros: null };
  /** Makes every call fail with this. */
  fault: Error | null = null;

  async load(deviceIds: readonly number[]): Promise<readonly StoredActivity[]> {
    this.#mayFail();
    return deviceIds.flatMap((deviceId) => this.activities.get(deviceId) ?? []);
  }

  async writeCadences(rows: readonly CadenceRow[]): Promise<void> {
    this.#mayFail();
    for (const { deviceId, sketch } of rows) this.note(deviceId, { cadence: sketch });
  }

  async loadUptime(): Promise<{ outages: readonly Outage[]; upMicros: number | null }> {
    this.#mayFail();
    return this.uptime;
  }

  async writeUptime(outages: readonly Outage[], upMicros: number): Promise<void> {
    this.#mayFail();
    this.uptime = { outages: [...outages], upMicros };
  }

  /** Stores something of a device. */
  note(deviceId: number, change: Partial<StoredActivity>): void {
    const before = this.activities.get(deviceId) ?? {
      deviceId,
      organizationId: 1,
      lastReadingMicros: null,
      lastContactMicros: null,
      connection: 'never' as ConnectionState,
      sleepS: 0,
      intervalMicros: null,
      cadence: null,
    };
    this.activities.set(deviceId, { ...before, ...change });
  }

  #mayFail(): void {
    if (this.fault !== null) throw this.fault;
  }
}

/** One run of the program with a clock of its own; what it hears is stored as well. */
export class NoDataRun {
  readonly noData: NoData;
  /** In order. */
  readonly changes: SilenceChange[] = [];
  /** Connections as rules are told, in order. */
  readonly connections: [number, ConnectionState, number][] = [];
  readonly #fleet: StoredFleet;
  readonly #connected = new Map<number, number>();
  nowMs: number;
  isAway = false;

  constructor(fleet: StoredFleet, nowMs: number, graceMs = 330_000) {
    this.#fleet = fleet;
    this.nowMs = nowMs;
    this.noData = new NoData({
      store: fleet,
      onSilence: (change) => this.changes.push(change),
      onConnection: ({ deviceId }, ...told) => this.connections.push([deviceId, ...told]),
      connectionOf: () => null,
      isAway: () => this.isAway,
      now: () => this.nowMs,
      graceMs,
      log: pino({ level: 'silent' }),
    });
  }

  get nowMicros(): number {
    return this.nowMs * 1000;
  }

  /** Watches these devices, makes those that do not exist, and waits until they are loaded. */
  async watch(
    deviceIds: Iterable<number>,
    afterMicros: number | 'auto',
    ruleId = 1,
  ): Promise<void> {
    for (const deviceId of deviceIds) {
      this.#fleet.note(deviceId, {});
      this.noData.watch({ deviceId, organizationId: 1, ruleId, afterMicros });
    }
    await this.settled();
  }

  /** Lets what was asked of the store come in. */
  async settled(): Promise<void> {
    for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
    await new Promise((resolve) => setImmediate(resolve));
  }

  reading(deviceId: number): void {
    this.#fleet.note(deviceId, { lastReadingMicros: this.nowMicros });
    this.noData.received(deviceId, this.nowMicros);
  }

  connection(deviceId: number, connection: ConnectionState): void {
    const contact = connection === 'online' ? { lastContactMicros: this.nowMicros } : {};
    // As recovery leaves it when the program ends while it is online.
    const stored = connection === 'online' ? 'offline' : connection;
    this.#fleet.note(deviceId, { connection: stored, ...contact });
    if (connection === 'online') this.#connected.set(deviceId, this.nowMicros);
    const connectedMicros = this.#connected.get(deviceId) ?? -Infinity;
    this.noData.connectionChanged({
      organizationId: 1,
      deviceId,
      connection,
      atMicros: this.nowMicros,
      connectedMicros,
    });
  }

  /** Time goes by; `eachTick` comes before each look. */
  pass(seconds: number, eachTick: () => void = () => undefined): void {
    const untilMs = this.nowMs + seconds * 1000;
    while (this.nowMs < untilMs) {
      this.nowMs = Math.min(untilMs, this.nowMs + 250);
      eachTick();
      this.noData.tick();
    }
  }

  /** Ends as at a crash: nothing more is written. The timer must not go on. */
  async crash(): Promise<void> {
    this.#fleet.fault = new Error('crashed');
    await this.noData.stop();
    this.#fleet.fault = null;
  }

  /** What rule 1 was told last of a device; undefined: nothing yet. */
  silenceOf(deviceId: number, ruleId = 1): Silence | null | undefined {
    return this.changes.findLast(
      (change) => change.deviceId === deviceId && change.ruleId === ruleId,
    )?.silence;
  }

  /** Silences that began, as `[device, kind, seconds since the start]`. */
  get found(): (readonly [number, Silence, number])[] {
    return this.changes.flatMap(({ deviceId, silence, atMicros }) =>
      silence === null ? [] : [[deviceId, silence, atMicros / SECOND - START_MS / 1000] as const],
    );
  }
}
