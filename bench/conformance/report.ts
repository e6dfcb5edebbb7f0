import type { PointResult, Verdict } from './points.ts';
import type { ConformanceReport } from './run.ts';

const WORDS: Readonly<Record<Verdict, string>> = {
  passed: 'ok',
  failed: 'FAILED',
  not_reached: 'not reached',
  not_applicable: 'does not apply',
};
const ID_CHARS = 20;
const WORD_CHARS = 15;

/** The report for people: a line for each point, with what was found below where there is something to say. */
export function reportText({ isConformant, seconds, points }: ConformanceReport): string {
  const lines = points.flatMap((point) => [lineOf(point), ...detailOf(point)]);
  const open = points.filter(isOpen).map(({ id }) => id);
  const verdict = isConformant
    ? 'Every point that must hold does.'
    : `Not conformant: ${open.join(', ')}.`;
  return `${lines.join('\n')}\n\n${verdict} ${seconds.toFixed(0)} s.\n`;
}

function lineOf({ id, level, verdict, title }: PointResult): string {
  return `${WORDS[verdict].padEnd(WORD_CHARS)}${level.padEnd(8)}${id.padEnd(ID_CHARS)}${title}`;
}

function detailOf({ detail }: PointResult): string[] {
  return detail === '' ? [] : [`${''.padEnd(WORD_CHARS + 8 + ID_CHARS)}${detail}`];
}

function isOpen({ level, verdict }: PointResult): boolean {
  return level === 'must' && (verdict === 'failed' || verdict === 'not_reached');
}
