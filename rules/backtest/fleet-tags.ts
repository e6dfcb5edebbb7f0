import type { CompiledRule } from '../compiled-rule.ts';
import type { Condition } from '../condition/condition.ts';

/** Tags of the devices that a rule compares its own with; empty when it compares with none. */
export function fleetTagsOf({ definition: { when, levels } }: CompiledRule): string[] {
  const tags = [when, ...levels.map((level) => level.when)].flatMap(tagsOf);
  return [...new Set(tags)];
}

function tagsOf(condition: Condition): readonly string[] {
  switch (condition.kind) {
    case 'all':
    case 'any':
      return condition.of.flatMap(tagsOf);
    case 'not':
      return tagsOf(condition.of);
    case 'compareFleet':
      return [condition.tag];
    default:
      return [];
  }
}
