/** JSON that others wrote: what would cost far more than its size, or says one thing twice, is refused in one pass before it is parsed. */
import { standIn } from './standin.ts';

export interface JsonLimits {
  /** Containers within one another. */
  readonly depth: number;
  /** Members of one object, and items of one array. */
  readonly members: number;
  readonly items: number;
  /** JSON.parse keeps the last of two equal names in silence; here the second may be an error. */
  readonly unique?: boolean;
}

const USUAL: JsonLimits = { depth: 64, members: 2 ** 21, items: 2 ** 21 };
const SHOWN = 120; // characters of what a message quotes

/** A value as a message quotes it, however long it is. */
export function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

const [QUOTE, COMMA, COLON, ESCAPE] = [0x22, 0x2c, 0x3a, 0x5c];
const OPEN = new Set([0x5b, 0x7b]); // [ {
const CLOSE = new Set([0x5d, 0x7d]);

/** Where a string that begins at `from` ends. */
function endOf(text: string, from: number): number {
  for (let i = from + 1; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === ESCAPE) i++;
    else if (c === QUOTE) return i;
  }
  return text.length;
}

/** The text need not be JSON. @throws which limit it is beyond */
function survey(text: string, { depth, members, items, unique }: JsonLimits): void {
  const open: { names: Set<string> | undefined; most: number; count: number }[] = [];
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    const at = open.at(-1);
    if (c === QUOTE) {
      const end = endOf(text, i);
      let next = end + 1;
      while (text.charCodeAt(next) <= 0x20) next++;
      if (unique && at?.names && text.charCodeAt(next) === COLON) {
        const name = parse(text.slice(i, end + 1)) as string;
        if (at.names.has(name)) throw new Error(`the name ${quoted(name)} stands twice`);
        at.names.add(name);
      }
      i = end;
    } else if (c === COMMA && at) {
      if (++at.count >= at.most)
        throw new Error(
          `has ${at.names ? 'an object' : 'an array'} of more than ${at.most} members where none needs as many`,
        );
    } else if (OPEN.has(c)) {
      const isObject = c === 0x7b;
      if (open.length >= depth) throw new Error(`nests objects and arrays deeper than ${depth}`);
      open.push({ names: isObject ? new Set() : undefined, most: isObject ? members : items, count: 0 });
    } else if (CLOSE.has(c)) open.pop();
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`is no JSON where it should be: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws why it is no JSON, or too much of it */
export function parseJson(text: string, limits: Partial<JsonLimits> = {}): unknown {
  const other = standIn(text);
  if (other !== undefined) throw new Error(other);
  survey(text, { ...USUAL, ...limits });
  return parse(text);
}
