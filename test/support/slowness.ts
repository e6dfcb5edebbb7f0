const BYTES = Buffer.alloc(200_000, 'puback');
/** A walk over them, where the times were set that tests hold decoders to. Ms. */
const WALK_MS = 1;

/**
 * How many times slower this machine is at the moment than the one that bounds in ms were set on; at least
 * 1. A time divided by it means the same wherever a test runs.
 */
export function slowness(): number {
  const times = Array.from({ length: 10 }, () => {
    const start = performance.now();
    let sum = 0;
    for (let at = 0; at < BYTES.length; at += 1) sum = (sum * 31 + (BYTES[at] ?? 0)) | 0;
    // The sum is used, so that the walk is not left out.
    return Number.isInteger(sum) ? performance.now() - start : NaN;
  });
  return Math.max(1, Math.min(...times) / WALK_MS);
}
