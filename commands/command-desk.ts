import { CommandInvalidError, CommandUndefinedError } from '../command-errors.ts';
import { findArgumentsFault } from '../firmware-protocol/command-arguments.ts';
import { COMMAND_NAME, SYSTEM_COMMAND_PREFIX } from '../firmware-protocol/command.ts';
import type { Command, CommandAuthor, CommandRequest } from './command.ts';
import type { Commands } from './commands.ts';
import type { AppliedDefinition } from './definition.ts';
import type { CommandDefinitions } from './definitions.ts';
import { mayAskFor } from './system-command.ts';

/** What {@link createCommandDesk} needs. */
export interface CommandDeskDeps {
  readonly commands: Pick<Commands, 'enqueue'>;
  readonly definitions: Pick<CommandDefinitions, 'forDevice' | 'forType'>;
}

/** The one way in for commands, whoever asks for them: what they are to be is checked here. */
export interface CommandDesk {
  /**
   * Checks a command against its definition, and puts it into the queue of its device; see
   * {@link Commands.enqueue}, whose errors it has too. @throws {CommandInvalidError}
   * @throws {CommandUndefinedError}
   */
  enqueue(
    author: CommandAuthor,
    request: CommandRequest,
  ): Promise<{ command: Command; isNew: boolean }>;
  /**
   * Checks a command for devices of a type without sending it; null: of those that have none. The device
   * of the request is not looked at. @returns it with what its definition says.
   * @throws {CommandInvalidError} @throws {CommandUndefinedError}
   */
  checkedRequest(
    organizationId: number,
    deviceType: string | null,
    request: CommandRequest,
  ): Promise<CommandRequest>;
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createCommandDesk({ commands, definitions }: CommandDeskDeps): CommandDesk {
  return {
    async enqueue(author, request) {
      assertPlain(request);
      if (isOfPart(request)) return commands.enqueue(author, request);
      const { device, name } = request;
      const applied = await definitions.forDevice(author.organizationId, device, name);
      return commands.enqueue(author, applyDefinition(request, applied), request);
    },

    async checkedRequest(organizationId, deviceType, request) {
      assertPlain(request);
      if (isOfPart(request)) return request;
      const applied = await definitions.forType(organizationId, deviceType, request.name);
      return applyDefinition(request, applied);
    },
  };
}

/**
 * A request with what its definition says where it says nothing itself. Approval is asked for when either
 * wants it. @throws {CommandInvalidError} when the arguments break its schema.
 * @throws {CommandUndefinedError} when only other commands are defined for the type of the device.
 */
export function applyDefinition(
  request: CommandRequest,
  { deviceType, definition, compiled, defined }: AppliedDefinition,
): CommandRequest {
  const { name, args } = request;
  if (definition === null) {
    if (defined.length > 0 && !name.startsWith(SYSTEM_COMMAND_PREFIX)) {
      throw new CommandUndefinedError(name, deviceType ?? '', defined);
    }
    return request;
  }
  const faults = compiled?.validate(args) ?? [];
  if (faults.length > 0) {
    const told = faults.map(({ path, message }) => `args${path}: ${message}`);
    throw new CommandInvalidError(`the arguments of ${name} do not hold: ${told.join('; ')}`);
  }
  return {
    ...request,
    ttlMs: request.ttlMs ?? definition.ttlMs,
    isRetrySafe: request.isRetrySafe ?? definition.isRetrySafe,
    needsApproval: request.needsApproval || definition.needsApproval,
  };
}

/** What holds of every command, defined or not. */
function assertPlain({ name, args, origin }: CommandRequest): void {
  if (!COMMAND_NAME.test(name)) {
    throw new CommandInvalidError(`the name of a command is ${COMMAND_NAME.source}`);
  }
  if (!mayAskFor(origin, name)) {
    throw new CommandInvalidError(
      `${name} is not for you to send: of "sys." these are, sys.reboot, sys.log and sys.hello`,
    );
  }
  const fault = findArgumentsFault(args);
  if (fault !== null) throw new CommandInvalidError(`args: ${fault.detail}`);
}

/** Of changes of keys and of updates, which know what they send. */
function isOfPart({ origin }: CommandRequest): boolean {
  return origin === 'key' || origin === 'update';
}
