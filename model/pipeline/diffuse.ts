/**
 * From noise to latents: the one sampling loop. A batch of clips goes through a DiT stepped by any sampler, guided by two texts, or
 * through a student's few levels of its own.
 */
import type { CompiledFunction } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { EngineError } from '../../engine/host/errors.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
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
  type SolverKind,
  type SolverState,
} from '../schedulers/index.ts';
import { ditTables, timeEmbedding, tokenGrid, type DiTTables } from '../wan/tables.ts';
import { forwardFunctions, StreamedForward, WholeForward, type Forward, type Network, type Told } from './forward.ts';
import type { Precision } from './precision.ts';

/**
 * - a solver: a teacher's, guided; two evaluations a step unless guidance is 1;
 * - `renoise`: x̂0 at each level, noised afresh to the next: a student's; one step is x̂0 = ε - v (METHOD §1.13).
 */
export interface Sampling {
  kind: SolverKind | 'renoise';
  steps: number;
  shift: number;
  guidance: number;
  /** Whose noise levels; Wan's own unless given. */ layout?: Layout;
}

/** Forwards of the network for one clip. */
export const evaluationsOf = ({ steps, guidance }: Sampling): number => steps * (guidance === 1 ? 1 : 2);

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
}

/** [B, C, F, h, w], its taker's to free; and what the steps took, the compiling of what was not compiled included. */
interface Diffused {
  latent: NDArray;
  seconds: number;
}

/** Standard normals of a seed, made on the host: the same on every device, whatever else is made beside them. */
export const latentNoise = (seed: number, role: string, shape: readonly number[]): HostTensor =>
  host(draw('normal', seed, `latent ${role}`, numel(shape)), shape);

/** u + g (c - u) of two velocities, or of one batch of both. */
export function guidance(parts: readonly Tensor[], g: Tensor): Tensor {
  const [cond, uncond] = (parts.length > 1 ? parts : parts[0]!.split(0, 2)) as [Tensor, Tensor];
  return uncond.add(cond.sub(uncond).mul(g));
}

/** x̂0 = x - σ v, noised afresh to the next level. */
export function renoise({ x }: { x: Tensor }, v: Tensor, sigma: Tensor, next: Tensor, eps: Tensor): { x: Tensor } {
  const x0 = x.sub(v.mul(sigma));
  return { x: x0.add(eps.sub(x0).mul(next)) };
}

/** Holds the programs of a network's config, for any weights and any number of clips of any sizes. */
export class Diffusion {
  private readonly device: Device;
  private readonly config: DiTConfig;
  private readonly whole: Forward;
  private readonly streamed: Forward;
  private readonly guide: CompiledFunction<[readonly Tensor[], Tensor], Tensor>;
  private readonly solve: CompiledFunction<[SolverState, Tensor, Tensor], SolverState>;
  private readonly renoise: CompiledFunction<[{ x: Tensor }, Tensor, Tensor, Tensor, Tensor], { x: Tensor }>;
  /** Whether both texts go through the network at once, by network and size. */
  private readonly together = new Map<string, boolean>();

  /** `adapterScale` multiplies adapters beside the weights; `operands` are those of the network's products. */
  constructor(
    device: Device,
    config: DiTConfig,
    { adapterScale = 1, operands = 'f32' }: { adapterScale?: number; operands?: Precision } = {},
  ) {
    [this.device, this.config] = [device, config];
    const functions = forwardFunctions(config, device.caps.maxBindingBytes, adapterScale);
    this.whole = new WholeForward(device, functions, operands);
    this.streamed = new StreamedForward(device, functions, config.num_layers, operands);
    this.guide = device.compile(guidance, { name: 'guidance' });
    this.solve = device.compile(solverStep, { donate: [0], name: 'solver step' });
    this.renoise = device.compile(renoise, { donate: [0], name: 'renoise' });
  }

  /**
   * @param network stays the caller's
   * @param onStep told after every step that is done on the device; what it throws ends the work. Without it the steps are queued
   */
  async run(
    network: Network,
    input: DiffusionInput,
    sampling: Sampling,
    onStep?: (done: number, steps: number) => void,
  ): Promise<Diffused> {
    const { device, config } = this;
    const { kind, steps, shift, guidance, layout } = sampling;
    const noise = (role: string): HostTensor =>
      stacked(input.seeds.map((seed) => latentNoise(seed, role, input.shape)));
    const { sigmas, timesteps, weights } = schedule(kind === 'renoise' ? 'euler' : kind, steps, shift, layout);
    const upload = (t: HostTensor): NDArray => device.tensor(t.data, t.shape, t.dtype);
    const told: Told = {
      tables: mapTree(upload, ditTables(config, [tokenGrid(config, input.shape)])) as unknown as DiTTables<NDArray>,
      ...(input.beside && { y: upload(input.beside) }),
      ...(input.imageTokens && { imageTokens: upload(input.imageTokens) }),
    };
    let state = mapTree(upload, startState(noise('start'))) as unknown as SolverState<NDArray>;
    let contexts: NDArray[] = [];
    let latent: NDArray | undefined;
    try {
      const texts = guidance === 1 ? [input.text] : [input.text, input.negative];
      const groups =
        texts.length > 1 && (await this.fitTogether(network, state.x, texts, told)) ? [texts] : texts.map((t) => [t]);
      contexts = groups.map((group) => upload(beneath(group)));
      const levels =
        kind === 'renoise'
          ? Array.from({ length: steps }, (_, k) => (k + 1 < steps ? noise(`level ${k + 1}`) : blank(state.x.shape)))
          : [];
      await device.idle();
      const start = performance.now();
      for (let k = 0; k < steps; k++) {
        const v = await this.velocity(network, state.x, timesteps[k]!, { contexts, guidance, told });
        if (kind === 'renoise')
          state = { ...state, ...(await this.renoise({ x: state.x }, v, sigmas[k]!, sigmas[k + 1]!, levels[k]!)) };
        else state = await this.solve(state, v, weights[k]!);
        if (!onStep) continue;
        await device.idle();
        onStep(k + 1, steps);
      }
      await device.idle();
      latent = state.x;
      return { latent, seconds: (performance.now() - start) / 1000 };
    } finally {
      for (const t of flatten<NDArray>([told, state, contexts]).leaves) if (t !== latent) t.free();
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
