/**
 * Stage `program`: launches and a memory plan become pipelines, arenas and bind groups, made once; a run only encodes.
 */
import { boundBytes } from '../../kernels/kernel.ts';
import { windowBytes } from '../../kernels/windows.ts';
import type { Device } from './device.ts';
import { type Group } from '../compiler/fuse.ts';
import type { Block } from '../compiler/memory.ts';
import { keyOf, bytesOf, typeOf, type TensorType, type Value } from '../frontend/graph.ts';
import type { Numbers } from '../frontend/tree.ts';
import { waiting } from '../host/runtime.ts';
import type { Place } from '../compiler/placement.ts';
import { checkFits, planProgram, type Plan, type Planned } from '../compiler/plan.ts';
import type { Stages } from '../compiler/stages.ts';
import { Cuts, type Watch } from './cuts.ts';
import type { Watched } from './garbage.ts';
import { profileRun } from './profile.ts';
import { ProgramMemory, type ResultSet, type Span } from './program-memory.ts';
import { checkRun, type Checked } from './check.ts';
import type { Part } from './staging.ts';
import { flags } from '../host/flags.ts';

/** Where a tensor's bytes are: in the shared arenas, in an input, or in a result. */
type Home = ({ arena: number } | { input: number } | { result: number }) & { offset: number; bytes: number };

/** What a run works on. */
export interface Run {
  /** Where each input lies, but those that stay in host memory. */
  inputs: readonly (Span | undefined)[];
  /** Data for those that come from the host. */
  data: readonly (Numbers | undefined)[];
  /** Bytes of those that stay in host memory. */
  streamed: readonly (Uint8Array | undefined)[];
  results: ResultSet;
}

/** Sets of inputs and results that bind groups are kept for: as many as take some thousand groups, but for two of them. */
const MAX_SETS = 8;
const MAX_GROUPS = 2 ** 13;

/** Bytes in host memory: of a streamed input, or of a value that waits there. */
type Kept = { input: number } | { arena: number; offset: number; bytes: number };

interface Move {
  home: Home;
  kept: Kept;
}

/** Groups that run in one piece; what leaves the device before, and then what must be there. */
interface Segment {
  stores: Move[];
  loads: Move[];
  from: number;
  to: number;
}

export class Program {
  readonly plan: Plan;
  readonly memory: ProgramMemory;
  private readonly name: string;
  private readonly device: Device;
  private readonly groups: readonly Group[];
  private readonly inputs: readonly TensorType[];
  private readonly watched: Watched;
  /** Of a value as a group reads it: a streamed input lies elsewhere each time that it is brought. */
  private readonly spanOf: (v: Value, group: number) => Home;
  private readonly cuts: Cuts;
  /** What each kernel binds. */
  private readonly spans: Home[][];
  private readonly segments: Segment[];
  private readonly copies: { from: Home; to: Home }[];
  /** Of each kernel. */
  private pipelines: GPUComputePipeline[] = [];
  private readonly bound = new Map<string, GPUBindGroup[]>();
  /** Of the shared arenas, when `bound` was made. */
  private generation = -1;
  private readonly ids = new WeakMap<GPUBuffer, number>();
  private nextId = 0;
  private pending: Promise<unknown>[] = [];

  constructor(name: string, device: Device, stages: Stages) {
    const { groups, lowered, placement, inputs, outputs, uploads } = stages;
    const planned = planProgram(stages, device.maxBufferBytes);
    const { plan, blocks, loads } = planned;
    device.makeRoom(plan.bytes);
    checkFits(name, plan, device);
    this.name = name;
    this.device = device;
    this.plan = plan;
    this.groups = groups;
    this.inputs = inputs;
    const inArena = (block: Block, bytes = block.bytes, from = 0): Home => {
      const { arena, offset } = plan.memory.spots.get(block)!;
      return { arena, offset: offset + from, bytes: boundBytes(bytes) };
    };
    const during = (all: readonly Block[] | undefined, at: number): Block | undefined =>
      all?.find((block) => block.first <= at && at <= block.last);
    const loadsOf = new Map<number, Block[]>();
    for (const { input, block } of loads) loadsOf.set(input, [...(loadsOf.get(input) ?? []), block]);
    const home = (v: Value, where: Place, at: number): Home => {
      if (where.kind === 'arena') return inArena(during(blocks.get(keyOf(v)), at)!);
      const bytes = boundBytes(bytesOf(typeOf(v)));
      if (where.kind === 'output') return { result: where.index, offset: 0, bytes };
      if (where.kind === 'input') {
        const there = during(loadsOf.get(where.index), at);
        return there ? inArena(there, bytes, where.offset) : { input: where.index, offset: where.offset, bytes };
      }
      const whole = this.spanOf(where.whole, at);
      return { ...whole, offset: whole.offset + where.offset, bytes };
    };
    this.spanOf = (v, at) => home(v, placement.places.get(keyOf(v))!, at);
    this.cuts = new Cuts(
      lowered.map((l) => l.launch.dispatches),
      device.pace,
    );
    this.spans = lowered.flatMap((l, at) => {
      const spans = [
        ...l.slots.map((v) => this.spanOf(v, at)),
        ...l.launch.scratch.map((_, i) => inArena(blocks.get(`scratch ${at}.${i}`)![0]!)),
      ];
      return l.launch.dispatches.map((d) => d.bind.map((slot) => spans[slot]!));
    });
    this.segments = segmentsOf(planned, groups.length, inArena);
    const end = groups.length;
    this.copies = placement.copies.map(({ from, to }) => ({ from: this.spanOf(from, end), to: home(from, to, end) }));
    this.memory = new ProgramMemory(device, {
      arenas: plan.memory.arenas,
      uniforms: this.cuts.uniforms.words.byteLength,
      uploads,
      results: outputs.map((o) => (o.into === undefined ? boundBytes(bytesOf(typeOf(o.value))) : undefined)),
      streams: plan.streamed > 0,
      host: plan.host,
    });
    device.write(this.memory.uniform, 0, this.cuts.uniforms.words, 'u32');
    this.watched = device.garbage.watch(this, this.memory.free.bind(this.memory, 'was freed'));
  }

  private at({ offset, bytes, ...home }: Home, { inputs, results }: Run): Span {
    if ('arena' in home) return { buffer: this.device.scratch.arena(home.arena), offset, bytes };
    const whole = 'input' in home ? inputs[home.input]! : results.spans[home.result]!;
    return { buffer: whole.buffer, offset: whole.offset + offset, bytes };
  }

  /** Compiles every pipeline. @throws what a kernel does not compile for, with the memory given back */
  async prepare(): Promise<void> {
    try {
      await this.compile();
    } catch (error) {
      this.free('did not compile');
      throw error;
    }
  }

  private async compile(): Promise<void> {
    const { kernels } = this.cuts;
    const made = await Promise.allSettled(kernels.map((d) => this.device.pipeline(d.wgsl, d.label)));
    this.pipelines = made.map((m) => {
      // only when none is pending any more: Dawn crashes at exit under a pending one
      if (m.status === 'rejected') throw m.reason as Error;
      return m.value;
    });
    await this.device.warmup?.compile(
      this.device.gpu,
      kernels.map((dispatch, i) => ({ dispatch, pipeline: this.pipelines[i]! })),
    );
    this.device.check();
    this.cut();
  }

  private cut(): void {
    this.memory.part(this.cuts.cut()?.words);
    this.bound.clear();
  }

  /** Runs in one piece before it returns, but for a wait: at most two runs are in flight. With streamed inputs it waits for these too. */
  run(run: Run): Promise<void> {
    return this.plan.streamed ? this.device.scratch.during(() => this.encodeAll(run)) : this.encodeAll(run);
  }

  private async encodeAll(run: Run): Promise<void> {
    const { device } = this;
    device.check();
    if (this.cuts.miscut) this.cut();
    const groups = this.bind(run);
    run.data.forEach((data, i) => data && device.write(run.inputs[i]!.buffer, 0, data, this.inputs[i]!.dtype));
    const queue = device.gpu.queue;
    const host = device.staging.pieces(this.plan.host);
    const watch = this.cuts.watch();
    const { firsts, steps } = this.cuts;
    for (const { stores, loads, from, to } of this.segments) {
      if (stores.length) await this.exchange('put', stores, run, host);
      if (loads.length) await this.exchange('bring', loads, run, host);
      const [first, end] = [firsts[from]!, firsts[to]!];
      if (flags.VALIDATE || flags.NANCHECK) await checkRun(device, this.name, this.checked(run, groups, from, to));
      else if (flags.DEBUG >= 2 || flags.PROFILE) await this.profile(groups, first, end);
      else this.submit(groups, first, end, watch);
    }
    device.counters.dispatches += steps.length;
    if (this.copies.length) {
      const encoder = device.gpu.createCommandEncoder();
      for (const { from, to } of this.copies) {
        const [a, b] = [this.at(from, run), this.at(to, run)];
        encoder.copyBufferToBuffer(a.buffer, a.offset, b.buffer, b.offset, a.bytes);
      }
      queue.submit([encoder.finish()]);
    }
    if (watch) void this.cuts.learn(watch);
    this.pending.push(device.pace.follow(queue.onSubmittedWorkDone()));
    if (this.pending.length > 2) await waiting(this.pending.shift()!);
    device.check();
  }

  private async exchange(
    way: 'put' | 'bring',
    moves: readonly Move[],
    run: Run,
    host: readonly Uint8Array[],
  ): Promise<void> {
    const { device } = this;
    const parts = moves.map(({ home, kept }): Part => ({
      bytes:
        'input' in kept ? run.streamed[kept.input]! : host[kept.arena]!.subarray(kept.offset, kept.offset + kept.bytes),
      at: this.at(home, run),
    }));
    try {
      await device.staging[way](device.gpu, parts);
    } catch (error) {
      device.check(); // says why, where it is known
      throw error;
    }
    device.check();
  }

  private submit(groups: readonly GPUBindGroup[], first: number, end: number, watch: Watch | undefined): void {
    const { gpu, pace } = this.device;
    for (let start = first, next; start < end; start = next) {
      next = this.cuts.endOf(start, end);
      const encoder = gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      this.encode(pass, groups, start, next);
      pass.end();
      gpu.queue.submit([encoder.finish()]);
      watch?.add(this.cuts.steps.slice(start, next), pace.measure(gpu.queue.onSubmittedWorkDone()));
    }
  }

  /** Groups `from` to `to`, for `checkRun`. */
  private checked(run: Run, groups: readonly GPUBindGroup[], from: number, to: number): Checked[] {
    const { firsts, steps } = this.cuts;
    return this.groups.slice(from, to).map((group, i) => {
      const g = from + i;
      const [first, end] = [firsts[g]!, firsts[g + 1]!];
      return {
        group,
        spanOf: (v) => this.at(this.spanOf(v, g), run),
        label: first < end ? steps[first]!.dispatch.label : '',
        encode: (pass) => this.encode(pass, groups, first, end),
      };
    });
  }

  private profile(groups: readonly GPUBindGroup[], first: number, end: number): Promise<void> {
    const timed = this.cuts.steps
      .slice(first, end)
      .map(({ dispatch, whole }, i) => ({ dispatch, pipeline: this.pipelines[whole]!, group: groups[first + i]! }));
    return profileRun(this.device, this.name, timed);
  }

  private encode(pass: GPUComputePassEncoder, groups: readonly GPUBindGroup[], first: number, end: number): void {
    const { steps } = this.cuts;
    for (let i = first; i < end; i++) {
      const { whole, dispatch } = steps[i]!;
      pass.setPipeline(this.pipelines[whole]!);
      pass.setBindGroup(0, groups[i]!);
      pass.dispatchWorkgroups(...dispatch.grid);
    }
  }

  /** Bind groups for these buffers: made once for each set of them, the last few sets kept. */
  private bind(run: Run): GPUBindGroup[] {
    if (this.generation !== this.device.scratch.generation) this.bound.clear();
    this.generation = this.device.scratch.generation;
    const key = `${run.results.id}:${run.inputs.map((s) => (s ? `${this.idOf(s.buffer)}+${s.offset}` : '')).join()}`;
    const found = this.bound.get(key);
    if (found) return found;
    const most = Math.min(MAX_SETS, Math.max(2, Math.floor(MAX_GROUPS / this.cuts.steps.length)));
    while (this.bound.size >= most) this.bound.delete(this.bound.keys().next().value!);
    this.device.makeGroups(this.cuts.steps.length);
    const groups = this.cuts.steps.map(({ whole, dispatch, uniform }) => {
      const storage = this.spans[whole]!.map((span, b) => {
        const { buffer, offset, bytes } = windowed(
          this.at(span, run),
          dispatch.windows?.[b],
          windowBytes(this.device.caps),
        );
        return { binding: b + 1, resource: { buffer, offset, size: bytes } };
      });
      const size = Math.ceil(Math.max(dispatch.params.length, 1) / 4) * 16;
      const buffer = uniform.parts ? this.memory.parts! : this.memory.uniform;
      const entries = [{ binding: 0, resource: { buffer, offset: uniform.offset, size } }, ...storage];
      return this.device.gpu.createBindGroup({ layout: this.pipelines[whole]!.getBindGroupLayout(0), entries });
    });
    this.bound.set(key, groups);
    return groups;
  }

  private idOf(buffer: GPUBuffer): number {
    let id = this.ids.get(buffer);
    if (id === undefined) this.ids.set(buffer, (id = this.nextId++));
    return id;
  }

  /** @param why for those who still hold results */
  free(why: string): void {
    this.memory.free(why);
    this.device.garbage.give(this.watched);
  }
}

/** A tensor's bytes, or one of the windows of this size that they are bound in. */
const windowed = (whole: Span, window: number | undefined, size: number): Span =>
  window === undefined
    ? whole
    : { ...whole, offset: whole.offset + window * size, bytes: Math.min(size, whole.bytes - window * size) };

/** A program's groups in pieces, between which inputs come, and values go and come back. */
function segmentsOf({ loads, parked, host }: Planned, groups: number, homeOf: (block: Block) => Home): Segment[] {
  const kept = (block: Block): Kept => ({ ...host.spots.get(block)!, bytes: boundBytes(block.bytes) });
  const comes = [
    ...loads.map(({ input, block }) => ({ at: block.first, home: homeOf(block), kept: { input } as Kept })),
    ...parked.map(({ to, kept: block }) => ({ at: to.first, home: homeOf(to), kept: kept(block) })),
  ];
  const goes = parked.map(({ from, kept: block }) => ({ at: block.first, home: homeOf(from), kept: kept(block) }));
  const points = [...new Set([0, ...[...comes, ...goes].map(({ at }) => at)])].sort((a, b) => a - b);
  return points.map((from, i) => ({
    stores: goes.filter(({ at }) => at === from),
    loads: comes.filter(({ at }) => at === from),
    from,
    to: points[i + 1] ?? groups,
  }));
}
