/**
 * A function over tensors becomes a program: traced once per input signature, carried through every stage, then replayed.
 */
import type { Access, DType } from '../kernels/kernel.ts';
import type { Device } from './device.ts';
import { EngineError } from './errors.ts';
import { flags } from './flags.ts';
import { fuse } from './fuse.ts';
import { base, keyOf, bytesOf, Graph, printType, typeOf, type Node, type TensorType, type Value } from './graph.ts';
import { lower } from './lowering.ts';
import { NDArray } from './ndarray.ts';
import { place, type Output } from './placement.ts';
import { halveOperands } from './precision.ts';
import { planProgram, Program, type Plan, type Span } from './program.ts';
import { simplify } from './simplify.ts';
import type { Tensor } from './tensor.ts';
import { trace } from './trace.ts';
import { flatten, type Flat, type HostTensor } from './tree.ts';

export interface CompileOptions {
  /** Arguments whose tensors may be overwritten: a result at the same path as a donated tensor takes its place. */
  donate?: readonly number[];
  /** Name in profiles and errors. */
  name?: string;
  /** Operands of matrix products: f16 halves their traffic, sums stay f32. Where the adapter has no f16 it is f32 all the same. */
  operands?: 'f32' | 'f16';
}

type Leaf = NDArray | HostTensor | number;

/** What a traced function's argument becomes in a call: any tree of concrete tensors in place of symbolic ones. */
export type Feed<T> = T extends Tensor ? Leaf : T extends object ? { [K in keyof T]: Feed<T[K]> } : T;
/** What a traced function's result becomes. */
export type Concrete<T> = T extends Tensor ? NDArray : T extends object ? { [K in keyof T]: Concrete<T[K]> } : T;

export interface CompiledFunction<A extends readonly unknown[], R> {
  (...args: { [K in keyof A]: Feed<A[K]> }): Promise<Concrete<R>>;
  /** What a call with these arguments costs: nothing is run. */
  plan(...args: { [K in keyof A]: Feed<A[K]> }): Promise<Plan>;
  /** Gives back the memory of every program made so far. */
  free(): Promise<void>;
}

/**
 * Compiles `fn`, a function over trees of Tensors. The result takes trees of NDArray, HostTensor (uploaded at each call) and
 * number (an f32 scalar) and gives the tree that `fn` returned, of NDArrays.
 */
export function compile<A extends readonly unknown[], R>(device: Device, fn: (...args: A) => R, options: CompileOptions = {}): CompiledFunction<A, R> {
  const compiled = new Compiled(device, fn as unknown as (...args: unknown[]) => unknown, options);
  return Object.assign((...args: unknown[]) => compiled.run(...args), {
    plan: (...args: unknown[]) => compiled.plan(...args), free: () => compiled.free(),
  }) as CompiledFunction<A, R>;
}

interface Built {
  program: Program;
  inputs: TensorType[];
  outTree: Flat;
  /** For each result: its type, and the input it was written into. */
  results: { type: TensorType; into?: number }[];
  generation: number;
}

/** The programs of one function, by input signature. */
class Compiled {
  private readonly device: Device;
  private readonly fn: (...args: unknown[]) => unknown;
  private readonly donate: ReadonlySet<number>;
  private readonly name: string;
  private readonly half: boolean;
  private readonly built = new Map<string, Promise<Built>>();

  constructor(device: Device, fn: (...args: unknown[]) => unknown, options: CompileOptions) {
    this.device = device;
    this.fn = fn;
    this.donate = new Set(options.donate ?? []);
    this.name = options.name ?? (fn.name || 'program');
    this.half = options.operands === 'f16' && device.caps.f16;
  }

  async run(...args: unknown[]): Promise<unknown> {
    const flat = args.map((a) => flatten<Leaf>(a));
    const leaves = flat.flatMap((f) => f.leaves);
    const built = await this.build(flat, leaves);
    this.checkDonations(flat);
    const spans = leaves.map((leaf, i) => this.span(leaf, built, i));
    await built.program.run(spans);
    const generation = ++built.generation;
    const results = built.results.map(({ type, into }, i) => {
      if (into !== undefined) return leaves[into];
      const span = built.program.outputs[i]!;
      return new NDArray(this.device, type.shape, type.dtype, span.buffer, span.offset, () => built.generation === generation);
    });
    return built.outTree.rebuild(results);
  }

  /** Nothing is allocated: the stages up to the memory plan are pure. */
  async plan(...args: unknown[]): Promise<Plan> {
    const flat = args.map((a) => flatten<Leaf>(a));
    const { lowered, placement, outputs, uploads } = this.analyse(flat, flat.flatMap((f) => f.leaves));
    return planProgram(this.name, lowered, placement, outputs, uploads, this.device).plan;
  }

  async free(): Promise<void> {
    await this.device.idle();
    for (const b of this.built.values()) (await b).program.free();
    this.built.clear();
  }

  private build(flat: readonly Flat<Leaf>[], leaves: readonly Leaf[]): Promise<Built> {
    // A host tensor is uploaded into a buffer of the program's own, a device tensor is bound as it lies: two programs.
    const key = `${flat.map((f) => f.key).join(';')}|${leaves.map((l) => (l instanceof NDArray ? '' : '^') + printType(leafType(l))).join()}`;
    let found = this.built.get(key);
    if (!found) {
      found = this.make(flat, leaves);
      this.built.set(key, found);
      found.catch(() => this.built.delete(key));
    }
    return found;
  }

  /** Every stage up to launches. */
  private analyse(flat: readonly Flat<Leaf>[], leaves: readonly Leaf[]) {
    const { device } = this;
    const inputs = leaves.map(leafType);
    const args = flat.map((f) => f.rebuild(f.leaves.map(leafType)));
    const traced = trace(this.fn, args);
    const lean = simplify(traced.graph, traced.outputs);
    const simple = this.half ? halveOperands(lean.graph, lean.outputs) : lean;
    const outTree = traced.outTree;
    const outputs = this.outputs(flat, inputs, outTree, simple.graph, simple.outputs);
    if (flags.DEBUG >= 3) process.stderr.write(`${this.name}\n${simple.graph.toString()}\n`);
    const groups = fuse(simple.graph, outputs.map((o) => o.value), device.caps.maxStorageBuffers, !flags.NO_FUSE);
    const placement = place(groups, outputs);
    const context = {
      caps: device.caps, inPlace: placement.inPlace,
      // What a program writes may share a buffer with what a kernel writes; what it only reads may not.
      access: (v: Value): Access => (v.node.op === 'input' ? 'read' : 'read_write'),
    };
    const lowered = groups.map((g) => lower(g, context));
    if (flags.DEBUG >= 4) for (const l of lowered) for (const d of l.launch.dispatches) process.stderr.write(`// ${d.label}\n${d.wgsl}\n`);
    const uploads = leaves.map((leaf, i) => (leaf instanceof NDArray ? undefined : Math.max(4, Math.ceil(bytesOf(inputs[i]!) / 4) * 4)));
    return { inputs, outTree, groups, lowered, placement, outputs, uploads };
  }

  private async make(flat: readonly Flat<Leaf>[], leaves: readonly Leaf[]): Promise<Built> {
    const { inputs, outTree, groups, lowered, placement, outputs, uploads } = this.analyse(flat, leaves);
    const program = new Program(this.name, this.device, groups, lowered, placement, outputs, uploads);
    await program.prepare();
    if (flags.DEBUG >= 1) {
      const { plan } = program;
      process.stderr.write(`${this.name}: ${groups.length} groups, ${plan.kernels} kernels, ${(plan.flops / 1e9).toFixed(2)} GFLOP, ${(plan.bytes / 2 ** 20).toFixed(1)} MiB\n`);
    }
    return { program, inputs, outTree, results: outputs.map((o) => ({ type: typeOf(o.value), into: o.into })), generation: 0 };
  }

  /** Matches results to donated inputs by path, and gives every result bytes of its own. */
  private outputs(flat: readonly Flat<Leaf>[], inputs: readonly TensorType[], outTree: Flat, graph: Graph, values: readonly Value[]): Output[] {
    const donated = new Map<string, number>();
    let index = 0;
    flat.forEach((f, a) => f.paths.forEach((path) => {
      if (this.donate.has(a) && !donated.has(path)) donated.set(path, index);
      index++;
    }));
    const seen = new Set<string>();
    return values.map((v, i) => {
      const into = donated.get(outTree.paths[i]!);
      const type = typeOf(v);
      if (into !== undefined && printType(inputs[into]!) !== printType(type)) {
        throw new EngineError(this.name, `${outTree.paths[i]} was donated as ${printType(inputs[into]!)} and returned as ${printType(type)}`);
      }
      const source = base(v);
      const isInput = source.node.op === 'input';
      const unchanged = isInput && (source.node as Node<'input'>).attrs.index === into;
      const repeated = seen.has(keyOf(source));
      seen.add(keyOf(source));
      if (unchanged || (!repeated && !isInput)) return { value: v, into };
      // A result needs bytes of its own: casting to the same type is the copy (a negative segment keeps it from being merged).
      const copy = graph.add('cast', [v], { dtype: type.dtype }, [type], '', -1_000_000 - i);
      return { value: { node: copy as unknown as Node, out: 0 }, into };
    });
  }

  private checkDonations(flat: readonly Flat<Leaf>[]): void {
    const buffers = new Map<GPUBuffer, string>();
    flat.forEach((f, a) => f.leaves.forEach((leaf, i) => {
      if (!(leaf instanceof NDArray)) return;
      const name = `argument ${a} ${f.paths[i]}`;
      const before = buffers.get(leaf.buffer);
      if (before && (this.donate.has(a) || before.startsWith('donated '))) {
        throw new EngineError(this.name, `${name} shares its memory with ${before}: donate a keep() of it`);
      }
      if (this.donate.has(a) && !leaf.owned) throw new EngineError(this.name, `${name} is another program's result: donate a keep() of it`);
      buffers.set(leaf.buffer, this.donate.has(a) ? `donated ${name}` : name);
    }));
  }

  private span(leaf: Leaf, built: Built, i: number): Span {
    if (leaf instanceof NDArray) {
      leaf.check();
      return { buffer: leaf.buffer, offset: leaf.offset, bytes: leaf.bytes };
    }
    const to = built.program.uploads[i]!;
    const { dtype } = built.inputs[i]!;
    this.device.write(to.buffer, 0, typeof leaf === 'number' ? Float32Array.of(leaf) : (leaf.data as Float32Array), dtype);
    return to;
  }
}

function leafType(leaf: Leaf): TensorType {
  if (typeof leaf === 'number') return { shape: [], dtype: 'f32' };
  if (leaf instanceof NDArray || (leaf && typeof leaf === 'object' && 'shape' in leaf && 'dtype' in leaf)) {
    return { shape: leaf.shape, dtype: leaf.dtype as DType };
  }
  throw new EngineError('compile', `arguments are trees of tensors and numbers, got ${leaf === null ? 'null' : typeof leaf}`);
}
