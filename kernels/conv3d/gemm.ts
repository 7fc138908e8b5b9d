/** A GEMM over implicit operands, and how a workgroup brings a panel of them to its memory: what the tiled and the matrix template share. */

export interface Gemm {
  /** Inner index `k` → `vec4u` kept in `inner[]`. */
  decode: string;
  /** The loading thread's own column `column`: `let`s for `loadColumn`. */
  prepare: string;
  /** Statements that set `a` (of row `o`) and `b` from `e`, the decoded inner index. */
  loadRow: string;
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

export interface Panel { channels: number; columns: number; panel: number; threads: number }

/**
 * Loads the panel at `k0`: `inner[]` holds its decoded indices. Beyond an end there are zeros.
 * @param storeColumn statement that keeps `b` of panel row `i / columns`, column `i % columns`
 * @param storeRow statement that keeps `a` of channel `i / panel`, panel row `kk`
 */
export const loadPanel = (g: Gemm, { channels, columns, panel, threads }: Panel, storeColumn: string, storeRow: string): string =>
  `    for (var i = li; i < ${panel * columns}u; i += ${threads}u) {
      let e = inner[i / ${columns}u];
      var b = 0.0;
      if (k0 + i / ${columns}u < end) {
${g.loadColumn}
      }
      ${storeColumn}
    }
    for (var i = li; i < ${panel * channels}u; i += ${threads}u) {
      let kk = i % ${panel}u;
      let e = inner[kk];
      let o = o0 + i / ${panel}u;
      var a = 0.0;
      if (k0 + kk < end && o < ${g.rows}) {
${g.loadRow}
      }
      ${storeRow}
    }
    workgroupBarrier();`;
