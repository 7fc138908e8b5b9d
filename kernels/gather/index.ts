/**
 * Rows of a table by index, and the way back: an ordered scatter-add, one owner for each element.
 *
 * A row of the table for each id:
 *
 *     let row = u32(ids[i / p.width]);
 *     if (row < p.rows_n) { v = table[row * p.width + i % p.width]; }
 *     dst[i] = v;
 */
import { ceilDiv, foldGrid, shader, type Access, type Caps, type Launch } from '../kernel.ts';

export interface GatherProblem {
  /** How many ids there are. */
  ids: number;
  /** Rows of the table. */
  rows: number;
  width: number;
  idsDtype: 'i32' | 'u32';
  access: Access;
}

const WORKGROUP = 64;
const PARAMS = ['ids_n', 'rows_n', 'width'];

/**
 * Slots: table [rows, width], ids, out [ids, width]; copied as words, so that f32, i32 and u32
 * keep their bits. An id out of range (or negative) gives a row of zeros.
 */
export function gather(_caps: Caps, { ids, rows, width, idsDtype, access }: GatherProblem): Launch {
  const wgsl = shader({
    params: PARAMS,
    buffers: [
      { name: 'table', type: 'u32', access },
      { name: 'ids', type: idsDtype, access },
      { name: 'dst', type: 'u32', access: 'read_write' },
    ],
    workgroup: [WORKGROUP, 1, 1],
    main: `  let i = (wid.x + wid.y * nwg.x) * ${WORKGROUP}u + li;
  if (i >= p.ids_n * p.width) { return; }
  let row = u32(ids[i / p.width]);
  var v = 0u;
  if (row < p.rows_n) { v = table[row * p.width + i % p.width]; }
  dst[i] = v;`,
  });
  return {
    dispatches: [
      {
        label: `gather ${ids}x${width} of ${rows}`,
        wgsl,
        grid: foldGrid(ceilDiv(ids * width, WORKGROUP)),
        params: [ids, rows, width],
        bind: [0, 1, 2],
        flops: 0,
        bytes: 4 * ids * (1 + 2 * width),
      },
    ],
    scratch: [],
  };
}

/**
 * Slots: ids, rows [ids, width] f32, out [rows, width] f32 = sum of the rows that carry each id; ids out of range are dropped.
 * Every output element walks all ids in ascending order: no atomics, so the bits never change; meant for small vocabularies.
 */
export function scatterAdd(_caps: Caps, { ids, rows, width, idsDtype, access }: GatherProblem): Launch {
  const wgsl = shader({
    params: PARAMS,
    buffers: [
      { name: 'ids', type: idsDtype, access },
      { name: 'src', type: 'f32', access },
      { name: 'dst', type: 'f32', access: 'read_write' },
    ],
    workgroup: [WORKGROUP, 1, 1],
    main: `  let i = (wid.x + wid.y * nwg.x) * ${WORKGROUP}u + li;
  if (i >= p.rows_n * p.width) { return; }
  let row = i / p.width;
  let col = i % p.width;
  var sum = 0.0;
  for (var k = 0u; k < p.ids_n; k++) {
    if (u32(ids[k]) == row) { sum += src[k * p.width + col]; }
  }
  dst[i] = sum;`,
  });
  return {
    dispatches: [
      {
        label: `scatterAdd ${ids}x${width} to ${rows}`,
        wgsl,
        grid: foldGrid(ceilDiv(rows * width, WORKGROUP)),
        params: [ids, rows, width],
        bind: [0, 1, 2],
        flops: ids * width,
        bytes: 4 * (ids + ids * width + rows * width),
      },
    ],
    scratch: [],
  };
}
