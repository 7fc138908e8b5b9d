/** From noise to a latent: a DiT stepped by any sampler, guided by two texts, or a student's few levels of its own. */
import type { CompiledFunction } from '../../engine/compile.ts';
import type { Device } from '../../engine/device.ts';
import { EngineError } from '../../engine/errors.ts';
import { concat } from '../../engine/functional.ts';
import type { NDArray } from '../../engine/ndarray.ts';
import type { Tensor } from '../../engine/tensor.ts';
import { flatten, host, mapTree, type HostTensor } from '../../engine/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import type { DiTConfig } from '../config.ts';
import { draw, Scope } from '../params.ts';
import { schedule, solverStep, startState, type Layout, type SolverKind, type SolverState } from '../schedulers/index.ts';
import { dit, type DiTInput } from '../wan/dit.ts';
import { ditTables, timeEmbedding, tokenGrid, type DiTTables } from '../wan/tables.ts';

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

/** A DiT's weights, and what LoRAs add to its linears. */
export interface Network<T = NDArray> {
  readonly base: Readonly<Record<string, T>>;
  readonly adapters: readonly { readonly params: Readonly<Record<string, T>>; readonly scale: T extends Tensor ? Tensor : number }[];
}
/** Hidden values of the feed-forward that are held at a time. */
const HIDDEN_BYTES = 2 ** 28;

/** The config with the feed-forward in as many parts as keep its hidden layer within bounds. */
export const inParts = (config: DiTConfig, batch: number, tokens: number, maxBindingBytes: number): DiTConfig =>
  ({ ...config, ffn_parts: Math.ceil((4 * batch * tokens * config.ffn_dim) / Math.min(HIDDEN_BYTES, maxBindingBytes)) });

const scopeOf = ({ base, adapters }: Network<Tensor>): Scope => new Scope(base, '', adapters);

/** What of the network's input stays the same over all steps, and over both texts. */
type Fixed<T> = { tables: DiTTables<T>; y?: T; imageTokens?: T; text: T; negative: T };
type Velocity = CompiledFunction<[Network<Tensor>, Tensor, Tensor, Tensor, Fixed<Tensor>], Tensor>;

/** Standard normals of a seed: the same on every device, whatever else is made beside them. */
export const latentNoise = (seed: number, role: string, shape: readonly number[]): HostTensor => host(draw('normal', seed, `latent ${role}`, numel(shape)), shape);

/** Holds one network's programs, for any number of clips of any sizes. */
export class Diffusion {
  private readonly device: Device;
  private readonly config: DiTConfig;
  private readonly network: Network;
  private readonly single: CompiledFunction<[Network<Tensor>, DiTInput], Tensor>;
  private readonly both: Velocity;
  private readonly mix: CompiledFunction<[Tensor, Tensor, Tensor], Tensor>;
  private readonly solve: CompiledFunction<[SolverState, Tensor, Tensor], SolverState>;
  private readonly renoise: CompiledFunction<[{ x: Tensor }, Tensor, Tensor, Tensor, Tensor], { x: Tensor }>;

  /** @param network stays the caller's */
  constructor(device: Device, config: DiTConfig, network: Network) {
    [this.device, this.config, this.network] = [device, config, network];
    const forward = (net: Network<Tensor>, input: DiTInput): Tensor =>
      dit(scopeOf(net), inParts(config, input.tEmb.shape[0]!, input.tables.cos.shape[1]!, device.caps.maxBindingBytes), input).v as Tensor;
    this.single = device.compile(forward, { name: 'velocity' });
    this.both = device.compile((net: Network<Tensor>, x: Tensor, t: Tensor, g: Tensor, { tables, text, negative, ...rest }: Fixed<Tensor>) => {
      const twice = (a: Tensor) => concat([a, a], 0);
      const given = mapTree(twice, rest);
      const v = forward(net, { x: twice(x), tEmb: twice(t), context: concat([text, negative], 0), ...given, tables });
      const [cond, uncond] = v.split(0, 2) as [Tensor, Tensor];
      return guide(cond, uncond, g);
    }, { name: 'guided velocity' });
    this.mix = device.compile(guide, { name: 'guidance' });
    this.solve = device.compile(solverStep, { donate: [0], name: 'solver step' });
    this.renoise = device.compile(({ x }: { x: Tensor }, v: Tensor, sigma: Tensor, next: Tensor, eps: Tensor) => {
      const x0 = x.sub(v.mul(sigma));
      return { x: x0.add(eps.sub(x0).mul(next)) };
    }, { donate: [0], name: 'renoise' });
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
    const one = (t: HostTensor): NDArray => upload({ ...t, shape: [1, ...t.shape] });
    const fixed: Fixed<NDArray> = {
      tables: mapTree(upload, ditTables(config, [tokenGrid(config, input.shape)])) as unknown as DiTTables<NDArray>, text: one(input.text), negative: one(input.negative),
      ...(input.beside && { y: one(input.beside) }), ...(input.imageTokens && { imageTokens: one(input.imageTokens) }),
    };
    let state = mapTree(upload, startState(latentNoise(input.seed, 'start', shape))) as unknown as SolverState<NDArray>;
    try {
      const together = guidance !== 1 && await this.fitsTogether(state.x, fixed);
      for (let k = 0; k < steps; k++) {
        const v = await this.velocity(state.x, timesteps[k]!, guidance, fixed, together);
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
      for (const t of flatten<NDArray>([fixed, state]).leaves) t.free();
    }
  }

  /** v at x and t: under the text alone, or led away from the negative one. */
  private async velocity(x: NDArray, t: number, guidance: number, { text, negative, ...rest }: Fixed<NDArray>, together: boolean): Promise<NDArray> {
    const { network, config } = this;
    const tEmb = timeEmbedding([t], config.freq_dim);
    if (together) return this.both(network, x, tEmb, guidance, { text, negative, ...rest });
    const cond = await this.single(network, { x, tEmb, context: text, ...rest });
    if (guidance === 1) return cond;
    const kept = cond.keep();
    const v = await this.mix(kept, await this.single(network, { x, tEmb, context: negative, ...rest }), guidance);
    kept.free();
    return v;
  }

  /** Whether both texts go through the network at once: where its activations for two are less than its weights. */
  private async fitsTogether(x: NDArray, fixed: Fixed<NDArray>): Promise<boolean> {
    try {
      const { bytes } = await this.both.plan(this.network, x, timeEmbedding([0], this.config.freq_dim), 1, fixed);
      return bytes < Object.values(this.network.base).reduce((sum, w) => sum + w.bytes, 0);
    } catch (error) {
      if (error instanceof EngineError && (error.op === 'memory' || error.op === 'tensor')) return false;
      throw error;
    }
  }

  /** Gives back the programs' memory. */
  async close(): Promise<void> {
    for (const program of [this.single, this.both, this.mix, this.solve, this.renoise]) await program.free();
  }
}

/** u + g (c - u). */
const guide = (cond: Tensor, uncond: Tensor, g: Tensor): Tensor => uncond.add(cond.sub(uncond).mul(g));
