/**
 * Subgroup matrices: the one place that prints WGSL of `chromium_experimental_subgroup_matrix`, and the same tiles in plain WGSL
 * for devices that lack them, so that a kernel's numerics (operands rounded to f16, sums in f32) are tested without a GPU.
 */

/** result[M, N] += left[M, K] · right[K, N], one at a time by the `lanes` threads of a subgroup. */
export interface MatrixUnit {
  M: number;
  N: number;
  K: number;
  lanes: number;
  /** Printed as loops over workgroup memory. */
  emulated: boolean;
}

/** A tile in an array in workgroup memory: element (r, c) lies at `at` + r·ld + c, or + c·ld + r if `across`. */
interface Laid {
  tile: string;
  at: string;
  ld: number;
  across?: boolean;
}

export interface Mma {
  enable: readonly string[];
  diagnostics: readonly string[];
  /** Element type of operand tiles in workgroup memory, its bytes, and what rounds an f32 or a vec4f to it. */
  element: 'f16' | 'f32';
  bytes: number;
  round(v: string, width?: 1 | 4): string;
  /** Declares a result of zeros; said outright, because a variable without a value keeps its last one in a loop on some drivers. */
  zeros(name: string): string;
  /** Takes an operand from workgroup memory. */
  load(side: 'left' | 'right', name: string, from: Laid): string;
  /** `acc` += left · right; no barrier may stand between the loads and this. */
  multiply(acc: string, left: string, right: string): string;
  /** Into an array<f32> in workgroup memory, and back. */
  store(acc: string, to: Laid): string;
  reload(acc: string, from: Laid): string;
}

export const mma = (unit: MatrixUnit): Mma => (unit.emulated ? emulation(unit) : native(unit));

function native({ M, N, K }: MatrixUnit): Mma {
  const type = { left: `subgroup_matrix_left<f16, ${K}, ${M}>`, right: `subgroup_matrix_right<f16, ${N}, ${K}>` }; // columns, rows
  const result = `subgroup_matrix_result<f32, ${N}, ${M}>`;
  const major = (across = false) => (across ? 'col_major' : 'row_major');
  return {
    enable: ['f16', 'chromium_experimental_subgroup_matrix'],
    diagnostics: ['off, chromium.subgroup_matrix_uniformity'], // places depend on the subgroup, which Tint can't see to be uniform in it
    element: 'f16',
    bytes: 2,
    round: (v, width = 4) => `${width === 4 ? 'vec4h' : 'f16'}(${v})`,
    zeros: (name) => `var ${name} = ${result}();`,
    load: (side, name, { tile, at, ld, across }) =>
      `let ${name} = subgroupMatrixLoad<${type[side]}, ${major(across)}>(&${tile}, ${at}, ${ld}u);`,
    multiply: (acc, left, right) => `${acc} = subgroupMatrixMultiplyAccumulate(${left}, ${right}, ${acc});`,
    store: (acc, { tile, at, ld, across }) => `subgroupMatrixStore<${major(across)}>(&${tile}, ${at}, ${acc}, ${ld}u);`,
    reload: (acc, { tile, at, ld, across }) =>
      `${acc} = subgroupMatrixLoad<${result}, ${major(across)}>(&${tile}, ${at}, ${ld}u);`,
  };
}

/** Lane l holds the elements l, l + lanes, … of a result; an operand is the place where it lies. Loops run to `p.unitK`, so that no driver unrolls them. */
function emulation({ M, N, lanes }: MatrixUnit): Mma {
  const held = (M * N) / lanes;
  const operands = new Map<string, Laid>();
  const place = ({ tile, at, ld, across = false }: Laid, r = 'r', c = 'c'): string =>
    `${tile}[${at} + ${across ? c : r} * ${ld}u + ${across ? r : c}]`;
  const element = (name: string, r: string, c: string): string => place(operands.get(name)!, r, c);
  const each = (body: string) =>
    `for (var j = 0u; j < ${held}u; j++) { let r = (j * ${lanes}u + li % ${lanes}u) / ${N}u; let c = (j * ${lanes}u + li % ${lanes}u) % ${N}u; ${body} }`;
  return {
    enable: [],
    diagnostics: [],
    element: 'f32',
    bytes: 4,
    round: (v) => `quantizeToF16(${v})`,
    zeros: (name) => `var ${name} = array<f32, ${held}>();`,
    load(_side, name, from) {
      operands.set(name, { ...from, at: name });
      return `let ${name} = ${from.at};`;
    },
    multiply: (acc, left, right) =>
      each(
        `for (var k = 0u; k < p.unitK; k++) { ${acc}[j] = fma(${element(left, 'r', 'k')}, ${element(right, 'k', 'c')}, ${acc}[j]); }`,
      ),
    store: (acc, to) => each(`${place(to)} = ${acc}[j];`),
    reload: (acc, from) => each(`${acc}[j] = ${place(from)};`),
  };
}
