import { describe, expect, it } from 'vitest';
import { splitParts, withSection } from '../../bench/result-sections.ts';

const PAGE = '# Results\n\nhead\n\n## One\n\none\n\n## Two\n\ntwo\n';

describe('sections of bench/RESULTS.md', () => {
  it('are split at their headings', () => {
    expect(splitParts(PAGE).map((part) => part.split('\n', 1)[0])).toEqual([
      '# Results',
      '## One',
      '## Two',
    ]);
  });

  it('are replaced in their place, and added at the end', () => {
    const parts = splitParts(PAGE);
    const replaced = withSection(parts, '## One\n\nnew');
    expect(replaced.map((part) => part.trim())).toEqual([
      '# Results\n\nhead',
      '## One\n\nnew',
      '## Two\n\ntwo',
    ]);
    expect(withSection(parts, '## Three\n\nthree')).toHaveLength(4);
  });
});
