/** From noise to a latent: a DiT stepped by any sampler, guided by two texts, or a student's few levels of its own. */
import type { CompiledFunction } from '../../engine/compile.ts';
import type { Device } from '../../engine/device.ts';
import { EngineError } from '../../engine/errors.ts';
import type { NDArray } from '../../engine/ndarray.ts';
import type { Tensor } from '../../engine/tensor.ts';
import { flatten, host, mapTree, type HostTensor } from '../../engine/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import type { DiTConfig } from '../config.ts';
import { draw } from '../params.ts';
import { schedule, solverStep, startState, type Layout, type SolverKind, type SolverState } from '../schedulers/index.ts';
import { ditTables, timeEmbedding, tokenGrid, type DiTTables } from '../wan/tables.ts';
import { forwardOf, type Forward, type Network, type Told } from './forward.ts';

/**
 * - a solver: a teacher's, guided; two evaluations a step unless guidance is 1;
 * - `renoise`: x̂0 at each level, noised afresh to the next: a student's; one step is x̂0 = ε - v.
 */
export interface Sampling { kind: SolverKind | 'renoise'; steps: number; shift: number; guidance: number; /** Whose noise levels; Wan's own unless given. */ layout?: Layout }

export interface DiffusionInput {
  /** Of the latent, [C, F, h, w]. */
  shape: readonly [number, number, number, number];
  /** Decides all noise. */
  seed: number;
  /** [text_len, text_dim], zero past the text. */
  text: HostTensor;
  /** What guidance leads away from, as `text`. */
  negative: HostTensor;
  /** i2v: [I, clip_dim]. */
  imageTokens?: HostTensor | undefined;
  /** i2v: mask and image latent, [in_dim - C, F, h, w]. */
  beside?: HostTensor | undefined;
}

/** Standard normals of a seed: the same on every device, whatever else is made beside them. */
export const latentNoise = (seed: number, role: string, shape: readonly number[]): HostTensor => host(draw('normal', seed, `latent ${role}`, numel(shape)), shape);

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

/** Holds one network's programs, for any number of clips of any sizes. */
export class Diffusion {
  private readonly device: Device;
  private readonly config: DiTConfig;
  private readonly network: Network;
  private readonly forward: Forward;
  private readonly guide: CompiledFunction<[readonly Tensor[], Tensor], Tensor>;
  private readonly solve: CompiledFunction<[SolverState, Tensor, Tensor], SolverState>;
  private readonly renoise: CompiledFunction<[{ x: Tensor }, Tensor, Tensor, Tensor, Tensor], { x: Tensor }>;

  /** @param network stays the caller's */
  constructor(device: Device, config: DiTConfig, network: Network) {
    [this.device, this.config, this.network] = [device, config, network];
    this.forward = forwardOf(device, config, network);
    this.guide = device.compile(guidance, { name: 'guidance' });
    this.solve = device.compile(solverStep, { donate: [0], name: 'solver step' });
    this.renoise = device.compile(renoise, { donate: [0], name: 'renoise' });
  }

  /**
   * The latent [C, F, h, w] of an input.
   * @param onStep told after every step; what it throws ends the work
   */
  async run(input: DiffusionInput, sampling: Sampling, onStep: (done: number, steps: number) => void = () => {}): Promise<HostTensor> {
    const { device, config } = this;
    const { kind, steps, shift, guidance, layout } = sampling;
    const shape = [1, ...input.shape];
    const { sigmas, timesteps, weights } = schedule(kind === 'renoise' ? 'euler' : kind, steps, shift, layout);
    const upload = (t: HostTensor): NDArray => device.tensor(t.data, t.shape, t.dtype);
    const told: Told = {
      tables: mapTree(upload, ditTables(config, [tokenGrid(config, input.shape)])) as unknown as DiTTables<NDArray>,
      ...(input.beside && { y: upload(stacked([input.beside])) }), ...(input.imageTokens && { imageTokens: upload(stacked([input.imageTokens])) }),
    };
    let state = mapTree(upload, startState(latentNoise(input.seed, 'start', shape))) as unknown as SolverState<NDArray>;
    let contexts: NDArray[] = [];
    try {
      const texts = guidance === 1 ? [input.text] : [input.text, input.negative];
      const groups = texts.length > 1 && await this.fitTogether(state.x, texts, told) ? [texts] : texts.map((t) => [t]);
      contexts = groups.map((group) => upload(stacked(group)));
      for (let k = 0; k < steps; k++) {
        const v = await this.velocity(state.x, timesteps[k]!, contexts, guidance, told);
        if (kind === 'renoise') {
          const eps = k + 1 < steps ? latentNoise(input.seed, `level ${k + 1}`, shape) : host(new Float32Array(numel(shape)), shape);
          state = { ...state, ...await this.renoise({ x: state.x }, v, sigmas[k]!, sigmas[k + 1]!, eps) };
        } else {
          state = await this.solve(state, v, weights[k]!);
        }
        await device.idle();
        onStep(k + 1, steps);
      }
      return host(await state.x.read(), input.shape);
    } finally {
      for (const t of flatten<NDArray>([told, state, contexts]).leaves) t.free();
    }
  }

  /** v at x and t: under the text alone, or led away from the negative one, u + g (c - u). */
  private async velocity(x: NDArray, t: number, contexts: readonly NDArray[], guidance: number, told: Told): Promise<NDArray> {
    const tEmb = timeEmbedding([t], this.config.freq_dim);
    const [first, second] = contexts as [NDArray, NDArray?];
    const v = await this.forward.run(x, tEmb, first, told);
    if (guidance === 1) return v;
    if (!second) return this.guide([v], guidance);
    const cond = v.keep();
    try {
      return await this.guide([cond, await this.forward.run(x, tEmb, second, told)], guidance);
    } finally {
      cond.free();
    }
  }

  /** Whether both texts go through the network at once: where what that takes is less than the weights. */
  private async fitTogether(x: NDArray, texts: readonly HostTensor[], told: Told): Promise<boolean> {
    try {
      return await this.forward.plan(x, timeEmbedding([0], this.config.freq_dim), stacked(texts), told) < this.network.bytes;
    } catch (error) {
      if (error instanceof EngineError && (error.op === 'memory' || error.op === 'tensor')) return false;
      throw error;
    }
  }

  /** Gives back the programs' memory. */
  async close(): Promise<void> {
    await this.forward.close();
    for (const program of [this.guide, this.solve, this.renoise]) await program.free();
  }
}

/** Tensors of one shape as a batch. */
function stacked(rows: readonly HostTensor[]): HostTensor {
  const size = rows[0]!.data.length;
  const data = new Float32Array(rows.length * size);
  rows.forEach((t, i) => data.set(t.data, i * size));
  return host(data, [rows.length, ...rows[0]!.shape]);
}
