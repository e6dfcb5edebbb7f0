import type { Document } from './configuration.ts';

/**
 * Applies a JSON Merge Patch (RFC 7386): members of objects one by one, null takes a member away, all
 * else is replaced whole. Neither argument is changed. Members called `__proto__` are members.
 */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isDocument(patch)) return patch;
  const merged = new Map(isDocument(target) ? Object.entries(target) : []);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name);
    else merged.set(name, mergePatch(merged.get(name), value));
  }
  return Object.fromEntries(merged);
}

/**
 * What a device is sent: the defaults of its type with what is desired of it over them. A null in what is
 * desired takes a default away; there is none in the document, but within lists.
 */
export function effectiveDocument(defaults: Document, desired: Document): Document {
  return mergePatch(mergePatch({}, defaults), desired) as Document;
}

/** Whether two JSON values are the same, in whatever order the members of objects are. */
export function isSameJson(left: unknown, right: unknown): boolean {
  if (Array.isArray(left) || Array.isArray(right)) {
    if (!Array.isArray(left) || !Array.isArray(right) || left.length !== right.length) return false;
    return left.every((item, index) => isSameJson(item, right[index]));
  }
  if (!isDocument(left) || !isDocument(right)) return left === right;
  const names = Object.keys(left);
  if (names.length !== Object.keys(right).length) return false;
  return names.every((name) => Object.hasOwn(right, name) && isSameJson(left[name], right[name]));
}

/** Whether a JSON value is an object. */
export function isDocument(value: unknown): value is Document {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
