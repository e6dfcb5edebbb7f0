/** Of alerts by which a client says that it does not trust the certificate. */
const DISTRUST = /UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN|CERTIFICATE_EXPIRED/;
const NO_TLS = /WRONG_VERSION_NUMBER|HTTP_REQUEST|UNKNOWN_PROTOCOL|PACKET_LENGTH_TOO_LONG/;

/** Whether a client begins with TLS: a record of the handshake, version 3. */
export function isClientHello(bytes: Buffer): boolean {
  return bytes[0] === 0x16 && bytes[1] === 0x03;
}

/** Why a TLS handshake came to nothing, for the author of the firmware. */
export function handshakeFault(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (DISTRUST.test(code)) {
    return `it does not take the certificate (${code}): give it the CA, and a host name that is in the certificate`;
  }
  if (NO_TLS.test(code)) return 'it speaks without TLS';
  if (code === 'ECONNRESET') {
    return 'it ended the TLS handshake without a word: does it take the certificate, and has it memory left?';
  }
  return `its TLS handshake failed: ${code === '' ? error.message.slice(0, 200) : code}`;
}
