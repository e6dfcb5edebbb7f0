import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import type { CompiledRule, FleetValues } from '../compiled-rule.ts';
import type { OpenAlert } from '../evaluation/device-load.ts';
import type { Transition } from '../alert/transition.ts';
import { DeviceReplay } from './device-replay.ts';
import { readBlocks } from './history-blocks.ts';
import { readHappenings } from './history-happenings.ts';
import { metricsToRead } from './metrics-to-read.ts';
import type { ScopeDevice } from './scope-devices.ts';
import { silentAfterMicrosOf } from './silence-replay.ts';

/** A rule, a device and a span of its history. */
export interface OneReplay {
  readonly device: ScopeDevice;
  readonly rule: CompiledRule;
  readonly fromMicros: number;
  /** Exclusive. */
  readonly toMicros: number;
  /** What other devices say; without it comparisons with them do not hold. */
  readonly fleet?: FleetValues;
}

/** What came of it. */
export interface OneReplayed {
  readonly transitions: readonly Transition[];
  /** What is pending or firing at its end. */
  readonly open: readonly OpenAlert[];
  readonly readings: number;
}

const SPAN_MICROS = 86_400_000_000;
const SLICE_TIMES = 2000;
const NO_FLEET: FleetValues = { value: () => NaN };

/**
 * Runs one rule over the history of one device, a day at a time, with a turn for others in between.
 * @throws {StoreUnavailableError}
 */
export async function replayOne(
  database: TenantDatabase,
  { device, rule, fromMicros, toMicros, fleet = NO_FLEET }: OneReplay,
): Promise<OneReplayed> {
  const transitions: Transition[] = [];
  const replay = new DeviceReplay({
    device,
    rule,
    emit: (transition) => transitions.push(transition),
    fleet,
    noteFleet: null,
    fromMicros,
    silentAfterMicros: silentAfterMicrosOf(rule, device),
  });
  for (let atMicros = fromMicros; atMicros < toMicros; atMicros += SPAN_MICROS) {
    const query = {
      organizationId: device.organizationId,
      deviceIds: [device.deviceId],
      metrics: metricsToRead([rule]),
      fromMicros: atMicros,
      toMicros: Math.min(atMicros + SPAN_MICROS, toMicros),
    };
    const { events, usesConnection: isConnectionWanted } = rule;
    const happenings = await readHappenings(database, { ...query, events, isConnectionWanted });
    replay.begin(await readBlocks(database, query), happenings);
    while (replay.advance(SLICE_TIMES)) await nextTurn();
  }
  replay.finish(toMicros);
  return { transitions, open: replay.openAlerts, readings: replay.readings };
}
