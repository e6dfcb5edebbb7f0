import { formatDuration } from '../../duration.ts';
import { SILENCES, type Condition, type Schedule } from './condition.ts';
import { DAY_NAMES } from './schedule-schema.ts';
import { clockText } from './schedule.ts';

type Json = Record<string, unknown>;

/**
 * The JSON of a condition as the API has it, without members that say what is so anyway; the schema makes
 * the same condition of it.
 */
export function formatCondition(condition: Condition): Json {
  switch (condition.kind) {
    case 'all':
    case 'any':
      return { [condition.kind]: condition.of.map(formatCondition) };
    case 'not':
      return { not: formatCondition(condition.of) };
    case 'connection':
      return { connection: condition.is };
    case 'cel':
      return { cel: condition.expression };
    case 'event': {
      const { name, holdsMicros } = condition;
      return { event: name, ...(holdsMicros > 0 && { holds: formatDuration(holdsMicros) }) };
    }
    case 'schedule': {
      const { schedule, inside } = condition;
      return { schedule: formatSchedule(schedule), ...(!inside && { outside: true }) };
    }
    case 'noData':
      return formatNoData(condition);
    default:
      return formatOfMetric(condition);
  }
}

function formatOfMetric(condition: Extract<Condition, { metric: string }>): Json {
  const { metric } = condition;
  switch (condition.kind) {
    case 'compare': {
      const { op, value, clear, deadBand, of } = condition;
      return { metric, op, value, ...withoutNulls({ clear, deadBand, of }) };
    }
    case 'window': {
      const { window, fn, op, value, clear } = condition;
      const size =
        'samples' in window ? { ...window } : { window: formatDuration(window.spanMicros) };
      return { metric, ...size, fn, op, value, ...withoutNulls({ clear }) };
    }
    case 'stuck': {
      const { spanMicros, within } = condition;
      return { metric, stuck: formatDuration(spanMicros), within };
    }
    case 'compareMetric': {
      const { op, other, agoMicros } = condition;
      const ago = agoMicros === 0 ? {} : { ago: formatDuration(agoMicros) };
      return { metric, op, other, ...ago, ...formatScale(condition) };
    }
    case 'compareFleet': {
      const { op, fn, tag } = condition;
      return { metric, op, fleet: fn, tag, ...formatScale(condition) };
    }
  }
}

function formatScale({ times, plus }: { readonly times: number; readonly plus: number }): Json {
  return { ...(times !== 1 && { times }), ...(plus !== 0 && { plus }) };
}

function formatNoData({ afterMicros, kinds }: Extract<Condition, { kind: 'noData' }>): Json {
  const noData = afterMicros === 'auto' ? afterMicros : formatDuration(afterMicros);
  const isEvery = SILENCES.every((silence, index) => kinds[index] === silence);
  return { noData, ...(!isEvery && { kinds: [...kinds] }) };
}

function formatSchedule({ timeZone, windows }: Schedule): Json {
  const formatted = windows.map(({ days, fromMinute, toMinute }) => ({
    ...(days.length < DAY_NAMES.length && { days: days.map((day) => DAY_NAMES[day - 1]) }),
    from: clockText(fromMinute),
    to: clockText(toMinute),
  }));
  return formatted.length === 1 ? { timeZone, ...formatted[0] } : { timeZone, windows: formatted };
}

function withoutNulls(members: Json): Json {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== null));
}
