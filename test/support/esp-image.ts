import { createHash, randomBytes } from 'node:crypto';

/** An image as ESP-IDF makes it, with random bytes behind its description. */
export function espImage(version: string, projectName = 'thermo-1', byteCount = 600_000): Buffer {
  const image = randomBytes(byteCount);
  image[0] = 0xe9;
  image.writeUInt32LE(0xabcd_5432, 32);
  image.fill(0, 48, 112);
  image.write(version, 48);
  image.write(projectName, 80);
  return image;
}

/** SHA-256 in hexadecimal. */
export function sha256Of(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
