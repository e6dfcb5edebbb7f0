import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { CloseReason } from '../../broker/metrics.ts';
import type { ConnectRefusal } from '../../broker/principal.ts';
import { REFUSAL_CODES, type RefusalCode } from '../../firmware-protocol/contract.ts';
import { DIAGNOSIS, findHint } from '../../firmware-protocol/diagnosis.ts';

/** Does not compile when a code of the broker has no hint. */
const ALL: Readonly<Record<RefusalCode | ConnectRefusal | CloseReason, string>> = DIAGNOSIS;
const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

/** Members of a union of literals in a source file, since types are gone at run time. */
function unionOf(path: string, name: string): string[] {
  const [, members = ''] = new RegExp(`export type ${name} =([^;]*);`).exec(read(path)) ?? [];
  return [...members.matchAll(/'([a-z_]+)'/g)].map(([, code = '']) => code);
}

describe('DIAGNOSIS', () => {
  it('has a hint for every code of messages, refused connections and ended connections', () => {
    const refusals = unionOf('broker/principal.ts', 'ConnectRefusal');
    const reasons = unionOf('broker/metrics.ts', 'CloseReason');
    expect(refusals.length).toBeGreaterThan(8);
    expect(reasons.length).toBeGreaterThan(8);
    for (const code of [...REFUSAL_CODES, ...refusals, ...reasons]) {
      expect(findHint(code), code).toMatch(/^[A-Z][^|\n]{10,160}\.$/);
    }
    expect(Object.keys(ALL)).toContain('key_unknown');
  });

  it('knows nothing of a code that it does not list, nor of members of Object.prototype [I-11]', () => {
    for (const code of ['nope', '__proto__', 'constructor', 'toString', '']) {
      expect(findHint(code)).toBeNull();
    }
  });

  it('says the same as docs/errors.md, and no code is left out there', () => {
    const [, rest = ''] = read('docs/errors.md').split('## Of connections');
    const [chapter = ''] = rest.split('\n## ');
    const rows = [...chapter.matchAll(/^\| `([a-z_]+)` +\| (.*?) +\|$/gm)];
    const listed = rows.map(([, code = '', hint = '']) => [code, hint]);
    const messages: readonly string[] = REFUSAL_CODES;
    expect(listed).toEqual(Object.entries(DIAGNOSIS).filter(([code]) => !messages.includes(code)));
  });
});
