/**
 * Every error of Puback that has a meaning for its reader: one class per code. `docs/errors.md` lists
 * them with what to do; `test/unit/tidy.test.ts` holds both against each other.
 *
 * `retryable` is false for the caller's mistake and true for the environment's. `status` is the HTTP
 * status that the API answers with. Anything thrown that is not an {@link AppError} is our bug.
 */
export abstract class AppError extends Error {
  /** Stable, in capitals; clients may compare it. */
  abstract readonly code: string;
  abstract readonly status: number;
  readonly retryable: boolean = false;
  override get name(): string {
    return this.constructor.name;
  }
}

/** The configuration does not hold. The message names each key at fault and never its value. */
export class ConfigInvalidError extends AppError {
  readonly code = 'CONFIG_INVALID';
  readonly status = 500;
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(
      `the configuration has ${faults.length} fault(s):\n${faults.map((fault) => `  ${fault}`).join('\n')}`,
    );
    this.faults = faults;
  }
}

/** A file that Puback needs cannot be read or written. */
export class FileUnusableError extends AppError {
  readonly code = 'FILE_UNUSABLE';
  readonly status = 500;
  constructor(purpose: string, path: string, cause: unknown) {
    super(`${purpose} ${path} cannot be used: ${reasonOf(cause)}`, { cause });
  }
}

/** A listener cannot bind its address. */
export class ListenFailedError extends AppError {
  readonly code = 'LISTEN_FAILED';
  readonly status = 500;
  constructor(listener: string, address: string, key: string, cause: unknown) {
    super(
      `${listener} cannot listen on ${address}: ${reasonOf(cause)}; set ${key} to another port`,
      { cause },
    );
  }
}

/** Another program already runs on the same data folder. */
export class DataFolderInUseError extends AppError {
  readonly code = 'DATA_FOLDER_IN_USE';
  readonly status = 500;
  constructor(folder: string, pid: number) {
    super(
      `the data folder ${folder} is in use by process ${pid}; stop that program or set DATA_DIR to another folder`,
    );
  }
}

/** The embedded PostgreSQL cannot be set up or started. The message ends with what the server said. */
export class EmbeddedDatabaseError extends AppError {
  readonly code = 'EMBEDDED_DATABASE_FAILED';
  readonly status = 500;
  constructor(step: string, detail: string, cause?: unknown) {
    super(`embedded PostgreSQL: ${step}: ${detail}`, { cause });
  }
}

/** The database is older than PostgreSQL 15, or lacks something that Puback cannot do without. */
export class DatabaseUnsupportedError extends AppError {
  readonly code = 'DATABASE_UNSUPPORTED';
  readonly status = 500;
}

/** The database was migrated by a newer Puback than this one. */
export class DatabaseNewerError extends AppError {
  readonly code = 'DATABASE_NEWER';
  readonly status = 500;
  constructor(applied: number, known: number) {
    super(
      `the database has ${applied} migrations and this program knows ${known}: it was used by a newer Puback; start that version or restore a backup`,
    );
  }
}

/** The database does not answer, or refuses work for a reason that passes. Retry with a delay. */
export class StoreUnavailableError extends AppError {
  readonly code = 'STORE_UNAVAILABLE';
  readonly status = 503;
  override readonly retryable = true;
  constructor(cause?: unknown) {
    super('the database is not available; retry in a few seconds', { cause });
  }
}

/** The session store cannot write now. What was to be written stays in memory and is tried again. */
export class SessionStoreError extends AppError {
  readonly code = 'SESSION_STORE_FAILED';
  readonly status = 503;
  override readonly retryable = true;
  constructor(reason: string, cause?: unknown) {
    super(`the session store cannot write: ${reason}`, { cause });
  }
}

/** The session store cannot be opened: damaged, of another format, or not readable. */
export class SessionStoreUnusableError extends AppError {
  readonly code = 'SESSION_STORE_UNUSABLE';
  readonly status = 500;
  constructor(folder: string, cause: unknown) {
    super(
      `the session store ${folder} cannot be opened: ${reasonOf(cause)}; start the version that wrote it, restore a backup, or move the folder away: sessions, queued and retained messages are lost then`,
      { cause },
    );
  }
}

/** The spool is at SPOOL_BYTES_MAX. What was to be spooled is not acknowledged. */
export class SpoolFullError extends AppError {
  readonly code = 'SPOOL_FULL';
  readonly status = 503;
  override readonly retryable = true;
  constructor(bytesMax: number) {
    super(`the spool is full: it may hold ${bytesMax} bytes`);
  }
}

/** The disk does not take or give what is spooled. What was to be spooled is not acknowledged. */
export class SpoolFailedError extends AppError {
  readonly code = 'SPOOL_FAILED';
  readonly status = 503;
  override readonly retryable = true;
  constructor(step: string, cause?: unknown) {
    const reason = cause === undefined ? '' : `: ${reasonOf(cause)}`;
    super(`the spool cannot ${step}${reason}`, { cause });
  }
}

/** A file is no backup that can be restored: cut off, damaged, or of a newer Puback. */
export class BackupUnusableError extends AppError {
  readonly code = 'BACKUP_UNUSABLE';
  readonly status = 500;
  constructor(reason: string, cause?: unknown) {
    super(`the backup cannot be used: ${reason}`, { cause });
  }
}

/** A backup cannot be restored to this place: it is in use already, or lacks something. */
export class RestoreRefusedError extends AppError {
  readonly code = 'RESTORE_REFUSED';
  readonly status = 500;
}

/** No credential, an unknown one, a revoked one or one of the wrong kind. All look the same. */
export class UnauthorizedError extends AppError {
  readonly code = 'UNAUTHORIZED';
  readonly status = 401;
  constructor(kind: 'admin' | 'device' = 'admin') {
    const example = kind === 'admin' ? 'pba_…' : 'pbd_…';
    super(`send a valid ${kind} key as "Authorization: Bearer ${example}"`);
  }
}

/** A device's key is the right one, and its device or its organization is out of service. */
export class DeviceRefusedError extends AppError {
  readonly code = 'DEVICE_REFUSED';
  readonly status = 403;
  constructor(reason: 'disabled' | 'suspended') {
    super(reason === 'disabled' ? 'the device is disabled' : 'the organization is suspended');
  }
}

/** A message over HTTP cannot be stored as readings. It is kept in quarantine. */
export class MessageRefusedError extends AppError {
  readonly code = 'MESSAGE_REFUSED';
  readonly status = 422;
  /** Why, as on `in/err`. */
  readonly refusal: string;
  constructor(refusal: string, detail: string) {
    super(`${refusal}: ${detail}; it, or the part that cannot be stored, is kept in quarantine`);
    this.refusal = refusal;
  }
}

/** Messages over HTTP come faster than is allowed. It was not taken. */
export class MessageRateError extends AppError {
  readonly code = 'MESSAGE_RATE';
  readonly status = 429;
  override readonly retryable = true;
}

/** A message over HTTP is not known to be stored. Send it again, with its `ts`. */
export class MessageNotStoredError extends AppError {
  readonly code = 'MESSAGE_NOT_STORED';
  readonly status = 503;
  override readonly retryable = true;
  constructor(detail: string) {
    super(`the message was not stored: ${detail}; send it again`);
  }
}

/** Long questions to the database are being answered, as many as may be at once. Ask again. */
export class QuestionsBusyError extends AppError {
  readonly code = 'QUESTIONS_BUSY';
  readonly status = 429;
  override readonly retryable = true;
}

/** The organization is importing a file already. */
export class ImportBusyError extends AppError {
  readonly code = 'IMPORT_BUSY';
  readonly status = 409;
  override readonly retryable = true;
}

/** As many imports run as the program takes at once. */
export class ImportLimitError extends AppError {
  readonly code = 'IMPORT_LIMIT';
  readonly status = 429;
  override readonly retryable = true;
  constructor(max: number) {
    super(`${max} imports are running, which is the limit (IMPORTS_MAX); wait for one to end`);
  }
}

/** The organization has no import of this id. */
export class ImportNotFoundError extends AppError {
  readonly code = 'IMPORT_NOT_FOUND';
  readonly status = 404;
  constructor(importId: string) {
    super(`there is no import "${importId}"`);
  }
}

/** The rest of a file was sent that does not join what is stored of it. */
export class ImportOffsetError extends AppError {
  readonly code = 'IMPORT_OFFSET';
  readonly status = 409;
  constructor(offset: number, byteOffset: number | null) {
    const stored = `the file is imported up to byte ${byteOffset ?? 0}`;
    super(`${stored} and was sent from ${offset}; send it from there, or whole`);
  }
}

/** An import ended before its file did. What was read is stored, and the rest can be sent later. */
export class ImportInterruptedError extends AppError {
  readonly code = 'IMPORT_INTERRUPTED';
  readonly status = 503;
  override readonly retryable = true;
  constructor(reason: string) {
    super(`the import was interrupted: ${reason}; send the file again with resume=true`);
  }
}

/** Too many different wrong keys came from this address. It ends by itself. */
export class AddressBannedError extends AppError {
  readonly code = 'ADDRESS_BANNED';
  readonly status = 429;
  override readonly retryable = true;
  constructor() {
    super('too many wrong keys came from this address; wait for LOGIN_BAN_S and use a right one');
  }
}

/** No route has this method and path. */
export class RouteNotFoundError extends AppError {
  readonly code = 'ROUTE_NOT_FOUND';
  readonly status = 404;
  constructor(method: string, path: string) {
    super(`there is no ${method} ${path}; GET /openapi.json lists every route`);
  }
}

/** The request breaks the route's schema, or is not readable as HTTP or JSON. */
export class RequestInvalidError extends AppError {
  readonly code = 'REQUEST_INVALID';
  readonly status: number;
  /** One line for each fault: where and what. */
  readonly faults: readonly string[];
  constructor(faults: readonly string[], status = 400, cause?: unknown) {
    super(`the request is not valid: ${faults.join('; ')}`, { cause });
    this.status = status;
    this.faults = faults;
  }
}

/** The cursor was not made by this route, or its rows belong to another question. */
export class CursorInvalidError extends AppError {
  readonly code = 'CURSOR_INVALID';
  readonly status = 400;
  constructor() {
    super('the cursor is not one that this route returned; start again without it');
  }
}

/** The organization has no device of this name. Devices of other organizations look the same. */
export class DeviceNotFoundError extends AppError {
  readonly code = 'DEVICE_NOT_FOUND';
  readonly status = 404;
  constructor(device: string) {
    super(`there is no device "${device}"`);
  }
}

/** The organization already has a device of this name. */
export class DeviceExistsError extends AppError {
  readonly code = 'DEVICE_EXISTS';
  readonly status = 409;
  constructor(device: string) {
    super(`device "${device}" exists already`);
  }
}

/** Quarantine has no message of this id: it was stored, deleted, or is too old. */
export class QuarantineNotFoundError extends AppError {
  readonly code = 'QUARANTINE_NOT_FOUND';
  readonly status = 404;
  constructor(quarantineId: string) {
    super(`quarantine has no message "${quarantineId}"`);
  }
}

/** Somebody else has changed the message since its revision was read. */
export class QuarantineChangedError extends AppError {
  readonly code = 'QUARANTINE_CHANGED';
  readonly status = 409;
  constructor(quarantineId: string) {
    super(`message "${quarantineId}" was changed since; get it again and send its revision`);
  }
}

/** More readings lie in the window than completeness is worked out of at once. */
export class WindowTooLargeError extends AppError {
  readonly code = 'WINDOW_TOO_LARGE';
  readonly status = 400;
  constructor(rowsMax: number) {
    super(
      `more than ${rowsMax} readings lie between "from" and "to"; ask for less time or a metric`,
    );
  }
}

/** The organization is at its limit of devices. */
export class DeviceLimitError extends AppError {
  readonly code = 'DEVICE_LIMIT';
  readonly status = 409;
  constructor(max: number) {
    super(
      `the organization has ${max} devices, which is its limit; raise ORGANIZATION_DEVICES_MAX`,
    );
  }
}

/** The device, or the organization, has no key of this id. */
export class KeyNotFoundError extends AppError {
  readonly code = 'KEY_NOT_FOUND';
  readonly status = 404;
  constructor(keyId: string) {
    super(`there is no key "${keyId}"`);
  }
}

/** A device is at its limit of active keys, or an organization at that of integrator keys. */
export class KeyLimitError extends AppError {
  readonly code = 'KEY_LIMIT';
  readonly status = 409;
  constructor(owner: 'device' | 'organization' | 'admins', max: number) {
    const limit = `${max} active keys, which is the limit; revoke one first`;
    super(
      owner === 'organization'
        ? `the organization has ${max} active integrator keys, which is its limit; revoke one, or raise INTEGRATOR_KEYS_MAX`
        : `the ${owner === 'device' ? 'device has' : 'admins of the organization have'} ${limit}`,
    );
  }
}

/** Something that must not happen: our bug. The log has the rest under the request id. */
export class InternalError extends AppError {
  readonly code = 'INTERNAL';
  readonly status = 500;
  constructor(cause: unknown) {
    super('an unexpected error; the log of the server tells more under this request id', { cause });
  }
}

/** A command line tool (simulate, demo, bench, chaos) cannot go on. The message says what to do. */
export class ToolFailedError extends AppError {
  readonly code = 'TOOL_FAILED';
  readonly status = 500;
}

/** What an unknown thrown value says of itself, in one line and cut to 300 characters. */
export function reasonOf(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  return text.replace(/\s+/g, ' ').slice(0, 300);
}
