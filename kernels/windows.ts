/**
 * Tensors over an adapter's binding limit: a buffer is bound in windows, equal ranges that are a binding each, and an access chooses
 * among them. This is done to a kernel's text, so that no family knows of it; it costs a comparison an access, and only there.
 */
import { ALIGN, type Caps, type Dispatch } from './kernel.ts';

/** Bytes of a window. */
export const windowBytes = ({ maxBindingBytes }: Pick<Caps, 'maxBindingBytes'>): number =>
  Math.floor(maxBindingBytes / ALIGN) * ALIGN;

/** Bindings that so many bytes take. */
export const windowsOf = (bytes: number, caps: Pick<Caps, 'maxBindingBytes'>): number =>
  bytes <= caps.maxBindingBytes ? 1 : Math.ceil(bytes / windowBytes(caps));

const SCALARS: Record<string, number> = { f32: 4, i32: 4, u32: 4, f16: 2, f: 4, i: 4, u: 4, h: 2 };

/** `f32`, `vec4f`, `vec4<f16>` → bytes. */
function elementBytes(type: string): number {
  const [, lanes, of] = /^vec([24])<?(\w+)>?$/.exec(type) ?? [undefined, '1', type];
  return Number(lanes) * SCALARS[of!]!;
}

const BINDING = /^@group\(0\) @binding\((\d+)\) var<storage, (\w+)> (\w+): array<(.+)>;$/;

/** The place behind the bracket that closes the one before `from`. */
function closing(text: string, from: number): number {
  let depth = 1;
  let at = from;
  for (; depth; at++) depth += text[at] === '[' ? 1 : text[at] === ']' ? -1 : 0;
  return at;
}

/** `name[i]` and `name[i] = x;` of these buffers as calls of `name_get` and `name_set`. */
function rewrite(text: string, names: ReadonlySet<string>): string {
  const access = new RegExp(`(?<![\\w.])(${[...names].join('|')})\\[`, 'g');
  let out = '';
  let done = 0;
  for (let found = access.exec(text); found; found = access.exec(text)) {
    const inside = found.index + found[0].length;
    const end = closing(text, inside);
    const index = rewrite(text.slice(inside, end - 1), names);
    const assigned = /^\s*=(?!=)/.exec(text.slice(end));
    out += text.slice(done, found.index);
    if (assigned) {
      const semicolon = text.indexOf(';', end);
      out += `${found[1]}_set(u32(${index}), ${rewrite(text.slice(end + assigned[0].length, semicolon), names)})`;
      done = semicolon;
    } else {
      out += `${found[1]}_get(u32(${index}))`;
      done = end;
    }
    access.lastIndex = done;
  }
  return out + text.slice(done);
}

/** Functions that reach element i of a buffer in windows of `each` elements. */
function accessors(name: string, type: string, windows: number, each: number, writes: boolean): string {
  const place = (w: number): string => (w ? `${name}_window${w}[i - ${w * each}u]` : `${name}_window0[i]`);
  const chosen = (use: (w: number) => string): string =>
    Array.from({ length: windows }, (_, w) =>
      w + 1 < windows ? `if (i < ${(w + 1) * each}u) { ${use(w)} } else ` : `{ ${use(w)} }`,
    ).join('');
  const get = `fn ${name}_get(i: u32) -> ${type} { var x: ${type}; ${chosen((w) => `x = ${place(w)};`)} return x; }`;
  return writes ? `${get}\nfn ${name}_set(i: u32, x: ${type}) { ${chosen((w) => `${place(w)} = x;`)} }` : get;
}

/** @param bytes of each slot @returns the dispatch itself where every slot can be bound whole */
export function inWindows(d: Dispatch, bytes: readonly number[], caps: Pick<Caps, 'maxBindingBytes'>): Dispatch {
  const counts = d.bind.map((slot) => windowsOf(bytes[slot]!, caps));
  if (counts.every((n) => n === 1)) return d;
  const names = new Set<string>();
  const functions: string[] = [];
  let binding = 0;
  const kept = d.wgsl.split('\n').map((line) => {
    const [, number, access, name, type] = BINDING.exec(line) ?? [];
    if (!name || !type) return line;
    const windows = counts[Number(number) - 1]!;
    if (windows === 1) return `@group(0) @binding(${++binding}) var<storage, ${access}> ${name}: array<${type}>;`;
    names.add(name);
    functions.push(accessors(name, type, windows, windowBytes(caps) / elementBytes(type), access === 'read_write'));
    return Array.from(
      { length: windows },
      (_, w) => `@group(0) @binding(${++binding}) var<storage, ${access}> ${name}_window${w}: array<${type}>;`,
    ).join('\n');
  });
  return {
    ...d,
    label: `${d.label} in windows`,
    wgsl: `${rewrite(kept.join('\n'), names)}\n${functions.join('\n')}`,
    bind: d.bind.flatMap((slot, b) => Array.from({ length: counts[b]! }, () => slot)),
    windows: counts.flatMap((n) => (n === 1 ? [undefined] : Array.from({ length: n }, (_, w) => w))),
  };
}
