/**
 * A function over tensors becomes a program: traced once per input signature, carried through every stage, then replayed.
 */
import type { DType } from '../../kernels/kernel.ts';
import type { Device } from './device.ts';
import { EngineError } from '../host/errors.ts';
import { flags } from '../host/flags.ts';
import { printType, typeOf, type TensorType } from '../frontend/graph.ts';
import { NDArray } from './ndarray.ts';
import type { Plan } from '../compiler/plan.ts';
import { Program, type Span } from './program.ts';
import { analyse, planStages, type CompileOptions, type Stages } from '../compiler/stages.ts';
import type { Tensor } from '../frontend/tensor.ts';
import { flatten, type Flat, type HostTensor } from '../frontend/tree.ts';

export type { CompileOptions } from '../compiler/stages.ts';

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
export function compile<A extends readonly unknown[], R>(
  device: Device,
  fn: (...args: A) => R,
  options: CompileOptions = {},
): CompiledFunction<A, R> {
  const compiled = new Compiled(device, fn as unknown as (...args: unknown[]) => unknown, options);
  return Object.assign((...args: unknown[]) => compiled.run(...args), {
    plan: (...args: unknown[]) => compiled.plan(...args),
    free: () => compiled.free(),
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
  private readonly options: CompileOptions;
  private readonly built = new Map<string, Promise<Built>>();

  constructor(device: Device, fn: (...args: unknown[]) => unknown, options: CompileOptions) {
    this.device = device;
    this.fn = fn;
    this.donate = new Set(options.donate ?? []);
    this.name = options.name ?? (fn.name || 'program');
    this.options = options;
  }

  async run(...args: unknown[]): Promise<unknown> {
    const flat = args.map((a) => flatten<Leaf>(a));
    const leaves = flat.flatMap((f) => f.leaves);
    const built = await this.build(flat, leaves);
    this.checkArrays(flat);
    const spans = leaves.map((leaf, i) => this.span(leaf, built, i));
    await built.program.run(spans);
    const generation = ++built.generation;
    const results = built.results.map(({ type, into }, i) => {
      if (into !== undefined) return leaves[into];
      const span = built.program.outputs[i]!;
      return new NDArray(
        this.device,
        type.shape,
        type.dtype,
        span.buffer,
        span.offset,
        () => built.generation === generation,
      );
    });
    return built.outTree.rebuild(results);
  }

  async plan(...args: unknown[]): Promise<Plan> {
    const flat = args.map((a) => flatten<Leaf>(a));
    return planStages(
      this.name,
      this.analyse(
        flat,
        flat.flatMap((f) => f.leaves),
      ),
      this.device,
    );
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

  private analyse(flat: readonly Flat<Leaf>[], leaves: readonly Leaf[]): Stages {
    const inputs = flat.map((f) => ({ ...f, leaves: f.leaves.map(leafType) }));
    return analyse(
      this.name,
      this.fn,
      inputs,
      leaves.map((leaf) => !(leaf instanceof NDArray)),
      this.device.caps,
      this.options,
    );
  }

  private async make(flat: readonly Flat<Leaf>[], leaves: readonly Leaf[]): Promise<Built> {
    const { inputs, outTree, groups, lowered, placement, outputs, uploads } = this.analyse(flat, leaves);
    const program = new Program(this.name, this.device, groups, lowered, placement, outputs, uploads);
    await program.prepare();
    if (flags.DEBUG >= 1) {
      const { plan } = program;
      console.error(
        `${this.name}: ${groups.length} groups, ${plan.kernels} kernels, ${(plan.flops / 1e9).toFixed(2)} GFLOP, ${(plan.bytes / 2 ** 20).toFixed(1)} MiB`,
      );
    }
    return {
      program,
      inputs,
      outTree,
      results: outputs.map((o) => ({ type: typeOf(o.value), into: o.into })),
      generation: 0,
    };
  }

  private checkArrays(flat: readonly Flat<Leaf>[]): void {
    const buffers = new Map<GPUBuffer, string>();
    flat.forEach((f, a) =>
      f.leaves.forEach((leaf, i) => {
        if (!(leaf instanceof NDArray)) return;
        const name = `argument ${a} ${f.paths[i]}`.trimEnd();
        if (leaf.device !== this.device)
          throw new EngineError(
            this.name,
            `${name} lies on another device than this program: read() it there and bring it as host()`,
          );
        const before = buffers.get(leaf.buffer);
        if (before && (this.donate.has(a) || before.startsWith('donated '))) {
          throw new EngineError(this.name, `${name} shares its memory with ${before}: donate a keep() of it`);
        }
        if (this.donate.has(a) && leaf.whole) throw new EngineError(this.name, `${name} is a view: donate the whole`);
        if (this.donate.has(a) && !leaf.owned)
          throw new EngineError(this.name, `${name} is another program's result: donate a keep() of it`);
        buffers.set(leaf.buffer, this.donate.has(a) ? `donated ${name}` : name);
      }),
    );
  }

  private span(leaf: Leaf, built: Built, i: number): Span {
    if (leaf instanceof NDArray) {
      leaf.check();
      return { buffer: leaf.buffer, offset: leaf.offset, bytes: leaf.bytes };
    }
    const to = built.program.uploads[i]!;
    const { dtype } = built.inputs[i]!;
    this.device.write(
      to.buffer,
      0,
      typeof leaf === 'number' ? Float32Array.of(leaf) : (leaf.data as Float32Array),
      dtype,
    );
    return to;
  }
}

function leafType(leaf: Leaf): TensorType {
  if (typeof leaf === 'number') return { shape: [], dtype: 'f32' };
  if (leaf instanceof NDArray || (leaf && typeof leaf === 'object' && 'shape' in leaf && 'dtype' in leaf)) {
    return { shape: leaf.shape, dtype: leaf.dtype as DType };
  }
  throw new EngineError(
    'compile',
    `arguments are trees of tensors and numbers, got ${typeof leaf === 'object' ? (leaf as object).constructor.name : typeof leaf}; numbers in an array come as host(data, shape)`,
  );
}
