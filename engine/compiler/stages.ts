/**
 * Every stage from a function to launches, in order: pure, so that what a program costs is known without a device, without
 * weights and in seconds.
 */
import { lowerOnce } from './lowering-cache.ts';
import { boundBytes, type Access, type Caps } from '../../kernels/kernel.ts';
import { windowsOf } from '../../kernels/windows.ts';
import { EngineError } from '../host/errors.ts';
import { flags } from '../host/flags.ts';
import { fuse, type Group } from './fuse.ts';
import {
  base,
  bytesOf,
  Graph,
  inputOf,
  keyOf,
  printType,
  typeOf,
  type TensorType,
  type Value,
} from '../frontend/graph.ts';
import type { Lowered } from './lowering.ts';
import { composeAttention } from './decompose.ts';
import { place, type Output, type Placement } from './placement.ts';
import { halveOperands, type Halved } from './precision.ts';
import { checkFits, planProgram, type Plan, type Room } from './plan.ts';
import type { Operand, Ranges } from './ranges.ts';
import { simplify } from './simplify.ts';
import { trace } from '../frontend/trace.ts';
import { flatten, type Flat } from '../frontend/tree.ts';

export interface CompileOptions {
  /** Arguments whose tensors may be overwritten: a result at the same path as a donated tensor takes its place. */
  donate?: readonly number[];
  /** Name in profiles and errors. */
  name?: string;
  /**
   * Operands of matrix products, those of gradients too: f16 halves their traffic and is what matrix units take, sums stay f32. Where the
   * adapter has no f16 it is f32 all the same.
   */
  operands?: 'f32' | 'f16';
  /** Told of each call on f16 operands, before its results come; unless it is given, nobody looks. */
  onRanges?: (found: Promise<Ranges>) => void;
}

export interface Stages {
  inputs: TensorType[];
  outTree: Flat;
  groups: Group[];
  lowered: Lowered[];
  placement: Placement;
  outputs: Output[];
  /** Those whose largest numbers are the last of the outputs, beyond the function's own. */
  operands: readonly Operand[];
  /** Bytes of each input that comes from the host at each call. */
  uploads: (number | undefined)[];
  /** The set of each input that stays in host memory. */
  streams: readonly (string | undefined)[];
}

/** A function as it is called. */
export interface Call {
  name: string;
  fn: (...args: unknown[]) => unknown;
  /** One tree of tensor types an argument. */
  args: readonly Flat<TensorType>[];
  /** For each leaf of them: it is uploaded at each call. */
  fromHost: readonly boolean[];
  /** For each leaf of them: its set, if it stays in host memory. */
  streams?: readonly (string | undefined)[];
}

/** A tensor that stays in host memory, as a type. */
export interface StreamedType extends TensorType {
  readonly set: string;
}

export function analyse({ name, fn, args, fromHost, streams = [] }: Call, caps: Caps, options: CompileOptions): Stages {
  const traced = trace(
    fn,
    args.map((f) => f.rebuild(f.leaves)),
  );
  const inputs = args.flatMap((f) => f.leaves);
  const whole = simplify(traced.graph, traced.outputs);
  const composed = composeAttention(whole.graph, whole.outputs, caps);
  const lean = composed ? simplify(composed.graph, composed.outputs) : whole;
  const { operands = 'f32' } = options;
  const half: Halved =
    operands === 'f16' && caps.f16 ? halveOperands(lean.graph, lean.outputs, caps) : { ...lean, operands: [] };
  const { graph } = half;
  const values = half.largest ? [...half.outputs, half.largest] : half.outputs;
  const { outTree } = traced;
  const outputs = matchOutputs({ name, args }, new Set(options.donate ?? []), outTree, graph, values);
  if (flags.DEBUG >= 3) console.error(`${name}\n${graph.toString()}`);
  const groups = fuse(
    graph,
    outputs.map((o) => o.value),
    caps.maxStorageBuffers,
    !flags.NO_FUSE,
    (v) => windowsOf(bytesOf(typeOf(v)), caps),
  );
  const placement = place(groups, outputs);
  const context = {
    caps,
    inPlace: placement.inPlace,
    inWhole: (v: Value): boolean => placement.places.get(keyOf(v))?.kind === 'part',
    // What a program writes may share a buffer with what a kernel writes; what it only reads may not.
    access: (v: Value): Access => (inputOf(v) ? 'read' : 'read_write'),
  };
  const lowered = groups.map((g) => lowerOnce(g, context));
  if (flags.DEBUG >= 4)
    for (const l of lowered) for (const d of l.launch.dispatches) console.error(`// ${d.label}\n${d.wgsl}`);
  const uploads = inputs.map((type, i) => (fromHost[i] ? boundBytes(bytesOf(type)) : undefined));
  return { inputs, outTree, groups, lowered, placement, outputs, operands: half.operands, uploads, streams };
}

/** @throws when the plan does not fit in `room` */
export function planStages(name: string, s: Stages, room: Room): Plan {
  const { plan } = planProgram(s, room.maxBufferBytes);
  checkFits(name, plan, room);
  return plan;
}

/**
 * What a call of `fn` would cost on a device of these capabilities: nothing is opened or allocated.
 * @param args trees of tensor types, of which some may stay in host memory
 * @param resident numbers of the arguments that lie in device memory already; the others are uploaded at each call
 */
export function planFunction(
  fn: (...args: never[]) => unknown,
  args: readonly unknown[],
  resident: ReadonlySet<number>,
  room: Pick<Room, 'caps' | 'maxBufferBytes'>,
  options: CompileOptions = {},
): Plan {
  const flat = args.map((a) => flatten<TensorType | StreamedType>(a));
  const streams = flat.flatMap((f) => f.leaves.map((leaf) => ('set' in leaf ? leaf.set : undefined)));
  const s = analyse(
    {
      name: options.name ?? 'program',
      fn: fn as (...args: unknown[]) => unknown,
      args: flat,
      fromHost: flat.flatMap((f, a) => f.leaves.map(() => !resident.has(a))),
      streams,
    },
    room.caps,
    options,
  );
  return planProgram(s, room.maxBufferBytes).plan;
}

/** Matches results to donated inputs by path, and gives every result bytes of its own. */
function matchOutputs(
  { name, args }: Pick<Call, 'name' | 'args'>,
  donate: ReadonlySet<number>,
  outTree: Flat,
  graph: Graph,
  values: readonly Value[],
): Output[] {
  const donated = new Map<string, number>();
  let index = 0;
  const inputs = args.flatMap((f) => f.leaves);
  args.forEach((f, a) =>
    f.paths.forEach((path) => {
      if (donate.has(a) && !donated.has(path)) donated.set(path, index);
      index++;
    }),
  );
  const seen = new Set<string>();
  return values.map((v, i) => {
    const into = donated.get(outTree.paths[i]!);
    const type = typeOf(v);
    if (into !== undefined && printType(inputs[into]!) !== printType(type)) {
      throw new EngineError(
        name,
        `${outTree.paths[i] || 'the argument'} was donated as ${printType(inputs[into]!)} and returned as ${printType(type)}`,
      );
    }
    const source = base(v);
    const isInput = inputOf(source) !== undefined;
    const unchanged = source.node.op === 'input' && inputOf(source)!.index === into;
    const repeated = seen.has(keyOf(source));
    seen.add(keyOf(source));
    if (unchanged || (!repeated && !isInput)) return { value: v, into };
    // A result needs bytes of its own: casting to the same type is the copy (a negative segment keeps it from being merged).
    const copy = graph.add('cast', [v], { dtype: type.dtype }, [type], {
      site: '',
      segment: -1_000_000 - i,
      gradient: false,
    });
    return { value: { node: copy, out: 0 }, into };
  });
}
