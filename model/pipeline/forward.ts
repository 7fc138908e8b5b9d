/**
 * A DiT's forward on a device for sampling: as one program over weights that all lie there, or block by block with weights that come
 * when their turn has come, so that the largest models run where two of their blocks fit.
 */
import type { CompiledFunction, CompileOptions } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { concat } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Streamed } from '../../engine/runtime/streamed.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { BlockStack, type BlockSource } from '../blocks.ts';
import type { DiTConfig } from '../config.ts';
import { Scope, type Params } from '../params.ts';
import { block, type BlockInput } from '../wan/block.ts';
import { dit, ditEmbed, ditHead, type DiTInput, type Embedded } from '../wan/dit.ts';
import type { DiTTables } from '../wan/tables.ts';

/** What stays the same over all steps of a batch of B clips. */
export interface Told<T = NDArray> {
  tables: DiTTables<T>;
  /** i2v: mask and image latent, [B, in_dim - C, F, h, w]. */
  y?: T;
  /** i2v: [B, I, clip_dim]. */
  imageTokens?: T;
  /** ti2v: the first frame's latent, [B, C, 1, h, w]. */
  first?: T;
}

export interface Forward {
  /**
   * Velocities [nB, C, F, h, w] of x [B, C, F, h, w] under n texts a clip: all clips under their first, then under their second. They
   * hold until the next call.
   * @param tEmb [1, freq_dim], the same for all
   * @param context [nB, text_len, text_dim]
   */
  run(network: Network, x: NDArray, tEmb: HostTensor, context: NDArray, told: Told): Promise<NDArray>;
  /** Bytes that a call takes beside weights and arguments. @throws EngineError when it cannot fit */
  plan(network: Network, x: NDArray, tEmb: HostTensor, context: HostTensor, told: Told): Promise<number>;
  /** Gives back the programs' memory. */
  close(): Promise<void>;
}

/** A network's weights; `module.lora_A.weight` and `lora_B.weight` beside a linear's weight are added to it. */
export interface Network {
  /** All weights, or those around the blocks. */
  readonly weights: Readonly<Record<string, NDArray | Streamed>>;
  /** Where the blocks' weights come from, if they are not there. */
  readonly blocks?: BlockSource;
  /** Of all weights. */
  readonly bytes: number;
  free(): Promise<void>;
}

/** All of a network, freed with it. */
export const networkOf = (weights: Network['weights']): Network => ({
  weights,
  bytes: Object.values(weights).reduce((sum, t) => sum + t.bytes, 0),
  free: () => Promise.resolve(Object.values(weights).forEach((t) => t.free())),
});

/** Hidden values of the feed-forward that are held at a time. */
const HIDDEN_BYTES = 2 ** 28;

/** The config with the feed-forward in as many parts as keep its hidden layer within bounds. */
export const inParts = (config: DiTConfig, batch: number, tokens: number, maxBindingBytes: number): DiTConfig => ({
  ...config,
  ffn_parts: Math.ceil((4 * batch * tokens * config.ffn_dim) / Math.min(HIDDEN_BYTES, maxBindingBytes)),
});

/** A batch as often as makes `rows` of it. */
const repeated = (t: Tensor, rows: number): Tensor =>
  t.shape[0] === rows
    ? t
    : concat(
        Array.from({ length: rows / t.shape[0]! }, () => t),
        0,
      );

/** The network's input, repeated for each text. */
function inputFor(x: Tensor, tEmb: Tensor, context: Tensor, { tables, y, imageTokens, first }: Told<Tensor>): DiTInput {
  const each = (t: Tensor): Tensor => repeated(t, context.shape[0]!);
  return {
    x: each(x),
    tEmb: each(tEmb),
    context,
    tables,
    ...(y && { y: each(y) }),
    ...(imageTokens && { imageTokens: each(imageTokens) }),
    ...(first && { first: each(first) }),
  };
}

/** What is compiled of a network, as functions of tensors. @param scale what adapters beside the weights are multiplied by */
export function forwardFunctions(config: DiTConfig, maxBindingBytes: number, scale = 1) {
  const withAdapters = (params: Params): Scope => new Scope(params, '', [{ params, scale }]);
  const parts = (batch: number, tokens: number): DiTConfig => inParts(config, batch, tokens, maxBindingBytes);
  return {
    whole: (net: Params, x: Tensor, tEmb: Tensor, context: Tensor, told: Told<Tensor>): Tensor =>
      dit(withAdapters(net), parts(context.shape[0]!, told.tables.cos.shape[1]!), inputFor(x, tEmb, context, told))
        .v as Tensor,
    embed: (net: Params, x: Tensor, tEmb: Tensor, context: Tensor, told: Told<Tensor>): Embedded =>
      ditEmbed(withAdapters(net), config, inputFor(x, tEmb, context, told)),
    block: (s: Scope, x: Tensor, told: BlockInput): Tensor =>
      block(withAdapters(s.params), parts(x.shape[0]!, x.shape[1]!), x, told, () => {}),
    head: (net: Params, tokens: Tensor, { e, held }: HeadTold<Tensor>, x: Tensor): Tensor =>
      ditHead(withAdapters(net), config, { x: tokens, e, held }, repeated(x, tokens.shape[0]!)) as Tensor,
  };
}

/** What of the embedding the head is told. */
type HeadTold<T> = Pick<Embedded<T>, 'e'> & Pick<Embedded<T>['told'], 'held'>;

type Functions = ReturnType<typeof forwardFunctions>;

/** Of the products' operands, f32 unless given; and who is told whether f16 holds them. */
export type Half = Pick<CompileOptions, 'operands' | 'onRanges'>;

/** As one program over weights that all lie on the device. */
export class WholeForward implements Forward {
  private readonly program: CompiledFunction<[Params, Tensor, Tensor, Tensor, Told<Tensor>], Tensor>;

  constructor(device: Device, { whole }: Functions, half: Half = {}) {
    this.program = device.compile(whole, { name: 'velocity', ...half });
  }

  run({ weights }: Network, x: NDArray, tEmb: HostTensor, context: NDArray, told: Told): Promise<NDArray> {
    return this.program(weights, x, tEmb, context, told);
  }

  async plan({ weights }: Network, x: NDArray, tEmb: HostTensor, context: HostTensor, told: Told): Promise<number> {
    return (await this.program.plan(weights, x, tEmb, context, told)).bytes;
  }

  close(): Promise<void> {
    return this.program.free();
  }
}

/** Block by block, each with weights that come when its turn has come. */
export class StreamedForward implements Forward {
  private readonly blocks: number;
  private readonly embed: CompiledFunction<[Params, Tensor, Tensor, Tensor, Told<Tensor>], Embedded>;
  private readonly stack: BlockStack<BlockInput>;
  private readonly head: CompiledFunction<[Params, Tensor, HeadTold<Tensor>, Tensor], Tensor>;

  constructor(device: Device, { embed, block, head }: Functions, blocks: number, half: Half = {}) {
    this.blocks = blocks;
    this.embed = device.compile(embed, { name: 'dit embedding', ...half });
    this.stack = new BlockStack(device, block, { name: 'dit block', ...half });
    this.head = device.compile(head, { name: 'dit head', ...half });
  }

  async run(
    { weights, blocks }: Network,
    x: NDArray,
    tEmb: HostTensor,
    context: NDArray,
    given: Told,
  ): Promise<NDArray> {
    const { x: embedded, e, told } = await this.embed(weights, x, tEmb, context, given);
    const tokens = embedded.keep();
    try {
      await this.stack.run(tokens, { ...told, tables: given.tables }, this.blocks, blocks!);
      return await this.head(weights, tokens, { e, ...(told.held && { held: told.held }) }, x);
    } finally {
      tokens.free();
    }
  }

  /** The embedding alone: both texts are worth their memory, for the weights come once for both. */
  async plan({ weights }: Network, x: NDArray, tEmb: HostTensor, context: HostTensor, told: Told): Promise<number> {
    return (await this.embed.plan(weights, x, tEmb, context, told)).bytes;
  }

  async close(): Promise<void> {
    await Promise.all([this.embed.free(), this.stack.free(), this.head.free()]);
  }
}
