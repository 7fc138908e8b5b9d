/** What sampling costs, stage by stage as the pipeline runs: text, first frame, diffusion, decoding. */
import type { TensorType } from '../../engine/graph.ts';
import { typeOf } from '../../engine/graph.ts';
import type { Room } from '../../engine/plan.ts';
import { planFunction } from '../../engine/stages.ts';
import type { Tensor } from '../../engine/tensor.ts';
import { trace } from '../../engine/trace.ts';
import { concat } from '../../engine/functional.ts';
import { clipBlock, clipBlockSpecs, clipDepth, clipTokens } from '../../model/clip/clip.ts';
import { CLIP_VIT_H } from '../../model/clip/config.ts';
import { Scope, shapesOf, type Params } from '../../model/params.ts';
import { UMT5_XXL } from '../../model/umt5/config.ts';
import { umt5Block, umt5BlockSpecs, type UMT5Context } from '../../model/umt5/umt5.ts';
import { dit, ditShapes } from '../../model/wan/dit.ts';
import { decode, denormalise, latentStats, vaeShapes, type LatentStats } from '../../model/wan/vae.ts';
import { Cache } from '../../model/wan/vaelayers.ts';
import { conditionInput } from '../networks.ts';
import { treeBytes, type JobCost, type Run, type Stage } from './cost.ts';
import { conditionTypes, paramTypes, timeTypes, type, type Subject } from './subject.ts';

type Types = Record<string, TensorType>;
type Target = Pick<Room, 'caps' | 'maxBufferBytes'>;

/** A stack of blocks that come from files one after the other: two are on the device. */
function stacked(name: string, blocks: number, block: Types, fn: (s: Scope, x: Tensor, context: never) => Tensor, x: TensorType, context: unknown, target: Target): Stage {
  const plan = planFunction(({ x }: { x: Tensor }, params: Params, c: never) => ({ x: fn(new Scope(params), x, c) }), [{ x }, block, context], new Set([0, 1]), target, { donate: [0], name });
  return { name, held: [{ cause: 'weights', what: `${name}, two blocks`, bytes: 2 * treeBytes(block) }, { cause: 'inputs and results', what: 'tokens', bytes: treeBytes(x) }], host: [], runs: [{ name, calls: blocks, plan }] };
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
function diffusion(s: Subject, steps: number, guided: boolean, target: Target): Stage {
  const weights = paramTypes(ditShapes(s.config), s.stored);
  const velocity = (branches: number): Run['plan'] => planFunction((net: Params, x: Tensor, emb: Tensor, c: Parameters<typeof conditionInput>[2]) => {
    const twice = (t: Tensor): Tensor => (branches === 2 ? concat([t, t], 0) : t);
    return dit(net, s.config, conditionInput(twice(x), { sigma: emb, emb: twice(emb) }, c)).v;
  }, [weights, type([1, ...s.latent]), timeTypes(s, 1).emb, conditionTypes(s, branches)], new Set([0, 1, 3]), target, { name: 'velocity' });
  const [single, both] = [velocity(1), guided ? velocity(2) : undefined];
  const together = both && both.bytes < treeBytes(weights);
  return {
    name: 'diffusion', host: [],
    held: [{ cause: 'weights', what: 'DiT', bytes: treeBytes(weights) }, { cause: 'inputs and results', what: 'text, tables, solver', bytes: treeBytes(conditionTypes(s, 2)) + 4 * treeBytes(type(s.latent)) }],
    runs: [together ? { name: 'guided velocity', calls: steps, plan: both } : { name: 'velocity', calls: guided ? 2 * steps : steps, plan: single }],
  };
}

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
    name: 'decoding', host: [whole],
    held: [{ cause: 'weights', what: 'VAE decoder', bytes: treeBytes(weights) }, { cause: 'inputs and results', what: 'frames that causal layers look back on', bytes: treeBytes(cache) }],
    runs: [{ name: 'first chunk', calls: 1, plan: plan(false) }, ...(frames > 1 ? [{ name: 'later chunks', calls: frames - 1, plan: plan(true) }] : [])],
  };
}

/** One clip. */
export function samplingCost(s: Subject, { steps, guided }: { steps: number; guided: boolean }, target: Target): JobCost {
  return { job: 'sample', unit: 'clip', stages: [...(s.encoders ? encoders(s, target) : []), diffusion(s, steps, guided, target), decoding(s, target)] };
}
