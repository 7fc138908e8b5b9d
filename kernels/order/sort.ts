/**
 * The first many of each line by order: a bitonic sort of (key, index) pairs in memory (Batcher 1968), a dispatch a step. No two pairs
 * are equal, so the result is that of a stable sort, and the same on every device.
 */
import { ceilDiv, foldGrid, shader, type Caps, type Dispatch, type Launch } from '../kernel.ts';
import { AT, BEFORE, keyFunction, LAST, lineParams, LINES } from './keys.ts';
import type { SelectProblem } from './select.ts';

const WORKGROUP = 64;

/** Slots: x, the values where they are asked for, the indices: see `select`. */
export function sort(_caps: Caps, p: SelectProblem): Launch {
  const { outer, n, inner, k, values } = p;
  const lines = outer * inner;
  const span = 2 ** Math.ceil(Math.log2(Math.max(2, n)));
  const scratch = values ? 3 : 2;
  const one = (
    name: string,
    threads: number,
    params: Record<string, number>,
    bind: number[],
    spec: { buffers: [name: string, type: string][]; functions?: string; main: string },
  ): Dispatch => ({
    label: `sort ${name} ${lines}x${span}${Object.values(params)
      .map((v) => ` ${v}`)
      .join('')}`,
    wgsl: shader({
      params: [...LINES, 'k', 'span', 'threads', ...Object.keys(params)],
      buffers: spec.buffers.map(([b, type]) => ({ name: b, type, access: b === 'src' ? p.access : 'read_write' })),
      workgroup: [WORKGROUP, 1, 1],
      functions: `${AT}\n${spec.functions ?? ''}`,
      main: `  let t = (wid.x + wid.y * nwg.x) * ${WORKGROUP}u + li;\n  if (t >= p.threads) { return; }\n${spec.main}`,
    }),
    grid: foldGrid(ceilDiv(threads, WORKGROUP)),
    params: [...lineParams(p), k, span, threads, ...Object.values(params)],
    bind,
    flops: threads,
    bytes: 16 * threads,
  });

  const keys = one('keys', lines * span, {}, [0, scratch], {
    buffers: [
      ['src', 'u32'],
      ['pairs', 'vec2u'],
    ],
    functions: keyFunction(p),
    main: `  let line = t / p.span;
  let r = t - line * p.span;
  var pair = ${LAST};
  if (r < p.n) { pair = vec2u(keyOf(src[at(line, r)]), r); }
  pairs[t] = pair;`,
  });
  const steps: Dispatch[] = [];
  for (let size = 2; size <= span; size *= 2)
    for (let apart = size / 2; apart >= 1; apart /= 2)
      steps.push(
        one('step', (lines * span) / 2, { size, apart }, [scratch], {
          buffers: [['pairs', 'vec2u']],
          functions: BEFORE,
          main: `  let a = 2u * t - (t & (p.apart - 1u));
  let b = a + p.apart;
  let down = (a & (p.span - 1u) & p.size) == 0u; // the last size is the span: all of it one way
  let x = pairs[a];
  let y = pairs[b];
  if (before(y, x) == down) { pairs[a] = y; pairs[b] = x; }`,
        }),
      );
  const take = one('take', lines * k, {}, values ? [0, scratch, 1, 2] : [scratch, 1], {
    buffers: [
      ...(values ? [['src', 'u32'] as [string, string]] : []),
      ['pairs', 'vec2u'],
      ...(values ? [['top', 'u32'] as [string, string]] : []),
      ['places', 'i32'],
    ],
    main: `  let line = t / p.k;
  let j = t - line * p.k;
  let r = pairs[line * p.span + j].y;
  let o = line / p.inner;
  let out = (o * p.k + j) * p.inner + (line - o * p.inner);
  ${values ? 'top[out] = src[at(line, r)];' : ''}
  places[out] = i32(r);`,
  });
  return { dispatches: [keys, ...steps, take], scratch: [8 * lines * span] };
}
