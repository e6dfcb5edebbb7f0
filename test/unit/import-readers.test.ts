import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RequestInvalidError } from '../../errors.ts';
import { CsvReader } from '../../ingest/import/csv-reader.ts';
import { importTimes, LineRefusal, type ReadLine } from '../../ingest/import/import-line.ts';
import { LineSplitter } from '../../ingest/import/line-splitter.ts';
import { NdjsonReader } from '../../ingest/import/ndjson-reader.ts';
import { readTimeCell } from '../../ingest/import/time-cell.ts';

const NOW_MS = Date.UTC(2026, 10, 21);
const TS = NOW_MS - 3_600_000;
const OPTIONS = {
  lineBytesMax: 1000,
  device: null,
  times: importTimes(NOW_MS, 365 * 86_400_000, 300_000),
  columns: new Map<string, string>(),
};

function linesOf(text: string) {
  const splitter = new LineSplitter(OPTIONS.lineBytesMax, { byteOffset: 0, lines: 0 });
  return [...splitter.push(Buffer.from(text)), ...splitter.end()];
}

function shown({ outcome }: ReadLine): string {
  if (outcome === null) return 'nothing';
  return outcome instanceof LineRefusal
    ? outcome.code
    : `${outcome.device} ${outcome.payload.toString()}`;
}

function csv(text: string, options = {}): string[] {
  const [header, ...rows] = linesOf(text);
  if (header === undefined) throw new Error('no header');
  return new CsvReader(header, { ...OPTIONS, ...options }).read(rows).map(shown);
}

const ndjson = (text: string): string[] => new NdjsonReader(OPTIONS).read(linesOf(text)).map(shown);

function headerFault(text: string): string {
  try {
    csv(text);
  } catch (error) {
    expect(error).toBeInstanceOf(RequestInvalidError);
    expect((error as RequestInvalidError).status).toBe(422);
    return (error as Error).message;
  }
  return 'none';
}

describe('CSV', () => {
  it('of the long form is one value a line, with the kind that its cell reads as', () => {
    const rows = ['21.5', 'true', 'FALSE', 'open', '-3e2', '.5', '+7', '007', '"2"', '', 'nan'];
    const text = rows.map((value) => `boiler,${TS},m,${value}`).join('\n');
    const start = `boiler {"ts":${TS},"m":`;
    expect(csv(`device,time,metric,value\n${text}`)).toEqual([
      ...['21.5', 'true', 'false', '"open"', '-3e2', '0.5', '7', '"007"', '2'].map(
        (value) => `${start}${value}}`,
      ),
      'nothing',
      'nothing',
    ]);
  });

  it('of the wide form is one sample a line, without its empty cells, in any order of columns', () => {
    const text = `temp;time;device;"rh"\n21.5;2026-11-20T23:00:00Z;a;48\n;${TS};b;\n20;${TS};c;\n`;
    expect(csv(text)).toEqual([
      `a {"ts":${TS},"temp":21.5,"rh":48}`,
      'nothing',
      `c {"ts":${TS},"temp":20}`,
    ]);
  });

  it('has numbers with a decimal comma where semicolons or tabs separate, and nowhere else', () => {
    expect(csv(`device;time;m\na;${TS};-4,5\na;${TS};1.234,5`)).toEqual([
      `a {"ts":${TS},"m":-4.5}`,
      `a {"ts":${TS},"m":"1.234,5"}`,
    ]);
    expect(csv(`device,time,m\na,${TS},"4,5"`)).toEqual([`a {"ts":${TS},"m":"4,5"}`]);
  });

  it('takes no blank around a cell for a part of it, but those inside quotes', () => {
    const ok = `a {"ts":${TS},"m":5,"n":"on and off"}`;
    const rows = [`a, ${TS} ,\t5, on and off `, ` "a" , "${TS}", "5" ,"on and off" `];
    expect(csv(`device, time, m, n\n${rows[0]}`)).toEqual([ok]);
    expect(csv(`device, time, m, n\n${rows.join('\n')}`)).toEqual([ok, ok]);
    expect(csv(`device;time;m;n\na; ${TS}; 5; TRUE`)).toEqual([`a {"ts":${TS},"m":5,"n":true}`]);
    expect(csv(`device\ttime\tm\tn\n"a"\t${TS}\t\t "1,5"`)).toEqual([`a {"ts":${TS},"n":1.5}`]);
    expect(csv(`device,time,m,n\na,${TS}, nan ," x "`)).toEqual([`a {"ts":${TS},"n":" x "}`]);
    expect(csv(`device,time,m,n\na,${TS}," 5 ",  `)).toEqual([`a {"ts":${TS},"m":5}`]);
  });

  it('refuses a line with a number that is out of range, and takes the words for none as missing', () => {
    const cells = ['1e999', '+1e999', '-1e999', '1.1e290'];
    expect(csv(`device,time,m\n${cells.map((cell) => `a,${TS},${cell}`).join('\n')}`)).toEqual(
      cells.map(() => 'bad_value'),
    );
    expect(csv(`device,time,m,n\na,${TS},inf,1\na,${TS},1,1e999`)).toEqual([
      `a {"ts":${TS},"n":1}`,
      'bad_value',
    ]);
  });

  it('refuses a line that is broken and no other, also when a quote opens in it', () => {
    const good = `a,${TS},1`;
    const text = ['device,time,m', good, `"a,${TS},1`, good, `a,${TS}`, `a"b,${TS},1`, good];
    const ok = `a {"ts":${TS},"m":1}`;
    expect(csv(text.join('\r\n'))).toEqual([ok, 'bad_line', ok, 'bad_line', 'bad_line', ok]);
  });

  it('refuses a line without a device or a time that can be right', () => {
    const cells = [`,${TS}`, 'a,', 'a,yesterday', 'a,2026-02-30T00:00:00Z', 'a,2026-11-20 23:00'];
    const beyond = ['a,0', 'a,2024-01-01T00:00:00Z', 'a,2027-01-01T00:00:00Z', 'a,1e9'];
    const text = ['device,time,m', ...[...cells, ...beyond].map((row) => `${row},1`)].join('\n');
    expect(csv(text)).toEqual([
      'bad_device',
      'no_time',
      'bad_time',
      'bad_time',
      'bad_time',
      'too_old',
      'too_old',
      'clock',
      'bad_time',
    ]);
  });

  it('has columns renamed, and a device for all lines', () => {
    const columns = new Map([
      ['Zeit', 'time'],
      ['Temp (°C)', 'temp'],
    ]);
    const text = `Zeit,Temp (°C)\n${TS},4`;
    expect(csv(text, { columns, device: 'x' })).toEqual([`x {"ts":${TS},"temp":4}`]);
  });

  it.each([
    ['a,b', 'no column "device"'],
    ['device,m', 'no column "time"'],
    ['device,time', 'no column of a metric'],
    ['device,time,m,m', 'stands twice'],
    ['device,time,Temp °C', 'is no metric name'],
    ['device,time,__proto__', 'is no metric name'],
    ['device,time,ts', 'is no metric name'],
    ['device,time,metric,value,m', 'is not known'],
    ['device,time,"m', 'quote'],
    [`device,time,${Array.from({ length: 65 }, (_, at) => `m${at}`).join()}`, '64 allowed'],
    [`device,time,${'m'.repeat(1000)}`, 'longer than'],
    ['\u{feff}', 'no column'],
  ])('with a header that cannot be understood is refused as a whole: %s', (header, fault) => {
    expect(headerFault(`${header}\na,1,2`)).toContain(fault);
  });

  it('gives what was written, whatever a text is', () => {
    const text = fc
      .string({ minLength: 1, maxLength: 60 })
      .filter((value) => !/[\r\n\0]/.test(value) && !/^\s*[-+.\d]|nan|inf|true|false/i.test(value));
    fc.assert(
      fc.property(fc.array(text, { minLength: 1, maxLength: 20 }), (texts) => {
        const rows = texts.map((value) => `a,${TS},m,"${value.replaceAll('"', '""')}"`);
        const got = csv(['device,time,metric,value', ...rows].join('\n'));
        expect(got).toEqual(texts.map((value) => `a {"ts":${TS},"m":${JSON.stringify(value)}}`));
      }),
    );
  });

  it('is the same with a quote somewhere else in the file, where another way is taken', () => {
    const cell = fc.constantFrom(
      '',
      ' ',
      'a',
      '1',
      "'",
      '\\',
      ' 2 ',
      '\t',
      'é',
      '\u{fffd}',
      'true',
    );
    const row = fc.array(cell, { minLength: 1, maxLength: 6 }).map((cells) => cells.join(','));
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 8 }), (rows) => {
        const text = ['device,time,metric,value', ...rows.map((line) => `a,${TS},${line}`)].join(
          '\n',
        );
        expect(csv(`${text}\n"a",${TS},m,1`).slice(0, -1)).toEqual(csv(text));
      }),
    );
  });

  it('never throws because of a line (I-09)', () => {
    const piece = fc.constantFrom(
      'a',
      ',',
      '"',
      '\n',
      '\r',
      String(TS),
      '\0',
      '\u{fffd}',
      ';',
      ' ',
    );
    fc.assert(
      fc.property(fc.array(piece), (pieces) => {
        const text = `device,time,metric,value\n${pieces.join('')}`;
        expect(csv(text)).toHaveLength(linesOf(text).length - 1);
      }),
    );
  });
});

describe('NDJSON', () => {
  it('is a device and any form of a sample with its time', () => {
    const series = `{"device":"b","ts":${TS},"dt":1000,"m":[1,2]}`;
    const text = [`{"device":"a","ts":${TS},"m":1,"n":"x"}`, series, `{"device":"a","ts":${TS}}`];
    expect(ndjson(text.join('\n'))).toEqual([
      `a {"ts":${TS},"m":1,"n":"x"}`,
      `b {"ts":${TS},"dt":1000,"m":[1,2]}`,
      `a {"ts":${TS}}`,
    ]);
  });

  it('is told apart by its time and not by its number, which a restarted board begins anew', () => {
    expect(ndjson(`{"device":"a","ts":${TS},"seq":1,"m":1}`)).toEqual([`a {"ts":${TS},"m":1}`]);
  });

  it('refuses a line with a number that is out of range, wherever it stands', () => {
    const values = ['1e999', '-1e291', '[1,1e308]', '{"a":1e999}', 'inf', '1e290'];
    const text = values.map((value) => `{"device":"a","ts":${TS},"dt":1000,"m":${value}}`);
    expect(ndjson(text.join('\n')).map((line) => line === 'bad_value')).toEqual([
      ...[true, true, true, true],
      ...[false, false],
    ]);
  });

  it('refuses what could not be told from its copy, and what is none of it', () => {
    const lines = [
      '{"device":"a","m":1}',
      '{"device":"a","age":5,"m":1}',
      `{"ts":${TS},"m":1}`,
      `{"device":7,"ts":${TS},"m":1}`,
      '[1]',
      'null',
      '{"device":"a"',
      `{"device":"a","ts":${TS},"__proto__":1}`,
      `{"device":"a","ts":${TS},"m":{"a":{"b":{"c":{"d":1}}}}}`,
      `{"device":"a","ts":${TS},"m":"${'x'.repeat(300)}"}`,
      `{"device":"a","ts":${TS},"m":"${'x'.repeat(2000)}"}`,
    ];
    expect(ndjson(lines.join('\n'))).toEqual([
      'no_time',
      'no_time',
      'bad_device',
      'bad_device',
      'bad_line',
      'bad_line',
      'bad_json',
      'bad_name',
      'too_deep',
      'too_big',
      'too_big',
    ]);
  });
});

describe('the time of a row', () => {
  it.each([
    ['2026-11-21T08:00:00Z', Date.UTC(2026, 10, 21, 8)],
    ['2026-11-21 08:00:00+00', Date.UTC(2026, 10, 21, 8)],
    ['2026-11-21 09:00:00.5+01:00', Date.UTC(2026, 10, 21, 8) + 500],
    ['2026-11-21T08:00:00.000123Z', Date.UTC(2026, 10, 21, 8) + 0.123],
    ['2026-11-21T02:30-0530', Date.UTC(2026, 10, 21, 8)],
    ['1795248000', 1_795_248_000_000],
    ['1795248000.25', 1_795_248_000_250],
    ['1795248000000', 1_795_248_000_000],
    ['2026-11-21T08:00:00', null],
    ['21.11.2026 08:00', null],
    ['2026-13-01T00:00:00Z', null],
    ['2026-02-29T00:00:00Z', null],
    ['', null],
    ['=1+1', null],
  ])('%s is %s', (text, milliseconds) => {
    expect(readTimeCell(text)).toBe(milliseconds);
  });
});
