import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LineSplitter, type Line } from '../../ingest/import/line-splitter.ts';

const START = { byteOffset: 0, lines: 0 };

function split(text: string, cuts: readonly number[], bytesMax = 100): Line[] {
  const bytes = Buffer.from(text);
  const splitter = new LineSplitter(bytesMax, START);
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted(
    (a, b) => a - b,
  );
  const lines: Line[] = [];
  let from = 0;
  for (const to of [...places, bytes.length]) {
    lines.push(...splitter.push(bytes.subarray(from, to)));
    from = to;
  }
  return [...lines, ...splitter.end()];
}

describe('the splitter of lines', () => {
  it('gives the same lines, numbers and offsets however the bytes are cut', () => {
    const lineText = fc.string({ maxLength: 20 }).map((text) => text.replaceAll(/[\r\n]/g, '.'));
    const file = fc.array(fc.tuple(lineText, fc.constantFrom('\n', '\r\n')));
    fc.assert(
      fc.property(file, lineText, fc.array(fc.nat()), (parts, last, cuts) => {
        const text = parts.map((part) => part.join('')).join('') + last;
        const wanted: [number, number, string][] = [];
        let offset = 0;
        for (const [index, [line, end]] of [...parts, [last, ''] as const].entries()) {
          offset += Buffer.byteLength(line + end);
          if (line !== '') wanted.push([index + 1, offset, line]);
        }
        const got = split(text, cuts).map(({ number, endOffset, bytes }) => [
          number,
          endOffset,
          bytes.toString(),
        ]);
        expect(got).toEqual(wanted);
      }),
    );
  });

  it('cuts a line that is too long, says so, and goes on behind it', () => {
    const long = 'x'.repeat(5000);
    const lines = split(`a\n${long}\nb`, [1000, 2000, 3000, 4000]);
    expect(lines.map(({ number, isTooLong }) => [number, isTooLong])).toEqual([
      [1, false],
      [2, true],
      [3, false],
    ]);
    expect(lines[1]?.bytes.length).toBeLessThanOrEqual(1024);
    expect(lines[2]?.endOffset).toBe(5004);
  });

  it('holds no more than one line of a gigabyte without an end', () => {
    const splitter = new LineSplitter(65_536, START);
    const chunk = Buffer.alloc(1_048_576, 120);
    const before = process.memoryUsage().arrayBuffers;
    for (let at = 0; at < 1024; at += 1) expect(splitter.push(chunk)).toEqual([]);
    const [line] = splitter.end();
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * 1_048_576);
    expect(line).toMatchObject({ number: 1, endOffset: 1_073_741_824, isTooLong: true });
  });

  it('goes on in the middle of a file as if it had read what is before', () => {
    const splitter = new LineSplitter(100, { byteOffset: 50, lines: 7 });
    expect(splitter.push(Buffer.from('ab\n\ncd'))).toMatchObject([{ number: 8, endOffset: 53 }]);
    expect(splitter.end()).toMatchObject([{ number: 10, endOffset: 56 }]);
  });
});
