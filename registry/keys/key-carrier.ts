import QRCode from 'qrcode';
import { PublicAddressError } from '../../command-errors.ts';
import type { BrokerAddress } from './broker-address.ts';

/** Longest name of an entry in non-volatile storage, in characters: what ESP-IDF takes. */
export const NVS_NAME_CHARS_MAX = 15;
/** Namespace of what firmware needs to connect. */
const NVS_NAMESPACE = 'fp';
/** Port that firmware connects to when no other is written. */
const STANDARD_PORT = 8883;
/** Modules of a QR code are drawn this many pixels wide. */
const QR_SCALE = 6;

/** What a device connects with. */
export interface Credential {
  readonly address: BrokerAddress;
  /** `organization/device`, or the organization alone for a claim key. */
  readonly user: string;
  /** The key itself. */
  readonly key: string;
}

/**
 * The file that `nvs_partition_gen.py` of ESP-IDF makes a partition of: namespace `fp` with `host`, `user`
 * and `key`; with `port` unless it is 8883, and `tls` = 0 for a broker without TLS.
 */
export function nvsCsv({ address, user, key }: Credential): string {
  const entries = [
    ['host', 'string', address.host],
    ...(address.port === STANDARD_PORT ? [] : [['port', 'u16', String(address.port)]]),
    ...(address.isEncrypted ? [] : [['tls', 'u8', '0']]),
    ['user', 'string', user],
    ['key', 'string', key],
  ] as const;
  const rows = [
    ['key', 'type', 'encoding', 'value'],
    [NVS_NAMESPACE, 'namespace', '', ''],
    ...entries.map(([name = '', encoding, value]) => [name, 'data', encoding, value]),
  ];
  return rows.map((cells) => `${cells.map((cell) => csvCell(cell ?? '')).join(',')}\n`).join('');
}

/** A cell of a CSV file (RFC 4180). */
export function csvCell(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * What stands in a QR code: `puback:iot.example.com:8883/acme/boiler-7#pbd_…`; `puback+plain:…` for a broker
 * without TLS. Behind the `#` is the key, as no program that opens it as a link would send it.
 */
export function qrText({ address: { host, port, isEncrypted }, user, key }: Credential): string {
  const name = host.includes(':') ? `[${host}]` : host;
  return `${isEncrypted ? 'puback' : 'puback+plain'}:${name}:${port}/${user}#${key}`;
}

/**
 * What draws QR codes. To be asked for before the key is made that cannot be shown again.
 * @throws {PublicAddressError} when nobody has said where devices find the broker.
 */
export function qrOf(
  address: BrokerAddress | null,
): (user: string, key: string) => Promise<string> {
  if (address === null) throw new PublicAddressError();
  return (user, key) => qrSvg({ address, user, key });
}

/** A QR code as an SVG image, with the quiet zone around it. It shows the key to who looks at it. */
export function qrSvg(credential: Credential): Promise<string> {
  return drawQr(qrText(credential));
}

/** A text as {@link qrText} makes it, as an SVG image. */
export function drawQr(text: string): Promise<string> {
  return QRCode.toString(text, {
    type: 'svg',
    errorCorrectionLevel: 'M',
    margin: 4,
    scale: QR_SCALE,
  });
}
