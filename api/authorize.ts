import { StoreUnavailableError, UnauthorizedError } from '../errors.ts';
import type { AdminPrincipal, KeyVerdict } from '../registry/principal.ts';
import type { Role } from './route.ts';

const BEARER = /^Bearer +([^\s]+) *$/i;

/**
 * Decides whether a request may use a route, for all routes. Every refusal looks the same: a
 * missing key, an unknown one, one of a device. Rights end at the organization: handlers are given
 * its id and ask for nothing outside of it.
 * @param authorization the header of that name.
 * @returns whose key it is; null on a public route.
 * @throws {UnauthorizedError} @throws {StoreUnavailableError}
 */
export async function authorize(
  role: Role,
  authorization: string | undefined,
  verifyKey: (key: string) => Promise<KeyVerdict>,
): Promise<AdminPrincipal | null> {
  if (role === 'public') return null;
  const [, key] = BEARER.exec(authorization ?? '') ?? [];
  if (key === undefined) throw new UnauthorizedError();
  const verdict = await verifyKey(key);
  if (!verdict.ok && verdict.reason === 'unavailable') throw new StoreUnavailableError();
  if (!verdict.ok || verdict.principal.kind !== 'admin') throw new UnauthorizedError();
  return verdict.principal;
}
