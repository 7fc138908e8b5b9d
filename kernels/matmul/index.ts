/** Batched matrix multiplication: plan, print the tier's template, and add the ordered reduction when K was split. */
import {
  ceilDiv,
  epilogueBindings,
  epilogueFunction,
  foldGrid,
  shader,
  storageBytes,
  type Caps,
  type Dispatch,
  type Launch,
  type ShaderSpec,
} from '../kernel.ts';
import { mma, unitName } from '../mma.ts';
import { quotientFunction } from '../quotient.ts';
import { matrixFunctions, matrixMain, matrixThreads } from './matrix.ts';
import { planMatmul, type MatmulProblem, type Plan } from './plan.ts';
import { BLOCK, scalarMain } from './scalar.ts';
import { tiledFunctions, tiledMain, tiledThreads } from './tiled.ts';

export type { MatmulProblem } from './plan.ts';

const PARAMS = [
  'M',
  'N',
  'K',
  'tiles',
  'tilesM',
  'tilesN',
  'splits',
  'chunk',
  'strideA',
  'strideB',
  'ldA',
  'ldB',
  'panel',
  'unitK',
] as const;
const element = (vec: boolean) => (vec ? 'vec4f' : 'f32');

/** `put` writes four neighbours of a row: through the epilogue to the output, or raw to this split's part of the scratch. */
function putFunction(plan: Plan): string {
  const split = plan.splits > 1;
  const base = split ? '(slice % p.splits * (p.tiles / (p.tilesM * p.tilesN * p.splits)) + slice / p.splits)' : 'slice';
  const value = (v: string) => (split ? v : `epilogue(${v}, i, line, ${plan.vec ? 'col' : 'col + j'})`);
  return `fn put(slice: u32, row: u32, col: u32, v: vec4f) {
  let line = ${base} * p.M + row;
  let first = line * p.N + col;
  ${
    plan.vec
      ? `let i = first; y[i / 4u] = ${value('v')};`
      : `var w = v;
  for (var j = 0u; j < min(4u, p.N - col); j++) { let i = first + j; y[i] = ${value('w[j]')}; }`
  }
}`;
}

type Template = Pick<ShaderSpec, 'workgroup' | 'enable' | 'diagnostics' | 'functions' | 'main'> & { how: string };

function print(plan: Plan): Template {
  const { config: c } = plan;
  if (c.tier === 'scalar') {
    const subgroups = c.lanes > 1;
    return {
      how: `scalar ${c.rows}x${4 * c.cols} ${subgroups ? `sg${c.lanes}` : 'registers'}`,
      workgroup: [...c.workgroup, 1],
      enable: subgroups ? ['subgroups'] : [],
      functions: quotientFunction('quotient'),
      main: scalarMain(plan, c),
    };
  }
  if (c.tier === 'tiled') {
    return {
      how: `tiled ${c.BM}x${c.BN}x${c.BK} ${c.TM}x${c.TN}`,
      workgroup: [tiledThreads(c), 1, 1],
      functions: tiledFunctions(c),
      main: tiledMain(plan, c),
    };
  }
  const unit = plan.unit!;
  const { enable, diagnostics } = mma(unit);
  return {
    how: `matrix ${unitName(unit)} ${c.BM}x${c.BN}x${c.BK}/${c.rows}x${c.cols}`,
    workgroup: [matrixThreads(c, unit), 1, 1],
    enable,
    diagnostics,
    functions: matrixFunctions(c, unit),
    main: matrixMain(plan, c, unit),
  };
}

/**
 * Slots: 0 a, 1 b, 2 out, then the epilogue's buffers, then scratch.
 * The output is bound read_write and may not alias an operand: tiles of both are read while others are written.
 */
export function matmul(caps: Caps, p: MatmulProblem): Launch {
  const plan = planMatmul(caps, p);
  const { shape, config, vec, splits, read } = plan;
  const { batch, M, N, K, a, b } = shape;
  const split = splits > 1;
  const extra = epilogueBindings(p.epilogue, vec ? 4 : 1);
  const extraParams = p.epilogue?.params ?? [];
  const extraSlots = extra.map((_, i) => 3 + i);
  const scratchSlot = 3 + extra.length;
  const count = batch * M * N;
  const tiles = batch * splits * plan.tilesM * plan.tilesN;
  const width = vec ? 4 : 1;
  const halves = [a.dtype, b.dtype].filter((d) => d !== 'f32').join(' ');
  const fused = split ? undefined : p.epilogue;
  const outBytes = count * 4;
  const values: Record<(typeof PARAMS)[number], number> = {
    M,
    N,
    K,
    tiles,
    tilesM: plan.tilesM,
    tilesN: plan.tilesN,
    splits,
    chunk: plan.chunk,
    strideA: a.stride / width,
    strideB: b.stride / width,
    ldA: a.ld / width,
    ldB: b.ld / width,
    panel: config.tier === 'tiled' ? config.BK / 4 : config.tier === 'matrix' ? config.BK : BLOCK,
    unitK: plan.unit?.K ?? 0,
  };
  const template = print(plan);
  const flags = [
    a.trans && 'ta',
    b.trans && 'tb',
    vec ? 'vec' : 'plain',
    vec && plan.ragged && 'ragged',
    halves,
    split && `split${splits}`,
  ];
  const product: Dispatch = {
    label: `matmul ${template.how} ${flags.filter(Boolean).join(' ')} ${batch}x${M}x${N}x${K}`,
    wgsl: shader({
      params: [...PARAMS, ...(fused ? extraParams.map(([n]) => n) : [])],
      buffers: [
        { name: 'a', type: read.a.type, access: a.access },
        { name: 'b', type: read.b.type, access: b.access },
        { name: 'y', type: element(vec), access: 'read_write' },
        ...(fused ? extra : []),
      ],
      workgroup: template.workgroup,
      enable: template.enable ?? [],
      diagnostics: template.diagnostics ?? [],
      functions: [
        ...new Set([read.a.common, read.b.common]),
        read.a.functions?.('a') ?? '',
        read.b.functions?.('b') ?? '',
        split ? '' : epilogueFunction(fused, vec ? 4 : 1, true),
        putFunction(plan),
        template.functions ?? '',
      ].join('\n'),
      main: template.main,
    }),
    grid: foldGrid(tiles),
    params: [...PARAMS.map((n) => values[n]), ...(fused ? extraParams.map(([, v]) => v) : [])],
    bind: [a.slot, b.slot, split ? scratchSlot : 2, ...(fused ? extraSlots : [])],
    flops: 2 * count * K,
    onUnits: config.tier === 'matrix',
    bytes:
      storageBytes(a.dtype, a.stride * batch) +
      storageBytes(b.dtype, b.stride * batch) +
      (split ? splits * count * 4 : outBytes),
  };
  if (!split) return { dispatches: [product], scratch: [] };

  const groups = ceilDiv(count / width, 64);
  const reduce: Dispatch = {
    label: `matmul reduce ${vec ? 'vec' : 'plain'} ${splits}x${batch}x${M}x${N}`,
    wgsl: shader({
      params: ['count', 'splits', 'N', ...extraParams.map(([n]) => n)],
      buffers: [
        { name: 'parts', type: element(vec), access: 'read_write' },
        { name: 'y', type: element(vec), access: 'read_write' },
        ...extra,
      ],
      workgroup: [64, 1, 1],
      functions: `${quotientFunction('quotient')}\n${epilogueFunction(p.epilogue, vec ? 4 : 1, true)}`,
      main: `
let at = (wid.x + wid.y * nwg.x) * 64u + li;
if (at >= p.count) { return; }
var sum = parts[at];
for (var s = 1u; s < p.splits; s++) { sum += parts[s * p.count + at]; }
let i = at * ${width}u;
let row = quotient(i, p.N);
y[at] = epilogue(sum, i, row, i - row * p.N);`,
    }),
    grid: foldGrid(groups),
    params: [count / width, splits, N, ...extraParams.map(([, v]) => v)],
    bind: [scratchSlot, 2, ...extraSlots],
    flops: splits * count,
    bytes: splits * count * 4 + outBytes,
  };
  return { dispatches: [product, reduce], scratch: [splits * count * 4] };
}
