/** What an ESP-IDF application says of itself, `esp_app_desc_t`. */
export interface AppDescription {
  /** Up to 31 bytes. */
  readonly version: string;
  /** Up to 31 bytes; what `hello` calls the model. */
  readonly projectName: string;
}

/** First byte of an image of ESP-IDF. */
export const ESP_IMAGE_MAGIC = 0xe9;
/** `ESP_APP_DESC_MAGIC_WORD`. */
const DESCRIPTION_MAGIC = 0xabcd_5432;
/** Behind the header of the image, 24 bytes, and that of its first segment, 8. */
const DESCRIPTION_AT = 32;
/** Behind the magic word, the security version and two reserved words. */
const VERSION_AT = DESCRIPTION_AT + 16;
const PROJECT_AT = VERSION_AT + 32;
const TEXT_BYTES = 32;

/**
 * Reads what an image says of itself, which stands at a fixed place of it.
 * @returns null when it is no image of ESP-IDF, or has no such description.
 */
export function readAppDescription(image: Buffer): AppDescription | null {
  if (image[0] !== ESP_IMAGE_MAGIC || image.length < PROJECT_AT + TEXT_BYTES) return null;
  if (image.readUInt32LE(DESCRIPTION_AT) !== DESCRIPTION_MAGIC) return null;
  return { version: textAt(image, VERSION_AT), projectName: textAt(image, PROJECT_AT) };
}

function textAt(image: Buffer, start: number): string {
  const field = image.subarray(start, start + TEXT_BYTES);
  const end = field.indexOf(0);
  return field.subarray(0, end < 0 ? TEXT_BYTES : end).toString('utf8');
}
