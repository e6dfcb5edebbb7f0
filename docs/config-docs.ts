import { readFileSync, writeFileSync } from 'node:fs';
import { argv, stdout } from 'node:process';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { configSchema } from '../config.ts';

/** A document that is made, as a whole or in part, from `configSchema`. */
export interface ConfigDocument {
  /** Path below the root of the repository. */
  readonly path: string;
  /** The whole text, from the text as it stands now. */
  render(current: string): string;
}

/** What `npm run config:docs` writes and `test/unit/tidy.test.ts` compares. */
export const CONFIG_DOCUMENTS: readonly ConfigDocument[] = [
  { path: '.env.example', render: () => envExample() },
  { path: 'README.md', render: (current) => replaceBetweenMarkers(current, configTable()) },
];

/** The text of `.env.example`: each setting with its default, commented out. */
export function envExample(): string {
  const entries = settings().map(({ key, fallback, allowed, meaning }) => {
    const about = wrap(`${meaning} Allowed: ${allowed}.`).map((line) => `# ${line}`);
    return [...about, `#${key}=${fallback}`].join('\n');
  });
  return `${ENV_HEAD}\n\n${entries.join('\n\n')}\n`;
}

/** The table of the README: one row for each setting, in the order of the schema. */
export function configTable(): string {
  const rows = settings().map(
    ({ key, fallback, allowed, meaning }) =>
      `| \`${key}\` | ${fallback === '' ? '' : `\`${fallback}\``} | ${allowed} | ${meaning} |`,
  );
  return ['| Variable | Default | Allowed | Meaning |', '|---|---|---|---|', ...rows].join('\n');
}

const START = '<!-- config-table: made by npm run config:docs -->\n<!-- prettier-ignore-start -->';
const END = '<!-- prettier-ignore-end -->\n<!-- config-table end -->';
const ENV_HEAD = `# Settings of Puback with their defaults, made from config.ts by npm run config:docs.
# Copy to .env and take the # away from what you change. Puback itself reads only the environment:
#   docker run --env-file .env …      or      set -a; . ./.env; set +a; npm start`;
const WIDTH = 98;

interface Setting {
  readonly key: string;
  readonly fallback: string;
  readonly allowed: string;
  readonly meaning: string;
}

function settings(): Setting[] {
  const { properties = {} } = z.toJSONSchema(configSchema, { io: 'output' });
  return Object.entries(properties).map(([key, property]) => {
    if (typeof property === 'boolean' || property.description === undefined) {
      throw new Error(`${key} has no description in config.ts`);
    }
    const { default: fallback, description, enum: choices, minimum, maximum } = property;
    const range = `${minimum} to ${maximum}`;
    return {
      key,
      fallback: typeof fallback === 'number' ? fallback.toString() : z.string().parse(fallback),
      allowed: choices?.join(', ') ?? (minimum === undefined ? 'text' : range),
      meaning: description,
    };
  });
}

function replaceBetweenMarkers(text: string, content: string): string {
  const start = text.indexOf(START);
  const end = text.indexOf(END);
  if (start < 0 || end < start) throw new Error(`the markers are missing:\n${START}\n${END}`);
  return `${text.slice(0, start + START.length)}\n\n${content}\n\n${text.slice(end)}`;
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > WIDTH) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

function writeAll(): void {
  for (const document of CONFIG_DOCUMENTS) {
    const { path } = document;
    const file = fileURLToPath(new URL(`../${path}`, import.meta.url));
    writeFileSync(file, document.render(path === '.env.example' ? '' : readFileSync(file, 'utf8')));
    stdout.write(`wrote ${path}\n`);
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) writeAll();
