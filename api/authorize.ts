import type { IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { AddressBannedError, StoreUnavailableError, UnauthorizedError } from '../errors.ts';
import { publicPartOf } from '../firmware-protocol/keys.ts';
import type { AdminPrincipal, KeyVerdict } from '../registry/principal.ts';
import type { Role } from './route.ts';

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
 * missing key, an unknown one, one of a device; a wrong one is refused later with each try. Rights
 * end at the organization: handlers are given its id and ask for nothing outside of it.
 * @returns whose key it is; null on a public route.
 * @throws {UnauthorizedError} @throws {AddressBannedError} @throws {StoreUnavailableError}
 */
export async function authorize(
  role: Role,
  { authorization, address }: RequestOrigin,
  { verifyKey, guard }: AuthorizeParts,
): Promise<AdminPrincipal | null> {
  if (role === 'public') return null;
  const [, key] = BEARER.exec(authorization ?? '') ?? [];
  if (key === undefined) throw new UnauthorizedError();
  if (guard.before(address) === 'banned') throw new AddressBannedError();
  const verdict = await verifyKey(key);
  if (verdict.ok && verdict.principal.kind === 'admin') {
    guard.succeeded(address, verdict.principal.keyId);
    return verdict.principal;
  }
  if (!verdict.ok && verdict.reason === 'unavailable') throw new StoreUnavailableError();
  const isGuess = !verdict.ok && (verdict.reason === 'malformed' || verdict.reason === 'unknown');
  if (isGuess) await delay(guard.failed(address, publicPartOf(key), key));
  throw new UnauthorizedError();
}
