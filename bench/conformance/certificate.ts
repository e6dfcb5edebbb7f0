import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  type KeyObject,
} from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';

/** A certificate and its private key, in PEM. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const DAY_MS = 86_400_000;
const AUTHORITY_DAYS = 3650;
/** Some clients take no more. */
const SERVER_DAYS = 365;
const AUTHORITY_NAME = 'Puback conformance kit';
/** Whom it is for stands in the list of names: no client looks here when there is one. */
const SERVER_NAME = 'conformance kit';

const SEQUENCE = 0x30;
const OCTETS = 0x04;
const BITS = 0x03;
const INTEGER = 0x02;
const TRUE = der(0x01, Buffer.from([0xff]));
const ECDSA_WITH_SHA256 = der(SEQUENCE, objectId('2a8648ce3d040302'));

/** Makes an authority of P-256, without any other program: what a board is to trust. Good for ten years. */
export function makeAuthority(now = Date.now()): Certificate {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const extensions = [
    extension('551d13', der(SEQUENCE, TRUE), true),
    // keyCertSign
    extension('551d0f', der(BITS, Buffer.from([2, 0x04])), true),
    extension('551d0e', der(OCTETS, keyId(privateKey))),
  ];
  const subject = { name: AUTHORITY_NAME, key: privateKey, days: AUTHORITY_DAYS, extensions };
  return certificateOf(subject, privateKey, now);
}

/**
 * Issues a certificate for these names and addresses. Addresses of IPv4 are in it as names too: the TLS of
 * many boards (mbedTLS before 3.5) looks for them there.
 */
export function issueCertificate(
  authority: Certificate,
  names: readonly string[],
  now = Date.now(),
): Certificate {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const issuerKey = createPrivateKey(authority.key);
  const addresses = names.flatMap((name) => addressBytes(name) ?? []);
  const extensions = [
    extension('551d13', der(SEQUENCE), true),
    // digitalSignature
    extension('551d0f', der(BITS, Buffer.from([7, 0x80])), true),
    // serverAuth
    extension('551d25', der(SEQUENCE, objectId('2b06010505070301'))),
    extension('551d23', der(SEQUENCE, der(0x80, keyId(issuerKey)))),
    extension(
      '551d11',
      der(
        SEQUENCE,
        ...names.flatMap((name) => (isIPv6(name) ? [] : [der(0x82, Buffer.from(name))])),
        ...addresses.map((bytes) => der(0x87, bytes)),
      ),
    ),
  ];
  const subject = { name: SERVER_NAME, key: privateKey, days: SERVER_DAYS, extensions };
  return certificateOf(subject, issuerKey, now);
}

interface Subject {
  readonly name: string;
  readonly key: KeyObject;
  readonly days: number;
  readonly extensions: readonly Buffer[];
}

/** RFC 5280, 4.1. */
function certificateOf(subject: Subject, issuerKey: KeyObject, now: number): Certificate {
  const { name, key, days, extensions } = subject;
  // Positive, and 16 bytes long.
  const serial = Buffer.concat([Buffer.from([0x4b]), randomBytes(15)]);
  const body = der(
    SEQUENCE,
    der(0xa0, der(INTEGER, Buffer.from([2]))),
    der(INTEGER, serial),
    ECDSA_WITH_SHA256,
    commonName(AUTHORITY_NAME),
    // A board whose clock is behind is to take it as well.
    der(SEQUENCE, time(now - DAY_MS), time(now + days * DAY_MS)),
    commonName(name),
    createPublicKey(key).export({ type: 'spki', format: 'der' }),
    der(0xa3, der(SEQUENCE, ...extensions)),
  );
  const signature = der(BITS, Buffer.from([0]), sign('sha256', body, issuerKey));
  return {
    cert: pem(der(SEQUENCE, body, ECDSA_WITH_SHA256, signature)),
    key: key.export({ type: 'pkcs8', format: 'pem' }) as string,
  };
}

/** Tag, length, contents. */
function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const contents = Buffer.concat(parts);
  const { length } = contents;
  const long = length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...(length < 128 ? [length] : long)]), contents]);
}

function objectId(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'));
}

function extension(id: string, value: Buffer, isCritical = false): Buffer {
  return der(SEQUENCE, objectId(id), ...(isCritical ? [TRUE] : []), der(OCTETS, value));
}

function commonName(name: string): Buffer {
  return der(SEQUENCE, der(0x31, der(SEQUENCE, objectId('550403'), der(0x0c, Buffer.from(name)))));
}

/** Of two digits for the year until 2049, and of four from then on. */
function time(ms: number): Buffer {
  const text = `${new Date(ms).toISOString().slice(0, 19).replaceAll(/[-:T]/g, '')}Z`;
  const isShort = text < '2050';
  return der(isShort ? 0x17 : 0x18, Buffer.from(isShort ? text.slice(2) : text));
}

/** SHA-1 of the point, which are the last 65 bytes. */
function keyId(key: KeyObject): Buffer {
  const point = createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(-65);
  return createHash('sha1').update(point).digest();
}

/** Null when it is no address. */
function addressBytes(text: string): Buffer | null {
  if (isIPv4(text)) return Buffer.from(text.split('.').map(Number));
  if (!isIPv6(text)) return null;
  // A zone (fe80::1%eth0) says which network of this machine it is, and stands in no certificate.
  const address = text.replace(/%.*$/, '');
  const [head = '', tail = ''] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::');
  const [left, right] = [head, tail].map((part) => part.split(':').filter((one) => one !== ''));
  const missing = 8 - (left?.length ?? 0) - (right?.length ?? 0);
  const groups = [...(left ?? []), ...Array<string>(missing).fill('0'), ...(right ?? [])];
  return Buffer.from(groups.map((group) => group.padStart(4, '0')).join(''), 'hex');
}

function pem(bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}
