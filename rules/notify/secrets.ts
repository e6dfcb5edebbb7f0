import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder, replacePrivateFile } from '../../drizzle/data-folder-files.ts';
import { ConfigInvalidError, FileUnusableError } from '../../errors.ts';
import { SecretUnreadableError } from '../../rule-errors.ts';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const ALGORITHM = 'aes-256-gcm';

/** A secret as it is stored: nonce (12 bytes), tag (16), ciphertext; and which key it needs. */
export interface SealedSecret {
  readonly secret: Buffer;
  readonly keyId: string;
}

/**
 * Encrypts the secrets of receivers with AES-256-GCM, each under a nonce of its own and bound to its
 * receiver: in another row it cannot be read. The first key encrypts, every key decrypts.
 */
export class Secrets {
  readonly #keys = new Map<string, Buffer>();
  /** Of the key that encrypts. */
  readonly keyId: string;

  /** @param keys 32 bytes each, at least one. */
  constructor(keys: readonly Buffer[]) {
    for (const key of keys) this.#keys.set(keyIdOf(key), key);
    const [first] = keys;
    if (first === undefined) throw new Error('secrets need a key');
    this.keyId = keyIdOf(first);
  }

  seal(receiverId: string, secret: string): SealedSecret {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, this.#keyOf(this.keyId), nonce);
    cipher.setAAD(Buffer.from(receiverId));
    const sealed = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()]);
    return { secret: Buffer.concat([nonce, cipher.getAuthTag(), sealed]), keyId: this.keyId };
  }

  /** @throws {SecretUnreadableError} when its key is not there, or it is not what was written. */
  open(receiverId: string, { secret, keyId }: SealedSecret): string {
    const key = this.#keyOf(keyId);
    try {
      const decipher = createDecipheriv(ALGORITHM, key, secret.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(Buffer.from(receiverId));
      decipher.setAuthTag(secret.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
      const opened = decipher.update(secret.subarray(NONCE_BYTES + TAG_BYTES));
      return Buffer.concat([opened, decipher.final()]).toString('utf8');
    } catch {
      throw new SecretUnreadableError('it is not what was written');
    }
  }

  #keyOf(keyId: string): Buffer {
    const key = this.#keys.get(keyId);
    if (key === undefined) throw new SecretUnreadableError(`key ${keyId} is not in SECRETS_KEY`);
    return key;
  }
}

/** Names a key without telling it. */
function keyIdOf(key: Buffer): string {
  return createHash('sha256').update('puback secret key').update(key).digest('hex').slice(0, 12);
}

/** Where the keys come from. */
export interface SecretSettings {
  readonly SECRETS_KEY: string;
  readonly SECRETS_KEY_FILE: string;
  readonly DATA_DIR: string;
}

const OWN_FILE = 'secrets.key';
const PURPOSE = 'the key file of secrets';

/**
 * Reads the keys: of SECRETS_KEY, else of SECRETS_KEY_FILE, else of `secrets.key` in the data folder, which
 * is made (0600) when it is missing.
 * @throws {ConfigInvalidError} of a key that is none; it is not told. @throws {FileUnusableError}
 */
export async function readSecretKeys(settings: SecretSettings): Promise<Buffer[]> {
  if (settings.SECRETS_KEY !== '') return parseKeys(settings.SECRETS_KEY, 'SECRETS_KEY');
  if (settings.SECRETS_KEY_FILE !== '') {
    return parseKeys(await readText(settings.SECRETS_KEY_FILE), 'SECRETS_KEY_FILE');
  }
  const path = join(settings.DATA_DIR, OWN_FILE);
  const text = await readText(path, true);
  if (text !== '') return parseKeys(text, path);
  const key = randomBytes(KEY_BYTES);
  try {
    await makeFolder(settings.DATA_DIR, 0o700);
    await replacePrivateFile(path, `${key.toString('base64')}\n`);
  } catch (error) {
    throw new FileUnusableError(PURPOSE, path, error);
  }
  return [key];
}

async function readText(path: string, mayBeMissing = false): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (mayBeMissing && isMissing) return '';
    throw new FileUnusableError(PURPOSE, path, error);
  }
}

function parseKeys(text: string, where: string): Buffer[] {
  const keys = text
    .split(/[\s,]+/)
    .filter((part) => part !== '')
    .map((part) => (/^[A-Za-z0-9+/]{43}=$/.test(part) ? Buffer.from(part, 'base64') : null));
  if (keys.length === 0 || keys.includes(null)) {
    throw new ConfigInvalidError([`${where} must have keys of 32 bytes in base64`]);
  }
  return keys.filter((key) => key !== null);
}
