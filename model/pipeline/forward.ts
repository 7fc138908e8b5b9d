/**
 * A DiT's forward on a device for sampling: as one program over weights that all lie there, or block by block with weights that come
 * when their turn has come, so that the largest models run where two of their blocks fit.
 */
import type { CompiledFunction } from '../../engine/compile.ts';
import type { Device } from '../../engine/device.ts';
import { concat } from '../../engine/functional.ts';
import type { NDArray } from '../../engine/ndarray.ts';
import type { Tensor } from '../../engine/tensor.ts';
import type { HostTensor } from '../../engine/tree.ts';
import { BlockStack, type BlockSource } from '../blocks.ts';
import type { DiTConfig } from '../config.ts';
import { Scope, type Params } from '../params.ts';
import { block, type BlockInput } from '../wan/block.ts';
import { dit, ditEmbed, ditHead, type DiTInput, type Embedded } from '../wan/dit.ts';
import type { DiTTables } from '../wan/tables.ts';

/** What stays the same over all steps of a clip. */
export interface Told<T = NDArray> {
  tables: DiTTables<T>;
  /** i2v: mask and image latent, [1, in_dim - C, F, h, w]. */
  y?: T;
  /** i2v: [1, I, clip_dim]. */
  imageTokens?: T;
}

export interface Forward {
  /**
   * Velocities [B, C, F, h, w] of one x [1, C, F, h, w] under B texts. They hold until the next call.
   * @param context [B, text_len, text_dim]
   */
  run(x: NDArray, tEmb: HostTensor, context: NDArray, told: Told): Promise<NDArray>;
  /** Bytes that a call takes beside weights and arguments. @throws EngineError when it cannot fit */
  plan(x: NDArray, tEmb: HostTensor, context: HostTensor, told: Told): Promise<number>;
  /** Gives back the programs' memory. */
  close(): Promise<void>;
}

/** A network as it was loaded; `module.lora_A.weight` and `lora_B.weight` beside a linear's weight are added to it. */
export interface Network {
  /** All weights, or those around the blocks. */
  readonly weights: Readonly<Record<string, NDArray>>;
  /** Where the blocks' weights come from, if they are not there. */
  readonly blocks?: BlockSource;
  /** Of all weights. */
  readonly bytes: number;
  free(): Promise<void>;
}

/** All of a network on the device, freed with it. */
export const networkOf = (weights: Network['weights']): Network => ({
  weights, bytes: Object.values(weights).reduce((sum, t) => sum + t.bytes, 0),
  free: () => Promise.resolve(Object.values(weights).forEach((t) => t.free())),
});

/** Hidden values of the feed-forward that are held at a time. */
const HIDDEN_BYTES = 2 ** 28;

/** The config with the feed-forward in as many parts as keep its hidden layer within bounds. */
export const inParts = (config: DiTConfig, batch: number, tokens: number, maxBindingBytes: number): DiTConfig =>
  ({ ...config, ffn_parts: Math.ceil((4 * batch * tokens * config.ffn_dim) / Math.min(HIDDEN_BYTES, maxBindingBytes)) });

const withAdapters = (params: Params): Scope => new Scope(params, '', [{ params, scale: 1 }]);

/** The network's input, repeated for each text. */
function inputFor(x: Tensor, tEmb: Tensor, context: Tensor, { tables, y, imageTokens }: Told<Tensor>): DiTInput {
  const each = (t: Tensor): Tensor => (context.shape[0] === 1 ? t : concat(Array.from({ length: context.shape[0]! }, () => t), 0));
  return { x: each(x), tEmb: each(tEmb), context, tables, ...(y && { y: each(y) }), ...(imageTokens && { imageTokens: each(imageTokens) }) };
}

/** What is compiled of a network, as functions of tensors. */
export const forwardFunctions = (config: DiTConfig, maxBindingBytes: number) => ({
  whole: (net: Params, x: Tensor, tEmb: Tensor, context: Tensor, told: Told<Tensor>): Tensor =>
    dit(withAdapters(net), inParts(config, context.shape[0]!, told.tables.cos.shape[1]!, maxBindingBytes), inputFor(x, tEmb, context, told)).v as Tensor,
  embed: (net: Params, x: Tensor, tEmb: Tensor, context: Tensor, told: Told<Tensor>): Embedded => ditEmbed(withAdapters(net), config, inputFor(x, tEmb, context, told)),
  block: (s: Scope, x: Tensor, told: BlockInput): Tensor => block(withAdapters(s.params), inParts(config, x.shape[0]!, x.shape[1]!, maxBindingBytes), x, told, () => {}),
  head: (net: Params, tokens: Tensor, e: Tensor, x: Tensor): Tensor =>
    ditHead(withAdapters(net), config, tokens, e, x.expand([tokens.shape[0]!, ...x.shape.slice(1)])) as Tensor,
});

type Whole = CompiledFunction<[Params, Tensor, Tensor, Tensor, Told<Tensor>], Tensor>;

class WholeForward implements Forward {
  private readonly weights: Network['weights'];
  private readonly program: Whole;

  constructor(device: Device, config: DiTConfig, { weights }: Network) {
    this.weights = weights;
    this.program = device.compile(forwardFunctions(config, device.caps.maxBindingBytes).whole, { name: 'velocity' });
  }

  run(x: NDArray, tEmb: HostTensor, context: NDArray, told: Told): Promise<NDArray> {
    return this.program(this.weights, x, tEmb, context, told);
  }

  async plan(x: NDArray, tEmb: HostTensor, context: HostTensor, told: Told): Promise<number> {
    return (await this.program.plan(this.weights, x, tEmb, context, told)).bytes;
  }

  close(): Promise<void> {
    return this.program.free();
  }
}

class StreamedForward implements Forward {
  private readonly config: DiTConfig;
  private readonly weights: Network['weights'];
  private readonly source: BlockSource;
  private readonly embed: CompiledFunction<[Params, Tensor, Tensor, Tensor, Told<Tensor>], Embedded>;
  private readonly stack: BlockStack<BlockInput>;
  private readonly head: CompiledFunction<[Params, Tensor, Tensor, Tensor], Tensor>;

  constructor(device: Device, config: DiTConfig, { weights }: Network, source: BlockSource) {
    [this.config, this.weights, this.source] = [config, weights, source];
    const run = forwardFunctions(config, device.caps.maxBindingBytes);
    this.embed = device.compile(run.embed, { name: 'dit embedding' });
    this.stack = new BlockStack(device, run.block, { name: 'dit block' });
    this.head = device.compile(run.head, { name: 'dit head' });
  }

  async run(x: NDArray, tEmb: HostTensor, context: NDArray, given: Told): Promise<NDArray> {
    const { x: embedded, e, told } = await this.embed(this.weights, x, tEmb, context, given);
    const tokens = embedded.keep();
    try {
      await this.stack.run(tokens, { ...told, tables: given.tables }, this.config.num_layers, this.source);
      return await this.head(this.weights, tokens, e, x);
    } finally {
      tokens.free();
    }
  }

  /** The embedding alone: both texts are worth their memory, for the weights come once for both. */
  async plan(x: NDArray, tEmb: HostTensor, context: HostTensor, told: Told): Promise<number> {
    return (await this.embed.plan(this.weights, x, tEmb, context, told)).bytes;
  }

  async close(): Promise<void> {
    await Promise.all([this.embed.free(), this.stack.free(), this.head.free()]);
  }
}

export const forwardOf = (device: Device, config: DiTConfig, network: Network): Forward =>
  (network.blocks ? new StreamedForward(device, config, network, network.blocks) : new WholeForward(device, config, network));
