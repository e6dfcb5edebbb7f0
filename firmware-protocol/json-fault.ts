/** Longest text in which a fault is looked for, in UTF-16 units; it bounds the time to about 2 ms. */
const SEARCHED_MAX = 16_384;

const SPACE = /[\t\n\r ]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD =
  /true|false|null|-?(?:[nN][aA][nN]|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)(?![A-Za-z])/y;

type Expected = 'value' | 'value or ]' | 'key' | 'key or }' | ':' | ', or end' | 'nothing';

/**
 * Says where a text stops being JSON, for the person who wrote the firmware, in the same words whatever
 * the version of the JavaScript engine: `Unexpected token n at 8`. Bare missing words such as `nan` count as
 * values. Only for texts that are not JSON even so.
 */
export function findJsonFault(text: string): string {
  if (text.length === 0) return 'the payload is empty';
  if (text.length > SEARCHED_MAX) return 'the payload is not JSON';
  const open: string[] = [];
  let expected: Expected = 'value';
  let at = endOf(SPACE, text, 0);
  while (at < text.length) {
    const end = tokenEnd(text, at, expected);
    const next: Expected | null = end < 0 ? null : stateAfter(text.charAt(at), expected, open);
    if (next === null) return faultAt(text, at);
    expected = next;
    at = endOf(SPACE, text, end);
  }
  return `Unexpected end at ${text.length}`;
}

function faultAt(text: string, at: number): string {
  const char = text.charAt(at);
  if (char === '"' && endOf(STRING, text, at) < 0) return `Unfinished or bad string at ${at}`;
  const code = text.charCodeAt(at);
  const shown = code > 0x20 && code < 0x7f ? char : `U+${code.toString(16).padStart(4, '0')}`;
  return `Unexpected token ${shown} at ${at}`;
}

function tokenEnd(text: string, at: number, expected: Expected): number {
  const char = text.charAt(at);
  if ('{}[]:,'.includes(char)) return at + 1;
  if (char === '"') return endOf(STRING, text, at);
  if (expected !== 'value' && expected !== 'value or ]') return -1;
  return Math.max(endOf(NUMBER, text, at), endOf(WORD, text, at));
}

/** What may follow a token, or null when the token may not stand here. Keeps `open`, the open brackets. */
function stateAfter(char: string, expected: Expected, open: string[]): Expected | null {
  switch (expected) {
    case 'value or ]':
      if (char === ']') return close(open);
      return stateAfter(char, 'value', open);
    case 'value':
      if (':,]}'.includes(char)) return null;
      if (char !== '{' && char !== '[') return open.length === 0 ? 'nothing' : ', or end';
      open.push(char);
      return char === '{' ? 'key or }' : 'value or ]';
    case 'key or }':
      if (char === '}') return close(open);
      return char === '"' ? ':' : null;
    case 'key':
      return char === '"' ? ':' : null;
    case ':':
      return char === ':' ? 'value' : null;
    case ', or end':
      if (char === ',') return open.at(-1) === '{' ? 'key' : 'value';
      return char === (open.at(-1) === '{' ? '}' : ']') ? close(open) : null;
    case 'nothing':
      return null;
  }
}

function close(open: string[]): Expected {
  open.pop();
  return open.length === 0 ? 'nothing' : ', or end';
}

function endOf(token: RegExp, text: string, at: number): number {
  token.lastIndex = at;
  return token.test(text) ? token.lastIndex : -1;
}
