/** Numbers from the first up to, and without, the second. */
export type SequenceRange = readonly [from: number, to: number];

/** The ranges of numbers that come in any order, some twice: rising, none touching the next. */
export function rangesOf(numbers: readonly number[]): SequenceRange[] {
  const ranges: [number, number][] = [];
  for (const number of numbers.toSorted((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && number <= last[1]) last[1] = Math.max(last[1], number + 1);
    else ranges.push([number, number + 1]);
  }
  return ranges;
}

/** Reads the text of an `int8multirange` as PostgreSQL writes it: rising, bounded, each `[from,to)`. */
export function parseRanges(text: string): SequenceRange[] {
  return [...text.matchAll(/\[(\d+),(\d+)\)/g)].map(([, from, to]) => [Number(from), Number(to)]);
}
