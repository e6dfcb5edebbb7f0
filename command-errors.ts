import { AppError } from './errors.ts';

/** A command, its arguments or its conditions are not as they must be. */
export class CommandInvalidError extends AppError {
  readonly code = 'COMMAND_INVALID';
  readonly status = 400;
}

/** No command with this id. */
export class CommandNotFoundError extends AppError {
  readonly code = 'COMMAND_NOT_FOUND';
  readonly status = 404;
  constructor(commandId: string) {
    super(`no command ${shown(commandId)}; GET /api/v1/commands lists them`);
  }
}

/** The packet would not fit what the device said that it can receive. */
export class CommandTooBigError extends AppError {
  readonly code = 'COMMAND_TOO_BIG';
  readonly status = 422;
  constructor(bytes: number, bytesMax: number) {
    super(
      `the command makes a packet of ${bytes} bytes, the device takes ${bytesMax}; ` +
        'shorten its arguments, or let the firmware say a larger "mps" in its hello',
    );
  }
}

/** Too many commands wait for the device. */
export class CommandBacklogError extends AppError {
  readonly code = 'COMMAND_BACKLOG_FULL';
  readonly status = 429;
  override readonly retryable = true;
  constructor(device: string, max: number) {
    super(
      `${max} commands wait for ${device}; cancel some, use "replace" for set-points, or wait until it has connected`,
    );
  }
}

/** The idempotency key was used for another request. */
export class IdempotencyKeyError extends AppError {
  readonly code = 'IDEMPOTENCY_KEY_REUSED';
  readonly status = 409;
  constructor() {
    super('the Idempotency-Key was used for another request; use a new one for each request');
  }
}

/** The command has ended: there is nothing to cancel. */
export class CommandEndedError extends AppError {
  readonly code = 'COMMAND_ENDED';
  readonly status = 409;
  constructor(state: string) {
    super(`the command has ended: ${state}`);
  }
}

/** The command does not wait for anybody to agree. */
export class CommandNotWaitingError extends AppError {
  readonly code = 'COMMAND_NOT_WAITING';
  readonly status = 409;
  constructor(state: string) {
    super(`the command does not wait for approval: it is ${state}`);
  }
}

/** Who asked for a command cannot be the one who agrees to it. */
export class ApprovalByAuthorError extends AppError {
  readonly code = 'APPROVAL_BY_AUTHOR';
  readonly status = 403;
  constructor() {
    super(
      'who asked for the command cannot approve it; somebody else has to, with a key of their own',
    );
  }
}

/** A campaign, its devices or its policy are not as they must be. */
export class CampaignInvalidError extends AppError {
  readonly code = 'CAMPAIGN_INVALID';
  readonly status = 400;
}

/** No campaign with this id. */
export class CampaignNotFoundError extends AppError {
  readonly code = 'CAMPAIGN_NOT_FOUND';
  readonly status = 404;
  constructor(campaignId: string) {
    super(`no campaign ${shown(campaignId)}; GET /api/v1/campaigns lists them`);
  }
}

/** The campaign is in a state in which that cannot be done. */
export class CampaignStateError extends AppError {
  readonly code = 'CAMPAIGN_STATE';
  readonly status = 409;
  constructor(verb: string, state: string) {
    super(`the campaign is ${state}: it cannot be ${verb}`);
  }
}

/** As many campaigns have not ended as may. */
export class CampaignLimitError extends AppError {
  readonly code = 'CAMPAIGN_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `the organization has ${max} campaigns that have not ended, which is the limit (CAMPAIGNS_OPEN_MAX)`,
    );
  }
}

/** The type of the device has definitions of commands, and this one is not among them. */
export class CommandUndefinedError extends AppError {
  readonly code = 'COMMAND_UNDEFINED';
  readonly status = 400;
  constructor(name: string, deviceType: string, defined: readonly string[]) {
    super(
      `devices of type ${shown(deviceType)} have no command ${shown(name)}; they have: ${defined.join(', ')}`,
    );
  }
}

/** A definition of a command does not hold. */
export class CommandDefinitionInvalidError extends AppError {
  readonly code = 'COMMAND_DEFINITION_INVALID';
  readonly status = 400;
}

/** The organization has no definition of this command for this type of device. */
export class CommandDefinitionNotFoundError extends AppError {
  readonly code = 'COMMAND_DEFINITION_NOT_FOUND';
  readonly status = 404;
  constructor(name: string, deviceType: string | null) {
    const type = deviceType === null ? 'any type' : `the type ${shown(deviceType)}`;
    super(`no definition of ${shown(name)} for devices of ${type}`);
  }
}

/** The organization has as many definitions of commands as it may. */
export class CommandDefinitionLimitError extends AppError {
  readonly code = 'COMMAND_DEFINITION_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `the organization has ${max} definitions of commands, which is its limit; delete some, or raise COMMAND_DEFINITIONS_MAX`,
    );
  }
}

/** What a device answered to a command over HTTP is none. It was not taken; the same again is refused too. */
export class CommandAnswerInvalidError extends AppError {
  readonly code = 'COMMAND_ANSWER_INVALID';
  readonly status = 422;
}

/** What is desired, a default or a schema is not as it must be. */
export class ConfigurationInvalidError extends AppError {
  readonly code = 'CONFIGURATION_INVALID';
  readonly status = 422;
  /** Where in the document, as a JSON pointer, and what is wrong there. */
  readonly faults: readonly { readonly path: string; readonly message: string }[];
  constructor(faults: readonly { readonly path: string; readonly message: string }[]) {
    super(faults.map(({ path, message }) => (path ? `${path}: ${message}` : message)).join('; '));
    this.faults = faults;
  }
}

/** The packet with the document would not fit what the device said that it can receive. */
export class ConfigurationTooBigError extends AppError {
  readonly code = 'CONFIGURATION_TOO_BIG';
  readonly status = 422;
  constructor(bytes: number, bytesMax: number) {
    super(
      `the document makes a packet of ${bytes} bytes, the device takes ${bytesMax}; ` +
        'shorten it, or let the firmware say a larger "mps" in its hello',
    );
  }
}

/** Somebody else has changed the configuration since the version that was sent. */
export class ConfigurationChangedError extends AppError {
  readonly code = 'CONFIGURATION_CHANGED';
  readonly status = 412;
  /** The version that there is. */
  readonly version: number;
  constructor(asked: number, version: number) {
    super(`the configuration is at version ${version} and not ${asked}; get it again`);
    this.version = version;
  }
}

/** A change of configuration has to say which version it was made for. */
export class ConfigurationVersionRequiredError extends AppError {
  readonly code = 'CONFIGURATION_VERSION_REQUIRED';
  readonly status = 428;
  constructor() {
    super(
      'send the version that the change is made for, from "version" of the GET: If-Match: "7"; ' +
        'or If-Match: * for whichever there is',
    );
  }
}

/** The device has no such version, or no longer. */
export class ConfigurationVersionNotFoundError extends AppError {
  readonly code = 'CONFIGURATION_VERSION_NOT_FOUND';
  readonly status = 404;
  constructor(device: string, version: number) {
    super(
      `${device} has no version ${version}; GET /api/v1/devices/${device}/configuration/versions lists them`,
    );
  }
}

/** The organization has set no configuration for this type of devices. */
export class ConfigurationTypeNotFoundError extends AppError {
  readonly code = 'CONFIGURATION_TYPE_NOT_FOUND';
  readonly status = 404;
  constructor(type: string) {
    super(`no configuration is set for devices of type ${shown(type)}`);
  }
}

/** As many types of the organization have a configuration as may. */
export class ConfigurationTypeLimitError extends AppError {
  readonly code = 'CONFIGURATION_TYPE_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `${max} types of devices have a configuration, which is the limit; remove one, or raise CONFIGURATION_TYPES_MAX`,
    );
  }
}

/** The key of the device is being changed already. */
export class KeyRotationOpenError extends AppError {
  readonly code = 'KEY_ROTATION_OPEN';
  readonly status = 409;
  constructor(device: string) {
    super(
      `the key of ${device} is being changed already; GET its rotation, or roll that back with DELETE first`,
    );
  }
}

/** No change of the device's key is under way. */
export class KeyRotationNotFoundError extends AppError {
  readonly code = 'KEY_ROTATION_NOT_FOUND';
  readonly status = 404;
  constructor(device: string) {
    super(`no change of the key of ${device} is under way that could be shown or rolled back`);
  }
}

/** The change cannot be rolled back: the old key has ended, and the device would be left with none. */
export class KeyRotationFinalError extends AppError {
  readonly code = 'KEY_ROTATION_FINAL';
  readonly status = 409;
  constructor(device: string) {
    super(
      `the change of the key of ${device} cannot be rolled back: its old key has ended; make another key for it`,
    );
  }
}

/** The device has no key that could be changed. */
export class DeviceKeylessError extends AppError {
  readonly code = 'DEVICE_KEYLESS';
  readonly status = 409;
  constructor(device: string) {
    super(`${device} has no key in use that could be changed; make one for it`);
  }
}

/** Nobody with this hardware id has asked for a name. */
export class ClaimNotFoundError extends AppError {
  readonly code = 'CLAIM_NOT_FOUND';
  readonly status = 404;
  constructor(hardwareId: string) {
    super(
      `no board ${shown(hardwareId)} has claimed a name; GET /api/v1/claims lists those that have`,
    );
  }
}

/** The board has its key already. */
export class ClaimIssuedError extends AppError {
  readonly code = 'CLAIM_ISSUED';
  readonly status = 409;
  constructor(hardwareId: string) {
    super(
      `the board ${shown(hardwareId)} has been given its key; disable or delete the device instead`,
    );
  }
}

/** The organization has as many claim keys in use as it may. */
export class ClaimKeyLimitError extends AppError {
  readonly code = 'CLAIM_KEY_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `the organization has ${max} claim keys in use, which is its limit; revoke one, or raise CLAIM_KEYS_MAX`,
    );
  }
}

/** Where devices find the broker is not known, so it cannot be written for them. */
export class PublicAddressError extends AppError {
  readonly code = 'PUBLIC_ADDRESS_UNKNOWN';
  readonly status = 409;
  constructor() {
    super('set MQTT_PUBLIC_URL to the address under which devices reach the broker');
  }
}

/** The last active key of the admins of an organization cannot be revoked. */
export class LastAdminKeyError extends AppError {
  readonly code = 'LAST_ADMIN_KEY';
  readonly status = 409;
  constructor() {
    super('it is the last admin key of the organization; make another one first');
  }
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 64));
}
