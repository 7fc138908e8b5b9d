/** What a program will cost: its memory by lifetime, its kernels, arithmetic and traffic. Pure. */
import { ALIGN, boundBytes, type Caps, type Dispatch } from '../../kernels/kernel.ts';
import { EngineError, mib } from '../host/errors.ts';
import { bytesOf, keyOf, printType, typeOf, type Value } from '../frontend/graph.ts';
import { planMemory, type Block, type MemoryPlan } from './memory.ts';
import type { Placement } from './placement.ts';
import type { Stages } from './stages.ts';
import { parkValues, type Lived, type Parked } from './parking.ts';
import { planStreaming, type Streaming } from './streaming.ts';

/** What a program will cost, known before it is built. */
export interface Plan {
  kernels: number;
  flops: number;
  /** Of them those done by matrix units. */
  unitFlops: number;
  /** Bytes that must cross memory once. */
  traffic: number;
  /** Arenas, results and per-call inputs. The caller's own tensors are not in it; the arenas are shared with other programs. */
  bytes: number;
  memory: MemoryPlan;
  /** The largest tensor of the arenas. */
  largest: Block | undefined;
  /** The kernel that binds the most. */
  widest: { label: string; bindings: number } | undefined;
  /** Bytes that are brought from host memory while it runs, and of them those that it has put there itself. */
  streamed: number;
  parked: number;
  /** Bytes of host memory that it puts values in, which programs share. */
  host: readonly number[];
  /** Arithmetic and traffic of each dispatch, in order. */
  work: { label: string; flops: number; bytes: number }[];
}

/** What a plan is held against: a device, or the description of one. */
export interface Room {
  caps: Caps;
  maxBufferBytes: number;
  /** Bytes in use, those of the shared arenas among them, and bytes there are. */
  allocated: number;
  scratch: { readonly sizes: readonly number[] };
  budget: number;
}

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);
export const uniformBytes = (d: Dispatch): number => Math.ceil((Math.max(d.params.length, 1) * 4) / ALIGN) * ALIGN;

/** The tensor of its own that v is or lies in. */
function wholeOf(v: Value, placement: Placement): Value {
  const place = placement.places.get(keyOf(v));
  return place?.kind === 'part' ? wholeOf(place.whole, placement) : v;
}

/** The streamed inputs that each group reads, once each. */
const streamedReads = ({ lowered, placement, inputs, streams }: Stages) =>
  lowered.map(({ slots }) => {
    const read = new Set(
      slots.map((v) => placement.places.get(keyOf(v))).map((p) => (p?.kind === 'input' ? p.index : -1)),
    );
    return [...read]
      .filter((input) => streams[input] !== undefined)
      .map((input) => ({ input, bytes: bytesOf(inputs[input]!), set: streams[input]! }));
  });

export interface Planned {
  plan: Plan;
  /** Where each value lies, one time after the other, and each group's scratch. */
  blocks: ReadonlyMap<string, readonly Block[]>;
  loads: Streaming['loads'];
  parked: readonly Parked[];
  /** Of the parked in host memory. */
  host: MemoryPlan;
}

/** Host memory that is taken at a time. */
const HOST_ARENA = 2 ** 30;

/** The values of the arenas. */
function livedValues({ lowered, placement }: Stages): Map<string, Lived> {
  const values = new Map<string, Lived & { uses: number[] }>();
  lowered.forEach((l, at) => {
    for (const slot of l.slots) {
      const v = wholeOf(slot, placement);
      if (placement.places.get(keyOf(v))?.kind !== 'arena') continue;
      const name = `${v.node.op} ${printType(typeOf(v))} ${v.node.site}`;
      const value = values.get(keyOf(v)) ?? { name, bytes: bytesOf(typeOf(v)), uses: [] };
      values.set(keyOf(v), value);
      value.uses.push(at);
    }
  });
  for (const { from } of placement.copies) values.get(keyOf(from))?.uses.push(lowered.length);
  return values;
}

/** Plans memory for lowered groups. */
export function planProgram(stages: Stages, maxBufferBytes: number): Planned {
  const { lowered, outputs, uploads } = stages;
  const streaming = planStreaming(streamedReads(stages), maxBufferBytes);
  const { blocks, parked } = parkValues(livedValues(stages), streaming.visits);
  lowered.forEach((l, at) =>
    l.launch.scratch.forEach((bytes, i) => {
      const name = `scratch of ${l.launch.dispatches[0]!.label}`;
      blocks.set(`scratch ${at}.${i}`, [{ name, bytes, first: at, last: at }]);
    }),
  );
  const all = [...blocks.values()].flat();
  const memory = beside(planMemory(all, maxBufferBytes), streaming.memory);
  const host = planMemory(
    parked.map((p) => p.kept),
    HOST_ARENA,
  );
  const out = sum(parked.map((p) => boundBytes(p.kept.bytes)));
  const results = sum(outputs.map((o) => (o.into === undefined ? boundBytes(bytesOf(typeOf(o.value))) : 0)));
  const dispatches = lowered.flatMap((l) => l.launch.dispatches);
  const uniforms = sum(dispatches.map(uniformBytes));
  const bytes = sum(memory.arenas) + results + Math.max(16, uniforms) + sum(uploads.map((b) => b ?? 0));
  const plan: Plan = {
    kernels: dispatches.length,
    bytes,
    memory,
    largest: all.reduce<Block | undefined>((a, b) => (a && a.bytes >= b.bytes ? a : b), undefined),
    widest: dispatches
      .map(({ label, bind }) => ({ label, bindings: bind.length }))
      .reduce<Plan['widest']>((a, b) => (a && a.bindings >= b.bindings ? a : b), undefined),
    flops: sum(dispatches.map((d) => d.flops)),
    unitFlops: sum(dispatches.map((d) => (d.onUnits ? d.flops : 0))),
    traffic: sum(dispatches.map((d) => d.bytes)),
    streamed: streaming.bytes + out,
    parked: out,
    host: host.arenas,
    work: dispatches.map(({ label, flops, bytes: traffic }) => ({ label, flops, bytes: traffic })),
  };
  return { plan, blocks, loads: streaming.loads, parked, host };
}

/** Two plans in arenas of their own. */
const beside = (a: MemoryPlan, b: MemoryPlan): MemoryPlan => ({
  spots: new Map([
    ...a.spots,
    ...[...b.spots].map(([block, s]) => [block, { ...s, arena: s.arena + a.arenas.length }] as const),
  ]),
  arenas: [...a.arenas, ...b.arenas],
  lowerBound: a.lowerBound + b.lowerBound,
  atPeak: a.atPeak,
});

/** Why a program cannot be bound, whatever the memory. Tensors over the binding limit take several bindings. */
export function unbindable(
  { largest, widest }: Pick<Plan, 'largest' | 'widest'>,
  { caps, maxBufferBytes }: Pick<Room, 'caps' | 'maxBufferBytes'>,
): string | undefined {
  if (largest && largest.bytes > maxBufferBytes)
    return `${largest.name} takes ${mib(largest.bytes)}, over this adapter's ${mib(maxBufferBytes)} a buffer`;
  if (!widest || widest.bindings <= caps.maxStorageBuffers) return undefined;
  return `${widest.label} takes ${widest.bindings} bindings, this adapter has ${caps.maxStorageBuffers} of ${mib(caps.maxBindingBytes)} each`;
}

/** @throws when it cannot be bound, or all of it is over the budget */
export function checkFits(name: string, plan: Plan, room: Room): void {
  const { memory, bytes } = plan;
  const { allocated, budget, scratch } = room;
  const unbound = unbindable(plan, room);
  if (unbound) throw new EngineError('memory', `${name}: ${unbound}; use a smaller batch or size`);
  const shared = sum(memory.arenas.map((arena, i) => Math.min(arena, scratch.sizes[i] ?? 0)));
  if (allocated + bytes - shared <= budget) return;
  const table = memory.atPeak
    .slice(0, 5)
    .map((b) => `  ${mib(b.bytes).padStart(12)}  ${b.name}`)
    .join('\n');
  throw new EngineError(
    'memory',
    `${name} needs ${mib(bytes)} beside the ${mib(allocated)} in use; the budget is ${mib(budget)}.\n` +
      `${table && `Largest at the peak:\n${table}\n`}Remedies: a smaller batch, checkpoint() around blocks, fewer frames or a smaller size.`,
  );
}
