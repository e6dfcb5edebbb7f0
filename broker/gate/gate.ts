import type { Logger } from '../../log.ts';
import { Door, type DoorLimits, type DoorRefusal } from './door.ts';
import type { GateMetrics } from './gate-metrics.ts';
import { LoginGuard, type LoginGuardLimits } from './login-guard.ts';
import { connectionsWithin } from './open-files.ts';
import { TrustedProxies } from './trusted-proxies.ts';

/** Everything that stands between the network and the broker but the listeners. */
export interface Gate {
  readonly door: Door;
  readonly guard: LoginGuard;
  readonly proxies: TrustedProxies;
  readonly metrics: GateMetrics;
}

/** What the gate is made of. */
export interface GateParts {
  readonly door: DoorLimits;
  readonly logins: Pick<LoginGuardLimits, 'failuresMax' | 'banMs'>;
  /** Addresses and networks of proxies with commas between. */
  readonly proxies: string;
  /** Files that the process may have open; absent or null: not known. See `openFilesLimit`. */
  readonly openFilesMax?: number | null;
  /** Called for each connection that the door ends. */
  readonly refused: (reason: DoorRefusal, address: string) => void;
  readonly metrics: GateMetrics;
  readonly log: Logger;
}

/** Addresses and key ids that are remembered, of each. */
const REMEMBERED_MAX = 10_000;
/** A refusal waits no longer than this, nor than half the connect deadline. */
const DELAY_MS_MAX = 5000;

/** Makes the gate. */
export function createGate(parts: GateParts): Gate {
  const { metrics, log } = parts;
  const now = () => performance.now();
  const guard = new LoginGuard(
    {
      ...parts.logins,
      delayMsMax: Math.min(DELAY_MS_MAX, parts.door.connectDeadlineMs / 2),
      rememberedMax: REMEMBERED_MAX,
    },
    {
      failed: () => metrics.loginFailed(),
      banned(address) {
        metrics.addressBanned();
        log.warn({ address }, 'address banned for failed logins');
      },
    },
    now,
  );
  const connectionsMax = connectionsWithin(parts.door.connectionsMax, parts.openFilesMax ?? null);
  if (connectionsMax < parts.door.connectionsMax) {
    const { openFilesMax } = parts;
    log.info({ connectionsMax, openFilesMax }, 'connections bounded by the limit of open files');
  }
  const door = new Door({
    limits: { ...parts.door, connectionsMax },
    isBanned: (address) => guard.before(address) === 'banned',
    refused: parts.refused,
    now,
  });
  metrics.observe(() => ({ unauthenticated: door.unauthenticated, banned: guard.bannedCount }));
  return { door, guard, proxies: new TrustedProxies(parts.proxies), metrics };
}
