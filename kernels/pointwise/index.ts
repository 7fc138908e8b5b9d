/**
 * Pointwise kernels: straight-line code made by the engine's emitter, looped over the elements.
 *
 * A sum with a bias, four elements at a time, its body as the emitter wrote it:
 *
 *     let i = u * 4u;
 *     let v0: vec4f = x[i / 4u]; let v1: vec4f = bias[(i % p.s0) / 4u];
 *     y[i / 4u] = v0 + v1;
 */
import { ceilDiv, foldGrid, shader, type Binding, type Caps, type Launch } from '../kernel.ts';

const GROUP = 64;
/** A CPU driver pays for every workgroup (about 0.7 µs on lavapipe): there a lane takes many elements. */
const MIN_GROUPS = 16;
const MAX_LOOP = 64;

export interface PointwiseProblem {
  /** Elements of every output. */
  n: number;
  /** Elements that the body computes at once: it sees the flat index `i` of the first. */
  width: 1 | 4;
  /** Storage bindings in slot order. */
  buffers: readonly Binding[];
  /** Uniform words after the family's own. */
  params: readonly (readonly [string, number])[];
  functions: string;
  /** Statements over `i`; must not return. */
  body: string;
  name: string;
  flops: number;
  bytes: number;
}

export function pointwise(caps: Caps, problem: PointwiseProblem): Launch {
  const { n, width, buffers, params, functions, body, name, flops, bytes } = problem;
  const units = ceilDiv(n, width);
  const loop = caps.tier === 'scalar' ? Math.min(MAX_LOOP, Math.max(1, Math.floor(units / (GROUP * MIN_GROUPS)))) : 1;
  const first = `((wid.x + wid.y * nwg.x) * p.turns * ${GROUP}u + li)`;
  const main =
    caps.tier === 'scalar'
      ? `let first = ${first};
for (var k = 0u; k < p.turns; k++) {
let u = first + k * ${GROUP}u;
if (u < p.units) {
let i = u * ${width}u;
${body}
}
}`
      : `let u = ${first};
if (u >= p.units) { return; }
let i = u * ${width}u;
${body}`;
  const wgsl = shader({
    params: ['units', 'turns', ...params.map(([field]) => field)],
    buffers,
    workgroup: [GROUP, 1, 1],
    functions,
    main,
  });
  const dispatch = {
    label: `pointwise x${width} ${name} ${n}`,
    wgsl,
    grid: foldGrid(ceilDiv(units, GROUP * loop)),
    params: [units, loop, ...params.map(([, value]) => value)],
    bind: buffers.map((_, slot) => slot),
    flops,
    bytes,
  };
  return { dispatches: [dispatch], scratch: [] };
}
