import { SYSTEM_COMMAND_PREFIX } from '../firmware-protocol/command.ts';
import type { CommandOrigin } from './command.ts';

/** Those of Puback's own commands that people, integrators, rules and campaigns may send. */
export const PEOPLES_SYSTEM_COMMANDS: ReadonlySet<string> = new Set([
  'sys.reboot',
  'sys.log',
  'sys.hello',
]);
/** Who may send the others. `sys.cancel` is sent by nothing but a cancellation. */
const OWNERS: ReadonlyMap<string, CommandOrigin> = new Map([
  ['sys.ota', 'update'],
  ['sys.rekey', 'key'],
]);

/** Whether a name is one of Puback's own that is not for people, or is kept for later. */
export function isPrivateCommand(name: string): boolean {
  return name.startsWith(SYSTEM_COMMAND_PREFIX) && !PEOPLES_SYSTEM_COMMANDS.has(name);
}

/** Whether a command may be asked for by a part. */
export function mayAskFor(origin: CommandOrigin, name: string): boolean {
  return !isPrivateCommand(name) || OWNERS.get(name) === origin;
}
