import { CsvError, parse } from 'csv-parse/sync';
import { RequestInvalidError } from '../../errors.ts';
import { SAMPLE_METRICS_MAX, VALUE_MAX } from '../../firmware-protocol/contract.ts';
import { isMissingWord } from '../../firmware-protocol/json-text.ts';
import { isMetricName } from '../../firmware-protocol/metric-name.ts';
import {
  findFault,
  LineRefusal,
  refuseLong,
  type ImportMessage,
  type LineReader,
  type ReadLine,
} from './import-line.ts';
import type { Line } from './line-splitter.ts';
import { withoutMark, type ReaderOptions } from './ndjson-reader.ts';
import { readTimeCell } from './time-cell.ts';

/** A CSV reader's options. */
export interface CsvOptions extends ReaderOptions {
  /** Other names for columns of the header: name in the file → name here. */
  readonly columns: ReadonlyMap<string, string>;
}

/** Where what stands in a row. */
interface Layout {
  readonly delimiter: string;
  readonly cells: number;
  readonly device: number;
  readonly time: number;
  /** Long form: the columns of metric and value. Wide form: -1. */
  readonly metric: number;
  readonly value: number;
  /** Wide form: metrics by column. */
  readonly metrics: readonly (readonly [column: number, name: string])[];
}

const DELIMITERS = [',', ';', '\t'] as const;
const JSON_NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
/** Spellings of a number that JSON does not have. `007` is none. */
const OTHER_NUMBER = /^[+-]?(?:(?:0|[1-9]\d*)\.?|(?:0|[1-9]\d*)?\.\d+)(?:[eE][+-]?\d+)?$/;
/** As spreadsheets write it where semicolons separate cells. Between commas it could be anything. */
const COMMA_NUMBER = /^[+-]?(?:0|[1-9]\d*),\d+$/;
/** As spreadsheets and programs write them. */
const TRUTHS: ReadonlyMap<string, string> = new Map(
  ['true', 'false'].flatMap((word) =>
    [word, word.toUpperCase(), word.charAt(0).toUpperCase() + word.slice(1)].map(
      (spelling) => [spelling, word] as const,
    ),
  ),
);

/**
 * Reads CSV (RFC 4180) with a header, one record a line: a line break inside quotes is not taken. Long
 * form: `device,time,metric,value`. Wide form: `device,time` and one column for each metric. Separated by
 * commas, semicolons or tabs, whichever the header has. Blanks around a cell are none of it, but for those
 * inside quotes. A cell that reads as a number is one, with a point for its decimals, `true` and `false`
 * are booleans, an empty one is no value, everything else is a text.
 */
export class CsvReader implements LineReader {
  readonly #options: CsvOptions;
  readonly #layout: Layout;

  /** @throws {RequestInvalidError} 422, when the header cannot be understood. */
  constructor(header: Line, options: CsvOptions) {
    this.#options = options;
    this.#layout = layoutOf(header, options);
  }

  read(lines: readonly Line[]): ReadLine[] {
    const whole = lines.filter(({ isTooLong }) => !isTooLong);
    const rows = parseTogether(whole, this.#layout.delimiter);
    let at = 0;
    return lines.map((line) => {
      const tooLong = refuseLong(line, this.#options.lineBytesMax);
      if (tooLong !== null) return { line, outcome: tooLong };
      const row = rows[at] ?? BROKEN;
      at += 1;
      return { line, outcome: row instanceof LineRefusal ? row : this.#readRow(row) };
    });
  }

  #readRow(row: readonly string[]): ImportMessage | LineRefusal | null {
    const { cells, device: deviceAt, time: timeAt } = this.#layout;
    if (row.length !== cells) {
      return new LineRefusal('bad_line', `${row.length} cells, the header has ${cells}`);
    }
    const device = deviceAt === -1 ? this.#options.device : row[deviceAt];
    if (device === undefined || device === null || device === '') {
      return new LineRefusal('bad_device', 'the cell of the device is empty');
    }
    const timeText = row[timeAt]?.trim() ?? '';
    if (timeText === '') return new LineRefusal('no_time', 'the cell of the time is empty');
    const time = readTimeCell(timeText);
    if (time === null) return badTime(timeText);
    const values = this.#valuesOf(row);
    if (values instanceof LineRefusal) return values;
    if (values === '') return null;
    const payload = Buffer.from(`{"ts":${time}${values}}`);
    return findFault(payload, this.#options.times) ?? { device, payload };
  }

  /** The members of a sample behind its `ts`; empty when there is no value. */
  #valuesOf(row: readonly string[]): string | LineRefusal {
    const { metric, value, metrics, delimiter } = this.#layout;
    if (metric === -1) {
      let members = '';
      for (const [column, name] of metrics) {
        const member = memberOf(name, row[column] ?? '', delimiter);
        if (member instanceof LineRefusal) return member;
        members += member;
      }
      return members;
    }
    const name = row[metric] ?? '';
    if (!isMetricName(name)) return new LineRefusal('bad_name', `${quoted(name)} is no metric`);
    return memberOf(name, row[value] ?? '', delimiter);
  }
}

const BROKEN = new LineRefusal('bad_line', 'the line is not CSV');

/** The rows of many lines at once, which is several times faster; one by one when one is broken. */
function parseTogether(
  lines: readonly Line[],
  delimiter: string,
): readonly (readonly string[] | LineRefusal)[] {
  // Without a quote nothing is quoted, and a cell is what stands between two delimiters: ten times faster.
  if (!lines.some(({ bytes }) => bytes.includes(QUOTE))) {
    return lines.map(({ bytes }) => bytes.toString().split(delimiter).map(withoutBlanks));
  }
  try {
    const joined = Buffer.concat(lines.flatMap(({ bytes }) => [bytes, LINE_END]));
    const rows = parseCsv(joined, delimiter);
    // An open quote may join lines.
    if (rows.length === lines.length) return rows;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
  }
  return lines.map(({ bytes }) => parseAlone(bytes, delimiter));
}

function parseAlone(bytes: Buffer, delimiter: string): readonly string[] | LineRefusal {
  try {
    const rows = parseCsv(Buffer.concat([bytes, LINE_END]), delimiter);
    return rows.length === 1 ? (rows[0] ?? BROKEN) : BROKEN;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    const detail =
      error.code === 'CSV_QUOTE_NOT_CLOSED'
        ? 'a quote is not closed on its line'
        : 'a quote stands where none may be';
    return new LineRefusal('bad_line', detail);
  }
}

/** As csv-parse does it with `trim`. */
function withoutBlanks(cell: string): string {
  const last = cell.charCodeAt(cell.length - 1);
  const isBare = cell.charCodeAt(0) > BLANK && last > BLANK && last < ASCII_END;
  return isBare ? cell : cell.replace(/^[\t\n\f\r ]+/, '').trimEnd();
}

const BLANK = 0x20;
const ASCII_END = 0x80;
const QUOTE = 0x22;
const LINE_END = Buffer.from('\n');

function parseCsv(bytes: Buffer, delimiter: string): string[][] {
  return parse(bytes, {
    delimiter,
    record_delimiter: '\n',
    relax_column_count: true,
    trim: true,
    // Strings alone: what a cell means is decided here.
    cast: false,
    columns: false,
  });
}

function layoutOf(header: Line, { columns, device, lineBytesMax }: CsvOptions): Layout {
  if (header.isTooLong) throw headerFault(`the header is longer than ${lineBytesMax} bytes`);
  const bytes = withoutMark(header.bytes);
  const text = bytes.toString();
  const delimiter = DELIMITERS.find((candidate) => text.includes(candidate)) ?? ',';
  const row = parseAlone(bytes, delimiter);
  if (row instanceof LineRefusal) throw headerFault(row.detail);
  const names = row.map((name) => columns.get(name.trim()) ?? name.trim());
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw headerFault(`the column ${quoted(twice)} stands twice`);
  const at = (name: string): number => names.indexOf(name);
  const found = { delimiter, cells: names.length, device: at('device'), time: at('time') };
  if (found.device === -1 && device === null) throw headerFault('there is no column "device"');
  if (found.time === -1) throw headerFault('there is no column "time"');
  const isLong = at('metric') !== -1 && at('value') !== -1;
  const rest = names.flatMap((name, column) =>
    ['device', 'time', ...(isLong ? ['metric', 'value'] : [])].includes(name)
      ? []
      : [[column, name] as const],
  );
  if (!isLong) return { ...found, metric: -1, value: -1, metrics: checkMetrics(rest) };
  if (rest.length > 0) throw headerFault(`the column ${quoted(rest[0]?.[1] ?? '')} is not known`);
  return { ...found, metric: at('metric'), value: at('value'), metrics: [] };
}

function checkMetrics(
  metrics: readonly (readonly [number, string])[],
): readonly (readonly [number, string])[] {
  if (metrics.length === 0) throw headerFault('there is no column of a metric');
  if (metrics.length > SAMPLE_METRICS_MAX) {
    throw headerFault(`${metrics.length} metrics, ${SAMPLE_METRICS_MAX} allowed`);
  }
  const bad = metrics.find(([, name]) => !isMetricName(name));
  if (bad !== undefined) {
    throw headerFault(`the column ${quoted(bad[1])} is no metric name; give it another with "map"`);
  }
  return metrics;
}

function headerFault(fault: string): RequestInvalidError {
  return new RequestInvalidError([`header: ${fault}`], 422);
}

/** `,"name":value`, or nothing for an empty cell and the words of a float that has no number. */
function memberOf(name: string, text: string, delimiter: string): string | LineRefusal {
  const bare = text.trim();
  if (text === '' || isMissingWord(bare)) return '';
  const isComma = delimiter !== ',' && COMMA_NUMBER.test(bare);
  const number = numberOf(isComma ? bare.replace(',', '.') : bare);
  if (number === BEYOND) return new LineRefusal('bad_value', `${quoted(bare)} is out of range`);
  return `,"${name}":${number ?? TRUTHS.get(bare) ?? JSON.stringify(text)}`;
}

/** A number as JSON has it; null for a text that is none. */
function numberOf(text: string): string | null {
  if (!JSON_NUMBER.test(text) && !OTHER_NUMBER.test(text)) return null;
  const number = Number(text);
  if (Math.abs(number) > VALUE_MAX) return BEYOND;
  return JSON_NUMBER.test(text) ? text : JSON.stringify(number);
}

const BEYOND = 'beyond';

function badTime(text: string): LineRefusal {
  const detail = `${quoted(text)} is no time: ISO 8601 with a zone, or seconds or ms since 1970`;
  return new LineRefusal('bad_time', detail);
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}
