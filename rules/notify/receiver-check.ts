import { ReceiverInvalidError } from '../../rule-errors.ts';
import { faultsOf } from '../rule-faults.ts';
import type { Senders } from './message.ts';
import {
  receiverSettings,
  SECRET_RULES,
  type ReceiverKind,
  type ReceiverSettings,
} from './receiver-settings.ts';

/** What a receiver is to be. */
export interface WantedReceiver {
  readonly name: string;
  readonly kind: ReceiverKind;
  readonly settings: unknown;
  /** In clear; null: none. */
  readonly secret: string | null;
}

/** A receiver that may be stored. */
export interface CheckedReceiver extends WantedReceiver {
  readonly settings: ReceiverSettings;
  /** What may be a slip: a host that does not resolve. */
  readonly warnings: readonly string[];
}

/**
 * Checks settings and secret of a receiver, also with who would send to it.
 * @param isSecretKept it has one already, which stays.
 * @throws {ReceiverInvalidError} of all faults, without the secret. @throws {AddressRefusedError}
 */
export async function checkReceiver(
  wanted: WantedReceiver,
  senders: Senders,
  isSecretKept = false,
): Promise<CheckedReceiver> {
  const { kind, secret } = wanted;
  const parsed = receiverSettings[kind].safeParse(wanted.settings);
  const faults = parsed.success
    ? []
    : faultsOf(parsed.error).map(({ path, message }) =>
        path === '' ? `settings: ${message}` : `settings.${path}: ${message}`,
      );
  if (!isSecretKept || secret !== null) faults.push(...secretFaults(kind, secret));
  if (!parsed.success || faults.length > 0) {
    throw new ReceiverInvalidError(faults.slice(0, 10).join('; ').slice(0, 1000));
  }
  const settings: ReceiverSettings = parsed.data;
  // Its address is the secret, which was checked when it was given.
  if (kind === 'slack' && isSecretKept && secret === null) {
    return { ...wanted, settings, warnings: [] };
  }
  const found = await senders[kind].check?.({ kind, settings, secret });
  const { fault, warning } = found ?? { fault: null, warning: null };
  if (fault !== null) throw new ReceiverInvalidError(fault);
  return { ...wanted, settings, warnings: warning === null ? [] : [warning] };
}

function secretFaults(kind: ReceiverKind, secret: string | null): string[] {
  const { need, shape } = SECRET_RULES[kind];
  if (secret === null) return need === 'required' ? [`secret: ${kind} needs one`] : [];
  if (need === 'none') return [`secret: ${kind} takes none`];
  const { error } = shape.safeParse(secret);
  return error === undefined ? [] : faultsOf(error).map(({ message }) => `secret: ${message}`);
}

/** Members that say to whom a secret is sent as it is. */
const SERVER_MEMBERS: Partial<Record<ReceiverKind, readonly string[]>> = {
  email: ['host', 'port', 'security', 'user'],
  ntfy: ['url'],
};

/** Whether settings would send the secret to a server that it was not given for, or less protected. */
export function needsSecretAnew(
  { kind, settings }: { readonly kind: ReceiverKind; readonly settings: ReceiverSettings },
  wanted: unknown,
): boolean {
  const before = settings as Readonly<Record<string, unknown>>;
  const after = receiverSettings[kind].safeParse(wanted).data as
    Readonly<Record<string, unknown>> | undefined;
  if (after === undefined) return false;
  return (SERVER_MEMBERS[kind] ?? []).some((member) => before[member] !== after[member]);
}
