import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { argv, exit, stderr, stdout } from 'node:process';
import { fileURLToPath } from 'node:url';
import { asyncapiText } from './gen-asyncapi.ts';
import { headerText } from './gen-header.ts';
import { schemaFiles } from './gen-schema.ts';
import { specText } from './gen-spec.ts';

/** A file that is made, as a whole or in part, from the contract. */
export interface ContractDocument {
  /** Path below `firmware-protocol/`. */
  readonly path: string;
  /** The whole text, from the text as it stands now; empty when there is none yet. */
  render(current: string): string;
}

/** What `npm run protocol:gen` writes and `npm run protocol:check` compares. */
export function contractDocuments(): ContractDocument[] {
  const made = [
    ['generated/fp_contract.h', headerText()] as const,
    ['generated/asyncapi.json', asyncapiText(readGolden)] as const,
    ...schemaFiles(),
  ];
  return [
    ...made.map(([path, text]) => ({ path, render: () => text })),
    { path: 'SPEC.md', render: specText },
  ];
}

/** Files that are not what the contract says, and those in `generated/` that nothing makes any more. */
export function staleDocuments(documents: readonly ContractDocument[]): string[] {
  const stale = documents.filter((made) => read(made.path) !== made.render(read(made.path)));
  return [...stale.map(({ path }) => path), ...leftovers(documents)];
}

/** What stands in a file of golden payloads. */
function readGolden(file: string): unknown {
  return JSON.parse(readFileSync(locate(`golden/${file}`), 'utf8'));
}

function leftovers(documents: readonly ContractDocument[]): string[] {
  const known = new Set(documents.map(({ path }) => path));
  return readdirSync(locate('generated'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => relative(locate('.'), join(parentPath, name)))
    .filter((path) => !known.has(path));
}

function locate(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}

function read(path: string): string {
  return existsSync(locate(path)) ? readFileSync(locate(path), 'utf8') : '';
}

function writeAll(documents: readonly ContractDocument[]): void {
  for (const made of documents) {
    const { path } = made;
    const text = made.render(read(path));
    if (text === read(path)) continue;
    mkdirSync(dirname(locate(path)), { recursive: true });
    writeFileSync(locate(path), text);
    stdout.write(`wrote firmware-protocol/${path}\n`);
  }
  for (const path of leftovers(documents)) {
    rmSync(locate(path));
    stdout.write(`removed firmware-protocol/${path}\n`);
  }
}

function check(documents: readonly ContractDocument[]): never {
  const stale = staleDocuments(documents);
  if (stale.length === 0) {
    stdout.write(`${documents.length} files are what the contract says\n`);
    exit(0);
  }
  const list = stale.map((path) => `  firmware-protocol/${path}`).join('\n');
  stderr.write(`Not what the contract says; run npm run protocol:gen:\n${list}\n`);
  exit(1);
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const documents = contractDocuments();
  if (argv.includes('--check')) check(documents);
  else writeAll(documents);
}
