/**
 * From noise to latents: the one sampling loop. A batch of clips goes through a DiT stepped by any sampler, guided by two texts, or
 * through a student's few levels of its own.
 */
import type { CompiledFunction } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { EngineError } from '../../engine/host/errors.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { concat } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { flatten, host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import type { DiTConfig } from '../config.ts';
import { draw } from '../params.ts';
import {
  schedule,
  solverStep,
  startState,
  type Layout,
  type Schedule,
  type SolverKind,
  type SolverState,
} from '../schedulers/index.ts';
import { ditTables, timeEmbedding, tokenGrid, type DiTTables } from '../wan/tables.ts';
import {
  forwardFunctions,
  StreamedForward,
  WholeForward,
  type Forward,
  type Half,
  type Network,
  type Told,
} from './forward.ts';

/**
 * - a solver: a teacher's, guided; two evaluations a step unless guidance is 1;
 * - `renoise`: x̂0 at each level, noised afresh to the next: a student's; one step is x̂0 = ε - v (METHOD §1.13).
 */
export interface Sampling {
  kind: SolverKind | 'renoise';
  steps: number;
  shift: number;
  guidance: number;
  /** Whose noise levels; Wan's own unless given. */ layout?: Layout | undefined;
  /** Of two networks, the one that answers below a timestep, with guidance of its own; all else is the other's. */
  low?: { below: number; guidance: number };
}

const levelsOf = ({ kind, steps, shift, layout }: Sampling): Schedule =>
  schedule(kind === 'renoise' ? 'euler' : kind, steps, shift, layout);

/** Steps that one network takes, from the first on and before the last, and its guidance. */
export interface Span {
  from: number;
  to: number;
  guidance: number;
  expert: Expert;
}
export type Expert = 'high' | 'low';

/** Whose the steps are, in order: all one network's, or the high-noise expert's and then the low-noise one's. */
export function spans(sampling: Sampling): Span[] {
  const { steps, guidance, low } = sampling;
  if (!low) return [{ from: 0, to: steps, guidance, expert: 'high' }];
  const found = levelsOf(sampling).timesteps.findIndex((t) => t < low.below);
  const change = found < 0 ? steps : found;
  const both: Span[] = [
    { from: 0, to: change, guidance, expert: 'high' },
    { from: change, to: steps, guidance: low.guidance, expert: 'low' },
  ];
  return both.filter(({ from, to }) => from < to);
}

/** Forwards of the network for one clip. */
export const evaluationsOf = (sampling: Sampling): number =>
  spans(sampling).reduce((sum, { from, to, guidance }) => sum + (to - from) * (guidance === 1 ? 1 : 2), 0);

/** Whether any step is guided. */
export const isGuided = (sampling: Sampling): boolean => spans(sampling).some(({ guidance }) => guidance !== 1);

/** B clips of one size. */
export interface DiffusionInput {
  /** Of a latent, [C, F, h, w]. */
  shape: readonly number[];
  /** Of each clip: decides all of its noise, whatever stands beside it. */
  seeds: readonly number[];
  /** [B, text_len, text_dim], zero past each text. */
  text: HostTensor;
  /** What guidance leads away from, as `text`. */
  negative: HostTensor;
  /** i2v: [B, I, clip_dim]. */
  imageTokens?: HostTensor | undefined;
  /** i2v: mask and image latent, [B, in_dim - C, F, h, w]. */
  beside?: HostTensor | undefined;
  /** ti2v: the first frame's latent, [B, C, 1, h, w]. */
  first?: HostTensor | undefined;
}

/** [B, C, F, h, w], its taker's to free; and what the steps took, the compiling of what was not compiled included. */
interface Diffused {
  latent: NDArray;
  seconds: number;
}

/** Where a batch of clips stands between steps, its taker's to hand on or to free. */
export interface Underway {
  state: SolverState<NDArray>;
  seconds: number;
}

interface Leg {
  span: Span;
  under?: Underway | undefined;
  onStep?: ((done: number, steps: number) => void) | undefined;
}

/** Standard normals of a seed, made on the host: the same on every device, whatever else is made beside them. */
export const latentNoise = (seed: number, role: string, shape: readonly number[]): HostTensor =>
  host(draw('normal', seed, `latent ${role}`, numel(shape)), shape);

/** u + g (c - u) of two velocities, or of one batch of both. */
export function guidance(parts: readonly Tensor[], g: Tensor): Tensor {
  const [cond, uncond] = (parts.length > 1 ? parts : parts[0]!.split(0, 2)) as [Tensor, Tensor];
  return uncond.add(cond.sub(uncond).mul(g));
}

/** A frame that is given, [B, C, 1, h, w]. */
type Held = { first?: Tensor };

/** A solver's step; the frame that is given stays, and the solver's history is not told of it. */
export function solved(state: SolverState, v: Tensor, weights: Tensor, { first }: Held): SolverState {
  const next = solverStep(state, v, weights);
  return { ...next, x: hold(next.x, first) };
}

/** x̂0 = x - σ v, noised afresh to the next level. */
export function renoise(
  { x }: { x: Tensor },
  v: Tensor,
  { sigma, next, eps }: { sigma: Tensor; next: Tensor; eps: Tensor },
  { first }: Held,
): { x: Tensor } {
  const x0 = hold(x.sub(v.mul(sigma)), first);
  return { x: x0.add(eps.sub(x0).mul(next)) };
}

/** The sample with the frame that is given in its first one's place. */
export const hold = (x: Tensor, first: Tensor | undefined): Tensor =>
  first ? (x.shape[2]! > 1 ? concat([first, x.slice(2, 1)], 2) : first) : x;

/** As `hold`, of noise on the host. */
function held(noise: HostTensor, first: HostTensor | undefined): HostTensor {
  if (!first) return noise;
  const data = Float32Array.from(noise.data);
  const [clips, channels, frames] = noise.shape as [number, number, number];
  const plane = first.data.length / (clips * channels);
  for (let i = 0; i < clips * channels; i++)
    data.set(first.data.subarray(i * plane, (i + 1) * plane), i * frames * plane);
  return host(data, noise.shape);
}

/** Holds the programs of a network's config, for any weights and any number of clips of any sizes. */
export class Diffusion {
  private readonly device: Device;
  private readonly config: DiTConfig;
  private readonly whole: Forward;
  private readonly streamed: Forward;
  private readonly guide: CompiledFunction<[readonly Tensor[], Tensor], Tensor>;
  private readonly solve: CompiledFunction<[SolverState, Tensor, Tensor, Held], SolverState>;
  private readonly renoise: CompiledFunction<Parameters<typeof renoise>, { x: Tensor }>;
  /** Whether both texts go through the network at once, by network and size. */
  private readonly together = new Map<string, boolean>();

  /** `adapterScale` multiplies adapters beside the weights; the rest is of the network's products. */
  constructor(device: Device, config: DiTConfig, { adapterScale = 1, ...half }: { adapterScale?: number } & Half = {}) {
    [this.device, this.config] = [device, config];
    const functions = forwardFunctions(config, device.caps.maxBindingBytes, adapterScale);
    this.whole = new WholeForward(device, functions, half);
    this.streamed = new StreamedForward(device, functions, config.num_layers, half);
    this.guide = device.compile(guidance, { name: 'guidance' });
    this.solve = device.compile(solved, { donate: [0], name: 'solver step' });
    this.renoise = device.compile(renoise, { donate: [0], name: 'renoise' });
  }

  /**
   * All steps.
   * @param networks stay the caller's: one, or for high noise and for low
   * @param onStep told after every step that is done on the device; what it throws ends the work. Without it the steps are queued
   */
  async run(
    networks: Network | Readonly<Record<Expert, Network>>,
    input: DiffusionInput,
    sampling: Sampling,
    onStep?: (done: number, steps: number) => void,
  ): Promise<Diffused> {
    let under: Underway | undefined;
    for (const span of spans(sampling))
      under = await this.advance('high' in networks ? networks[span.expert] : networks, input, sampling, {
        span,
        under,
        onStep,
      });
    const { state, seconds } = under!;
    const { x: latent, ...history } = state;
    for (const t of Object.values(history)) t.free();
    return { latent, seconds };
  }

  /**
   * One network's steps.
   * @param under what the network before it left, taken over; without it the clips begin at their noise
   */
  async advance(
    network: Network,
    input: DiffusionInput,
    sampling: Sampling,
    { span, under, onStep }: Leg,
  ): Promise<Underway> {
    const { device, config } = this;
    const { kind, steps } = sampling;
    const { guidance } = span;
    const noise = (role: string): HostTensor =>
      stacked(input.seeds.map((seed) => latentNoise(seed, role, input.shape)));
    const { sigmas, timesteps, weights } = levelsOf(sampling);
    const upload = (t: HostTensor): NDArray => device.tensor(t.data, t.shape, t.dtype);
    const told: Told = {
      tables: mapTree(upload, ditTables(config, [tokenGrid(config, input.shape)])) as unknown as DiTTables<NDArray>,
      ...(input.beside && { y: upload(input.beside) }),
      ...(input.imageTokens && { imageTokens: upload(input.imageTokens) }),
      ...(input.first && { first: upload(input.first) }),
    };
    let state =
      under?.state ??
      (mapTree(upload, startState(held(noise('start'), input.first))) as unknown as SolverState<NDArray>);
    let contexts: NDArray[] = [];
    let done: SolverState<NDArray> | undefined;
    const frame = { ...(told.first && { first: told.first }) };
    try {
      const texts = guidance === 1 ? [input.text] : [input.text, input.negative];
      const groups =
        texts.length > 1 && (await this.fitTogether(network, state.x, texts, told)) ? [texts] : texts.map((t) => [t]);
      contexts = groups.map((group) => upload(beneath(group)));
      const renoising = kind === 'renoise';
      const levels = Array.from({ length: renoising ? steps : 0 }, (_, k) =>
        k + 1 < steps ? noise(`level ${k + 1}`) : blank(state.x.shape),
      );
      await device.idle();
      const start = performance.now();
      for (let k = span.from; k < span.to; k++) {
        const v = await this.velocity(network, state.x, timesteps[k]!, { contexts, guidance, told });
        if (renoising)
          state = {
            ...state,
            ...(await this.renoise(
              { x: state.x },
              v,
              { sigma: sigmas[k]!, next: sigmas[k + 1]!, eps: levels[k]! },
              frame,
            )),
          };
        else state = await this.solve(state, v, weights[k]!, frame);
        if (!onStep) continue;
        await device.idle();
        onStep(k + 1, steps);
      }
      await device.idle();
      done = state;
      return { state, seconds: (under?.seconds ?? 0) + (performance.now() - start) / 1000 };
    } finally {
      for (const t of flatten<NDArray>([told, contexts, ...(done ? [] : [state])]).leaves) t.free();
    }
  }

  /** v at x and t: under the text alone, or led away from the negative one, u + g (c - u). */
  private async velocity(
    network: Network,
    x: NDArray,
    t: number,
    { contexts, guidance, told }: { contexts: readonly NDArray[]; guidance: number; told: Told },
  ): Promise<NDArray> {
    const forward = this.forward(network);
    const tEmb = timeEmbedding([t], this.config.freq_dim);
    const [first, second] = contexts as [NDArray, NDArray?];
    const v = await forward.run(network, x, tEmb, first, told);
    if (guidance === 1) return v;
    if (!second) return this.guide([v], guidance);
    const cond = v.keep();
    try {
      return await this.guide([cond, await forward.run(network, x, tEmb, second, told)], guidance);
    } finally {
      cond.free();
    }
  }

  private forward({ blocks }: Network): Forward {
    return blocks ? this.streamed : this.whole;
  }

  /** Whether both texts go through the network at once: where what that takes is less than the weights. */
  private async fitTogether(network: Network, x: NDArray, texts: readonly HostTensor[], told: Told): Promise<boolean> {
    const key = `${network.bytes} ${Boolean(network.blocks)} ${x.shape.join()}`;
    const known = this.together.get(key);
    if (known !== undefined) return known;
    const fit = (await this.bytesUnder(network, x, texts, told)) < network.bytes;
    this.together.set(key, fit);
    return fit;
  }

  /** Of the forward under some texts; without end where it is refused. */
  private async bytesUnder(network: Network, x: NDArray, texts: readonly HostTensor[], told: Told): Promise<number> {
    try {
      return await this.forward(network).plan(
        network,
        x,
        timeEmbedding([0], this.config.freq_dim),
        beneath(texts),
        told,
      );
    } catch (error) {
      if (error instanceof EngineError && (error.op === 'memory' || error.op === 'tensor')) return Infinity;
      throw error;
    }
  }

  /** Gives back the programs' memory. */
  async close(): Promise<void> {
    for (const forward of [this.whole, this.streamed]) await forward.close();
    for (const program of [this.guide, this.solve, this.renoise]) await program.free();
  }
}

const blank = (shape: readonly number[]): HostTensor => host(new Float32Array(numel(shape)), shape);

/** Batches below one another. */
function beneath(batches: readonly HostTensor[]): HostTensor {
  const [{ shape }] = batches as [HostTensor];
  const size = numel(shape);
  const data = new Float32Array(batches.length * size);
  batches.forEach((t, i) => data.set(t.data, i * size));
  return host(data, [batches.length * shape[0]!, ...shape.slice(1)]);
}

/** Tensors of one shape as a batch. */
const stacked = (rows: readonly HostTensor[]): HostTensor =>
  beneath(rows.map((t) => ({ ...t, shape: [1, ...t.shape] })));
