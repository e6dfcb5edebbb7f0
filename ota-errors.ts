import { AppError } from './errors.ts';

/** The organization has no firmware image with this id. */
export class FirmwareNotFoundError extends AppError {
  readonly code = 'FIRMWARE_NOT_FOUND';
  readonly status = 404;
  constructor(firmwareId: string) {
    super(`no firmware ${shown(firmwareId)}; GET /api/v1/firmware lists the images`);
  }
}

/** What was uploaded is no image, or not the one that it is said to be. */
export class FirmwareInvalidError extends AppError {
  readonly code = 'FIRMWARE_INVALID';
  readonly status = 422;
}

/** There is an image of this model and version. */
export class FirmwareExistsError extends AppError {
  readonly code = 'FIRMWARE_EXISTS';
  readonly status = 409;
  constructor(model: string, version: string) {
    super(
      `there is an image of ${shown(model)} ${shown(version)} with other bytes; give the new one another version, or withdraw the old one`,
    );
  }
}

/** The organization has as many images as it may. */
export class FirmwareLimitError extends AppError {
  readonly code = 'FIRMWARE_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `the organization has ${max} firmware images, which is its limit; withdraw old ones, or raise FIRMWARE_IMAGES_MAX`,
    );
  }
}

/** The signature is missing, or is not one of a known signer for these bytes. */
export class FirmwareSignatureError extends AppError {
  readonly code = 'FIRMWARE_SIGNATURE_INVALID';
  readonly status = 422;
}

/** Too many images are being uploaded, or downloaded. */
export class FirmwareBusyError extends AppError {
  readonly code = 'FIRMWARE_BUSY';
  readonly status = 503;
  override readonly retryable = true;
  constructor(what: 'uploads' | 'downloads', max: number) {
    super(`${max} ${what} of firmware are under way; ask again later`);
  }
}

/** The link to an image does not hold, or no longer. */
export class FirmwareLinkError extends AppError {
  readonly code = 'FIRMWARE_LINK_REFUSED';
  readonly status = 403;
}

/** The organization has no signer of this name. */
export class SignerNotFoundError extends AppError {
  readonly code = 'SIGNER_NOT_FOUND';
  readonly status = 404;
  constructor(signerId: string) {
    super(`no signer ${shown(signerId)}; GET /api/v1/firmware-signers lists them`);
  }
}

/** There is a signer of this name, now or revoked. */
export class SignerExistsError extends AppError {
  readonly code = 'SIGNER_EXISTS';
  readonly status = 409;
  constructor(signerId: string) {
    super(`there is, or was, a signer ${shown(signerId)}; a new key needs a new name`);
  }
}

/** The organization has as many signers as it may. */
export class SignerLimitError extends AppError {
  readonly code = 'SIGNER_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(`the organization has ${max} signers, which is the limit, revoked ones included`);
  }
}

/** The key of a signer cannot be used. */
export class SignerInvalidError extends AppError {
  readonly code = 'SIGNER_INVALID';
  readonly status = 400;
}

/** Why a device is not updated; a closed set. */
export type UpdateRefusal =
  | 'withdrawn'
  | 'untrusted'
  | 'other_model'
  | 'unknown_model'
  | 'already_at_version'
  | 'other_update';

/** The device is not updated with this image. */
export class UpdateRefusedError extends AppError {
  readonly code = 'UPDATE_REFUSED';
  readonly status = 409;
  readonly reason: UpdateRefusal;
  constructor(reason: UpdateRefusal, detail: string) {
    super(detail);
    this.reason = reason;
  }
}

/** The organization has no update with this id. */
export class UpdateNotFoundError extends AppError {
  readonly code = 'UPDATE_NOT_FOUND';
  readonly status = 404;
  constructor(updateId: string) {
    super(`no update ${shown(updateId)}; GET /api/v1/devices/{device}/updates lists them`);
  }
}

/** The update has ended, or the device has the whole image: it cannot be cancelled. */
export class UpdateNotCancellableError extends AppError {
  readonly code = 'UPDATE_NOT_CANCELLABLE';
  readonly status = 409;
  constructor(state: string) {
    super(`the update cannot be cancelled any more: it is ${state}`);
  }
}

/** What a campaign of updates is asked to do does not hold. */
export class UpdateInvalidError extends AppError {
  readonly code = 'UPDATE_INVALID';
  readonly status = 400;
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 64));
}
