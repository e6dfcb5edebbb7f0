const DEPTH_MAX = 8;
const ITEMS_MAX = 20_000;
const MEMBERS_MAX = 128n;

/** Thrown for whatever is refused. */
class Refused extends Error {}

/**
 * What `readCbor` must give, read byte by byte as RFC 8949 is written. Null: refused.
 * @param labels names of integer keys; null: integer keys are refused.
 */
export function referenceCbor(
  payload: Uint8Array,
  labels: ReadonlyMap<number, string> | null,
): { json: unknown } | null {
  const bytes = [...payload];
  let items = 0;

  const take = (): number => {
    const byte = bytes.shift();
    if (byte === undefined) throw new Refused('too short');
    return byte;
  };
  const takeUnsigned = (count: number): bigint => {
    let value = 0n;
    for (let index = 0; index < count; index += 1) value = value * 256n + BigInt(take());
    return value;
  };
  const argument = (short: number): bigint => {
    if (short < 24) return BigInt(short);
    if (short > 27) throw new Refused('reserved or indefinite');
    return takeUnsigned(2 ** (short - 24));
  };
  const text = (length: bigint): string => {
    if (length > BigInt(bytes.length)) throw new Refused('too short');
    const part = Uint8Array.from(bytes.splice(0, Number(length)));
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(part);
    } catch {
      throw new Refused('not UTF-8');
    }
  };
  const float = (length: number): unknown => {
    const view = new DataView(Uint8Array.from({ length }, take).buffer);
    const value =
      length === 8 ? view.getFloat64(0) : length === 4 ? view.getFloat32(0) : half(view);
    return Number.isFinite(value) ? value : null;
  };
  const key = (): string | null => {
    const major = (bytes[0] ?? 0) >> 5;
    const read = item(DEPTH_MAX);
    if (major === 3 && read !== '__proto__') return read as string;
    if (major > 1 || labels === null) throw new Refused('key');
    return labels.get(read as number) ?? null;
  };
  const map = (length: bigint, depth: number): unknown => {
    if (length > MEMBERS_MAX) throw new Refused('too many');
    const members = new Map<string, unknown>();
    for (let index = 0n; index < length; index += 1n) {
      const name = key();
      const value = item(depth);
      if (name === null) continue;
      if (members.has(name)) throw new Refused('twice');
      members.set(name, value);
    }
    return Object.fromEntries(members);
  };
  const array = (length: bigint, depth: number): unknown => {
    const values: unknown[] = [];
    for (let index = 0n; index < length; index += 1n) values.push(item(depth));
    return values;
  };
  const simple = (short: number): unknown => {
    if (short === 20) return false;
    if (short === 21) return true;
    if (short === 22) return null;
    if (short < 25 || short > 27) throw new Refused('simple value');
    return float(2 ** (short - 24));
  };
  const item = (depth: number): unknown => {
    items += 1;
    if (items > ITEMS_MAX) throw new Refused('too many');
    const head = take();
    const [major, short] = [head >> 5, head & 31];
    if (major === 7) return simple(short);
    const size = argument(short);
    if (major === 0) return Number(size);
    if (major === 1) return Number(-1n - size);
    if (major === 3) return text(size);
    if (major === 2 || major === 6) throw new Refused('bytes or tag');
    if (depth >= DEPTH_MAX) throw new Refused('too deep');
    return major === 4 ? array(size, depth + 1) : map(size, depth + 1);
  };

  try {
    const json = item(0);
    return bytes.length > 0 ? null : { json };
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

/** RFC 8949, appendix D. */
function half(view: DataView): number {
  const bits = view.getUint16(0);
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  const magnitude =
    exponent === 0
      ? mantissa / 2 ** 24
      : exponent === 31
        ? Infinity
        : (mantissa + 1024) * 2 ** (exponent - 25);
  return bits >= 0x8000 ? -magnitude : magnitude;
}
