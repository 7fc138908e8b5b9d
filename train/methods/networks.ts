/** The networks as the losses see them: velocity, x0 and guided predictions of a DiT under a condition, and its inner features. */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { concat, iota, where } from '../../engine/frontend/functional.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { givenFrames, type DiTConfig } from '../../model/config.ts';
import type { Semantics } from '../../model/heads.ts';
import { imageTokens } from '../../model/imagetokens.ts';
import { initLora, loraShapes, mergeLora, withLora } from '../../model/lora.ts';
import type { HostParams, Params, Scope } from '../../model/params.ts';
import { dit, ditShapes, type DiTInput } from '../../model/wan/dit.ts';
import { timeEmbedding, type DiTTables } from '../../model/wan/tables.ts';
import { T, toX0 } from './flow.ts';

/** Bare weights, or weights with adapters. */
export type Net = Params | Scope;

/** Weights of the networks that an update reads, by what they are there. */
export type Networks<Name extends string> = Record<Name, Params> & {
  /** Of two experts the one whose score is asked for; the teacher's unless given. */
  real?: Params;
};

/** Whose score is asked for. */
export const scored = ({ teacher, real }: Networks<'teacher'>): Params => real ?? teacher;

/** How a trained network is held: with all its own weights, or as low-rank adapters of the frozen teacher. */
export interface Form {
  mode: 'full' | 'lora';
  rank: number;
  alpha: number;
}

/** The network whose trained part is `own`. */
export const assemble = (form: Form, teacher: Params, own: Params): Net =>
  form.mode === 'lora' ? withLora(teacher, own, form.alpha / form.rank) : own;

/** Name → shape of the trained part. */
export const ownShapes = (form: Form, config: DiTConfig): Record<string, readonly number[]> =>
  form.mode === 'lora' ? loraShapes(ditShapes(config), form.rank) : ditShapes(config);

/** First values of the trained part: the network is the teacher. */
export const ownFrom = <T>(
  form: Form,
  config: DiTConfig,
  teacher: Readonly<Record<string, T>>,
  seed: number,
): Record<string, T | HostTensor> => (form.mode === 'lora' ? initLora(ditShapes(config), form.rank, seed) : teacher);

/** A trained part as weights under the network's own names. */
export const wholeOf = (form: Form, teacher: HostParams, own: HostParams): HostParams =>
  form.mode === 'lora' ? mergeLora(teacher, own, form.alpha / form.rank) : own;

/** Flow times of a batch. */
export interface Time<X = Tensor> {
  /** σ [B]. */
  sigma: X;
  /** Sinusoids of t = 1000 σ, [B, freq_dim]. */
  emb: X;
}

/** What a clip is made from. */
export interface Condition<X = Tensor> {
  /** Text [B,L,text_dim], zero rows past the caption; all zeros is "no text". */
  text: X;
  /** u32 [B]: keys of a semantic head's self-attention that count (`semanticLengths`). */
  lengths: X;
  /** First frame [B,channels,height,width] in [-1,1]; text-to-video has none. */
  frame?: X;
  /** The image encoder's tokens of it, and of the last frame where that is given too, [B,I,clip_dim]; its patches unless given. */
  pictures?: X;
  /** Normalised latent [B,C,F,H,W] of the clip with zeros in all frames that are not given, for networks that see it beside the noise. */
  latent?: X;
  /** For networks that hold it in the sample: the first frame's latent [B,C,1,H,W], and the samples that are given it, 1 or 0, [B]. */
  first?: X;
  held?: X;
  /** Where the tokens lie; the same for all samples. */
  tables: DiTTables<X>;
}

/** One training batch: clean latents [B,C,F,H,W] of unit variance and their conditions. */
export interface Batch<X = Tensor> {
  x0: X;
  c: Condition<X>;
}

/** Times for the device; the angles need doubles and are made here. */
export const timeAt = (config: DiTConfig, sigma: HostTensor): Time<HostTensor> => ({
  sigma,
  emb: timeEmbedding(
    Array.from(sigma.data, (s) => T * s),
    config.freq_dim,
  ),
});

/**
 * Mask channels, 1 where a frame is given, then the image latent: what stands beside x. The mask has a channel for each frame that a latent
 * frame stands for, Wan's four.
 */
function beside(latent: Tensor, config: DiTConfig): Tensor {
  const [b, c, f, h, w] = latent.shape as [number, number, number, number, number];
  const mask = config.in_dim - config.out_dim - c;
  const [frame, channel] = [iota([1, 1, f, 1, 1], 2), iota([1, mask, 1, 1, 1], 1)];
  const first = frame.eq(0);
  const last = frame.eq(f - 1).mul(channel.eq(mask - 1));
  return concat([(givenFrames(config) > 1 ? first.add(last) : first).expand([b, mask, f, h, w]), latent], 1);
}

/**
 * Patches of the first frame with sinusoids of their number added: CLIP's tokens know where they lie, and differ where the frame is blank.
 */
export function pictures(frame: Tensor): Tensor {
  const tokens = imageTokens(frame);
  const [, n, d] = tokens.shape as [number, number, number];
  const angle = iota([n, d / 2], 0).mul(
    iota([n, d / 2], 1)
      .mul(-Math.log(10000) / (d / 2))
      .exp(),
  );
  return tokens.add(concat([angle.cos(), angle.sin()], 1));
}

const seen = ({ pictures: tokens, frame }: Condition): { imageTokens?: Tensor } =>
  tokens ? { imageTokens: tokens } : frame ? { imageTokens: pictures(frame) } : {};

const conditionInput = (config: DiTConfig, x: Tensor, t: Time, c: Condition): DiTInput => ({
  x,
  tEmb: t.emb,
  context: c.text,
  ...seen(c),
  ...(c.latent && { y: beside(c.latent, config) }),
  ...(c.first && { first: c.first, ...(c.held && { held: c.held }) }),
  tables: c.tables,
});

/** What a discriminator's head sees of a condition. */
export const semantics = (c: Condition): Semantics => ({ ...seen(c), context: c.text, lengths: c.lengths });

/** μ(x, t, c) → v [B,C,F,H,W]; in a frame that is held, what leads from x to it: v = (x - first) / σ. */
export function velocity(net: Net, config: DiTConfig, x: Tensor, t: Time, c: Condition): Tensor {
  const v = dit(net, config, conditionInput(config, x, t, c)).v as Tensor;
  if (!c.first) return v;
  const each = (s: Tensor): Tensor => s.reshape([-1, 1, 1, 1, 1]);
  const start = x.slice(2, 0, 1).sub(c.first).div(each(t.sigma).max(LEAST));
  const held = c.held ? where(each(c.held), start, v.slice(2, 0, 1)) : start;
  return v.shape[2]! > 1 ? concat([held, v.slice(2, 1)], 2) : held;
}
/** Of σ, where it divides. */
const LEAST = 1e-4;

/** f(x, t, c) = x - σ μ(x, t, c). */
export const predictX0 = (net: Net, config: DiTConfig, x: Tensor, t: Time, c: Condition): Tensor =>
  toX0(x, velocity(net, config, x, t, c), t.sigma);

/** h_l(x, t, c): tokens after the tapped blocks, [B,N,D] each. */
export const features = (
  net: Net,
  config: DiTConfig,
  x: Tensor,
  t: Time,
  { c, taps }: { c: Condition; taps: readonly number[] },
): Tensor[] => dit(net, config, conditionInput(config, x, t, c), { taps }).taps;

const stackBatches = (parts: readonly Tensor[]): Tensor => concat(parts, 0);
export const stackTimes = (times: readonly Time[]): Time => ({
  sigma: stackBatches(times.map((t) => t.sigma)),
  emb: stackBatches(times.map((t) => t.emb)),
});
export const stackConditions = (cs: readonly Condition[]): Condition => ({
  text: stackBatches(cs.map((c) => c.text)),
  lengths: stackBatches(cs.map((c) => c.lengths)),
  ...(cs[0]!.frame && { frame: stackBatches(cs.map((c) => c.frame!)) }),
  ...(cs[0]!.pictures && { pictures: stackBatches(cs.map((c) => c.pictures!)) }),
  ...(cs[0]!.latent && { latent: stackBatches(cs.map((c) => c.latent!)) }),
  ...(cs[0]!.first && { first: stackBatches(cs.map((c) => c.first!)) }),
  ...(cs[0]!.held && { held: stackBatches(cs.map((c) => c.held!)) }),
  tables: cs[0]!.tables,
});

/** A condition, and how far a prediction is pushed towards it. */
interface Guided {
  c: Condition;
  guidance: number;
}

/** u + g (c - u), both branches in one forward of 2B; g = 1 is one forward of B. The unguided branch loses the text only, as in Wan. */
export function guidedVelocity(net: Net, config: DiTConfig, x: Tensor, t: Time, { c, guidance }: Guided): Tensor {
  if (guidance === 1) return velocity(net, config, x, t, c);
  const unguided = { ...c, text: c.text.like(0) };
  const [vc, vu] = velocity(net, config, concat([x, x], 0), stackTimes([t, t]), stackConditions([c, unguided])).split(
    0,
    2,
  ) as [Tensor, Tensor];
  return vu.add(vc.sub(vu).mul(guidance));
}

/** x0 under guidance. */
export const guidedX0 = (net: Net, config: DiTConfig, x: Tensor, t: Time, guided: Guided): Tensor =>
  toX0(x, guidedVelocity(net, config, x, t, guided), t.sigma);
