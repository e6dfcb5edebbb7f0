import { readFile, stat } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { FileUnusableError, reasonOf } from '../../errors.ts';

/** PEM files of the TLS listener. */
export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  /** CA of client certificates; empty: none are asked for. */
  readonly clientCaFile: string;
  /** Revoked client certificates, of every CA in their chain; empty: none. */
  readonly clientCrlFile: string;
}

/** What the files hold, in the words of node:tls. `ca` and `crl` are absent when there is no such file. */
export type TlsMaterial = Pick<SecureContextOptions, 'ca' | 'crl'> & {
  readonly cert: Buffer;
  readonly key: Buffer;
};

/**
 * Reads the files and tries them together.
 * @throws {FileUnusableError} when one cannot be read, or they do not fit each other.
 */
export async function readTlsFiles(files: TlsFiles): Promise<TlsMaterial> {
  const [cert, key, ca, crl] = await Promise.all([
    readPem('the TLS certificate', files.certFile),
    readPem('the TLS key', files.keyFile),
    files.clientCaFile === '' ? null : readPem('the CA of clients', files.clientCaFile),
    files.clientCrlFile === '' ? null : readPem('the list of revoked clients', files.clientCrlFile),
  ]);
  const material = {
    cert,
    key,
    ...(ca === null ? {} : { ca }),
    ...(crl === null ? {} : { crl }),
  };
  try {
    createSecureContext(material);
  } catch (cause) {
    throw new FileUnusableError('the TLS certificate', nameFiles(files), cause);
  }
  return material;
}

/**
 * Looks at files again and again, since a watch does not see through the symbolic links that containers
 * mount secrets with.
 * @returns ends it
 */
export function watchFiles(
  paths: readonly string[],
  everyMs: number,
  changed: () => Promise<void>,
): () => void {
  let last: string | null = null;
  let isBusy = false;
  const look = async (): Promise<void> => {
    // Taken before the files are read: a change meanwhile is seen at the next look.
    const now = (await Promise.all(paths.map(signatureOf))).join('\n');
    const isChanged = last !== null && last !== now;
    last = now;
    if (isChanged) await changed();
  };
  const lookUnlessBusy = (): void => {
    if (isBusy) return;
    isBusy = true;
    void look().finally(() => {
      isBusy = false;
    });
  };
  lookUnlessBusy();
  const timer = setInterval(lookUnlessBusy, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}

async function signatureOf(path: string): Promise<string> {
  try {
    const { mtimeMs, size, ino } = await stat(path);
    return `${mtimeMs} ${size} ${ino}`;
  } catch (err) {
    // A file that is missing, or back again, is a change too.
    return reasonOf(err);
  }
}

function nameFiles({ certFile, keyFile, clientCaFile, clientCrlFile }: TlsFiles): string {
  return [certFile, keyFile, clientCaFile, clientCrlFile].filter((path) => path !== '').join(', ');
}

async function readPem(purpose: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new FileUnusableError(purpose, path, cause);
  }
}
