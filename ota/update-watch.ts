import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type { FiringAlert, FiringAlerts } from './ports.ts';
import type { UpdateRequest, UpdateVerdict } from './update-campaign.ts';
import type { DeviceUpdate } from './update.ts';

/** What {@link CampaignWatch} needs. */
export interface CampaignWatchDeps {
  readonly pool: pg.Pool;
  readonly firingAlerts: FiringAlerts;
  /** Boots of a new image before it counts as one that crashes again and again. */
  readonly bootsMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** What a campaign looks for. */
export interface WatchRequest {
  /** How long a new image is watched before it is believed. */
  readonly watchMs: number;
  /** Alerts that speak against it: of severity critical, or of one of the rules. */
  readonly stopOn: UpdateRequest['stopOn'];
}

/** What is clear of the updates of a campaign. */
export interface WatchOutcome {
  readonly verdicts: readonly UpdateVerdict[];
  /** Open updates that an alert has made fail. */
  readonly failedByAlert: readonly {
    readonly updateId: string;
    readonly code: string;
    readonly detail: string;
  }[];
}

/** Watches the devices of a campaign for what speaks against an image, before it and after it runs. */
export class CampaignWatch {
  readonly #deps: CampaignWatchDeps;

  constructor(deps: CampaignWatchDeps) {
    this.#deps = deps;
  }

  /** @throws {StoreUnavailableError} */
  async judge(request: WatchRequest, updates: readonly DeviceUpdate[]): Promise<WatchOutcome> {
    const watched = updates.filter(
      ({ state, endedAt }) => endedAt === null || state === 'succeeded',
    );
    const [alerts, hellos] = await Promise.all([
      this.#alerts(request, watched),
      this.#hellos(watched.filter(({ state }) => state === 'succeeded')),
    ]);
    const verdicts: UpdateVerdict[] = [];
    const failedByAlert: WatchOutcome['failedByAlert'][number][] = [];
    for (const update of updates) {
      const alert = alerts.get(update.deviceId);
      const verdict = this.#verdictOf(request, update, alert, hellos.get(update.deviceId));
      if (verdict === null) continue;
      verdicts.push(verdict);
      const { updateId, endedAt } = update;
      if (endedAt === null) failedByAlert.push({ ...verdict, updateId });
    }
    return { verdicts, failedByAlert };
  }

  #verdictOf(
    { watchMs }: WatchRequest,
    update: DeviceUpdate,
    alert: FiringAlert | undefined,
    hello: Hello | undefined,
  ): UpdateVerdict | null {
    const { deviceId, endedAt, code, detail } = update;
    if (endedAt !== null && update.state !== 'succeeded') {
      const state = code === 'cancelled' ? 'skipped' : 'failed';
      return { deviceId, state, code: code ?? update.state, detail: detail ?? '' };
    }
    if (alert !== undefined) {
      const said = `${alert.rule} (${alert.severity}) fires since the update began`;
      return { deviceId, state: 'failed', code: 'alert', detail: said };
    }
    if (endedAt === null) return null;
    const relapse = relapseOf(update, hello, this.#deps.bootsMax);
    if (relapse !== null) return { deviceId, state: 'failed', ...relapse };
    if (this.#deps.now() - endedAt.getTime() < watchMs) return null;
    return { deviceId, state: 'succeeded', code: code ?? 'greeted', detail: detail ?? '' };
  }

  async #alerts(
    { stopOn }: WatchRequest,
    updates: readonly DeviceUpdate[],
  ): Promise<Map<number, FiringAlert>> {
    const [first] = updates;
    if (first === undefined || (!stopOn.critical && stopOn.rules.length === 0)) return new Map();
    const since = new Map(updates.map((update) => [update.deviceId, update.startedAt.getTime()]));
    const alerts = await this.#deps.firingAlerts(
      first.organizationId,
      [...since.keys()],
      Math.min(...since.values()),
    );
    const heeded = alerts.filter(
      ({ severity, ruleId, deviceId, firedMs }) =>
        ((stopOn.critical && severity === 'critical') || stopOn.rules.includes(ruleId)) &&
        firedMs >= (since.get(deviceId) ?? Infinity),
    );
    return new Map(heeded.map((alert) => [alert.deviceId, alert]));
  }

  async #hellos(updates: readonly DeviceUpdate[]): Promise<Map<number, Hello>> {
    if (updates.length === 0) return new Map();
    const endedAt = new Map(updates.map((update) => [update.deviceId, update.endedAt]));
    const { rows } = await guardStore(
      this.#deps.pool.query<{ device_id: number; hello: Hello; hello_at: Date | null }>(
        `SELECT device_id, hello - 'u' AS hello, hello_at FROM device_presence
         WHERE device_id = ANY($1)`,
        [[...endedAt.keys()]],
      ),
    );
    // What is stored may be older than the greeting that ended the update.
    const later = rows.filter(({ device_id: deviceId, hello_at: helloAt }) => {
      const ended = endedAt.get(deviceId);
      return helloAt !== null && ended !== null && ended !== undefined && helloAt > ended;
    });
    return new Map(later.map((row) => [row.device_id, row.hello]));
  }
}

/** Whether an image that ran runs no longer, or does not last. */
function relapseOf(
  { version, bootAfter }: DeviceUpdate,
  hello: Hello | undefined,
  bootsMax: number,
): { readonly code: string; readonly detail: string } | null {
  if (hello === undefined) return null;
  if (hello.fw !== undefined && hello.fw !== version) {
    return { code: 'rolled_back', detail: `${hello.fw} is back after ${version} had greeted` };
  }
  const boots = bootAfter === null || hello.boot === undefined ? 0 : hello.boot - bootAfter;
  if (boots <= bootsMax) return null;
  return { code: 'crash_loop', detail: `${boots} boots since ${version} greeted first` };
}
