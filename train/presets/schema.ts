/** The shape of a preset: every number of data, networks, training and sampling. Overrides are checked against it. */
import * as z from 'zod';
import type { DiTConfig } from '../../model/config.ts';
import { PRECISIONS } from '../../model/pipeline/precision.ts';
import { BASELINES } from './baselines.ts';

/** What is larger than these is a slip of the keyboard: it is refused before it is worked at for minutes. */
const upTo = (most: number) => z.number().int().positive().max(most);
const count = upTo(1e6);
const width = upTo(65_536);
const whole = z.number().int().nonnegative().max(1e9);
const steps = upTo(1e9);
const positive = z.number().positive();
const share = z.number().min(0).max(1);
const triple = z.tuple([upTo(64), upTo(64), upTo(64)]);

const adam = z.strictObject({
  lr: positive,
  beta1: share,
  beta2: share,
  eps: positive,
  weightDecay: z.number().nonnegative(),
  /** Global gradient norm. */
  clip: positive,
});

const clips = { size: count.max(4096), frames: count, trainClips: count, shardClips: count, heldOutClips: count };

const timeLaw = z.discriminatedUnion('law', [
  z.strictObject({ law: z.literal('logit-normal'), mean: z.number(), std: positive, shift: positive }),
  z.strictObject({ law: z.literal('uniform'), shift: positive, lo: share, hi: share }),
  z.strictObject({ law: z.literal('endpoint'), from: share, pure: share }),
]);

/** Clips of an update, and in how many micro-batches they are taken, one after the other. */
const batching = { batch: upTo(16_384), accumulate: upTo(16_384).default(1) };
/** The same of settings that came later: runs taken whole are known by its absence. */
const batchingOrWhole = { batch: upTo(16_384), accumulate: upTo(16_384).optional() };
const unlessWhole = <S extends { accumulate?: number | undefined }>(s: S): S => {
  const { accumulate, ...whole } = s;
  return accumulate === 1 ? (whole as S) : s;
};
const even = ({ batch, accumulate = 1 }: { batch: number; accumulate?: number | undefined }, at: z.RefinementCtx) => {
  if (batch % accumulate)
    at.addIssue({ code: 'custom', message: `accumulate ${accumulate} does not divide batch ${batch}` });
};

/** How a trained network is held: all its weights, or adapters of the frozen teacher. */
const form = { mode: z.enum(['full', 'lora']), rank: upTo(16_384), alpha: positive };
const student = z.strictObject({
  ...form,
  /** Evaluations that it is trained for. */
  steps: count.max(8),
});

// Presets are kept in model files: a setting that came later has the meaning of its absence as default.
export const presetSchema = z.strictObject({
  name: z.string(),
  seed: z.number().int().nonnegative(),
  data: z.discriminatedUnion('set', [
    z.strictObject({
      set: z.literal('digits').optional(),
      ...clips,
      sprite: count,
      speed: z.tuple([positive, positive]),
    }),
    z.strictObject({ set: z.literal('emoji'), ...clips, packs: count.max(4) }),
    z.strictObject({ set: z.literal('flare'), ...clips }),
  ]),
  /** As `VAEConfig`: Wan2.1's, or Wan2.2's with the three that are optional. */
  vae: z.strictObject({
    dim: width,
    dec_dim: width.optional(),
    patch_size: upTo(8).optional(),
    is_residual: z.boolean().optional(),
    z_dim: upTo(4096),
    dim_mult: z.array(upTo(64)).min(1).max(8),
    num_res_blocks: upTo(64),
    temperal_downsample: z.array(z.boolean()).max(8),
    channels: upTo(64),
  }),
  text: z.strictObject({ text_dim: width, text_len: upTo(16_384) }),
  dit: z.strictObject({
    /** From text and first frame, from text alone, or from either. */
    model_type: z.enum(['i2v', 't2v', 'ti2v']).default('i2v'),
    dim: width,
    num_heads: upTo(1024),
    ffn_dim: upTo(2 ** 18),
    num_layers: upTo(1000),
    patch_size: triple,
    freq_dim: width,
    /** Width of the image tokens, where they come from an encoder instead of the frame's own patches; 0: there are none. */
    clip_dim: z.number().int().nonnegative().max(65_536).optional(),
    /** Recompute blocks in the backward pass: slower, smaller. */
    checkpoint: z.union([z.boolean(), z.enum(['lean', 'nested'])]),
    /** Parts of the tokens that the feed-forward takes one after the other: smaller. */
    ffn_parts: upTo(65_536).default(1),
  }),
  trainVae: z
    .strictObject({
      steps,
      ...batchingOrWhole,
      warmup: whole,
      adam,
      kl: z.number().nonnegative(),
      l1: z.number().nonnegative(),
      mse: z.number().nonnegative(),
      /** Weight of the error's step from pixel to pixel, which tells fine detail from its mean; none unless given. */
      edges: z.number().nonnegative().optional(),
      statClips: count,
      /** Begins as a map of each cell by itself (`localVAE`). */
      local: z.boolean().optional(),
      /**
       * A critic of patches, whose opinion counts from a step on: absolute errors alone leave the mean of the detail that the latent lacks.
       */
      critic: z.strictObject({ weight: z.number().nonnegative(), from: whole }).optional(),
      /** Clips are cut to squares of this size; the first of the steps see single frames: many cheap updates before it sees motion. */
      crops: z
        .strictObject({ size: upTo(4096), stills: z.strictObject({ steps: whole, batch: upTo(16_384) }) })
        .optional(),
    })
    .superRefine(even)
    .transform(unlessWhole),
  teacher: z
    .strictObject({
      steps,
      ...batching,
      warmup: whole,
      adam,
      ema: share,
      times: timeLaw,
      textDrop: share,
      sampler: z.strictObject({ steps: upTo(1000), guidance: positive, shift: positive }),
    })
    .superRefine(even),
  /** A teacher of two networks: the one for low noise answers below this σ. */
  experts: z.strictObject({ boundary: share }).optional(),
  /** How the frozen teacher's matrices lie on the device; they are computed with in f32. */
  stored: z.enum(['f32', 'bf16']).default('f32'),
  student: student.default({ mode: 'full', rank: 16, alpha: 16, steps: 1 }),
  priming: z
    .strictObject({
      steps,
      ...batching,
      warmup: whole,
      generator: z.strictObject({ adam, times: timeLaw, ema: share }),
      fake: z.strictObject({
        adam,
        ...form,
        mode: form.mode.default('lora'),
        updates: upTo(1000),
        warmup: whole,
        /** After each generator step, fake ← ida · fake + (1 - ida) · generator; 1 is off. */
        ida: share.default(1),
      }),
      scoreTimes: timeLaw,
      guidance: positive,
      /** Floor of the per-sample normaliser. */
      wmin: positive,
    })
    .superRefine(even),
  equilibrium: z
    .strictObject({
      steps,
      ...batching,
      warmup: whole,
      generator: z.strictObject({ adam, ema: share }),
      head: z
        .strictObject({
          adam,
          kind: z.enum(['conv', 'cross', 'semantic']),
          dim: width,
          head_dim: width,
          /** Learned queries of `cross` and `semantic`: one for each tap, or one for all. */
          queries: z.enum(['tap', 'one']).default('tap'),
          warmup: whole,
        })
        .superRefine(({ kind, dim, head_dim }, at) => {
          if (kind !== 'conv' && dim % head_dim)
            at.addIssue({ code: 'custom', message: `dim ${dim} is not a multiple of head_dim ${head_dim}` });
        }),
      /**
       * Whose features the discriminator reads: the generator's average, the generator
       * itself, the teacher, or a copy of its own that it trains.
       */
      backbone: z.enum(['ema', 'live', 'frozen', 'full']).default('ema'),
      loss: z.enum(['hinge', 'logistic', 'relativistic']).default('hinge'),
      /** Weight of the adversarial loss in the generator's; 0 leaves C-SDS alone. */
      adversarial: z.number().nonnegative().default(1),
      /** Whether it sees samples noised to its time, or clean ones. */
      sees: z.enum(['noised', 'clean']).default('noised'),
      /** Less memory: samples one after the other, the generator's forward twice. */
      apart: z.boolean().default(false),
      /** 0-based ids of the blocks whose tokens the discriminator sees. */
      taps: z.array(whole).min(1).max(1000),
      discriminatorTimes: timeLaw,
      /** The time that its backbone is told: the sample's own, or the end (σ = 1) whatever the sample's noise. */
      told: z.enum(['own', 'end']).default('own'),
      scoreTimes: timeLaw,
      /** Weight of C-SDS, and guidance inside it. */
      lambda: z.number().nonnegative(),
      guidance: positive,
      str1: z.strictObject({
        /** 0: not computed. */
        weight: z.number().nonnegative(),
        spatial: z.number().nonnegative(),
        temporal: z.number().nonnegative(),
        on: z.enum(['fake', 'real', 'both']),
        /** What the temporal perturbation is drawn for: whole frames, or every element. */
        drawn: z.enum(['frame', 'element']).default('frame'),
      }),
    })
    .superRefine(even),
  baselines: z
    .strictObject({
      consistency: z
        .strictObject({
          ...batchingOrWhole,
          warmup: whole,
          adam,
          ema: share,
          /** Levels of σ between which it is consistent, and guidance of the teacher's step from one to the next. */
          grid: count,
          guidance: positive,
        })
        .superRefine(even)
        .transform(unlessWhole),
      /** Weights of the adversarial terms in the generator's and in the fake model's loss. */
      dmd2: z.strictObject({ generator: z.number().nonnegative(), fake: z.number().nonnegative() }),
      meanflow: z
        .strictObject({
          ...batching,
          warmup: whole,
          adam,
          ema: share,
          times: timeLaw,
          /** Of σ, to either side, that the derivative along the flow is taken over. */
          step: positive.max(0.1),
          /** Of the teacher's velocity. */
          guidance: positive,
          /** Added to a sample's square error in the weight that divides it. */
          floor: positive,
        })
        .superRefine(even)
        .default(BASELINES.meanflow),
    })
    .prefault(BASELINES),
  /** Which EMA of a phase is kept: see `score` in eval.ts. It is judged every so many steps; 0: never, and the last one is kept. */
  best: z.strictObject({ every: whole, clips: count, minMotion: share, frechetWeight: z.number().nonnegative() }),
  run: z.strictObject({
    saveEvery: count,
    maxSkipped: count,
    /** Steps between the pictures of a run's `samples` folder; 0: there are none. */
    sampleEvery: whole.default(50),
    /** Of the networks' matrix operands: f16 serves matrix units. Sums, weights and losses are f32 either way. */
    precision: z.enum(PRECISIONS).default('f32'),
    /** Blocks of frozen networks stay in host memory and come to the device as they are computed with: slower, the same numbers. */
    offload: z.boolean().default(false),
  }),
});

export type Preset = z.infer<typeof presetSchema>;

/** What is distilled: on a preset's own data, or on records of real videos that `data make` has made. */
export type Course = Omit<Preset, 'data' | 'dit'> & {
  data: Preset['data'] | { set: 'videos'; width: number; height: number; frames: number };
  dit: Omit<Preset['dit'], 'model_type'> & Pick<DiTConfig, 'model_type'>;
};

/** How a network of any size is trained. */
export const settingsSchema = presetSchema
  .pick({
    experts: true,
    stored: true,
    student: true,
    teacher: true,
    priming: true,
    equilibrium: true,
    baselines: true,
    best: true,
    run: true,
  })
  .extend({ dit: presetSchema.shape.dit.pick({ checkpoint: true, ffn_parts: true }) });
export type Settings = z.infer<typeof settingsSchema>;
