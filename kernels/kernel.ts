/**
 * What every kernel family speaks: plain data in, WGSL and launch numbers out.
 *
 * A family is a pure function (caps, problem) → Launch. It knows nothing of graphs or GPU objects. Storage slots are
 * numbered inputs first, then outputs, then scratch; the caller binds buffers to slots. Shapes travel in a uniform, never
 * in the text, so that one configuration compiles once however many shapes use it.
 */

import type { MatrixUnit } from './mma.ts';
import { blockOf, isPacked, type Packed } from './packed.ts';
import type { Tuning } from './tuning.ts';

export type Plain = 'f32' | 'f16' | 'bf16' | 'i32' | 'u32';
/** bf16 and packed types are for storage: kernels read them as f32, none writes them; packed ones only products read. */
export type DType = Plain | Packed;
export const BYTES: Record<Plain, number> = { f32: 4, f16: 2, bf16: 2, i32: 4, u32: 4 };

/** What `count` numbers take, of packed ones whole blocks. */
export function storageBytes(dtype: DType, count: number): number {
  if (!isPacked(dtype)) return count * BYTES[dtype];
  const { elements, bytes } = blockOf(dtype);
  return (count / elements) * bytes;
}

/** Offsets of bindings are multiples of this everywhere, and of every element's size. */
export const ALIGN = 256;

/** Arena tensors share a buffer with the output and must be bound read_write; external ones may be read. */
export type Access = 'read' | 'read_write';

export type Tier = 'scalar' | 'tiled';

/** What planners may know of a device. */
export interface Caps {
  /** `scalar`: no workgroup memory, looped, best on CPU drivers. `tiled`: workgroup memory and register tiles. */
  tier: Tier;
  f16: boolean;
  /**
   * Threads of a subgroup: the device's only size (8 on lavapipe, 32 on NVIDIA), or the one that kernels ask for; 0 where neither is known.
   */
  subgroup: number;
  /** The device has several sizes, and kernels ask for theirs (see `subgroups.ts`). */
  sized?: boolean;
  /** Matrix units, one for each type of operands; only the `tiled` tier uses them. */
  units?: readonly MatrixUnit[];
  maxInvocations: number;
  maxWorkgroupBytes: number;
  maxStorageBuffers: number;
  maxBindingBytes: number;
  /** What was measured on this device. */
  tuning?: Tuning;
}

type Grid = readonly [number, number, number];

export interface Dispatch {
  /** Family, full configuration, shape: `matmul scalar 16x4 sg8 tb 2560x512x128`. A profile explains itself by it. */
  label: string;
  wgsl: string;
  grid: Grid;
  /** u32 words of the uniform at binding 0, in the order of the struct's fields. */
  params: readonly number[];
  /** Storage binding 1 + i holds slot bind[i]. No slot stands twice. */
  bind: readonly number[];
  /**
   * For each binding the window of its slot that it holds (see `windows.ts`), where it is not the whole. A slot then stands once a window.
   */
  windows?: readonly (number | undefined)[];
  flops: number;
  /** Its arithmetic is done by matrix units. */
  onUnits?: boolean;
  /** Bytes that must cross memory once: every input read, every output written. */
  bytes: number;
}

export interface Launch {
  dispatches: Dispatch[];
  /** Bytes of each scratch slot. */
  scratch: number[];
}

/** One storage binding of a shader. `type` is the element type of the runtime-sized array. */
export interface Binding {
  name: string;
  type: string;
  access: Access;
}

/**
 * Pointwise code fused onto a family's store. The family declares `fn epilogue(v: T, i: u32) -> T` by `epilogueFunction`
 * and calls it right before it writes; `i` is the flat element index of the (first) value in the output. Families whose output is rows
 * declare it as `placed`, with two more arguments: that value's row and column along the output's last axis.
 * Extra inputs take the slots after the family's own inputs and outputs, before scratch.
 */
export interface Epilogue {
  /** `wide` ones are bound as vec4f where the body is of width 4. */
  buffers: readonly (Binding & { wide?: boolean })[];
  /** Extra uniform words: names are unique against the family's. */
  params: readonly (readonly [string, number])[];
  /** Module-scope functions that the body calls. */
  functions?: string;
  /** Statements that end in `return`, for T = f32 (width 1) or vec4f (width 4). */
  body(width: 1 | 4): string;
}

export interface ShaderSpec {
  params: readonly string[];
  buffers: readonly Binding[];
  workgroup: readonly [number, number, number];
  enable?: readonly string[];
  /** `off, some.rule`. */
  diagnostics?: readonly string[];
  /** Module-scope functions and variables. */
  functions?: string;
  /** Body of main. `wid`, `lid` (vec3u), `li` (local index), `nwg`, and with subgroups `lane` and `sgs` are at hand. */
  main: string;
}

const texts = new Map<string, string>();

/** Equal texts as one string, however many kernels of a program share it. */
export const interned = (text: string): string => texts.get(text) ?? (texts.set(text, text), text);

/**
 * Writes the module: uniform struct P at binding 0 (as `p`), storage from binding 1,
 * and the entry point `main`. Whatever says f16 enables it.
 */
export function shader(spec: ShaderSpec): string {
  const lines: string[] = [];
  const fields = spec.params.length ? spec.params : ['unused'];
  lines.push(`struct P { ${fields.map((f) => `${f}: u32`).join(', ')} }`);
  lines.push('@group(0) @binding(0) var<uniform> p: P;');
  spec.buffers.forEach((b, i) => {
    lines.push(`@group(0) @binding(${i + 1}) var<storage, ${b.access}> ${b.name}: array<${b.type}>;`);
  });
  if (spec.functions) lines.push(spec.functions);
  const builtins = [
    '@builtin(workgroup_id) wid: vec3u',
    '@builtin(local_invocation_id) lid: vec3u',
    '@builtin(local_invocation_index) li: u32',
    '@builtin(num_workgroups) nwg: vec3u',
  ];
  if (spec.enable?.includes('subgroups')) {
    builtins.push('@builtin(subgroup_invocation_id) lane: u32', '@builtin(subgroup_size) sgs: u32');
  }
  lines.push(
    `@compute @workgroup_size(${spec.workgroup.join(', ')})\nfn main(${builtins.join(', ')}) {\n${spec.main}\n}`,
  );
  const enable = new Set([...(lines.some((l) => /\bf16\b/.test(l)) ? ['f16'] : []), ...(spec.enable ?? [])]);
  return interned(
    [
      ...[...enable].map((e) => `enable ${e};`),
      ...(spec.diagnostics ?? []).map((d) => `diagnostic(${d});`),
      ...lines,
    ].join('\n'),
  );
}

/** The function every family calls before a store; the identity when nothing is fused. */
export function epilogueFunction(epilogue: Epilogue | undefined, width: 1 | 4, placed = false): string {
  const t = width === 1 ? 'f32' : 'vec4f';
  return `${epilogue?.functions ?? ''}\nfn epilogue(v: ${t}, i: u32${placed ? ', row: u32, col: u32' : ''}) -> ${t} {\n${epilogue ? epilogue.body(width) : 'return v;'}\n}`;
}

export const epilogueBindings = (epilogue: Epilogue | undefined, width: 1 | 4): Binding[] =>
  (epilogue?.buffers ?? []).map(({ name, type, access, wide }) => ({
    name,
    type: wide && width === 4 ? 'vec4f' : type,
    access,
  }));

const MAX_GROUPS = 65535;

/** A one-dimensional count of workgroups folded into two: in the shader the index is `wid.x + wid.y * nwg.x`, to be bound-checked. */
export function foldGrid(groups: number): Grid {
  if (groups <= MAX_GROUPS) return [Math.max(groups, 1), 1, 1];
  const y = Math.ceil(groups / MAX_GROUPS);
  return [Math.ceil(groups / y), y, 1];
}

const scratchF32 = new Float32Array(1);
const scratchU32 = new Uint32Array(scratchF32.buffer);

/** The bits of an f32, to pass a float through the u32 uniform; read it with `bitcast<f32>(p.x)`. */
export function f32bits(x: number): number {
  scratchF32[0] = x;
  return scratchU32[0]!;
}

/** What a tensor of so many bytes is bound with: whole words, and for an empty one a vec4, as which kernels may declare it. */
export const boundBytes = (bytes: number): number => (bytes ? Math.ceil(bytes / 4) * 4 : 16);

export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);
export const numel = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
