import type { Silence, ConnectionState } from '../compiled-rule.ts';

/** How a number is held against another. Texts and booleans: `==` and `!=` only. */
export const NUMBER_OPERATORS = ['>', '>=', '<', '<=', '==', '!='] as const;
/** One of {@link NUMBER_OPERATORS}. */
export type NumberOperator = (typeof NUMBER_OPERATORS)[number];

/** What a device's connection can be. */
export const CONNECTION_STATES = [
  'online',
  'sleeping',
  'offline',
  'never',
] as const satisfies readonly ConnectionState[];
/** In which ways a device can be silent. */
export const SILENCES = ['offline', 'silent', 'garbage'] as const satisfies readonly Silence[];

/** What is computed over a window. `pNN`: a percentile, p1 to p99. */
export type WindowFunction =
  'avg' | 'min' | 'max' | 'sum' | 'count' | 'delta' | 'rate' | 'stddev' | `p${number}`;

/** A window: the last so many microseconds, or the last so many samples. */
export type Window = { readonly spanMicros: number } | { readonly samples: number };

/** Times of a week in a time zone. */
export interface Schedule {
  readonly timeZone: string;
  readonly windows: readonly {
    /** 1 Monday to 7 Sunday. */
    readonly days: readonly number[];
    /** Minutes since midnight; `to` may be smaller: it is over midnight then. */
    readonly fromMinute: number;
    readonly toMinute: number;
  }[];
}

/** What must hold, checked and with durations in microseconds. */
export type Condition =
  | { readonly kind: 'all'; readonly of: readonly Condition[] }
  | { readonly kind: 'any'; readonly of: readonly Condition[] }
  | { readonly kind: 'not'; readonly of: Condition }
  | {
      readonly kind: 'compare';
      readonly metric: string;
      readonly op: NumberOperator;
      readonly value: number | boolean | string;
      /** Hysteresis: once it holds, it holds until this is reached. */
      readonly clear: number | null;
      /** Once it holds, changes smaller than this make no difference. */
      readonly deadBand: number | null;
      /** N of the last M samples. */
      readonly of: { readonly n: number; readonly m: number } | null;
    }
  | {
      readonly kind: 'window';
      readonly metric: string;
      readonly fn: WindowFunction;
      readonly window: Window;
      readonly op: NumberOperator;
      readonly value: number;
      readonly clear: number | null;
    }
  | {
      readonly kind: 'stuck';
      readonly metric: string;
      readonly spanMicros: number;
      readonly within: number;
    }
  | {
      readonly kind: 'compareMetric';
      readonly metric: string;
      readonly op: NumberOperator;
      readonly other: string;
      /** Of `other` as it was so long ago; 0: as it is. */
      readonly agoMicros: number;
      readonly times: number;
      readonly plus: number;
    }
  | {
      readonly kind: 'compareFleet';
      readonly metric: string;
      readonly op: NumberOperator;
      readonly fn: 'avg' | 'min' | 'max' | 'median';
      readonly tag: string;
      readonly times: number;
      readonly plus: number;
    }
  | { readonly kind: 'event'; readonly name: string; readonly holdsMicros: number }
  | { readonly kind: 'connection'; readonly is: ConnectionState }
  | { readonly kind: 'schedule'; readonly schedule: Schedule; readonly inside: boolean }
  | {
      readonly kind: 'noData';
      readonly afterMicros: number | 'auto';
      readonly kinds: readonly Silence[];
    }
  | { readonly kind: 'cel'; readonly expression: string };
