import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { readTlsFiles } from '../broker/gate/tls-files.ts';
import { reasonOf, ToolFailedError } from '../errors.ts';
import { textOption, textsOption, type GivenOptions } from './command-line.ts';
import { issueCertificate, makeAuthority, type Certificate } from './conformance/certificate.ts';

/** With what the kit speaks TLS, and what its user is told of it. */
export interface KitTls extends Certificate {
  readonly notes: string;
}

const NAME = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/;

/**
 * Reads the certificate that is given, or issues one of an authority of the kit's own, which is kept in the
 * data folder: a board that trusts it does so in the next run too.
 * @returns null when no TLS is asked for.
 * @throws {ToolFailedError} for options that do not go together. @throws {FileUnusableError}
 */
export async function kitTls(
  given: GivenOptions,
  host: string,
  dataDir: string,
): Promise<KitTls | null> {
  const certFile = textOption(given, 'tls-cert', '');
  const keyFile = textOption(given, 'tls-key', '');
  const names = textsOption(given, 'tls-name');
  if ((certFile === '') !== (keyFile === '')) {
    throw new ToolFailedError('--tls-cert and --tls-key go together');
  }
  if (certFile !== '') {
    if (names.length > 0) throw new ToolFailedError('--tls-name is for a certificate of --tls');
    const { cert, key } = await readTlsFiles({
      ...{ certFile, keyFile, clientCaFile: '', clientCrlFile: '' },
    });
    return { cert: cert.toString(), key: key.toString(), notes: '' };
  }
  if (given['tls'] === true) return ownTls(host, names, dataDir);
  if (names.length > 0) throw new ToolFailedError('--tls-name goes with --tls');
  return null;
}

async function ownTls(host: string, more: readonly string[], dataDir: string): Promise<KitTls> {
  const wrong = more.find((name) => isIP(name) === 0 && !NAME.test(name));
  if (wrong !== undefined) throw new ToolFailedError(`--tls-name ${wrong} is no host name`);
  const names = [...new Set([...more, ...namesOf(host)])];
  const certFile = join(dataDir, 'conformance-ca.pem');
  const authority = await keptAuthority(certFile, join(dataDir, 'conformance-ca-key.pem'));
  const notes = `Its certificate is for ${names.join(', ')}.
The firmware has to trust this CA, which is in ${certFile} too and stays the same:
${authority.cert}`;
  return { ...issueCertificate(authority, names), notes };
}

/** By what a board can reach this machine. */
function namesOf(host: string): string[] {
  const here = ['localhost', '127.0.0.1'];
  if (host !== '0.0.0.0' && host !== '::') return [host, ...here];
  const addresses = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address);
  const [name = ''] = hostname().split('.');
  return [...addresses, ...(NAME.test(name) ? [name, `${name}.local`] : []), ...here];
}

async function keptAuthority(certFile: string, keyFile: string): Promise<Certificate> {
  const kept = await readAuthority(certFile, keyFile);
  if (kept !== null) return kept;
  const made = makeAuthority();
  try {
    await mkdir(join(certFile, '..'), { recursive: true, mode: 0o700 });
    await writeFile(keyFile, made.key, { mode: 0o600 });
    await writeFile(certFile, made.cert);
  } catch (cause) {
    throw new ToolFailedError(`the CA of the kit cannot be kept: ${reasonOf(cause)}`, { cause });
  }
  return made;
}

/** @returns null when there is none yet, or it has ended. @throws {ToolFailedError} when it is damaged. */
async function readAuthority(certFile: string, keyFile: string): Promise<Certificate | null> {
  try {
    const [cert, key] = await Promise.all([readFile(certFile, 'utf8'), readFile(keyFile, 'utf8')]);
    const read = new X509Certificate(cert);
    if (!read.checkPrivateKey(createPrivateKey(key))) throw new Error('they do not fit each other');
    return Date.parse(read.validTo) > Date.now() ? { cert, key } : null;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return null;
    throw new ToolFailedError(
      `${certFile} and ${keyFile} cannot be used: ${reasonOf(cause)}. Delete both, and the kit makes new ones`,
      { cause },
    );
  }
}
