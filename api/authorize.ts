import type { IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import {
  AddressBannedError,
  type AppError,
  DeviceRefusedError,
  StoreUnavailableError,
  UnauthorizedError,
} from '../errors.ts';
import { publicPartOf } from '../firmware-protocol/keys.ts';
import type {
  AdminPrincipal,
  DevicePrincipal,
  KeyRefusal,
  KeyVerdict,
  Principal,
} from '../registry/principal.ts';
import type { Principals, Role } from './route.ts';

/** Counts wrong keys; the same as for MQTT, so that a guesser gains nothing by changing the door. */
export interface LoginGuard {
  before(address: string): 'ok' | 'banned';
  /** @returns after how many ms the refusal is to be told. */
  failed(address: string, keyId: string | null, secret: string): number;
  succeeded(address: string, keyId: string): void;
}

/** What decides on requests. */
export interface AuthorizeParts {
  readonly verifyKey: (key: string) => Promise<KeyVerdict>;
  readonly guard: LoginGuard;
  /** The client of a request, behind configured proxies too. */
  readonly addressOf: (request: IncomingMessage) => string;
}

/** What a request says of who sends it. */
export interface RequestOrigin {
  /** The header of that name. */
  readonly authorization: string | undefined;
  readonly address: string;
}

const BEARER = /^Bearer +([^\s]+) *$/i;

/**
 * Decides whether a request may use a route, for all routes. Every refusal looks the same: a
 * missing key, an unknown one, one of another kind; a wrong one is refused later with each try. Only who
 * has the key of a device learns that the device is disabled. Rights end at the organization, those of a
 * device at itself: handlers are given their ids and ask for nothing outside of them.
 * @returns whose key it is; null on a public route.
 * @throws {UnauthorizedError} @throws {AddressBannedError} @throws {DeviceRefusedError}
 * @throws {StoreUnavailableError}
 */
export async function authorize(
  role: Role,
  { authorization, address }: RequestOrigin,
  { verifyKey, guard }: AuthorizeParts,
): Promise<Principals[Role]> {
  if (role === 'public') return null;
  const [, key] = BEARER.exec(authorization ?? '') ?? [];
  if (key === undefined) throw new UnauthorizedError(role);
  if (guard.before(address) === 'banned') throw new AddressBannedError();
  const verdict = await verifyKey(key);
  if (verdict.ok && hasRole(verdict.principal, role)) {
    guard.succeeded(address, verdict.principal.keyId);
    return verdict.principal;
  }
  if (!verdict.ok && isGuess(verdict.reason)) {
    await delay(guard.failed(address, publicPartOf(key), key));
  }
  throw refusalOf(verdict, role);
}

function hasRole(
  principal: Principal,
  role: 'admin' | 'device',
): principal is AdminPrincipal | DevicePrincipal {
  return principal.kind === role;
}

function isGuess(reason: KeyRefusal): boolean {
  return reason === 'malformed' || reason === 'unknown';
}

function refusalOf(verdict: KeyVerdict, role: 'admin' | 'device'): AppError {
  if (verdict.ok) return new UnauthorizedError(role);
  const { reason, principal } = verdict;
  if (reason === 'unavailable') return new StoreUnavailableError();
  const isOfDevice = role === 'device' && principal?.kind === 'device';
  return isOfDevice && (reason === 'disabled' || reason === 'suspended')
    ? new DeviceRefusedError(reason)
    : new UnauthorizedError(role);
}
