/**
 * Stage `program`: launches and a memory plan become pipelines, arenas and bind groups, made once; a run only encodes.
 */
import { boundBytes, readsParams, type Dispatch } from '../../kernels/kernel.ts';
import { windowBytes } from '../../kernels/windows.ts';
import type { Device } from './device.ts';
import { type Group } from '../compiler/fuse.ts';
import { keyOf, bytesOf, typeOf, type Value } from '../frontend/graph.ts';
import { waiting } from '../host/runtime.ts';
import type { Lowered } from '../compiler/lowering.ts';
import type { Output, Place, Placement } from '../compiler/placement.ts';
import { checkFits, planProgram, uniformBytes, type Plan } from '../compiler/plan.ts';
import { profileRun } from './profile.ts';
import { checkRun, type Checked } from './check.ts';
import { flags } from '../host/flags.ts';

/** A tensor's bytes on the device. */
export interface Span {
  buffer: GPUBuffer;
  offset: number;
  bytes: number;
}

/** Where a tensor's bytes are: in the shared arenas, in an input, or in the program's own memory. */
type Home = Span | { input: number; offset: number; bytes: number } | { arena: number; offset: number; bytes: number };

/** Sets of input buffers that bind groups are kept for. */
const MAX_SETS = 8;
/** Dispatches in one submit: short enough for watchdogs, long enough to hide its cost. */
const SUBMIT_EVERY = 256;

interface Step {
  /** Number of its group. */
  group: number;
  dispatch: Dispatch;
  spans: Home[];
  uniformOffset: number;
}

export class Program {
  readonly plan: Plan;
  readonly outputs: Span[] = [];
  /** Memory for the inputs that come from the host. */
  readonly uploads: (Span | undefined)[];
  private readonly name: string;
  private readonly device: Device;
  private readonly groups: readonly Group[];
  private readonly spanOf: (v: Value) => Home;
  private readonly steps: Step[] = [];
  private readonly copies: { from: Home; to: Home }[];
  private readonly uniform: GPUBuffer;
  private pipelines: GPUComputePipeline[] = [];
  private readonly bound = new Map<string, GPUBindGroup[]>();
  /** Of the shared arenas, when `bound` was made. */
  private generation = -1;
  private readonly ids = new WeakMap<GPUBuffer, number>();
  private nextId = 0;
  private pending: Promise<unknown>[] = [];

  constructor(
    name: string,
    device: Device,
    groups: readonly Group[],
    lowered: readonly Lowered[],
    placement: Placement,
    outputs: readonly Output[],
    uploads: readonly (number | undefined)[],
  ) {
    const { plan, blockOf } = planProgram(lowered, placement, outputs, uploads, device.maxBufferBytes);
    checkFits(name, plan, device);
    this.name = name;
    this.device = device;
    this.plan = plan;
    this.groups = groups;
    device.scratch.enter(this, plan.memory.arenas);
    this.uploads = uploads.map((bytes) =>
      bytes === undefined ? undefined : { buffer: device.buffer(bytes), offset: 0, bytes },
    );
    outputs.forEach((o, i) => {
      if (o.into === undefined)
        this.outputs[i] = {
          buffer: device.buffer(bytesOf(typeOf(o.value))),
          offset: 0,
          bytes: boundBytes(bytesOf(typeOf(o.value))),
        };
    });
    const arenaSpan = (key: string): Home => {
      const block = blockOf.get(key)!;
      const { arena, offset } = plan.memory.spots.get(block)!;
      return { arena, offset, bytes: boundBytes(block.bytes) };
    };
    const home = (v: Value, where: Place): Home => {
      if (where.kind === 'arena') return arenaSpan(keyOf(v));
      if (where.kind === 'output') return this.outputs[where.index]!;
      const bytes = boundBytes(bytesOf(typeOf(v)));
      if (where.kind === 'input') return { input: where.index, offset: where.offset, bytes };
      const whole = this.spanOf(where.whole);
      return { ...whole, offset: whole.offset + where.offset, bytes };
    };
    this.spanOf = (v) => home(v, placement.places.get(keyOf(v))!);
    let words = 0;
    lowered.forEach((l, at) => {
      const spans = [...l.slots.map(this.spanOf), ...l.launch.scratch.map((_, i) => arenaSpan(`scratch ${at}.${i}`))];
      for (const dispatch of l.launch.dispatches) {
        this.steps.push({
          group: at,
          dispatch,
          spans: dispatch.bind.map((slot) => spans[slot]!),
          uniformOffset: words * 4,
        });
        words += uniformBytes(dispatch) / 4;
      }
    });
    const uniforms = new Uint32Array(words || 4);
    for (const s of this.steps) uniforms.set(s.dispatch.params, s.uniformOffset / 4);
    this.uniform = device.uniforms(uniforms.byteLength);
    device.write(this.uniform, 0, uniforms, 'u32');
    this.copies = placement.copies.map(({ from, to }) => ({ from: this.spanOf(from), to: home(from, to) }));
  }

  private at(home: Home, inputs: readonly Span[]): Span {
    if ('input' in home) {
      const { buffer, offset } = inputs[home.input]!;
      return { buffer, offset: offset + home.offset, bytes: home.bytes };
    }
    return 'arena' in home ? { ...home, buffer: this.device.scratch.arena(home.arena) } : home;
  }

  /** Compiles every pipeline. */
  async prepare(): Promise<void> {
    const made = await Promise.allSettled(
      this.steps.map((s) => this.device.pipeline(s.dispatch.wgsl, s.dispatch.label)),
    );
    this.pipelines = made.map((m) => {
      // only when none is pending any more: Dawn crashes at exit under a pending one
      if (m.status === 'rejected') throw m.reason as Error;
      return m.value;
    });
    await this.device.warmup?.compile(
      this.device.gpu,
      this.steps.map(({ dispatch }, i) => ({ dispatch, pipeline: this.pipelines[i]! })),
    );
    this.device.check();
  }

  /** Encodes and submits one run over these inputs. At most two runs are in flight. */
  run(inputs: readonly Span[]): Promise<void> {
    const inPieces = flags.VALIDATE || flags.NANCHECK || flags.DEBUG >= 2 || flags.PROFILE;
    return inPieces ? this.device.inTurn(() => this.execute(inputs)) : this.execute(inputs);
  }

  private async execute(inputs: readonly Span[]): Promise<void> {
    const { device } = this;
    device.check();
    const groups = this.bind(inputs);
    const queue = device.gpu.queue;
    if (flags.VALIDATE || flags.NANCHECK) {
      await checkRun(
        device,
        this.name,
        this.groups.map((group, g): Checked => ({
          group,
          spanOf: (v) => this.at(this.spanOf(v), inputs),
          label: this.steps.find((s) => s.group === g)?.dispatch.label ?? '',
          encode: (pass) =>
            this.encode(
              pass,
              groups,
              Math.max(
                0,
                this.steps.findIndex((s) => s.group === g),
              ),
              this.steps.findLastIndex((s) => s.group === g) + 1,
            ),
        })),
      );
    } else if (flags.DEBUG >= 2 || flags.PROFILE) {
      await profileRun(
        device,
        this.name,
        this.steps.map((s, i) => ({ dispatch: s.dispatch, pipeline: this.pipelines[i]!, group: groups[i]! })),
      );
    } else {
      for (let start = 0; start < this.steps.length; start += SUBMIT_EVERY) {
        const encoder = device.gpu.createCommandEncoder();
        const pass = encoder.beginComputePass();
        this.encode(pass, groups, start, Math.min(start + SUBMIT_EVERY, this.steps.length));
        pass.end();
        queue.submit([encoder.finish()]);
      }
    }
    device.counters.dispatches += this.steps.length;
    if (this.copies.length) {
      const encoder = device.gpu.createCommandEncoder();
      for (const { from, to } of this.copies) {
        const [a, b] = [this.at(from, inputs), this.at(to, inputs)];
        encoder.copyBufferToBuffer(a.buffer, a.offset, b.buffer, b.offset, a.bytes);
      }
      queue.submit([encoder.finish()]);
    }
    this.pending.push(queue.onSubmittedWorkDone());
    if (this.pending.length > 2) await waiting(this.pending.shift()!);
    device.check();
  }

  private encode(pass: GPUComputePassEncoder, groups: readonly GPUBindGroup[], first: number, end: number): void {
    for (let i = first; i < end; i++) {
      pass.setPipeline(this.pipelines[i]!);
      pass.setBindGroup(0, groups[i]!);
      pass.dispatchWorkgroups(...this.steps[i]!.dispatch.grid);
    }
  }

  /** Bind groups for these buffers: made once for each set of them, the last few sets kept. */
  private bind(inputs: readonly Span[]): GPUBindGroup[] {
    if (this.generation !== this.device.scratch.generation) this.bound.clear();
    this.generation = this.device.scratch.generation;
    const key = inputs.map((s) => `${this.idOf(s.buffer)}+${s.offset}`).join();
    const found = this.bound.get(key);
    if (found) return found;
    const groups = this.steps.map((s, i) => {
      const storage = s.spans.map((span, b) => {
        const { buffer, offset, bytes } = windowed(
          this.at(span, inputs),
          s.dispatch.windows?.[b],
          windowBytes(this.device.caps),
        );
        return { binding: b + 1, resource: { buffer, offset, size: bytes } };
      });
      const size = Math.ceil(Math.max(s.dispatch.params.length, 1) / 4) * 16;
      const entries = readsParams(s.dispatch.wgsl)
        ? [{ binding: 0, resource: { buffer: this.uniform, offset: s.uniformOffset, size } }, ...storage]
        : storage;
      this.device.counters.bindGroups++;
      return this.device.gpu.createBindGroup({ layout: this.pipelines[i]!.getBindGroupLayout(0), entries });
    });
    if (this.bound.size >= MAX_SETS) this.bound.delete(this.bound.keys().next().value!);
    this.bound.set(key, groups);
    return groups;
  }

  private idOf(buffer: GPUBuffer): number {
    let id = this.ids.get(buffer);
    if (id === undefined) this.ids.set(buffer, (id = this.nextId++));
    return id;
  }

  free(): void {
    const spans = [...this.outputs, ...this.uploads].filter((s) => s !== undefined);
    this.device.scratch.leave(this);
    for (const b of [this.uniform, ...spans.map((s) => s.buffer)]) this.device.release(b);
  }
}

/** A tensor's bytes, or one of the windows of this size that they are bound in. */
const windowed = (whole: Span, window: number | undefined, size: number): Span =>
  window === undefined
    ? whole
    : { ...whole, offset: whole.offset + window * size, bytes: Math.min(size, whole.bytes - window * size) };
