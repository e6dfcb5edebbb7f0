import { publicPartOf } from '../firmware-protocol/keys.ts';
import { deviceKeepAlive, identify, keyOf, rewriteWill } from './authenticate.ts';
import { ClaimClient, type ClaimParts } from './claim-client.ts';
import type { ConnectRate } from './gate/connect-rate.ts';
import type { ConnectFields } from './connect-fields.ts';
import { DeviceClient, type DeviceParts } from './device-client.ts';
import { IntegratorClient, type IntegratorParts } from './integrator-client.ts';
import { isGuess } from './gate/login-guard.ts';
import type { CloseReason } from './metrics.ts';
import type { Peer } from './peer.ts';
import type { Admission, Policy } from './policy.ts';
import type { ConnectRefusal, Principal, VerifyCertificate, VerifyKey } from './principal.ts';
import type { Session } from './session.ts';

/** Counts what was tried and failed; see `LoginGuard`. */
export interface LoginGate {
  /** @returns how long the refusal is to wait, in ms. */
  failed(address: string, keyId: string | null, secret: string): number;
  succeeded(address: string, keyId: string): void;
}

/** What the fleet's policy works with. */
export interface FleetParts {
  readonly verifyKey: VerifyKey;
  readonly verifyCertificate: VerifyCertificate;
  readonly gate: LoginGate;
  readonly device: DeviceParts;
  readonly integrator: IntegratorParts;
  readonly claim: ClaimParts;
  readonly connectRate: ConnectRate;
  /** Whether the key may have this persistent session: it is there already, or not one too many. */
  readonly mayKeepSession: (keyId: string, clientId: string) => boolean;
  /** A CONNECT was refused: for the history. */
  readonly refused: (refused: RefusedConnect) => void;
  readonly violated: (peer: Peer, code: CloseReason, detail: string) => void;
  readonly takenOver: (old: Session, next: Session) => void;
}

/** A CONNECT that was refused. */
export interface RefusedConnect {
  readonly refusal: ConnectRefusal;
  readonly peer: Peer;
  /** Whose credential it was, when that was proved. */
  readonly principal: Principal | null;
  /** Public part of the key that was given. */
  readonly keyId: string | null;
}

/** Who is let into a fleet's broker: devices and integrators, by key or by certificate. */
export class FleetPolicy implements Policy {
  /** Presence tells what became of a device; its will is of no use to the next run. */
  readonly keepsWills = false;
  readonly #parts: FleetParts;

  constructor(parts: FleetParts) {
    this.#parts = parts;
  }

  async admit(connect: ConnectFields, peer: Peer): Promise<Admission> {
    const { verifyKey, verifyCertificate } = this.#parts;
    const verdict = await identify(connect, peer, {
      key: verifyKey,
      certificate: verifyCertificate,
    });
    const principal = verdict.principal ?? null;
    const refuse = (refusal: ConnectRefusal): Admission =>
      this.#refuse(refusal, keyOf(connect), { peer, principal });
    if (!verdict.ok) return refuse(verdict.refusal);
    return this.#letIn(verdict.principal, connect, peer, refuse);
  }

  #letIn(
    principal: Principal,
    connect: ConnectFields,
    peer: Peer,
    refuse: (refusal: ConnectRefusal) => Admission,
  ): Admission {
    const { gate, device, integrator } = this.#parts;
    // Boards with one claim key are many, and each comes once; the door bounds them by address.
    if (principal.kind !== 'claim' && !this.#parts.connectRate.take(identityOf(principal))) {
      return refuse('connect_rate');
    }
    gate.succeeded(peer.address, principal.keyId);
    if (principal.kind === 'device') {
      if (!rewriteWill(connect, principal)) return refuse('will_refused');
      const keepAliveS = deviceKeepAlive(connect.keepalive ?? 0);
      const access = new DeviceClient(principal, keepAliveS, device);
      return { ok: true, principal, access };
    }
    if (connect.will !== undefined) return refuse('will_refused');
    if (principal.kind === 'claim') {
      const access = new ClaimClient(principal, connect, this.#parts.claim);
      return { ok: true, principal, access };
    }
    if (!IntegratorClient.takesClientId(connect.clientId)) {
      return refuse('client_id_rejected');
    }
    const access = new IntegratorClient(principal, connect, integrator);
    if (!access.isClean && !this.#parts.mayKeepSession(principal.keyId, access.clientId)) {
      return refuse('sessions_max');
    }
    return { ok: true, principal, access };
  }

  violated(peer: Peer, code: CloseReason, detail: string): void {
    this.#parts.violated(peer, code, detail);
  }

  releaseOrphan(_message: unknown, done: () => void): void {
    // Wills of devices are not kept beyond a run: presence tells what became of them.
    done();
  }

  takenOver(old: Session, next: Session): void {
    this.#parts.takenOver(old, next);
  }

  #refuse(
    refusal: ConnectRefusal,
    key: string,
    { peer, principal }: { peer: Peer; principal: Principal | null },
  ): Admission {
    const keyId = principal?.keyId ?? publicPartOf(key);
    this.#parts.refused({ refusal, peer, principal, keyId });
    const delayMs = isGuess(refusal) ? this.#parts.gate.failed(peer.address, keyId, key) : 0;
    return { ok: false, refusal, delayMs };
  }
}

/** Two keys of one device are one identity. */
function identityOf(principal: Principal): string {
  return principal.kind === 'device' ? `d${principal.deviceId}` : principal.keyId;
}
