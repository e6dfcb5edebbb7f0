/** How bad an alert is, from the least to the worst. */
export const SEVERITIES = ['info', 'low', 'medium', 'high', 'critical'] as const;

/** One of {@link SEVERITIES}. */
export type Severity = (typeof SEVERITIES)[number];

/** A severity as a number that can be compared: 1 `info` to 5 `critical`; 0: the condition does not hold. */
export type Level = 0 | 1 | 2 | 3 | 4 | 5;

/** The level of a severity. */
export function levelOf(severity: Severity): Level {
  return (SEVERITIES.indexOf(severity) + 1) as Level;
}

/** The severity of a level; `info` of 0. */
export function severityOf(level: Level): Severity {
  return SEVERITIES[Math.max(level, 1) - 1] ?? 'info';
}
