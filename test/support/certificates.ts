import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './programs.ts';

/** Paths of a certificate and its key in PEM. */
export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

/** A certificate authority of a test, made with openssl. */
export interface TestCa extends CertificateFiles {
  readonly folder: string;
  /** Issues a certificate. `days` below 1 gives one that has expired. */
  issue(commonName: string, days?: number): Promise<CertificateFiles>;
  revoke(certificate: CertificateFiles): Promise<void>;
  /** Writes the list of what has been revoked. */
  writeCrl(): Promise<string>;
  remove(): Promise<void>;
}

const P256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
const CONFIG = `[ca]
default_ca = test
[test]
dir = .
database = $dir/index.txt
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir/issued
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_crl_days = 2
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
`;

/** Makes a CA in a folder of its own. */
export async function makeCa(name = 'test ca'): Promise<TestCa> {
  const folder = await mkdtemp(join(tmpdir(), 'puback-ca-'));
  const path = (file: string) => join(folder, file);
  await mkdir(path('issued'));
  await writeFile(path('ca.cnf'), CONFIG.replace('dir = .', `dir = ${folder}`));
  await writeFile(path('index.txt'), '');
  await writeFile(path('serial'), '01\n');
  await writeFile(path('crlnumber'), '01\n');
  const files = { certFile: path('ca.pem'), keyFile: path('ca.key') };
  await request(files, name, ['-x509', '-days', '2']);
  let count = 0;
  return {
    ...files,
    folder,
    async issue(commonName, days = 2) {
      count += 1;
      const issued = { certFile: path(`${count}.pem`), keyFile: path(`${count}.key`) };
      const wish = path(`${count}.csr`);
      const names = ['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
      await request({ certFile: wish, keyFile: issued.keyFile }, commonName, names);
      const end = new Date(Date.now() + days * 86_400_000).toISOString();
      const begin = new Date(Date.now() - 10 * 86_400_000).toISOString();
      const times = ['-startdate', utcTime(begin), '-enddate', utcTime(end)];
      await run('openssl', [
        ...['ca', '-batch', '-config', path('ca.cnf'), '-in', wish, '-out', issued.certFile],
        ...['-notext', ...times],
      ]);
      return issued;
    },
    async revoke({ certFile }) {
      await run('openssl', ['ca', '-config', path('ca.cnf'), '-revoke', certFile]);
    },
    async writeCrl() {
      const out = path('crl.pem');
      await run('openssl', ['ca', '-config', path('ca.cnf'), '-gencrl', '-out', out]);
      return out;
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

async function request(
  { certFile, keyFile }: CertificateFiles,
  commonName: string,
  more: readonly string[],
): Promise<void> {
  // A slash would begin the next part of the name.
  const subject = `/CN=${commonName.replaceAll('/', '\\/')}`;
  await run('openssl', [
    ...['req', '-new', ...P256, '-subj', subject, ...more],
    ...['-keyout', keyFile, '-out', certFile],
  ]);
}

/** `2026-01-02T03:04:05.678Z` as openssl writes it. */
function utcTime(iso: string): string {
  return `${iso.slice(0, 19).replaceAll(/[-:T]/g, '')}Z`;
}
