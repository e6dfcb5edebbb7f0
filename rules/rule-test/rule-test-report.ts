import type { RuleTestResult } from './rule-test-run.ts';
import { seconds, type RuleTestRow } from './rule-test-transitions.ts';

/** Rows that are shown on either side of a wrong one. */
const CONTEXT_ROWS = 3;
const ROWS_SHOWN_MAX = 60;
const CELL_CHARS_MAX = 60;

/** A failed test as a table of what was expected and what was there, around each difference. */
export function reportFailure(file: string, result: RuleTestResult): string {
  const wrong = result.rows.filter(({ isRight }) => !isRight).length;
  const head = `FAILED ${file}: ${result.test}\n  rule ${result.rule}: ${wrong} of ${result.rows.length} differ\n`;
  const cells = shownRows(result.rows).map((row) => cellsOf(row));
  const table = [['  time', 'input', 'expected', 'was'], ...cells];
  const widths = [0, 1, 2].map((column) =>
    Math.max(...table.map((row) => row[column]?.length ?? 0)),
  );
  const lines = table.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return `${head}${lines.map((line) => `  ${line}`).join('\n')}\n`;
}

/** One line for all results. */
export function reportTotal(results: readonly RuleTestResult[], fileCount: number): string {
  const failed = results.filter(({ isPassed }) => !isPassed).length;
  const files = fileCount === 1 ? '1 file' : `${fileCount} files`;
  const tests = results.length === 1 ? '1 test' : `${results.length} tests`;
  const verdict = failed === 0 ? 'all passed' : `${failed} FAILED`;
  return `${tests} in ${files}: ${verdict}\n`;
}

/** The rows around those that are wrong; null where some are left out. */
function shownRows(rows: readonly RuleTestRow[]): (RuleTestRow | null)[] {
  const shown: (RuleTestRow | null)[] = [];
  for (const [index, row] of rows.entries()) {
    const near = rows.slice(Math.max(index - CONTEXT_ROWS, 0), index + CONTEXT_ROWS + 1);
    if (near.some(({ isRight }) => !isRight)) shown.push(row);
    else if (shown.at(-1) !== null) shown.push(null);
    if (shown.length === ROWS_SHOWN_MAX) return [...shown, null];
  }
  return shown;
}

function cellsOf(row: RuleTestRow | null): string[] {
  if (row === null) return ['  …', '', '', ''];
  const mark = row.isRight ? '  ' : '> ';
  return [`${mark}${seconds(row.atMicros)}`, cut(row.input), cut(row.expected), cut(row.actual)];
}

/** A file may hold what a terminal takes for a command. */
function cut(text: string): string {
  const plain = text.replace(/\p{Cc}/gu, '?');
  return plain.length > CELL_CHARS_MAX ? `${plain.slice(0, CELL_CHARS_MAX - 1)}…` : plain;
}
