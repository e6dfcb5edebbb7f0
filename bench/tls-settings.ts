import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ToolFailedError } from '../errors.ts';

/**
 * Makes a certificate of P-256 with openssl. @returns the settings that name its files.
 * @throws {ToolFailedError} without openssl.
 */
export async function makeTlsFiles(folder: string): Promise<Record<string, string>> {
  const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const names = ['-subj', '/CN=localhost', '-days', '2', '-keyout', keyFile, '-out', certFile];
  await promisify(execFile)('openssl', ['req', '-x509', ...curve, ...names]).catch((cause) => {
    throw new ToolFailedError('openssl cannot make a certificate', { cause });
  });
  return { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile };
}

/** A port that nobody listens on now: the file of credentials does not name the one of TLS. */
export async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
