/**
 * A function over tensors becomes a program: traced once per input signature, carried through every stage, then replayed.
 */
import type { Device } from './device.ts';
import { callSite, EngineError, withSite } from '../host/errors.ts';
import { flags } from '../host/flags.ts';
import { printType, typeOf, type TensorType } from '../frontend/graph.ts';
import { NDArray } from './ndarray.ts';
import type { Plan } from '../compiler/plan.ts';
import { Program } from './program.ts';
import type { ResultSet } from './program-memory.ts';
import { Programs, type Built, type Entry } from './programs.ts';
import { Streamed } from './streamed.ts';
import { rangesOf, type Operand, type Ranges } from '../compiler/ranges.ts';
import { analyse, planStages, type CompileOptions, type Stages } from '../compiler/stages.ts';
import type { Tensor } from '../frontend/tensor.ts';
import { dataFault, flatten, nameOf, type Flat, type HostTensor, type Numbers, typeFault } from '../frontend/tree.ts';

export type { CompileOptions } from '../compiler/stages.ts';

type Leaf = NDArray | Streamed | HostTensor | number;

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
 * Compiles `fn`, a function over trees of Tensors. The result takes trees of NDArray, HostTensor (uploaded at each call), number (an f32
 * scalar) and Streamed (brought while it runs, when its kernels are about to read it) and gives the tree that `fn` returned, of NDArrays.
 *
 * Calls take effect in the order in which they are made, whatever is awaited when; data may change as soon as a call has returned its
 * promise. Results hold until the function's next call, and `keep()` copies one out: then they are refused, never wrong. Calls that overlap
 * do not disturb each other, and a call may take results of the one before: each such call has one more set of results, which the plan does
 * not count. A host tensor or a number in a donated argument is brought to the device, where its result is a tensor of its own.
 *
 * A program is made for each signature (shapes, dtypes, what lies where), and the last 64 are kept. What nobody holds any more, function
 * or result, is given back; `free()` does so at once.
 * @throws (the promise) an EngineError with the caller's line for arguments that do not fit; the device goes on
 */
export function compile<A extends readonly unknown[], R>(
  device: Device,
  fn: (...args: A) => R,
  options: CompileOptions = {},
): CompiledFunction<A, R> {
  const compiled = new Compiled(device, fn as unknown as (...args: unknown[]) => unknown, options);
  return Object.assign((...args: unknown[]) => compiled.run(args), {
    plan: (...args: unknown[]) => compiled.plan(args),
    free: () => compiled.free(),
  }) as CompiledFunction<A, R>;
}

/** The arguments of a call. */
interface Call {
  flat: Flat<Leaf>[];
  leaves: Leaf[];
  /** For each leaf, whether it may be overwritten. */
  donated: boolean[];
  /** Counts the function's calls. */
  number: number;
  /** Where its results are, once it has begun. */
  results?: ResultSet;
}

class Compiled {
  private readonly device: Device;
  private readonly fn: (...args: unknown[]) => unknown;
  private readonly donate: ReadonlySet<number>;
  private readonly name: string;
  private readonly options: CompileOptions;
  private readonly programs = new Programs();
  private calls = 0;

  constructor(device: Device, fn: (...args: unknown[]) => unknown, options: CompileOptions) {
    this.device = device;
    this.fn = fn;
    this.donate = new Set(options.donate ?? []);
    this.name = options.name ?? (fn.name || 'program');
    this.options = options;
  }

  async run(args: readonly unknown[]): Promise<unknown> {
    const call = this.callOf(args);
    this.check(call);
    const entry = this.programs.get(this.keyOf(call), () => this.make(call));
    entry.calls++;
    try {
      const out = await (entry.built && !inPieces(entry.built) && !this.device.inUse
        ? this.launch(entry.built, call)
        : this.later(entry, call));
      // In the microtask right before the caller's: what others call until then must not write over these results.
      queueMicrotask(() => this.given(call));
      return out;
    } catch (error) {
      this.given(call);
      throw error;
    } finally {
      entry.calls--;
    }
  }

  /** Calls from now on may write over its results. */
  private given({ results }: Call): void {
    if (results) results.free = this.calls;
  }

  /** A call that has to wait: its data are copied, its errors are the caller's, its donated arrays are spoken for. */
  private async later({ building }: Entry, call: Call): Promise<unknown> {
    const site = callSite();
    call.leaves = call.leaves.map(copied);
    const spoken = call.leaves.filter((leaf, i) => call.donated[i] && leaf instanceof NDArray) as NDArray[];
    for (const t of spoken) t.awaited++;
    return this.device.inTurn(async () => {
      try {
        const built = await building;
        return await withSite(site, () => {
          this.check(call);
          return this.launch(built, call);
        });
      } finally {
        for (const t of spoken) t.awaited--;
      }
    });
  }

  private async launch({ program, results, outTree, operands }: Built, call: Call): Promise<unknown> {
    const { memory } = program;
    const leaves = call.leaves.map((leaf, i) => (call.donated[i] ? this.brought(leaf) : leaf));
    const lent = leaves.filter((leaf) => leaf instanceof NDArray && !leaf.owned) as NDArray[];
    const set = memory.take(new Set(lent.map((t) => t.buffer)), call.number);
    call.results = set;
    const { generation } = set;
    await program.run({
      inputs: leaves.map((leaf, i) => (leaf instanceof NDArray ? leaf : memory.uploads[i])),
      data: leaves.map((leaf) =>
        leaf instanceof NDArray || leaf instanceof Streamed
          ? undefined
          : typeof leaf === 'number'
            ? [leaf]
            : (leaf.data as Numbers),
      ),
      streamed: leaves.map((leaf) => (leaf instanceof Streamed ? leaf.data : undefined)),
      results: set,
    });
    const kept = new Set(results.map(({ into }) => into));
    leaves.forEach((leaf, i) => {
      const brought = leaf instanceof NDArray && leaf !== call.leaves[i];
      if (brought && !kept.has(i)) leaf.free();
    });
    const out = results.map(({ type, into }, i) => {
      if (into !== undefined) return leaves[into];
      const { buffer, offset } = set.spans[i]!;
      return new NDArray(this.device, type.shape, type.dtype, buffer, {
        offset,
        stale: staleness(program, set, generation),
      });
    });
    const largest = operands.length ? (out.pop() as NDArray) : undefined;
    if (largest) this.options.onRanges?.(this.ranges(operands, largest));
    return outTree.rebuild(out);
  }

  private async ranges(operands: readonly Operand[], largest: NDArray): Promise<Ranges> {
    const { buffer, offset, bytes } = largest;
    const found = rangesOf(this.name, operands, new Float32Array(await this.device.readBuffer(buffer, offset, bytes)));
    this.device.outOfRange ??= found.first;
    return found;
  }

  private brought(leaf: Leaf): NDArray | Streamed {
    if (leaf instanceof NDArray || leaf instanceof Streamed) return leaf;
    const { shape, dtype } = leafType(leaf);
    return this.device.tensor(typeof leaf === 'number' ? [leaf] : leaf.data, shape, dtype);
  }

  async plan(args: readonly unknown[]): Promise<Plan> {
    return planStages(this.name, this.analyse(this.callOf(args)), this.device);
  }

  /** After the calls before it. What is called from now on is compiled anew. */
  free(): Promise<void> {
    const entries = this.programs.take();
    return this.device.inTurn(async () => {
      for (const { building } of entries)
        await building.then(
          ({ program }) => program.free('was freed'),
          () => {}, // whoever called knows
        );
    });
  }

  private callOf(args: readonly unknown[]): Call {
    for (const a of this.donate)
      if (!(Number.isInteger(a) && a >= 0 && a < args.length))
        throw new EngineError(this.name, `donate: argument ${a} is none of the ${args.length} of this call`);
    const flat = args.map((a) => flatten<Leaf>(a));
    return {
      flat,
      leaves: flat.flatMap((f) => f.leaves),
      donated: flat.flatMap((f, a) => f.leaves.map(() => this.donate.has(a))),
      number: ++this.calls,
    };
  }

  /** A host tensor is uploaded into a buffer of the program's own, a device tensor is bound as it lies: two programs. */
  private fromHost({ leaves, donated }: Call): boolean[] {
    return leaves.map((leaf, i) => !donated[i] && !(leaf instanceof NDArray || leaf instanceof Streamed));
  }

  private keyOf(call: Call): string {
    const host = this.fromHost(call);
    const types = call.leaves.map(
      (leaf, i) => (host[i] ? '^' : leaf instanceof Streamed ? `${leaf.set}~` : '') + printType(leafType(leaf)),
    );
    return `${call.flat.map((f) => f.key).join(';')}|${types.join()}`;
  }

  private analyse(call: Call): Stages {
    const inputs = call.flat.map((f) => ({ ...f, leaves: f.leaves.map(leafType) }));
    const { name, fn } = this;
    const streams = call.leaves.map((leaf) => (leaf instanceof Streamed ? leaf.set : undefined));
    return analyse({ name, fn, args: inputs, fromHost: this.fromHost(call), streams }, this.device.caps, this.options);
  }

  private async make(call: Call): Promise<Built> {
    const stages = this.analyse(call);
    const program = new Program(this.name, this.device, stages);
    await program.prepare();
    if (flags.DEBUG >= 1) {
      const { plan } = program;
      console.error(
        `${this.name}: ${stages.groups.length} groups, ${plan.kernels} kernels, ${(plan.flops / 1e9).toFixed(2)} GFLOP, ${(plan.bytes / 2 ** 20).toFixed(1)} MiB`,
      );
    }
    return {
      program,
      outTree: stages.outTree,
      results: stages.outputs.map((o) => ({ type: typeOf(o.value), into: o.into })),
      operands: stages.operands,
    };
  }

  /** @throws for arrays that are not there, not here, or in each other's way, and for data that do not fit */
  private check(call: Call): void {
    const { leaves, donated } = call;
    this.device.check();
    const buffers = new Map<GPUBuffer, number>();
    leaves.forEach((leaf, i) => {
      if (leaf instanceof Streamed) {
        if (donated[i]) this.refuse(call, i, ' stays in host memory: bring it with device.tensor() to donate it');
        return;
      }
      if (!(leaf instanceof NDArray)) {
        const { shape, dtype } = leafType(leaf);
        const fault = typeof leaf === 'number' ? undefined : dataFault(leaf.data, shape, dtype);
        if (fault) this.refuse(call, i, `: ${fault}`);
        return;
      }
      if (leaf.device !== this.device)
        this.refuse(call, i, ' lies on another device than this program: read() it there and bring it as host()');
      leaf.check();
      const before = buffers.get(leaf.buffer);
      if (before !== undefined && (donated[i] || donated[before])) {
        const other = `${donated[before] ? 'donated ' : ''}${leafName(call, before)}`;
        this.refuse(call, i, ` shares its memory with ${other}: donate a keep() of it`);
      }
      if (donated[i] && leaf.whole) this.refuse(call, i, ' is a view: donate the whole');
      if (donated[i] && !leaf.owned) this.refuse(call, i, " is another program's result: donate a keep() of it");
      buffers.set(leaf.buffer, i);
    });
  }

  private refuse(call: Call, leaf: number, why: string): never {
    throw new EngineError(this.name, `${leafName(call, leaf)}${why}`);
  }
}

/** A leaf's argument and path. */
const leafName = ({ flat }: Call, i: number): string =>
  flat.flatMap((f, a) => f.paths.map((path) => `argument ${a} ${path}`.trimEnd()))[i]!;

/** A result holds its program, whose memory is not given back under it, and nothing else of its call. */
const staleness = (program: Program, set: ResultSet, generation: number) => () => program.memory.stale(set, generation);

/** Runs that wait between their kernels: they must not meet another in the arenas. */
const inPieces = ({ program }: Built): boolean =>
  program.plan.streamed > 0 || flags.VALIDATE || flags.NANCHECK || flags.DEBUG >= 2 || !!flags.PROFILE;

/** Data as they are now. */
const copied = (leaf: Leaf): Leaf =>
  leaf instanceof NDArray || leaf instanceof Streamed || typeof leaf === 'number'
    ? leaf
    : { ...leaf, data: leaf.data.slice() };

function leafType(leaf: Leaf): TensorType {
  if (typeof leaf === 'number') return { shape: [], dtype: 'f32' };
  if (leaf instanceof NDArray || (leaf && typeof leaf === 'object' && 'shape' in leaf && 'dtype' in leaf)) {
    const { shape, dtype } = leaf;
    const fault = leaf instanceof NDArray || leaf instanceof Streamed ? undefined : typeFault(shape, dtype);
    if (fault) throw new EngineError('compile', fault);
    return { shape, dtype };
  }
  throw new EngineError(
    'compile',
    `arguments are trees of tensors and numbers, got ${nameOf(leaf)}; numbers in an array come as host(data, shape)`,
  );
}
