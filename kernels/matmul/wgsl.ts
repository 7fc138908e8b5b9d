/** Which tile a workgroup of the matmul kernels of workgroup memory makes. */

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
