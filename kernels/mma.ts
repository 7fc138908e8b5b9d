/**
 * Subgroup matrices: the one place that prints WGSL of `chromium_experimental_subgroup_matrix`, and the same tiles in plain WGSL
 * for devices that lack them, so that a kernel's numerics (operands as the unit takes them, sums in f32) are tested without a GPU.
 */
import type { Caps } from './kernel.ts';
import { range } from './print.ts';

/** result[M, N] += left[M, K] · right[K, N], one at a time by the `lanes` threads of a subgroup. Sums are f32 in all of them. */
export interface MatrixUnit {
  /** Type of both operands: f16 rounds them, f32 (Apple's) keeps every product exact. */
  operands: 'f16' | 'f32';
  M: number;
  N: number;
  K: number;
  lanes: number;
  /** Threads of a workgroup must be a multiple of this: Dawn asks for the largest subgroup that the adapter reports. */
  multiple: number;
  /** Printed as loops over workgroup memory. */
  emulated: boolean;
}

/** The unit for products whose operands may be rounded to f16, or must stay f32; f32 units serve both. */
export const unitFor = (
  { units = [] }: Pick<Caps, 'units'>,
  operands: MatrixUnit['operands'],
): MatrixUnit | undefined => units.find((u) => u.operands === operands) ?? units.find((u) => u.operands === 'f32');

/** As labels have it: `16x16x16 f16`. */
export const unitName = ({ M, N, K, operands, emulated }: MatrixUnit): string =>
  `${M}x${N}x${K} ${operands}${emulated ? ' emulated' : ''}`;

/** Whether so many threads are whole subgroups, in a number that the device takes. */
export const fitsThreads = (
  threads: number,
  { multiple }: MatrixUnit,
  { maxInvocations }: Pick<Caps, 'maxInvocations'>,
): boolean => threads % multiple === 0 && threads <= maxInvocations;

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
  /** Element type of operand tiles in workgroup memory, its bytes, and what brings an f32 or a vec4f to it. */
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

/**
 * `step`s of a unit's K over a panel, written out: a loop's variable would hide how places are aligned, and operands be loaded in halves.
 * Emulated it is a loop to `end`, for that would compile for long.
 */
export const inSteps = (
  { K, emulated }: MatrixUnit,
  panel: number,
  end: string,
  step: (k: string) => string,
): string =>
  emulated
    ? `for (var s = 0u; s < ${end}; s += ${K}u) { ${step('s')} }`
    : range(panel / K)
        .map((s) => `{ ${step(`${s * K}u`)} }`)
        .join('\n');

export const mma = (unit: MatrixUnit): Mma => (unit.emulated ? emulation(unit) : native(unit));

function native({ operands, M, N, K }: MatrixUnit): Mma {
  const type = {
    left: `subgroup_matrix_left<${operands}, ${K}, ${M}>`,
    right: `subgroup_matrix_right<${operands}, ${N}, ${K}>`,
  }; // columns, rows
  const half = operands === 'f16';
  const result = `subgroup_matrix_result<f32, ${N}, ${M}>`;
  const major = (across = false) => (across ? 'col_major' : 'row_major');
  return {
    enable: [...(half ? ['f16'] : []), 'chromium_experimental_subgroup_matrix'],
    diagnostics: ['off, chromium.subgroup_matrix_uniformity'], // places depend on the subgroup, which Tint can't see to be uniform in it
    element: operands,
    bytes: half ? 2 : 4,
    round: (v, width = 4) => (half ? `${width === 4 ? 'vec4h' : 'f16'}(${v})` : v),
    zeros: (name) => `var ${name} = ${result}();`,
    load: (side, name, { tile, at, ld, across }) =>
      `let ${name} = subgroupMatrixLoad<${type[side]}, ${major(across)}>(&${tile}, ${at}, ${ld}u);`,
    multiply: (acc, left, right) => `${acc} = subgroupMatrixMultiplyAccumulate(${left}, ${right}, ${acc});`,
    store: (acc, { tile, at, ld, across }) => `subgroupMatrixStore<${major(across)}>(&${tile}, ${at}, ${acc}, ${ld}u);`,
    reload: (acc, { tile, at, ld, across }) =>
      `${acc} = subgroupMatrixLoad<${result}, ${major(across)}>(&${tile}, ${at}, ${ld}u);`,
  };
}

/**
 * Lane l holds the elements l, l + lanes, … of a result; an operand is the place where it
 * lies. Loops run to `p.unitK`, so that no driver unrolls them.
 */
function emulation({ operands: type, M, N, lanes }: MatrixUnit): Mma {
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
    round: (v) => (type === 'f16' ? `quantizeToF16(${v})` : v),
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
