import { COMMAND_NAME } from './command.ts';
import { DEVICE_NAME, Refusal, type Scope } from './contract.ts';

/** Shape of what an integrator calls a command of its own: `{ref}` of `do/{command}/{ref}`. */
export const COMMAND_REF = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$/;
/** Last level of the topic `v1/{organization}/{device}/cmd/refused`: what was refused of `do/…`. */
export const REFUSED_COMMANDS = 'refused';

/** What an integrator's key says of its right to give commands. */
export interface CommandRights {
  /** Slug of the organization, as it stands in topics. */
  readonly organization: string;
  readonly scopes: readonly Scope[];
  /** Slugs of the only devices that it may command; null for all of the organization. */
  readonly devices: readonly string[] | null;
}

/** A topic that a command was published to. */
export interface CommandTopic {
  /** Slug. */
  readonly device: string;
  readonly command: string;
  readonly ref: string | null;
}

/**
 * Reads the topic of a command, `v1/{organization}/{device}/do/{command}[/{ref}]`. Never throws.
 * @returns a refusal: `forbidden` without the scope `cmd:write`, in another's tree, or for a device that
 * the key does not speak for; `unknown_channel` for what is no such topic; `bad_name` for a malformed
 * device, command or ref.
 */
export function readCommandTopic(topic: string, rights: CommandRights): CommandTopic | Refusal {
  const [version, organization, device = '', channel, command = '', ref = null, more] =
    topic.split('/');
  if (version !== 'v1' || organization !== rights.organization) {
    return new Refusal('forbidden', 'the topic is of another organization');
  }
  if (!rights.scopes.includes('cmd:write')) {
    return new Refusal('forbidden', 'the key has no scope cmd:write');
  }
  if (channel !== 'do' || more !== undefined) {
    return new Refusal('unknown_channel', 'commands go to v1/{organization}/{device}/do/{command}');
  }
  if (!DEVICE_NAME.test(device)) return new Refusal('bad_name', 'that is no name of a device');
  if (rights.devices !== null && !rights.devices.includes(device)) {
    return new Refusal('forbidden', `the key is not for the device ${device}`);
  }
  if (!COMMAND_NAME.test(command)) {
    return new Refusal('bad_name', `the name of a command is ${COMMAND_NAME.source}`);
  }
  if (ref !== null && !COMMAND_REF.test(ref)) {
    return new Refusal('bad_name', `a ref is ${COMMAND_REF.source}`);
  }
  return { device, command, ref };
}
