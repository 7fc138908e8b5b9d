/** How often a kernel's loops run, where its text and its uniform say so. */

/** The bounds of a loop from zero, or from the thread's own number, whose thread 0 goes round most often. */
const LOOP = /for \(var \w+ = (?:0u|li|lane); \w+ < (?:p\.(\w+)|(\d+)u); \w+(?:\+\+| \+= (\d+)u)\)/y;

export interface Written {
  /** Rounds; undefined where that is known at run time only. */
  trips: number | undefined;
  /** Its length stands in the text: compilers may write it out. */
  constant: boolean;
  inner: Written[];
}

/** Loops of `main`, in the order of its text. @param params words of the uniform, in the order of its struct */
export function writtenLoops(wgsl: string, params: readonly number[]): Written[] {
  const fields = /struct P \{ (.*) \}/
    .exec(wgsl)![1]!
    .split(', ')
    .map((f) => f.split(':')[0]!);
  const text = wgsl.slice(wgsl.indexOf('fn main('));
  const roots: Written[] = [];
  /** Loops that are open, and how deep in braces each began. */
  const open: { loop: Written; depth: number }[] = [];
  let depth = 0;
  for (let at = text.indexOf('{'); at < text.length; at++) {
    const c = text[at];
    if (c === '{') depth++;
    else if (c === '}') {
      depth--;
      if (open.at(-1)?.depth === depth) open.pop();
    } else if (text.startsWith('for (', at)) {
      LOOP.lastIndex = at;
      const [, name, constant, step] = LOOP.exec(text) ?? [];
      const end = constant ? Number(constant) : name ? params[fields.indexOf(name)] : undefined;
      const loop: Written = {
        trips: end === undefined ? undefined : Math.ceil(end / Number(step ?? 1)),
        constant: constant !== undefined,
        inner: [],
      };
      (open.at(-1)?.loop.inner ?? roots).push(loop);
      open.push({ loop, depth });
    }
  }
  return roots;
}
