import type { DoorRefusal } from './broker/gate/door.ts';
import type { RefusedConnect } from './broker/fleet-policy.ts';
import { IdentityWatch, type IdentityFinding } from './broker/gate/identity-watch.ts';
import type { CloseReason } from './broker/metrics.ts';
import type { Peer } from './broker/peer.ts';
import type { Principal } from './broker/principal.ts';
import type { Session } from './broker/session.ts';
import type { DeviceEvent } from './registry/device-event-row.ts';
import type { Registry } from './registry/registry.ts';

/** Devices whose connects are watched; the longest unseen are forgotten first. */
const WATCHED_DEVICES_MAX = 10_000;

/** Tells the registry what happens to connections, in codes that the API explains. */
export class ConnectionHistory {
  readonly #registry: Pick<Registry, 'deviceEvents'>;
  readonly #watch = new IdentityWatch(WATCHED_DEVICES_MAX, () => performance.now());

  readonly #onIdentity: (code: IdentityFinding['code']) => void;
  /** Those that took the place of a live connection: they are no sign of one that does not hold. */
  readonly #takers = new WeakSet<Session>();

  /** @param onIdentity is told of each finding, to count it. */
  constructor(
    registry: Pick<Registry, 'deviceEvents'>,
    onIdentity: (code: IdentityFinding['code']) => void,
  ) {
    this.#registry = registry;
    this.#onIdentity = onIdentity;
  }

  /** A connection was turned away at the door. */
  turnedAway(reason: DoorRefusal, address: string): void {
    this.#refused(reason, '', address, { principal: null, keyId: null });
  }

  /** A client broke the protocol before it was let in. */
  violated({ address }: Peer, code: CloseReason, detail: string): void {
    this.#refused(code, detail, address, { principal: null, keyId: null });
  }

  /** A client was let in. */
  opened(session: Session): void {
    this.#note('connect', 'connected', `client identifier ${session.namedClientId}`, session);
    const { principal } = session;
    if (principal?.kind !== 'device' || this.#takers.has(session)) return;
    const device = `${principal.organization}/${principal.device}`;
    this.#found(session, this.#watch.connected(device, watchedPeer(session)));
  }

  /** Its connection has ended; `code` says why. */
  closed(session: Session, code: string): void {
    this.#note('disconnect', code, session.closeDetail, session);
  }

  /** The same client came again: `old` was closed for `next`. */
  takenOver(old: Session, next: Session): void {
    this.#takers.add(next);
    const { principal } = next;
    if (principal?.kind !== 'device') return;
    const device = `${principal.organization}/${principal.device}`;
    this.#found(next, this.#watch.takenOver(device, watchedPeer(old), watchedPeer(next)));
  }

  /** A message was refused. */
  refusedMessage(session: Session, code: string, detail: string): void {
    this.#note('refusal', code, detail, session);
  }

  /** A CONNECT was refused. */
  refusedConnect({ refusal, peer, principal, keyId }: RefusedConnect): void {
    this.#refused(refusal, '', peer.address, { principal, keyId });
  }

  #refused(
    code: string,
    detail: string,
    address: string,
    { principal, keyId }: Pick<RefusedConnect, 'principal' | 'keyId'>,
  ): void {
    this.#registry.deviceEvents.note({
      kind: 'refusal',
      code,
      detail,
      address,
      ...owner(principal),
      keyId,
      connectionNumber: null,
      occurredAtMs: Date.now(),
    });
  }

  #found(session: Session, finding: IdentityFinding | null): void {
    if (finding === null) return;
    this.#onIdentity(finding.code);
    const peers = finding.peers.map(({ address, clientId }) => `${address} as ${clientId}`);
    const detail = `${finding.count} in ${finding.windowS} s: ${peers.join(', ')}`;
    this.#note('identity', finding.code, detail, session);
  }

  #note(kind: DeviceEvent['kind'], code: string, detail: string, session: Session): void {
    this.#registry.deviceEvents.note({
      kind,
      code,
      detail,
      address: session.peer.address,
      ...owner(session.principal),
      keyId: session.principal?.keyId ?? null,
      connectionNumber: session.connectionNumber === 0 ? null : session.connectionNumber,
      occurredAtMs: Date.now(),
    });
  }
}

function owner(principal: Principal | null): {
  organizationId: number | null;
  deviceId: number | null;
} {
  return {
    organizationId: principal?.organizationId ?? null,
    deviceId: principal?.kind === 'device' ? principal.deviceId : null,
  };
}

function watchedPeer({ peer, namedClientId, connectionNumber }: Session): {
  address: string;
  clientId: string;
  connection: number;
} {
  return { address: peer.address, clientId: namedClientId, connection: connectionNumber };
}
