/** A GEMM over implicit operands, and how a workgroup brings panels of them to its memory: what the tiled and the matrix template share. */
import { range, XYZW } from '../print.ts';

export interface Gemm {
  /** Module-scope functions that the others call. */
  functions: string;
  /** Inner index `k` → `vec4u` kept in `inner[]`: `e`. */
  decode: string;
  /** The loading thread's own column `column`: `let`s for `loadColumn`. */
  prepare: string;
  /** Statements that set `a` (of row `o`) and `b` from `e`, the decoded inner index. */
  loadRow: string;
  /** Where rows lie along the inner axis, in whole fours: four values from inner index `k` of row `o`, in place of `loadRow`. */
  fourOfRow?: string;
  loadColumn: string;
  /** Expressions: which tile of columns this workgroup has, and its range of the inner axis (`end` may use `first`). */
  tile: string;
  first: string;
  end: string;
  /** Where row `o`, column `column` is stored: statements that set `at`. */
  place: string;
  rows: string;
  columns: string;
}

/** A template's text, and what it adds to a kernel. */
export interface Printed {
  how: string;
  threads: number;
  enable: readonly string[];
  diagnostics: readonly string[];
  entries: [string, number][];
  functions: string;
  main: string;
}

interface Panel {
  channels: number;
  columns: number;
  panel: number;
  threads: number;
}

/**
 * The loop over panels. One round more than panels: each loads its own panel to registers, computes on the one before, which
 * hides the loads, and then stores its own. `inner[]` holds the decoded indices of the panel to load. Beyond an end there are zeros.
 * @param compute statements that use the panel in workgroup memory
 * @param storeColumn statement that keeps `b`, four values along the inner axis from panel row `kq`, of column `li % columns`
 * @param storeRow statement that keeps `a`, such four of channel `channel`
 */
export function panels(
  g: Gemm,
  { channels, columns, panel, threads }: Panel,
  compute: string,
  storeColumn: string,
  storeRow: string,
): string {
  const quads = panel / 4;
  /** A thread's shares of `many` rows or columns. */
  const sharesOf = (many: number) => range(Math.ceil((many * quads) / threads));
  /** One statement block a share; the last share may not be everyone's. */
  const shares = (many: number, text: (n: number, i: string) => string) =>
    sharesOf(many)
      .map((n) => {
        const i = `li + ${n * threads}u`;
        return `    ${(n + 1) * threads > many * quads ? `if (${i} < ${many * quads}u) ` : ''}{ ${text(n, i)} }`;
      })
      .join('\n');
  const ofColumn = (i: string) => `let kq = (${i}) / ${columns}u * 4u;`;
  const ofRow = (i: string) => `let kq = (${i}) % ${quads}u * 4u; let channel = (${i}) / ${quads}u;`;
  const four = (name: string, load: string) =>
    XYZW.map(
      (part, j) => `{ let kk = kq + ${j}u; let e = inner[kk]; var ${name} = 0.0;
      if (k0 + kk < end) {
${load}
      } q.${part} = ${name}; }`,
    ).join('\n      ');
  const named = (name: string, many: number) =>
    sharesOf(many)
      .map((n) => `var ${name}${n} = vec4f();`)
      .join(' ');
  return `  if (li < ${panel}u) { inner[li] = decode(first + li); }
  workgroupBarrier();
  for (var k0 = first; k0 < end + ${panel}u; k0 += ${panel}u) {
    ${named('columns', columns)} ${named('rows', channels)}
${shares(
  columns,
  (n, i) => `${ofColumn(i)} var q = vec4f();
      ${four('b', g.loadColumn)}
      columns${n} = q;`,
)}
${shares(channels, (n, i) =>
  g.fourOfRow
    ? `${ofRow(i)} let k = k0 + kq; let o = min(o0 + channel, ${g.rows} - 1u); if (k < end) { rows${n} = ${g.fourOfRow}; }`
    : `${ofRow(i)} let o = min(o0 + channel, ${g.rows} - 1u); var q = vec4f();
      ${four('a', g.loadRow)}
      rows${n} = q;`,
)}
    if (k0 > first) {
${compute}
    }
    workgroupBarrier();
${shares(columns, (n, i) => `${ofColumn(i)} let b = columns${n}; ${storeColumn}`)}
${shares(channels, (n, i) => `${ofRow(i)} let a = rows${n}; ${storeRow}`)}
    if (li < ${panel}u) { inner[li] = decode(k0 + ${panel}u + li); }
    workgroupBarrier();
  }`;
}
