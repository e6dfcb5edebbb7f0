const SLASH = 0x2f;
const PLUS = 0x2b;
const HASH = 0x23;
const DOLLAR = 0x24;

/**
 * Whether a topic filter selects a topic name. `+` stands for one level, an empty one too; `#` for the
 * level before it and all below [MQTT-4.7.1-2]. A filter that starts with a wildcard selects no topic
 * that starts with `$` [MQTT-4.7.2-1]. Both must be well-formed; it allocates nothing.
 */
export function matchesFilter(topic: string, filter: string): boolean {
  const first = filter.charCodeAt(0);
  if (topic.charCodeAt(0) === DOLLAR && (first === PLUS || first === HASH)) return false;
  let at = 0;
  for (let index = 0; index < filter.length; index += 1) {
    const code = filter.charCodeAt(index);
    if (code === HASH) return true;
    if (code === PLUS) {
      while (at < topic.length && topic.charCodeAt(at) !== SLASH) at += 1;
    } else if (at < topic.length && topic.charCodeAt(at) === code) {
      at += 1;
    } else {
      return at === topic.length && filter.length === index + 2 && filter.endsWith('/#');
    }
  }
  return at === topic.length;
}

/** Whether a topic filter has a wildcard. */
export function hasWildcard(filter: string): boolean {
  return filter.includes('+') || filter.includes('#');
}

/** The part of a filter before its first wildcard: every topic that it selects begins so, but for `a` with `a/#`. */
export function literalPrefix(filter: string): string {
  const wildcard = filter.search(/[+#]/);
  return wildcard === -1 ? filter : filter.slice(0, wildcard);
}
