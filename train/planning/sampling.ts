/** What sampling costs, stage by stage as the pipeline runs: text, first frame, diffusion, decoding. */
import type { TensorType } from '../../engine/frontend/graph.ts';
import { typeOf } from '../../engine/frontend/graph.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { clipBlock, clipBlockSpecs, clipDepth, clipTokens } from '../../model/clip/clip.ts';
import { CLIP_VIT_H } from '../../model/clip/config.ts';
import { resize, resizeTables } from '../../model/clip/resize.ts';
import { givenFrames, hasBeside, holdsFirst, readsImages, vaeStride } from '../../model/config.ts';
import { IMAGE_PATCH } from '../../model/imagetokens.ts';
import { Scope, shapesOf, type Params } from '../../model/params.ts';
import { UMT5_XXL } from '../../model/umt5/config.ts';
import { umt5Block, umt5BlockSpecs, type UMT5Context } from '../../model/umt5/umt5.ts';
import { guidance, renoise, solved, spans } from '../../model/pipeline/diffuse.ts';
import { forwardFunctions } from '../../model/pipeline/forward.ts';
import { halfOf } from '../../model/pipeline/generate.ts';
import type { Precision } from '../../model/pipeline/precision.ts';
import { STEP_WEIGHTS } from '../../model/schedulers/index.ts';
import { ditShapes, type Embedded } from '../../model/wan/dit.ts';
import { latentStats, vaeShapes, type LatentStats } from '../../model/wan/vae.ts';
import { Cache } from '../../model/wan/vaelayers.ts';
import { coderOf } from '../../model/wan/vaestream.ts';
import { planned, READING, treeBytes, type Held, type JobCost, type Run, type Stage, type Target } from './cost.ts';
import { PREVIEWED, TILE } from '../videos/records.ts';
import { conditionTypes, frozenTypes, paramTypes, timeTypes, type, type Subject } from './subject.ts';

type Types = Record<string, TensorType>;

/** `offload`: the DiT's blocks come from their files at every step. `precision`: of the DiT's operands; f32 unless given. */
export interface Sampler {
  steps: number;
  guided: boolean;
  offload: boolean;
  precision?: Precision;
}

/** A stack of blocks that come from files one after the other: two are on the device. */
interface Stacked {
  name: string;
  blocks: number;
  /** Parameters of one. */
  block: Types;
  fn: (s: Scope, x: Tensor, context: never) => Tensor;
  x: TensorType;
  context: unknown;
  /** Numbers of the arguments (tokens, parameters, context) that lie on the device already. */
  resident: ReadonlySet<number>;
  operands?: Precision;
}

function stacked({ name, blocks, block, fn, x, context, resident, operands = 'f32' }: Stacked, target: Target): Stage {
  const step = ({ x }: { x: Tensor }, params: Params, c: never) => ({ x: fn(new Scope(params), x, c) });
  return {
    name,
    held: [
      { cause: 'weights', what: `${name}, two blocks`, bytes: 2 * treeBytes(block) },
      { cause: 'inputs and results', what: 'tokens', bytes: treeBytes(x) },
    ],
    host: [READING],
    runs: [planned(name, blocks, { fn: step, args: [{ x }, block, context], resident, donate: [0], operands }, target)],
  };
}

function encoders({ config }: Subject, target: Target): Stage[] {
  const [prompts, keys] = [2, config.text_len]; // the text and what guidance leads away from
  const text = stacked(
    {
      name: 'umT5',
      blocks: UMT5_XXL.num_layers,
      block: paramTypes(shapesOf(umt5BlockSpecs(UMT5_XXL)), 'bf16'),
      fn: (s, x, c: UMT5Context) => umt5Block(s, UMT5_XXL, x, c),
      x: type([prompts, keys, UMT5_XXL.dim]),
      context: { buckets: type([keys, keys], 'i32'), lengths: type([prompts], 'u32') },
      resident: new Set([0, 1]),
    },
    target,
  );
  if (!readsImages(config)) return [text];
  const image = stacked(
    {
      name: 'CLIP',
      blocks: givenFrames(config) * clipDepth(CLIP_VIT_H),
      block: paramTypes(shapesOf(clipBlockSpecs(CLIP_VIT_H)), 'f16'),
      fn: (s, x) => clipBlock(s, CLIP_VIT_H, x),
      x: type([1, clipTokens(CLIP_VIT_H), CLIP_VIT_H.dim]),
      context: {},
      resident: new Set([0, 1]),
    },
    target,
  );
  return [text, image];
}

/**
 * What leads from velocities to the next latent: guidance and a solver's step, or a student's new noise.
 * @param velocities of one text each, or of both
 */
function stepping(
  x: TensorType,
  velocities: readonly TensorType[],
  frame: { first?: TensorType },
  { steps, guided }: Sampler,
  target: Target,
): Run[] {
  const scalar = type([]);
  if (!guided)
    return [
      planned(
        'renoise',
        steps,
        {
          fn: renoise,
          args: [{ x }, velocities[0], { sigma: scalar, next: scalar, eps: x }, frame],
          resident: new Set([0, 1, 3]),
          donate: [0],
        },
        target,
      ),
    ];
  return [
    planned(
      'guidance',
      steps,
      { fn: guidance, args: [velocities, scalar], resident: new Set([0]), donate: [] },
      target,
    ),
    planned(
      'solver step',
      steps,
      {
        fn: solved,
        args: [{ x, last: x, m1: x, m2: x }, x, type([STEP_WEIGHTS]), frame],
        resident: new Set([0, 1, 3]),
        donate: [0],
      },
      target,
    ),
  ];
}

/** The steps of each network that a clip goes through: one is on the device at a time. */
function diffusion(s: Subject, sampler: Sampler, target: Target, all?: Types): Stage[] {
  const { steps, guided } = sampler;
  const legs = spans({ ...s.usual, ...(!guided && { kind: 'renoise' }), steps });
  return legs.map(({ from, to, expert }) => {
    const stage = network(s, { ...sampler, steps: to - from }, target, all);
    return legs.length > 1 ? { ...stage, name: `diffusion, ${expert} noise` } : stage;
  });
}

/**
 * Both texts go through the network at once where that takes less than its weights, as the pipeline decides.
 * @param all of the network's weights
 */
function network(
  s: Subject,
  sampler: Sampler,
  target: Target,
  all: Types = paramTypes(ditShapes(s.config), s.packed ?? s.stored),
): Stage {
  const { steps, guided, offload, precision: operands = 'f32' } = sampler;
  const { config, latent } = s;
  const run = forwardFunctions(config, target.caps.maxBindingBytes);
  const { tables, pictures, frame, text, first: start } = conditionTypes(s, 1);
  const told = {
    tables,
    ...(hasBeside(config) && { y: type([1, config.in_dim - latent[0]!, ...latent.slice(1)]) }),
    ...(readsImages(config) && { imageTokens: pictures ?? type([1, framePatches(frame!), config.clip_dim]) }),
    ...(start && { first: start }),
  };
  const [x, tEmb] = [type([1, ...latent]), timeTypes(s, 1).emb];
  const context = (texts: number): TensorType => ({ ...text, shape: [texts, ...text.shape.slice(1)] });
  const given = (texts: number) => [all, x, tEmb, context(texts), told];
  const inBlock = (name: string): boolean => name.startsWith('blocks.');
  const around = Object.fromEntries(Object.entries(all).filter(([name]) => !inBlock(name)));
  const first = (texts: number): Run =>
    offload
      ? planned(
          'embedding',
          steps,
          {
            fn: run.embed,
            args: [around, ...given(texts).slice(1)],
            resident: new Set([0, 1, 3, 4]),
            donate: [],
            operands,
          },
          target,
        )
      : planned(
          texts > 1 ? 'velocity under both texts' : 'velocity',
          steps,
          { fn: run.whole, args: given(texts), resident: new Set([0, 1, 3, 4]), donate: [], operands },
          target,
        );

  const both = guided ? first(2) : undefined;
  const together = both !== undefined && both.plan.bytes + treeBytes(context(2)) < treeBytes(all);
  const texts = together ? 2 : 1;
  const calls = guided && !together ? 2 * steps : steps;
  const velocities = [type([texts, ...latent]), ...(guided && !together ? [x] : [])];
  const held: Held[] = [
    {
      cause: 'inputs and results',
      what: 'text, tables, solver',
      bytes: treeBytes([told, context(guided ? 2 : 1)]) + 4 * treeBytes(x) + treeBytes(velocities.slice(1)),
    },
  ];
  const after = stepping(x, velocities, start ? { first: start } : {}, sampler, target);
  const before = { ...(together ? both : first(1)), calls };
  if (!offload)
    return {
      name: 'diffusion',
      host: [READING],
      held: [{ cause: 'weights', what: 'DiT', bytes: treeBytes(all) }, ...held],
      runs: [before, ...after],
    };

  const own = Object.fromEntries(
    Object.entries(all)
      .filter(([name]) => name.startsWith('blocks.0.'))
      .map(([name, t]) => [name.slice('blocks.0.'.length), t]),
  );
  const embedded = trace(run.embed, before.call.args);
  const {
    x: tokens,
    e,
    told: toBlocks,
  } = embedded.outTree.rebuild(embedded.outputs.map(typeOf)) as Embedded<TensorType>;
  const block = stacked(
    {
      name: 'DiT',
      blocks: config.num_layers * calls,
      block: own,
      fn: run.block as Stacked['fn'],
      x: tokens,
      context: { ...toBlocks, tables },
      resident: new Set([0, 1, 2]),
      operands,
    },
    target,
  );
  const head = planned(
    'head',
    calls,
    {
      fn: run.head,
      args: [around, tokens, { e, ...(toBlocks.held && { held: toBlocks.held }) }, x],
      resident: new Set([0, 1, 2, 3]),
      donate: [],
      operands,
    },
    target,
  );
  return {
    name: 'diffusion',
    host: [READING],
    held: [{ cause: 'weights', what: 'DiT, around the blocks', bytes: treeBytes(around) }, ...block.held, ...held],
    runs: [before, ...block.runs, head, ...after],
  };
}

const framePatches = ({ shape }: TensorType): number => (shape[2]! / IMAGE_PATCH) * (shape[3]! / IMAGE_PATCH);

/**
 * One half of the VAE, chunk by chunk in whole frames; a device where these do not fit takes tiles of them.
 * @param edge of the tiles, in pixels, where it takes them anyway
 */
function coding(
  name: string,
  half: 'encoder' | 'decoder',
  { vae, latent, video }: Subject,
  target: Target,
  edge = Infinity,
): Stage {
  const [channels, , height, width] = video.map((n, axis) => (axis > 1 ? Math.min(n, edge) : n)) as [
    number,
    number,
    number,
    number,
  ];
  const [z, frames] = latent as [number, number];
  const [h, w] = [height, width].map((n) => n / vaeStride(vae)[1]) as [number, number];
  const code = coderOf(vae, half);
  const [weights, stats] = [paramTypes(halfOf(vaeShapes(vae), half)), latentStats(vae)];
  const chunk = (length: number): TensorType =>
    type(half === 'decoder' ? [1, z, 1, h, w] : [1, channels, length, height, width]);
  const coded =
    (after: boolean) =>
    ({ cache: before }: { cache: Record<string, Tensor> }, p: Params, st: LatentStats<Tensor>, x: Tensor) => {
      const cache = new Cache(after ? before : undefined);
      return { y: code(p, st, x, cache), cache: cache.after };
    };
  const begun = trace(
    (p: Params, st: LatentStats<Tensor>, x: Tensor) => coded(false)({ cache: {} }, p, st, x).cache,
    [weights, stats, chunk(1)],
  );
  const cache = begun.outTree.rebuild(begun.outputs.map(typeOf));
  const run = (which: string, calls: number, after: boolean, length: number): Run =>
    planned(
      which,
      calls,
      { fn: coded(after), args: [{ cache }, weights, stats, chunk(length)], resident: new Set([0, 1, 2]), donate: [0] },
      target,
    );
  return {
    name,
    host: [{ cause: 'host', what: `clip of ${video.join('x')}`, bytes: treeBytes(type(video)) }, READING],
    held: [
      { cause: 'weights', what: `VAE ${half}`, bytes: treeBytes(weights) },
      { cause: 'inputs and results', what: 'frames that causal layers look back on', bytes: treeBytes([cache, stats]) },
    ],
    runs: [
      run('first chunk', 1, false, 1),
      ...(frames > 1 ? [run('later chunks', frames - 1, true, vaeStride(vae)[0])] : []),
    ],
  };
}

/** The frames that are given brought to the clip's size, and their latent. */
function firstFrame(s: Subject, target: Target): Stage {
  const [channels, , height, width] = s.video as [number, number, number, number];
  const alone = { ...s, video: s.video.with(1, 1), latent: s.latent.with(1, 1) };
  const stage = coding('first frame', 'encoder', holdsFirst(s.config) ? alone : s, target);
  const resized = planned(
    'resize',
    givenFrames(s.config),
    {
      fn: resize,
      args: [type([channels, height, width]), resizeTables([height, width], [height, width])],
      resident: new Set(),
      donate: [],
    },
    target,
  );
  return { ...stage, runs: [resized, ...stage.runs] };
}

/** Clips that a run's pictures hold: real, by the teacher, by the student. */
const SHOWN = 3 * PREVIEWED;

/**
 * Judging and pictures of a run on records: teacher and student sample and the VAE decodes, beside all that training holds. They are not
 * part of a step, so nothing of it counts as work.
 */
export function pictures(training: Stage, s: Subject, target: Target): Stage {
  const beside = ({ held }: Stage): Held[] => held.filter(({ cause }) => cause !== 'weights'); // the network is there
  const { steps, guidance } = s.usual;
  const frozen = frozenTypes(s);
  const sampled = [
    ...diffusion(s, { steps, guided: guidance !== 1, offload: false }, target, frozen),
    ...diffusion(
      s,
      { steps: s.student.steps, guided: false, offload: false },
      target,
      s.student.mode === 'lora' ? frozen : undefined,
    ),
  ];
  const decoding = coding('decoding', 'decoder', s, target, TILE);
  return {
    name: 'judging and pictures',
    held: [...training.held, ...beside(sampled[0]!), ...decoding.held],
    host: [
      { cause: 'host', what: `${SHOWN} clips of ${s.video.join('x')}`, bytes: SHOWN * treeBytes(type(s.video)) },
      READING,
    ],
    runs: [training, ...sampled, decoding].flatMap(({ runs }) => runs.map((r) => ({ ...r, calls: 0 }))),
  };
}

/** One clip. */
export function samplingCost(s: Subject, sampler: Sampler, target: Target): JobCost {
  return {
    job: 'sample',
    unit: 'clip',
    stages: [
      ...(s.encoders ? encoders(s, target) : []),
      ...(givenFrames(s.config) ? [firstFrame(s, target)] : []),
      ...diffusion(s, sampler, target),
      coding('decoding', 'decoder', s, target),
    ],
  };
}
