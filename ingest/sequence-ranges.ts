/** Numbers from `first` up to, and not with, `end`. */
export interface SequenceRange {
  readonly first: number;
  readonly end: number;
}

/** Numbers, in any order and some twice, as the text of an `int8multirange`: `{[1,4),[7,8)}`. */
export function formatRanges(numbers: readonly number[]): string {
  const ranges: { first: number; end: number }[] = [];
  for (const number of numbers.toSorted((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && number <= last.end) last.end = Math.max(last.end, number + 1);
    else ranges.push({ first: number, end: number + 1 });
  }
  return `{${ranges.map(({ first, end }) => `[${first},${end})`).join(',')}}`;
}

/** Reads the text of an `int8multirange` as PostgreSQL writes it: rising, bounded, each `[first,end)`. */
export function parseRanges(text: string): SequenceRange[] {
  return [...text.matchAll(/\[(\d+),(\d+)\)/g)].map(([, first, end]) => ({
    first: Number(first),
    end: Number(end),
  }));
}
