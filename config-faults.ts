import type { z } from 'zod';

/**
 * What is wrong with a setting. zod's own texts may quote what was received (a URL with a password in it);
 * these do not.
 */
export function withoutValue(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'too_small':
      return `must be at least ${issue.minimum}`;
    case 'too_big':
      return `must be at most ${issue.maximum}`;
    case 'invalid_value':
      return `must be one of ${issue.values.join(', ')}`;
    case 'invalid_type':
      return issue.expected === 'int' ? 'must be a whole number' : `must be a ${issue.expected}`;
    default:
      return 'is not valid';
  }
}
