/** What training costs: the steps of each job on tensors that are types only. */
import type { TensorType } from '../../engine/frontend/graph.ts';
import { mapTree } from '../../engine/frontend/tree.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { vaeShapes } from '../../model/wan/vae.ts';
import { microBatch, type Batching } from '../loop/accumulate.ts';
import type { Program, Stage as MethodStage } from '../methods/stage.ts';
import type { AdamConfig, Trained } from '../loop/optim.ts';
import { eachRole, packsOf, packTypes } from '../loop/packs.ts';
import { stepOf } from '../loop/step.ts';
import { ownShapes } from '../methods/networks.ts';
import { teachesTwo } from '../methods/sample.ts';
import { teacherStep } from '../methods/teacher.ts';
import { criticShapes } from '../methods/critic.ts';
import { vaeStep } from '../methods/vae.ts';
import {
  dividedBytes,
  planned,
  READING,
  treeBytes,
  type Held,
  type JobCost,
  type Run,
  type Stage,
  type Target,
} from './cost.ts';
import { pictures } from './sampling.ts';
import { batchTypes, frozenTypes, paramTypes, timeTypes, type, type Subject } from './subject.ts';

type Types = Record<string, TensorType>;

const KEY = type([2], 'u32');
/** What an update is told, of a batch or of a micro-batch. */
const ratesOf = ({ accumulate }: Batching) => ({
  lr: type([]),
  count: type([]),
  ...(accumulate > 1 && { micro: { share: type([]), last: type([]) } }),
});

/** Weights with what goes along with them, each a tensor of its own. */
function trained(params: Types, { beta1 }: AdamConfig, ema: boolean, { accumulate }: Batching): Trained<TensorType> {
  const another = (): Types => mapTree((t: TensorType) => ({ ...t }), params);
  return {
    params,
    v: another(),
    ...(beta1 > 0 && { m: another() }),
    ...(ema && { ema: another() }),
    ...(accumulate > 1 && { grads: another() }),
  };
}

function heldBy(what: string, { params, v, m, ema, grads }: Trained<TensorType>): Held[] {
  return [
    { cause: 'weights', what, bytes: treeBytes(params) },
    { cause: 'optimizer', what, bytes: treeBytes([v, m]) },
    ...(ema ? [{ cause: 'average', what, bytes: treeBytes(ema) } as const] : []),
    ...(grads ? [{ cause: 'gradients', what: `${what}, accumulated`, bytes: treeBytes(grads) } as const] : []),
  ];
}

/** A program of an update in so many micro-batches. @param data a batch of them */
function run(
  { name, calls = 1, fn, state, frozen, inputs, precision }: Program,
  batching: Batching,
  data: unknown,
  target: Target,
): Run {
  const packs = packsOf(state.params);
  const args = [
    eachRole(state, (types) => packTypes(types, packs)),
    ...frozen,
    data,
    { ...inputs, ...ratesOf(batching) },
  ];
  return planned(
    name,
    batching.accumulate * calls,
    {
      fn: stepOf(fn as Parameters<typeof stepOf>[0], packs),
      args,
      resident: new Set(args.slice(0, 1 + frozen.length).keys()),
      donate: [0],
      operands: precision ?? 'f32',
    },
    target,
  );
}

const onHost = (what: string, params: Types): Held => ({ cause: 'host', what, bytes: treeBytes(params) });
/**
 * A preset's teacher is read whole, a released one's weights go to the device in chunks.
 * @param whole of what else lies there, one at a time: adapters and heads, when they are drawn and when adapters are written
 */
const hostOf = (s: Subject, shapes: Readonly<Record<string, readonly number[]>>, whole: readonly Types[]): Held[] => [
  ...(s.run.offload
    ? [
        {
          cause: 'host',
          what: 'blocks of the teacher, frozen',
          bytes: (s.experts ? 2 : 1) * dividedBytes(frozenTypes(s)).host,
        } as const,
      ]
    : []),
  s.preset ? onHost('teacher', paramTypes(shapes)) : READING,
  onHost(
    'adapters, or a head, of one network',
    whole.reduce((a, b) => (treeBytes(b) > treeBytes(a) ? b : a), {}),
  ),
];

export function vaeCost({ preset, vae, video }: Subject, target: Target): JobCost {
  const o = { accumulate: 1, ...preset!.trainVae };
  const { adam } = o;
  const shapes = { ...vaeShapes(vae), ...(o.critic && criticShapes(vae.channels)) };
  const state = trained(paramTypes(shapes), adam, false, o);
  const seen = o.crops ? [...video.slice(0, 2), o.crops.size, o.crops.size] : video;
  return {
    job: 'vae',
    unit: 'step',
    stages: [
      {
        name: 'training',
        held: heldBy('VAE', state),
        host: [onHost('VAE', paramTypes(vaeShapes(vae)))],
        runs: [
          run(
            {
              name: 'vae',
              fn: vaeStep(vae, o, adam),
              state,
              frozen: [],
              inputs: { key: KEY, ...(o.critic && { critic: type([]) }) },
            },
            o,
            type([microBatch(o), ...seen]),
            target,
          ),
        ],
      },
    ],
  };
}

export function teacherCost(s: Subject, target: Target): JobCost {
  const { teacher: o } = s;
  const [batch, shapes] = [microBatch(o), ditShapes(s.config)];
  const state = trained(paramTypes(shapes), o.adam, true, o);
  return {
    job: 'teacher',
    unit: 'step',
    stages: [
      {
        name: 'training',
        held: heldBy('teacher', state),
        host: [onHost('teacher', paramTypes(shapes))],
        runs: [
          run(
            {
              name: 'teacher',
              fn: teacherStep(s.config, o.adam),
              state,
              frozen: [],
              inputs: { key: KEY, t: timeTypes(s, batch), keep: type([batch]), decay: type([]) },
              precision: s.run.precision,
            },
            o,
            batchTypes(s, batch),
            target,
          ),
        ],
      },
    ],
  };
}

/** A stage of a method, by its outline. */
export function stageCost(stage: MethodStage, s: Subject, target: Target): JobCost {
  const shapes = ditShapes(s.config);
  const teacher = frozenTypes(s);
  const low = s.experts && frozenTypes(s);
  const two = teachesTwo(s);
  const batching = stage.batching(s);
  const batch = microBatch(batching);
  const data = batchTypes(s, batch);
  const { trains, drawn, programs } = stage.outline(s, {
    teacher,
    low: two ? undefined : low,
    batch: data,
    time: () => timeTypes(s, batch),
    key: () => type([2], 'u32'),
    scalar: () => type([]),
    trained: (own, adam, ema = false) => trained(paramTypes(own), adam, ema, batching),
  });
  const training: Stage = {
    name: 'training',
    host: hostOf(
      s,
      shapes,
      drawn.map((own) => paramTypes(own)),
    ),
    held: [
      { cause: 'weights', what: 'teacher, frozen', bytes: dividedBytes(teacher).device },
      ...(low ? [{ cause: 'weights', what: 'its low-noise expert', bytes: dividedBytes(low).device } as const] : []),
      ...(two
        ? [
            {
              cause: 'weights',
              what: 'high-noise student, beside the one for low noise',
              bytes: treeBytes(paramTypes(ownShapes(s.student, s.config))),
            } as const,
          ]
        : []),
      ...Object.entries(trains).flatMap(([what, state]) => heldBy(what, state)),
    ],
    runs: programs.map((program) => run(program, batching, data, target)),
  };
  return { job: stage.name, unit: 'step', stages: [training, ...(s.encoders ? [pictures(training, s, target)] : [])] };
}
