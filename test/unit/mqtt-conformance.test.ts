import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const PAGE = readFileSync(join(ROOT, 'docs/mqtt-conformance.md'), 'utf8');
/** Statements of MQTT 3.1.1 in Appendix B of the standard. */
const STATEMENTS = 141;

interface Row {
  readonly clause: string;
  readonly proof: string;
  readonly differs: string;
}

interface TestName {
  readonly file: string;
  readonly name: string;
  readonly clauses: readonly string[];
}

const rows: Row[] = [...PAGE.matchAll(/^\| (MQTT-[\d.-]+) +\|(.*)\|$/gm)].map(
  ([, clause = '', cells = '']) => {
    const [, proof = '', differs = ''] = cells.split(/(?<!\\)\|/).map((cell) => cell.trim());
    return { clause, proof, differs };
  },
);
const tests = ['unit', 'integration', 'e2e'].flatMap((folder) =>
  readdirSync(join(ROOT, 'test', folder)).flatMap((file) =>
    testsOf(join(ROOT, 'test', folder, file)),
  ),
);

/** Names of the tests of a file that name a clause. */
function testsOf(path: string): TestName[] {
  if (path === fileURLToPath(import.meta.url)) return [];
  const titles = readFileSync(path, 'utf8').matchAll(
    /'((?:[^'\\\n]|\\.)*\[MQTT-(?:[^'\\\n]|\\.)*)'/g,
  );
  return [...titles].map(([, title = '']) => ({
    file: basename(path, '.test.ts'),
    name: title.replaceAll(/\s*\[MQTT-[^\]]*\]/g, '').trim(),
    clauses: title.match(/MQTT-\d+\.\d+\.\d+-\d+/g) ?? [],
  }));
}

describe('docs/mqtt-conformance.md', () => {
  it('has a row for every statement of the standard, once', () => {
    expect(rows).toHaveLength(STATEMENTS);
    expect(new Set(rows.map(({ clause }) => clause)).size).toBe(STATEMENTS);
  });

  it('names for each statement a test that exists and names it, or says what happens instead', () => {
    const wrong = rows.filter(({ clause, proof, differs }) => {
      if (proof === '–') return differs === '';
      const [, file, name] = /^`([a-z0-9-]+)`: (.+)$/.exec(proof) ?? [];
      return !tests.some(
        (test) => test.file === file && test.name === name && test.clauses.includes(clause),
      );
    });
    expect(wrong).toEqual([]);
  });

  it('names a test wherever there is one', () => {
    const unproved = rows.filter(
      ({ clause, proof }) => proof === '–' && tests.some(({ clauses }) => clauses.includes(clause)),
    );
    expect(unproved).toEqual([]);
  });

  it('has every statement that a test names', () => {
    const known = new Set(rows.map(({ clause }) => clause));
    const unknown = tests.filter(({ clauses }) => clauses.some((clause) => !known.has(clause)));
    expect(unknown).toEqual([]);
    expect(tests.length).toBeGreaterThan(100);
  });
});
