import { parseArgs, type ParseArgsConfig } from 'node:util';
import { AppError, reasonOf, ToolFailedError } from '../errors.ts';

/** The options of one command: the `options` of node:util `parseArgs`. */
export type OptionTable = NonNullable<ParseArgsConfig['options']>;

/** Given options by name. Everything is text but flags, which are `true`, and what may be given often. */
export type GivenOptions = Readonly<Record<string, string | boolean | string[] | undefined>>;

/** Exit status for a wrong option or a run that could not take place. */
export const EXIT_UNUSABLE = 2;

/**
 * Runs one command of the tools and ends the process with the status it returns. `--help` prints the
 * help; an option that the table lacks prints the fault and the help; an {@link AppError} prints its
 * message. Any other error is our bug and shows its stack. With an option `file` in the table its value may
 * stand without the name of the option.
 */
export async function runTool(
  help: string,
  table: OptionTable,
  run: (options: GivenOptions) => Promise<number>,
): Promise<void> {
  let options: GivenOptions;
  try {
    options = readOptions(table);
  } catch (error) {
    process.stderr.write(`${reasonOf(error)}\n\n${help}`);
    process.exit(EXIT_UNUSABLE);
  }
  if (options['help'] === true) {
    process.stdout.write(help);
    process.exit(0);
  }
  try {
    process.exit(await run(options));
  } catch (error) {
    process.stderr.write(`${failureText(error)}\n`);
    process.exit(EXIT_UNUSABLE);
  }
}

/** @throws {TypeError} for what the table lacks. */
function readOptions(table: OptionTable): GivenOptions {
  const { values, positionals } = parseArgs({
    options: { ...table, help: { type: 'boolean', short: 'h' } },
    strict: true,
    allowPositionals: 'file' in table,
  });
  const [file, more] = positionals;
  if (more !== undefined) throw new TypeError(`one file at a time, and not ${more} too`);
  return { ...(values as GivenOptions), ...(file === undefined ? {} : { file }) };
}

/** @throws {ToolFailedError} when the option is not a number from `min` to `max`. */
export function numberOption(
  options: GivenOptions,
  name: string,
  fallback: number,
  [min, max]: readonly [number, number],
): number {
  const text = options[name];
  if (typeof text !== 'string') return fallback;
  const value = Number(text);
  if (text.trim() === '' || !(value >= min && value <= max)) {
    throw new ToolFailedError(`--${name} must be a number from ${min} to ${max}`);
  }
  return value;
}

/** Like {@link numberOption}, but for whole numbers. */
export function countOption(
  options: GivenOptions,
  name: string,
  fallback: number,
  bounds: readonly [number, number],
): number {
  const value = numberOption(options, name, fallback, bounds);
  if (!Number.isInteger(value)) throw new ToolFailedError(`--${name} must be a whole number`);
  return value;
}

/**
 * Seconds from `90`, `90s`, `10m` or `2h`.
 * @throws {ToolFailedError} when the option is not a duration above 0 and up to 24 days (what a timer can hold).
 */
export function durationOption(options: GivenOptions, name: string, fallbackS: number): number {
  const text = options[name];
  if (typeof text !== 'string') return fallbackS;
  const match = /^(\d+(?:\.\d+)?)(s|m|h)?$/.exec(text);
  const unitS = match?.[2] === 'h' ? 3600 : match?.[2] === 'm' ? 60 : 1;
  const seconds = Number(match?.[1]) * unitS;
  if (!(seconds > 0 && seconds <= 24 * 86_400)) {
    throw new ToolFailedError(`--${name} must be a duration such as 60, 90s, 10m or 2h`);
  }
  return seconds;
}

/** The texts of an option that may be given several times. */
export function textsOption(options: GivenOptions, name: string): string[] {
  const texts = options[name];
  return Array.isArray(texts) ? texts : [];
}

/** The text of an option, or the fallback. */
export function textOption(options: GivenOptions, name: string, fallback: string): string {
  const text = options[name];
  return typeof text === 'string' ? text : fallback;
}

/**
 * A signal that aborts at the first SIGINT or SIGTERM. A second one ends the process at once with
 * status 130. One Ctrl-C below `npm run` arrives twice, from the terminal and from npm: signals within
 * half a second count as one.
 */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  let firstAt = 0;
  const interrupt = (): void => {
    if (firstAt === 0) {
      firstAt = performance.now();
      controller.abort();
    } else if (performance.now() - firstAt > 500) {
      process.exit(130);
    }
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  return controller.signal;
}

function failureText(error: unknown): string {
  if (error instanceof ToolFailedError) return error.message;
  if (error instanceof AppError) return `${error.code}: ${error.message}`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
