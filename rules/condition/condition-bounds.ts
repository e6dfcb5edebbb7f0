/** Deepest nesting of `all`, `any` and `not`, the innermost condition counted. */
export const CONDITION_DEPTH_MAX = 6;
/** Most conditions of a rule, those in `levels` and those that hold others counted. */
export const CONDITIONS_MAX = 32;
/** Most metrics that a rule may look at. */
export const RULE_METRICS_MAX = 16;
/** Most samples of a window by samples; RULE_WINDOW_SAMPLES_MAX may keep fewer. */
export const WINDOW_SAMPLES_MAX = 100_000;
/** Most samples of which N must hold. */
export const OF_SAMPLES_MAX = 1000;
/** Most times of a week in one schedule. */
export const SCHEDULE_WINDOWS_MAX = 14;
/** Longest text that a metric is compared with, in characters. */
export const TEXT_CHARS_MAX = 256;
/** The longest time that a condition may look back, 31 days. */
export const SPAN_MICROS_MAX = 31 * 86_400_000_000;
