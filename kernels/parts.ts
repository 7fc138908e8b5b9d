/**
 * Kernels that run a part of their grid at a time: a desktop's watchdog ends a dispatch that takes seconds. Workgroups of one dispatch may
 * run in any order, so parts one after the other give the same bits. This is done to a kernel's text, so that no family knows of it.
 */
import { interned, type Dispatch } from './kernel.ts';

type Triple = readonly [number, number, number];

/** Words of the uniform, behind the family's: where the part begins, and the whole grid. */
const WORDS = ['partX', 'partY', 'partZ', 'gridX', 'gridY', 'gridZ'];
const FIELDS = /^struct P \{ (.*) \}$/m;
const ENTRY = /^fn main\((.*)\) \{$/m;

/** The same kernel, as `partsOf` launches it: it knows its place in the grid by the uniform. */
export function cuttable(d: Dispatch): Dispatch {
  const wgsl = d.wgsl
    .replace(FIELDS, (_, fields: string) => `struct P { ${fields}, ${WORDS.map((w) => `${w}: u32`).join(', ')} }`)
    .replace(ENTRY, (_, builtins: string) => {
      const own = builtins
        .replace('@builtin(workgroup_id) wid: vec3u', '@builtin(workgroup_id) cutWid: vec3u')
        .replace(', @builtin(num_workgroups) nwg: vec3u', '');
      return `fn main(${own}) {
let wid = cutWid + vec3u(p.partX, p.partY, p.partZ);
let nwg = vec3u(p.gridX, p.gridY, p.gridZ);`;
    });
  const words = Math.max(d.params.length, 1); // one that is not used stands in for none
  const params = Array.from({ length: words }, (_, i) => d.params[i] ?? 0);
  return { ...d, wgsl: interned(wgsl), params: [...params, 0, 0, 0, ...d.grid] };
}

/** As many ranges of 0 … n - 1, as equal as can be; no more than n. */
const ranges = (n: number, count: number): { from: number; size: number }[] => {
  const parts = Math.min(n, Math.max(1, count));
  return Array.from({ length: parts }, (_, i) => {
    const from = Math.floor((i * n) / parts);
    return { from, size: Math.floor(((i + 1) * n) / parts) - from };
  });
};

/** Boxes that cover the grid, at least `count` where it has as many workgroups: cut across its last axis first. */
function boxes([x, y, z]: Triple, count: number): { from: Triple; size: Triple }[] {
  return ranges(z, count).flatMap((c) =>
    ranges(y, c.size > 1 ? 1 : Math.ceil(count / z)).flatMap((b) =>
      ranges(x, c.size > 1 || b.size > 1 ? 1 : Math.ceil(count / z / y)).map((a) => ({
        from: [a.from, b.from, c.from] as const,
        size: [a.size, b.size, c.size] as const,
      })),
    ),
  );
}

/** A `cuttable` kernel in about `count` dispatches that do its work. */
export function partsOf(d: Dispatch, count: number): Dispatch[] {
  const family = d.params.slice(0, -WORDS.length);
  const all = d.grid[0] * d.grid[1] * d.grid[2];
  return boxes(d.grid, count).map(({ from, size }) => {
    const share = (size[0] * size[1] * size[2]) / all;
    return {
      ...d,
      grid: size,
      params: [...family, ...from, ...d.grid],
      flops: share * d.flops,
      bytes: share * d.bytes,
    };
  });
}
