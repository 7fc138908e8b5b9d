/** WGSL that the matmul kernels of workgroup memory share: which tile a workgroup makes, and blocks of 4 × 4 from storage. */
import { range } from '../print.ts';
import type { Operand, Plan } from './plan.ts';

/** Tiles of this many rows are made one column after another, so that workgroups that run at one time read the same panels. */
const BAND = 8;

/** Which tile a workgroup makes: `row0`, `col0`, its part of K and its matrix of the batch. */
export const order = (rows: number, cols: number): string => `
let tile = wid.x + wid.y * nwg.x;
if (tile >= p.tiles) { return; }
let slice = tile / (p.tilesM * p.tilesN);
let part = slice % p.splits;
let batch = slice / p.splits;
let inSlice = tile % (p.tilesM * p.tilesN);
let band = inSlice / (${BAND}u * p.tilesN) * ${BAND}u;
let height = min(${BAND}u, p.tilesM - band);
let inBand = inSlice % (${BAND}u * p.tilesN);
let row0 = (band + inBand % height) * ${rows}u;
let col0 = inBand / height * ${cols}u;
let k0 = part * p.chunk;
let k1 = min(p.K, k0 + p.chunk);
let baseA = batch * p.strideA;
let baseB = batch * p.strideB;`;

/** `fetchA(base, i, k, end)`: block row q of the 4 × 4 block at (i, k), as it lies in memory; zero outside. */
export function fetch(name: 'a' | 'b', o: Operand, extent: string, { vec, read }: Plan): string {
  const [r, c, rEnd, cEnd] = o.trans === (name === 'a') ? ['k + q', 'i', 'end', extent] : ['i + q', 'k', extent, 'end'];
  const ld = name === 'a' ? 'p.ldA' : 'p.ldB';
  const value = (i: string): string => read[name].read(name, i);
  const each = range(4).map((j) => `select(0.0, ${value(`at + min(c + ${j}u, ${cEnd} - 1u)`)}, c + ${j}u < ${cEnd})`);
  const four = vec ? `base + r * ${ld} + c / 4u` : `(base + r * ${ld} + c) / 4u`;
  const body =
    vec || read[name].fours
      ? `if (r >= ${rEnd} || c >= ${cEnd}) { return vec4f(); } return ${value(four)};`
      : `if (r >= ${rEnd}) { return vec4f(); }
  let at = base + r * ${ld};
  return vec4f(${each.join(', ')});`;
  return `fn fetch_${name}(base: u32, i: u32, k: u32, q: u32, end: u32) -> vec4f {\n  let r = ${r}; let c = ${c};\n  ${body}\n}`;
}
