/**
 * The diffusion transformer of Wan2.1 and Wan2.2, text- and image-to-video, as functions over parameters under the checkpoint's names.
 *
 * Reference: wan/modules/model.py of both. Tokens run (time, height, width), the width fastest.
 */
import { concat, gelu, iota, silu, where } from '../../engine/frontend/functional.ts';
import { fail } from '../../engine/host/errors.ts';
import { checkpoint } from '../../engine/frontend/remat.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { hasBeside, holdsFirst, readsImages, type DiTConfig } from '../config.ts';
import {
  linearSpecs,
  materialise,
  normal,
  normSpecs,
  Scope,
  shapesOf,
  under,
  xavier,
  zeros,
  type HostParams,
  type Params,
  type Specs,
} from '../params.ts';
import { atTokens, block, blockSpecs } from './block.ts';
import { patchify, unpatchify } from './patch.ts';
import { tokenGrid, type DiTTables } from './tables.ts';

/** Batches of one size are one tensor; samples of different sizes are a list, without the batch axis. */
export type Samples = Tensor | readonly Tensor[];

export interface DiTInput {
  /** Noisy latent [B, C, F, H, W], or one [C, F, H, W] a sample. */
  x: Samples;
  /** `timeEmbedding(t, freq_dim)` [B, freq_dim]; [B, N, freq_dim] where every token has a time of its own. */
  tEmb: Tensor;
  /** ti2v: the first frame's latent, [B, C, 1, H, W]: it stands in x's place, its tokens at time 0. For one `tEmb` a sample. */
  first?: Tensor;
  /** With `first`: the samples that have one, 1 or 0, [B]; all unless given. */
  held?: Tensor;
  /** Text [B, L, text_dim] with L ≤ text_len, zero past each caption's own length. */
  context: Tensor;
  /** i2v: mask and image latent, beside x: [B, in_dim - C, F, H, W], or one a sample. */
  y?: Samples;
  /** i2v: [B, I, clip_dim]. */
  imageTokens?: Tensor;
  /** `ditTables` for x. */
  tables: DiTTables<Tensor>;
}

interface DiTOptions {
  /** 0-based ids of the blocks whose output tokens are asked for. */
  taps?: readonly number[];
  /** Told of intermediate values, under the names of the reference tensors; for tests. */
  probe?: Probe;
}
export type Probe = (name: string, value: Tensor) => void;

export interface DiTOutput {
  /** Velocity, shaped as x. */
  v: Samples;
  /** [B, N, dim] after each tapped block, in the order asked. */
  taps: Tensor[];
}

/** Image layer norms keep PyTorch's default, unlike the rest of the network. */
const IMAGE_EPS = 1e-5;
/** First and last frame, 257 CLIP tokens each. */
const FLF_TOKENS = 514;

/** Blocks in one of nested checkpoints: the fewest tokens are kept where it is the square root of their number, and Wan has 30 or 40. */
export const GROUP = 6;

/** Every parameter with its shape and initialisation: Xavier linears, embeddings at 0.02, a zero head. */
export function ditSpecs(c: DiTConfig): Specs {
  const patch = c.patch_size[0] * c.patch_size[1] * c.patch_size[2];
  const image: Specs = {
    ...(c.model_type === 'flf2v' && { emb_pos: { shape: [1, FLF_TOKENS, c.clip_dim], init: zeros } }),
    ...under('proj.0', normSpecs(c.clip_dim)),
    ...under('proj.1', linearSpecs(c.clip_dim, c.clip_dim)),
    ...under('proj.3', linearSpecs(c.clip_dim, c.dim)),
    ...under('proj.4', normSpecs(c.dim)),
  };
  return {
    'patch_embedding.weight': { shape: [c.dim, c.in_dim, ...c.patch_size], init: xavier(c.in_dim * patch, c.dim) },
    'patch_embedding.bias': { shape: [c.dim], init: zeros },
    ...under('text_embedding.0', linearSpecs(c.text_dim, c.dim, normal(0.02))),
    ...under('text_embedding.2', linearSpecs(c.dim, c.dim, normal(0.02))),
    ...under('time_embedding.0', linearSpecs(c.freq_dim, c.dim, normal(0.02))),
    ...under('time_embedding.2', linearSpecs(c.dim, c.dim, normal(0.02))),
    ...under('time_projection.1', linearSpecs(c.dim, 6 * c.dim)),
    ...(Object.assign(
      {},
      ...Array.from({ length: c.num_layers }, (_, i) => under(`blocks.${i}`, blockSpecs(c))),
    ) as Specs),
    'head.modulation': { shape: [1, 2, c.dim], init: normal(c.dim ** -0.5) },
    ...under('head.head', linearSpecs(c.dim, patch * c.out_dim, zeros)),
    ...(readsImages(c) && under('img_emb', image)),
  };
}

/** Name → shape of the checkpoint. */
export const ditShapes = (config: DiTConfig): Record<string, readonly number[]> => shapesOf(ditSpecs(config));
export const initDiT = (config: DiTConfig, seed: number): HostParams => materialise(ditSpecs(config), seed);

/** Time [B, …, freq_dim] → what modulates the head, e [B, …, dim], and the blocks, e0 [B, …, 6, dim]. */
function embedTime(s: Scope, c: DiTConfig, tEmb: Tensor, probe: Probe): { e: Tensor; e0: Tensor } {
  const e = s.linear('time_embedding.2', silu(s.linear('time_embedding.0', tEmb)));
  const e0 = s.linear('time_projection.1', silu(e));
  probe('e', e);
  probe('e0', e0);
  return { e, e0: e0.reshape([...e.shape.slice(0, -1), 6, c.dim]) };
}

/** The padding goes through the network too: it becomes non-zero and is attended, as the released weights expect. */
function embedText(s: Scope, c: DiTConfig, context: Tensor): Tensor {
  const missing = c.text_len - context.shape[1]!;
  if (missing < 0) fail('dit', `context has ${context.shape[1]} tokens, text_len is ${c.text_len}`);
  const padded = missing ? context.pad([0, 0, 0], [0, missing, 0]) : context;
  return s.linear('text_embedding.2', gelu(s.linear('text_embedding.0', padded), 'tanh'));
}

function embedImage(s: Scope, tokens: Tensor): Tensor {
  const x = s.has('emb_pos') ? tokens.add(s.get('emb_pos')) : tokens;
  const p = s.scope('proj');
  return p.layerNorm('4', p.linear('3', gelu(p.linear('1', p.layerNorm('0', x, IMAGE_EPS)), 'exact')), IMAGE_EPS);
}

/** Each sample as tokens [1 or B, own length, in_dim · patch] → embedded and zero-padded to [B, N, dim]. */
function embedPatches(s: Scope, c: DiTConfig, samples: readonly Tensor[], seqLen: number): Tensor {
  return concat(
    samples.map((x) => {
      const tokens = s.linear('patch_embedding', patchify(x, c.patch_size));
      const missing = seqLen - tokens.shape[1]!;
      return missing ? tokens.pad([0, 0, 0], [0, missing, 0]) : tokens;
    }),
    0,
  );
}

/** As a list of batches: the one there is, or each sample as a batch of one. */
const batches = (x: Samples): readonly Tensor[] => (isList(x) ? x.map((sample) => sample.unsqueeze(0)) : [x]);
const isList = (x: Samples): x is readonly Tensor[] => Array.isArray(x);

/** What stands before the blocks. */
export interface Embedded<T = Tensor> {
  /** Tokens [B, N, dim]. */
  x: T;
  /** What modulates the head, [B, dim], or [B, T, dim] as `BlockInput.e0` is. */
  e: T;
  /** What every block is told, beside the tables. */
  told: { e0: T; held?: T; text: T; pictures?: T };
}

/** Latents, time, text and image → tokens and what goes with them. */
export function ditEmbed(
  params: Params | Scope,
  config: DiTConfig,
  input: DiTInput,
  probe: Probe = () => {},
): Embedded {
  const s = Scope.of(params);
  const takes = { y: hasBeside(config), imageTokens: readsImages(config) };
  for (const name of ['y', 'imageTokens'] as const)
    if (takes[name] !== (input[name] !== undefined))
      fail('dit', `${config.model_type} takes ${takes[name] ? '' : 'no '}${name}`);
  const { x: latent, tEmb, held } = input.first ? withFirst(config, input, input.first) : input;
  const latents = batches(latent);
  const beside = input.y && batches(input.y);
  const x = embedPatches(
    s,
    config,
    beside ? latents.map((l, i) => concat([l, beside[i]!], 1)) : latents,
    input.tables.cos.shape[1]!,
  );
  const { e, e0 } = embedTime(s, config, tEmb, probe);
  const text = embedText(s, config, input.context);
  const pictures = input.imageTokens && embedImage(s.scope('img_emb'), input.imageTokens);
  probe('context_emb', text);
  if (pictures) probe('img_emb', pictures);
  return { x, e, told: { e0, text, ...(held && { held }), ...(pictures && { pictures }) } };
}

/** The sample with the first frame in its place, the time of its tokens, 0, before the others', and which tokens these are, [B, N, 1]. */
function withFirst(
  c: DiTConfig,
  { x, tEmb, held: samples }: DiTInput,
  first: Tensor,
): { x: Tensor; tEmb: Tensor; held: Tensor } {
  if (!holdsFirst(c) || isList(x) || tEmb.shape.length !== 2)
    fail('dit', `${c.model_type} takes no first frame, or x is a list, or tEmb is not [B, freq_dim]`);
  const [frames, rows, columns] = tokenGrid(c, x.shape);
  const [b, freq] = tEmb.shape as [number, number];
  const own = first.expand(x.shape.with(2, 1));
  const start = samples ? where(samples.reshape([b, 1, 1, 1, 1]), own, x.slice(2, 0, 1)) : own;
  const zero = iota([b, 1, freq], 2).lt(freq / 2); // cosines of 0, then its sines
  const tokens = iota([1, frames * rows * columns, 1], 1).lt(rows * columns);
  return {
    x: x.shape[2]! > 1 ? concat([start, x.slice(2, 1)], 2) : start,
    tEmb: concat([zero, tEmb.unsqueeze(1)], 1),
    held: samples ? tokens.mul(samples.reshape([b, 1, 1])) : tokens,
  };
}

/** Tokens `x` behind the last block, and the time's embedding `e` → the velocity, shaped as `latents`. */
export function ditHead(
  params: Params | Scope,
  config: DiTConfig,
  { x, e, held }: { x: Tensor; e: Tensor; held?: Tensor | undefined },
  latents: Samples,
  probe: Probe = () => {},
): Samples {
  const s = Scope.of(params);
  const [shift, scale] = atTokens(s.get('head.modulation').add(e.unsqueeze(-2)), held) as [Tensor, Tensor];
  const y = s.linear('head.head', x.layerNorm(config.eps).mul(scale.add(1)).add(shift));
  probe('head', y);
  const samples = batches(latents).map((l, i) => {
    const [first, count] = isList(latents) ? [i, 1] : [0, l.shape[0]!];
    const grid = tokenGrid(config, l.shape);
    const own = y.slice(0, first, first + count).slice(1, 0, grid[0] * grid[1] * grid[2]);
    return unpatchify(own, grid, config.patch_size);
  });
  return isList(latents) ? samples.map((v) => v.squeeze(0)) : samples[0]!;
}

/** Predicts the velocity ε - x0. Call it while a function is traced. */
export function dit(
  params: Params | Scope,
  config: DiTConfig,
  input: DiTInput,
  { taps = [], probe = () => {} }: DiTOptions = {},
): DiTOutput {
  const s = Scope.of(params);
  const wrong = taps.find((l) => !Number.isInteger(l) || l < 0 || l >= config.num_layers);
  if (wrong !== undefined) fail('dit', `tap ${wrong} is none of the blocks 0 … ${config.num_layers - 1}`);

  const { x: first, e, told } = ditEmbed(s, config, input, probe);
  const one = (h: Tensor, i: number): Tensor => {
    const run = (x: Tensor) =>
      block(s.scope('blocks').scope(i), config, x, { ...told, tables: input.tables }, (name, v) =>
        probe(`block${i}.${name}`, v),
      );
    const y = config.checkpoint ? checkpoint(run, config.checkpoint === true ? 'attention' : 'nothing')(h) : run(h);
    probe(`block${i}`, y);
    return y;
  };
  const several = (h: Tensor, from: number, to: number): { x: Tensor; tapped: Record<number, Tensor> } => {
    const tapped: Record<number, Tensor> = {};
    let x = h;
    for (let i = from; i < to; i++) {
      x = one(x, i);
      if (taps.includes(i)) tapped[i] = x;
    }
    return { x, tapped };
  };
  const nested = config.checkpoint === 'nested';
  const span = nested ? GROUP : config.num_layers;
  let all = { x: first, tapped: {} as Record<number, Tensor> };
  for (let from = 0; from < config.num_layers; from += span) {
    const { x, tapped } = (nested ? checkpoint(several, 'nothing') : several)(
      all.x,
      from,
      Math.min(from + span, config.num_layers),
    );
    all = { x, tapped: { ...all.tapped, ...tapped } };
  }
  return {
    v: ditHead(s, config, { x: all.x, e, held: told.held }, input.x, probe),
    taps: taps.map((l) => all.tapped[l]!),
  };
}
