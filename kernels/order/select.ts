/**
 * The first few of each line by order, one walk for each: argmax and small top-k. Few long lines go in two dispatches, the first
 * of which picks candidates from parts of them.
 */
import { ceilDiv, foldGrid, shader, type Caps, type Dispatch, type Launch } from '../kernel.ts';
import { AT, BEFORE, keyFunction, LAST, lineParams, LINES, type OrderProblem } from './keys.ts';

/** Threads that keep a device busy, and the shortest part of a line worth a second dispatch. */
const THREADS = { scalar: 64, tiled: 16384 };
const SHORTEST_PART = { scalar: 4096, tiled: 1024 };
/** Shortest line that a workgroup shares. */
const SHARED = 128;

export interface SelectProblem extends OrderProblem {
  k: number;
  /** Writes the values too. */
  values: boolean;
}

interface Step {
  /** Words to order, or pairs (key, index) that an earlier dispatch picked. */
  from: 'words' | 'pairs';
  to: 'pairs' | 'result';
  /** Elements or pairs of a line, the parts it is split into, and how long they are. */
  count: number;
  parts: number;
  chunk: number;
  bind: number[];
}

/** Slots: x, then the values (of its dtype, [outer, k, inner]) where they are asked for, then the indices i32, likewise. */
export function select(caps: Caps, p: SelectProblem): Launch {
  const { outer, n, inner, k, values } = p;
  const lines = outer * inner;
  const team = caps.tier === 'tiled' && n >= SHARED ? Math.min(256, caps.maxInvocations) : 1;
  const wanted = Math.min(ceilDiv(THREADS[caps.tier], Math.max(1, lines * team)), ceilDiv(n, SHORTEST_PART[caps.tier]));
  const chunk = Math.max(ceilDiv(n, Math.max(1, wanted)), 2 * k);
  const parts = ceilDiv(n, chunk);
  const outs = values ? [1, 2] : [1];
  if (parts === 1)
    return {
      dispatches: [
        dispatch(caps, p, team, { from: 'words', to: 'result', count: n, parts, chunk, bind: [0, ...outs] }),
      ],
      scratch: [],
    };
  const scratch = outs.length + 1;
  const last: Step = {
    from: 'pairs',
    to: 'result',
    count: parts * k,
    parts: 1,
    chunk: parts * k,
    bind: values ? [0, scratch, ...outs] : [scratch, ...outs],
  };
  return {
    dispatches: [
      dispatch(caps, p, team, { from: 'words', to: 'pairs', count: n, parts, chunk, bind: [0, scratch] }),
      dispatch(caps, p, parts * k >= SHARED ? team : 1, last),
    ],
    scratch: [8 * lines * parts * k],
  };
}

function dispatch(caps: Caps, p: SelectProblem, team: number, { from, to, count, parts, chunk, bind }: Step): Dispatch {
  const workgroup = team > 1 ? team : caps.tier === 'tiled' ? 64 : caps.subgroup || 16;
  const values = to === 'result' && p.values;
  const reads = from === 'words' || values;
  const threads = p.outer * p.inner * parts;
  const step = team > 1 ? team : 1;
  const load = from === 'words' ? 'vec2u(keyOf(src[at(line, r)]), r)' : 'picked[line * p.count + r]';
  const combine = `    shared_best[li] = best;
    workgroupBarrier();
    for (var half = ${team / 2}u; half > 0u; half /= 2u) {
      if (li < half && before(shared_best[li + half], shared_best[li])) { shared_best[li] = shared_best[li + half]; }
      workgroupBarrier();
    }
    best = shared_best[0];
    workgroupBarrier();`;
  const store =
    to === 'pairs'
      ? 'picked[t * p.k + j] = best;'
      : `let o = line / p.inner;
      let out = (o * p.k + j) * p.inner + (line - o * p.inner);
      ${values ? 'top[out] = src[at(line, best.y)];' : ''}
      places[out] = i32(best.y);`;
  const group = 'wid.x + wid.y * nwg.x';
  const wgsl = shader({
    params: [...LINES, 'k', 'count', 'parts', 'chunk'],
    buffers: [
      ...(reads ? [{ name: 'src', type: 'u32', access: p.access }] : []),
      ...(from === 'pairs' || to === 'pairs' ? [{ name: 'picked', type: 'vec2u', access: 'read_write' as const }] : []),
      ...(values ? [{ name: 'top', type: 'u32', access: 'read_write' as const }] : []),
      ...(to === 'result' ? [{ name: 'places', type: 'i32', access: 'read_write' as const }] : []),
    ],
    workgroup: [workgroup, 1, 1],
    functions: [
      AT,
      BEFORE,
      from === 'words' ? keyFunction(p) : '',
      team > 1 ? `var<workgroup> shared_best: array<vec2u, ${team}>;` : '',
    ].join('\n'),
    main: `  let t = ${team > 1 ? group : `(${group}) * ${workgroup}u + li`};
  if (t >= p.lines * p.parts) { return; }
  let line = t / p.parts;
  let first = (t - line * p.parts) * p.chunk;
  let end = min(first + p.chunk, p.count);
  var last = vec2u(0xffffffffu, 0u);
  for (var j = 0u; j < p.k; j++) {
    var best = ${LAST};
    for (var r = first${team > 1 ? ' + li' : ''}; r < end; r += ${step}u) {
      let next = ${load};
      if ((j == 0u || before(last, next)) && before(next, best)) { best = next; }
    }
${team > 1 ? combine : ''}
    last = best;
    if (${team > 1 ? 'li == 0u' : 'true'}) {
      ${store}
    }
  }`,
  });
  return {
    label: `select ${p.dtype} ${from} ${to} ${workgroup}${team > 1 ? ' shared' : ''} ${p.k} of ${threads}x${chunk}`,
    wgsl,
    grid: foldGrid(team > 1 ? threads : ceilDiv(threads, workgroup)),
    params: [...lineParams(p), p.k, count, parts, chunk],
    bind,
    flops: 2 * p.k * p.outer * p.inner * count,
    bytes: (from === 'words' ? 4 : 8) * p.outer * p.inner * count + 8 * threads * p.k,
  };
}
