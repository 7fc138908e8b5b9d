/** What sampling costs, stage by stage as the pipeline runs: text, first frame, diffusion, decoding. */
import type { TensorType } from '../../engine/graph.ts';
import { typeOf } from '../../engine/graph.ts';
import type { Plan, Room } from '../../engine/plan.ts';
import { planFunction } from '../../engine/stages.ts';
import type { Tensor } from '../../engine/tensor.ts';
import { trace } from '../../engine/trace.ts';
import { clipBlock, clipBlockSpecs, clipDepth, clipTokens } from '../../model/clip/clip.ts';
import { CLIP_VIT_H } from '../../model/clip/config.ts';
import { UPLOAD_HOST_BYTES } from '../../model/files/upload.ts';
import { IMAGE_PATCH } from '../../model/imagetokens.ts';
import { Scope, shapesOf, type Params } from '../../model/params.ts';
import { UMT5_XXL } from '../../model/umt5/config.ts';
import { umt5Block, umt5BlockSpecs, type UMT5Context } from '../../model/umt5/umt5.ts';
import { forwardFunctions } from '../../model/pipeline/forward.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { decode, denormalise, latentStats, vaeShapes, type LatentStats } from '../../model/wan/vae.ts';
import { Cache } from '../../model/wan/vaelayers.ts';
import { treeBytes, type Held, type JobCost, type Run, type Stage } from './cost.ts';
import { conditionTypes, paramTypes, timeTypes, type, type Subject } from './subject.ts';

type Types = Record<string, TensorType>;
type Target = Pick<Room, 'caps' | 'maxBufferBytes'>;

/** `offload`: the DiT's blocks come from their files at every step. */
export interface Sampler { steps: number; guided: boolean; offload: boolean }

/** Weights on their way from files to the device. */
const READING: Held = { cause: 'host', what: 'chunks of weights being read', bytes: UPLOAD_HOST_BYTES };

/** A stack of blocks that come from files one after the other: two are on the device. */
function stacked(name: string, blocks: number, block: Types, fn: (s: Scope, x: Tensor, context: never) => Tensor, x: TensorType, context: unknown, target: Target): Stage {
  const plan = planFunction(({ x }: { x: Tensor }, params: Params, c: never) => ({ x: fn(new Scope(params), x, c) }), [{ x }, block, context], new Set([0, 1]), target, { donate: [0], name });
  return { name, held: [{ cause: 'weights', what: `${name}, two blocks`, bytes: 2 * treeBytes(block) }, { cause: 'inputs and results', what: 'tokens', bytes: treeBytes(x) }], host: [READING], runs: [{ name, calls: blocks, plan }] };
}

function encoders({ config }: Subject, target: Target): Stage[] {
  const [prompts, keys] = [2, config.text_len]; // the text and what guidance leads away from
  const text = stacked('umT5', UMT5_XXL.num_layers, paramTypes(shapesOf(umt5BlockSpecs(UMT5_XXL)), 'bf16'), (s, x, c: UMT5Context) => umt5Block(s, UMT5_XXL, x, c),
    type([prompts, keys, UMT5_XXL.dim]), { buckets: type([keys, keys], 'i32'), lengths: type([prompts], 'u32') }, target);
  if (config.model_type === 't2v') return [text];
  const image = stacked('CLIP', clipDepth(CLIP_VIT_H), paramTypes(shapesOf(clipBlockSpecs(CLIP_VIT_H)), 'f16'), (s, x) => clipBlock(s, CLIP_VIT_H, x), type([1, clipTokens(CLIP_VIT_H), CLIP_VIT_H.dim]), {}, target);
  return [text, image];
}

/** Both texts go through the network at once where that takes less than its weights, as the pipeline decides. */
function diffusion(s: Subject, { steps, guided, offload }: Sampler, target: Target): Stage {
  const { config, latent } = s;
  const shapes = ditShapes(config);
  const all = paramTypes(shapes, s.stored);
  const run = forwardFunctions(config, target.caps.maxBindingBytes);
  const { tables, pictures, frame, text } = conditionTypes(s, 1);
  const told = {
    tables, ...(config.model_type !== 't2v' && { y: type([1, config.in_dim - latent[0]!, ...latent.slice(1)]), imageTokens: pictures ?? type([1, framePatches(frame!), config.clip_dim]) }),
  };
  const [x, tEmb] = [type([1, ...latent]), timeTypes(s, 1).emb];
  const context = (texts: number): TensorType => ({ ...text, shape: [texts, ...text.shape.slice(1)] });
  const host = [READING];
  const given = { cause: 'inputs and results', what: 'text, tables, solver', bytes: treeBytes([told, context(2)]) + 4 * treeBytes(x) } as const;
  if (!offload) {
    const plan = (texts: number): Plan => planFunction(run.whole, [all, x, tEmb, context(texts), told], new Set([0, 1, 3, 4]), target, { name: 'velocity' });
    const [one, two] = [plan(1), guided ? plan(2) : undefined];
    const together = two && two.bytes < treeBytes(all);
    return {
      name: 'diffusion', host, held: [{ cause: 'weights', what: 'DiT', bytes: treeBytes(all) }, given],
      runs: [together ? { name: 'velocity under both texts', calls: steps, plan: two } : { name: 'velocity', calls: guided ? 2 * steps : steps, plan: one }],
    };
  }
  const inBlock = (name: string): boolean => name.startsWith('blocks.');
  const around = Object.fromEntries(Object.entries(all).filter(([name]) => !inBlock(name)));
  const own = Object.fromEntries(Object.entries(all).filter(([name]) => name.startsWith('blocks.0.')).map(([name, t]) => [name.slice('blocks.0.'.length), t]));
  const texts = guided ? 2 : 1;
  const embedded = trace(run.embed, [around, x, tEmb, context(texts), told]);
  const { x: tokens, e, told: toBlocks } = embedded.outTree.rebuild(embedded.outputs.map(typeOf)) as { x: TensorType; e: TensorType; told: object };
  const block = stacked('DiT', config.num_layers * steps, own, run.block as Parameters<typeof stacked>[3], tokens, { ...toBlocks, tables }, target);
  return {
    name: 'diffusion', host, held: [{ cause: 'weights', what: 'DiT, around the blocks', bytes: treeBytes(around) }, ...block.held, given],
    runs: [
      { name: 'embedding', calls: steps, plan: planFunction(run.embed, [around, x, tEmb, context(texts), told], new Set([0, 1, 3, 4]), target, { name: 'dit embedding' }) },
      ...block.runs,
      { name: 'head', calls: steps, plan: planFunction(run.head, [around, tokens, e, x], new Set([0, 1, 2, 3]), target, { name: 'dit head' }) },
    ],
  };
}

const framePatches = ({ shape }: TensorType): number => (shape[2]! / IMAGE_PATCH) * (shape[3]! / IMAGE_PATCH);

/** Chunk by chunk in whole frames; a device where these do not fit takes tiles of them. */
function decoding({ vae, latent, video }: Subject, target: Target): Stage {
  const [z, frames, h, w] = latent as [number, number, number, number];
  const weights = paramTypes(Object.fromEntries(Object.entries(vaeShapes(vae)).filter(([name]) => /^(decoder|conv2)\./.test(name))));
  const stats = latentStats(vae);
  const x = type([1, z, 1, h, w]);
  const chunk = (after: boolean) => ({ cache: before }: { cache: Record<string, Tensor> }, p: Params, st: LatentStats<Tensor>, x: Tensor) => {
    const cache = new Cache(after ? before : undefined);
    return { y: decode(p, vae, denormalise(x, st), { cache }), cache: cache.after };
  };
  const begun = trace((p: Params, st: LatentStats<Tensor>, x: Tensor) => chunk(false)({ cache: {} }, p, st, x).cache, [weights, stats, x]);
  const cache = begun.outTree.rebuild(begun.outputs.map(typeOf));
  const plan = (after: boolean): Run['plan'] => planFunction(chunk(after), [{ cache }, weights, stats, x], new Set([0, 1, 2]), target, { donate: [0], name: 'vae decode' });
  const whole = { cause: 'host', what: `clip of ${video.join('x')}`, bytes: treeBytes(type(video)) } as const;
  return {
    name: 'decoding', host: [whole, READING],
    held: [{ cause: 'weights', what: 'VAE decoder', bytes: treeBytes(weights) }, { cause: 'inputs and results', what: 'frames that causal layers look back on', bytes: treeBytes(cache) }],
    runs: [{ name: 'first chunk', calls: 1, plan: plan(false) }, ...(frames > 1 ? [{ name: 'later chunks', calls: frames - 1, plan: plan(true) }] : [])],
  };
}

/** One clip. */
export function samplingCost(s: Subject, sampler: Sampler, target: Target): JobCost {
  return { job: 'sample', unit: 'clip', stages: [...(s.encoders ? encoders(s, target) : []), diffusion(s, sampler, target), decoding(s, target)] };
}
