/**
 * Running sums along lines: chunks are summed, the sums of all before each chunk are made, and
 * chunks run on from those; ordered, so the same bits every time.
 */
import {
  ceilDiv,
  foldGrid,
  shader,
  type Access,
  type Binding,
  type Caps,
  type Dispatch,
  type Launch,
} from '../kernel.ts';
import { AT, lineParams, LINES, type Lines } from '../order/keys.ts';

export interface ScanProblem extends Lines {
  dtype: 'f32' | 'i32' | 'u32';
  /** Element i sums what stands before it, without itself. */
  exclusive: boolean;
  /** From the end to the front. */
  reverse: boolean;
  access: Access;
}

/** Threads that keep a device busy, and the shortest chunk worth one. */
const THREADS = { scalar: 128, tiled: 65536 };
const SHORTEST = { scalar: 512, tiled: 32 };
/** Longest chunk, and how many elements of it are summed apart from what stands before them: both keep the rounding small. */
const LONGEST = 1024;
const BLOCK = 32;
const NEXT_BLOCK = `if (r % ${BLOCK}u == 0u) { sum += block; block = zero; }`;

/** One array of lines: the input, or the sums of the chunks of another. */
interface Level extends Lines {
  chunk: number;
}

/** Slots: x, out. */
export function scan(caps: Caps, p: ScanProblem): Launch {
  const lines = p.outer * p.inner;
  const levels: Level[] = [];
  let { outer, n, inner } = p as Lines;
  for (;;) {
    const wanted = ceilDiv(THREADS[caps.tier], Math.max(1, lines));
    const chunk = Math.min(LONGEST, Math.max(SHORTEST[caps.tier], ceilDiv(n, wanted)));
    const whole = n < 2 * chunk;
    levels.push({ outer, n, inner, chunk: whole ? Math.max(1, n) : chunk });
    if (whole) break;
    [outer, n, inner] = [lines, ceilDiv(n, chunk), 1];
  }
  const slot = (level: number): number => (level ? level + 1 : 0);
  const up = levels.slice(0, -1).map((level, i) => totals(p, level, i, [slot(i), slot(i + 1)]));
  const down = levels.map((level, i) => {
    const above = i + 1 < levels.length ? [slot(i + 1)] : [];
    return running(p, level, i, [slot(i), ...(i ? [] : [1]), ...above]);
  });
  return {
    dispatches: [...up, ...down.toReversed()],
    scratch: levels.slice(1).map((level) => 4 * Math.max(1, level.outer * level.n)),
  };
}

/** The head of both kernels: thread t has part `part` of line `line`, elements first … end - 1. */
const HEAD = (workgroup: number): string => `  let t = (wid.x + wid.y * nwg.x) * ${workgroup}u + li;
  if (t >= p.lines * p.parts) { return; }
  let part = t / p.lines;
  let line = t - part * p.lines;
  let first = part * p.chunk;
  let end = min(first + p.chunk, p.n);`;

function dispatch(
  name: string,
  p: ScanProblem,
  level: Level,
  { buffers, bind }: { buffers: Binding[]; bind: number[] },
  body: string,
): Dispatch {
  const { outer, n, inner, chunk } = level;
  const parts = ceilDiv(n, chunk);
  const threads = outer * inner * parts;
  const workgroup = threads < 1024 ? 16 : 64;
  return {
    label: `scan ${name} ${p.dtype} ${workgroup} ${outer}x${n}x${inner}/${parts}`,
    wgsl: shader({
      params: [...LINES, 'parts', 'chunk'],
      buffers,
      workgroup: [workgroup, 1, 1],
      functions: `${AT}\nconst zero = ${p.dtype}(0);`,
      main: `${HEAD(workgroup)}\n${body}`,
    }),
    grid: foldGrid(ceilDiv(threads, workgroup)),
    params: [...lineParams(level), parts, chunk],
    bind,
    flops: outer * n * inner,
    bytes: 8 * outer * n * inner,
  };
}

const source = (p: ScanProblem, depth: number): Binding => ({
  name: 'src',
  type: p.dtype,
  access: depth ? 'read_write' : p.access,
});
/** Chunks are counted in the direction of the sum: only the input itself lies the other way. */
const place = (p: ScanProblem, depth: number): string => `at(line, ${p.reverse && depth === 0 ? 'p.n - 1u - r' : 'r'})`;

function totals(p: ScanProblem, level: Level, depth: number, bind: number[]): Dispatch {
  const buffers: Binding[] = [source(p, depth), { name: 'sums', type: p.dtype, access: 'read_write' }];
  return dispatch(
    'sums',
    p,
    level,
    { buffers, bind },
    `  var sum = zero;
  var block = zero;
  for (var r = first; r < end; r++) {
    ${NEXT_BLOCK}
    block += src[${place(p, depth)}];
  }
  sums[line * p.parts + part] = sum + block;`,
  );
}

/** Sums of chunks are scanned in their place, without their own. */
function running(p: ScanProblem, level: Level, depth: number, bind: number[]): Dispatch {
  const split = level.chunk < level.n;
  const buffers: Binding[] = [
    source(p, depth),
    ...(depth ? [] : [{ name: 'dst', type: p.dtype, access: 'read_write' as const }]),
    ...(split ? [{ name: 'before', type: p.dtype, access: 'read_write' as const }] : []),
  ];
  const out = depth ? 'src' : 'dst';
  return dispatch(
    split ? 'chunks' : 'lines',
    p,
    level,
    { buffers, bind },
    `  var sum = ${split ? 'before[line * p.parts + part]' : 'zero'};
  var block = zero;
  for (var r = first; r < end; r++) {
    ${NEXT_BLOCK}
    let i = ${place(p, depth)};
    let x = src[i];
    ${depth || p.exclusive ? `${out}[i] = sum + block; block += x;` : `block += x; ${out}[i] = sum + block;`}
  }`,
  );
}
