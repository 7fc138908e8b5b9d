/** Fused attention and its gradient: online softmax over the keys, no N × L storage, no atomics, ordered sums. */
import { ceilDiv, f32bits, foldGrid, shader, type Binding, type Caps, type Dispatch, type Launch } from '../kernel.ts';
import { mma, unitName } from '../mma.ts';
import * as matrix from './matrix.ts';
import { ownRows, planAttention, TILE, type AttentionPlan, type AttentionProblem, type Kind } from './plan.ts';
import { lengthsVariable, PARAMS, rowBinding, rowFunctions } from './wgsl.ts';
import * as scalar from './scalar.ts';
import * as tiled from './tiled.ts';

export type { AttentionProblem } from './plan.ts';

const TIERS = { scalar, tiled, matrix };

/** What a tier adds to a kernel: its name in the label, uniform words, extensions and workgroup memory. */
function tierOf(
  plan: AttentionPlan,
  kind: Kind,
): {
  how: string;
  extra: [string, number][];
  enable: readonly string[];
  diagnostics?: readonly string[];
  variables: string;
} {
  if (plan.tier === 'scalar') {
    const subgroups = plan.lanes > 1;
    return {
      how: `scalar ${plan.own}x${plan.others} ${subgroups ? `sg${plan.lanes}` : 'registers'}`,
      extra: [],
      enable: subgroups ? ['subgroups'] : [],
      variables: '',
    };
  }
  if (plan.tier === 'tiled') {
    return {
      how: `tiled ${TILE}x${TILE}`,
      extra: [
        ['four', 4],
        ['eighth', TILE / 4],
        ['tile', TILE],
      ],
      enable: [],
      variables: tiled.tiledVariables(),
    };
  }
  const { tile, unit } = plan.matrix!;
  const { enable, diagnostics } = mma(unit);
  return {
    how: `matrix ${unitName(unit)} ${tile.own}x${tile.others}/${tile.subgroups}`,
    extra: [
      ['width', matrix.paddedWidth(plan.steps, unit)],
      ['others', tile.others],
      ['unitK', unit.K],
    ],
    enable,
    diagnostics,
    variables: matrix.matrixVariables(plan, kind),
  };
}

/** A tensor that a kernel binds: its slot, and whether it holds rows of D. */
interface Use {
  name: string;
  slot: number;
  rows: boolean;
  type?: string;
  write?: boolean;
}

function kernel(p: AttentionProblem, plan: AttentionPlan, kind: Kind, uses: readonly Use[], flops: number): Dispatch {
  const rows = kind === 'gradKey' ? p.L : p.N;
  const own = ceilDiv(rows, ownRows(plan));
  const tiles = p.B * p.H * own;
  const family = TIERS[plan.tier];
  const main = { forward: family.forwardMain, gradQuery: family.gradQueryMain, gradKey: family.gradKeyMain }[kind];
  const { how, extra, enable, diagnostics = [], variables } = tierOf(plan, kind);
  const rowUses = uses.filter((u) => u.rows);
  const buffers: Binding[] = uses.map((u) => {
    const access = u.write ? 'read_write' : (p.access[u.slot] ?? 'read_write'); // past the inputs: scratch
    return u.rows ? rowBinding(plan, u.name, access) : { name: u.name, type: u.type!, access };
  });
  return {
    label: `attention ${kind} ${how} ${plan.vec ? 'vec' : 'plain'}${p.lengths ? ' lengths' : ''} ${p.B}x${p.N}x${p.L}x${p.H}x${p.D}`,
    wgsl: shader({
      params: [...PARAMS, ...extra.map(([n]) => n)],
      buffers,
      workgroup: [plan.threads, 1, 1],
      enable,
      diagnostics,
      functions: [
        variables,
        lengthsVariable(p.lengths), // last: in front of the tiles it would put them off their alignment
        rowFunctions(
          plan,
          rowUses.filter((u) => !u.write).map((u) => u.name),
          rowUses.filter((u) => u.write).map((u) => u.name),
        ),
      ].join('\n'),
      main: main(plan, p.lengths),
    }),
    grid: foldGrid(tiles),
    params: [tiles, own, p.B, p.N, p.L, p.H, p.D, plan.steps, f32bits(p.scale), ...extra.map(([, v]) => v)],
    bind: uses.map((u) => u.slot),
    flops,
    onUnits: plan.tier === 'matrix',
    bytes:
      4 *
      uses.reduce(
        (sum, u) =>
          sum +
          (u.rows
            ? p.B * p.H * p.D * (/^d?[kv]$/.test(u.name) ? p.L : p.N)
            : u.name === 'lengths'
              ? p.B
              : p.B * p.H * p.N),
        0,
      ),
  };
}

/** Slots: q, k, v, lengths? → o [B, N, H, D], lse [B, H, N]. Rows without keys give o = 0 and lse = −3.4e38. */
export function attention(caps: Caps, p: AttentionProblem): Launch {
  const plan = planAttention(caps, p, 'forward');
  const out = p.lengths ? 4 : 3;
  const uses: Use[] = [
    ...['q', 'k', 'v'].map((name, slot) => ({ name, slot, rows: true })),
    ...(p.lengths ? [{ name: 'lengths', slot: 3, rows: false, type: 'u32' }] : []),
    { name: 'o', slot: out, rows: true, write: true },
    { name: 'lse', slot: out + 1, rows: false, type: 'f32', write: true },
  ];
  return { dispatches: [kernel(p, plan, 'forward', uses, 4 * p.B * p.H * p.N * p.L * p.D)], scratch: [] };
}

/** Slots: q, k, v, o, lse, do, lengths? → dq, dk, dv. Scratch: (lse, delta) by row, with delta = Σ do ∘ o. */
export function attentionGrad(caps: Caps, p: AttentionProblem): Launch {
  const out = p.lengths ? 7 : 6;
  const rows = p.B * p.H * p.N,
    product = 2 * p.B * p.H * p.N * p.L * p.D;
  const queries = planAttention(caps, p, 'gradQuery'),
    keys = planAttention(caps, p, 'gradKey');
  // Of do as units take it: what a row's score gradients sum to is then nought but for their own rounding.
  const dy = queries.matrix?.unit.operands === 'f16' ? 'quantizeToF16(get_dy(row, d))' : 'get_dy(row, d)';
  const stats: Dispatch = {
    label: `attention delta ${queries.vec ? 'vec' : 'plain'} ${p.B}x${p.N}x${p.H}x${p.D}`,
    wgsl: shader({
      params: ['rows', 'N', 'H', 'D', 'steps'],
      buffers: [
        rowBinding(queries, 'o', p.access[3]!),
        { name: 'lse', type: 'f32', access: p.access[4]! },
        rowBinding(queries, 'dy', p.access[5]!),
        { name: 'stats', type: 'vec2f', access: 'read_write' },
      ],
      workgroup: [64, 1, 1],
      functions: rowFunctions(queries, ['o', 'dy'], []),
      main: `
let row = (wid.x + wid.y * nwg.x) * 64u + li;
if (row >= p.rows) { return; }
var sum = 0.0;
for (var d = 0u; d < p.steps; d++) { sum += dot(get_o(row, d), ${dy}); }
let h = row % p.H; let n = row / p.H % p.N; let b = row / (p.H * p.N);
let at = (b * p.H + h) * p.N + n;
stats[at] = vec2f(lse[at], sum);`,
    }),
    grid: foldGrid(ceilDiv(rows, 64)),
    params: [rows, p.N, p.H, p.D, queries.steps],
    bind: [3, 4, 5, out + 3],
    flops: 2 * rows * p.D,
    bytes: 4 * rows * (2 * p.D + 3),
  };
  const shared: Use[] = [
    ...['q', 'k', 'v'].map((name, slot) => ({ name, slot, rows: true })),
    { name: 'dy', slot: 5, rows: true },
    { name: 'stats', slot: out + 3, rows: false, type: 'vec2f' },
    ...(p.lengths ? [{ name: 'lengths', slot: 6, rows: false, type: 'u32' }] : []),
  ];
  const dq: Use = { name: 'dq', slot: out, rows: true, write: true };
  const dkv: Use[] = ['dk', 'dv'].map((name, i) => ({ name, slot: out + 1 + i, rows: true, write: true }));
  return {
    dispatches: [
      stats,
      kernel(p, queries, 'gradQuery', [...shared, dq], 3 * product),
      kernel(p, keys, 'gradKey', [...shared, ...dkv], 4 * product),
    ],
    scratch: [8 * rows],
  };
}
