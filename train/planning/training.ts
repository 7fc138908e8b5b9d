/** What training costs: the steps of each job on tensors that are types only. */
import type { TensorType } from '../../engine/frontend/graph.ts';
import { mapTree } from '../../engine/frontend/tree.ts';
import { headShapes } from '../../model/heads.ts';
import type { Precision } from '../../model/pipeline/precision.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { vaeShapes } from '../../model/wan/vae.ts';
import { microBatch, type Batching } from '../loop/accumulate.ts';
import {
  discriminatorShapes,
  discriminatorStep,
  followStep,
  generatorStep,
  judgeStep,
  type EquilibriumConfig,
} from '../methods/equilibrium.ts';
import { ownShapes, type Form } from '../methods/networks.ts';
import type { AdamConfig, Trained } from '../loop/optim.ts';
import { eachRole, packsOf, packTypes } from '../loop/packs.ts';
import { fakeStep, primingStep, type PrimingConfig } from '../methods/priming.ts';
import { operandsOf, stepOf } from '../loop/step.ts';
import { teacherStep } from '../methods/teacher.ts';
import { vaeStep } from '../methods/vae.ts';
import { planned, READING, treeBytes, type Held, type JobCost, type Run, type Stage, type Target } from './cost.ts';
import { pictures } from './sampling.ts';
import { batchTypes, paramTypes, timeTypes, type, type Subject } from './subject.ts';

type Types = Record<string, TensorType>;

const KEY = type([2], 'u32');
const WHOLE: Batching = { batch: 1, accumulate: 1 };
/** What an update is told, of a batch or of a micro-batch. */
const ratesOf = ({ accumulate }: Batching) => ({
  lr: type([]),
  count: type([]),
  ...(accumulate > 1 && { micro: { share: type([]), last: type([]) } }),
});
const decaying = (b: Batching) => ({ ...ratesOf(b), decay: type([]) });

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

function run(
  name: string,
  calls: number,
  fn: unknown,
  target: Target,
  state: Trained<TensorType>,
  frozen: readonly unknown[],
  data: unknown,
  at: unknown,
  precision?: Precision,
): Run {
  const packs = packsOf(state.params);
  const args = [eachRole(state, (types) => packTypes(types, packs)), ...frozen, data, at];
  return planned(
    name,
    calls,
    {
      fn: stepOf(fn as Parameters<typeof stepOf>[0], packs),
      args,
      resident: new Set(args.slice(0, 1 + frozen.length).keys()),
      donate: [0],
      operands: operandsOf(precision),
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
  s.preset ? onHost('teacher', paramTypes(shapes)) : READING,
  onHost(
    'adapters, or a head, of one network',
    whole.reduce((a, b) => (treeBytes(b) > treeBytes(a) ? b : a), {}),
  ),
];
const adaptersOf = (forms: readonly Form[], s: Subject): Types[] =>
  forms.filter((f) => f.mode === 'lora').map((f) => paramTypes(ownShapes(f, s.config)));

export function vaeCost({ preset, vae, video }: Subject, target: Target): JobCost {
  const { batch, adam } = preset!.trainVae;
  const state = trained(paramTypes(vaeShapes(vae)), adam, false, WHOLE);
  return {
    job: 'vae',
    unit: 'step',
    stages: [
      {
        name: 'training',
        held: heldBy('VAE', state),
        host: [onHost('VAE', paramTypes(vaeShapes(vae)))],
        runs: [
          run('vae', 1, vaeStep(vae, preset!.trainVae, adam), target, state, [], type([batch, ...video]), {
            key: KEY,
            ...ratesOf(WHOLE),
          }),
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
            'teacher',
            o.accumulate,
            teacherStep(s.config, o.adam),
            target,
            state,
            [],
            batchTypes(s, batch),
            { key: KEY, t: timeTypes(s, batch), keep: type([batch]), ...decaying(o) },
            s.run.precision,
          ),
        ],
      },
    ],
  };
}

export function primingCost(s: Subject, target: Target): JobCost {
  const { phase1: o, student } = s;
  const { fake, generator, accumulate } = o;
  const batch = microBatch(o);
  const shapes = ditShapes(s.config);
  const real = paramTypes(shapes, s.stored);
  const config: PrimingConfig = { dit: s.config, student, fake, guidance: o.guidance, wmin: o.wmin };
  const own = trained(paramTypes(ownShapes(student, s.config)), generator.adam, true, o);
  const follower = trained(paramTypes(ownShapes(fake, s.config)), fake.adam, false, o);
  const at = { key: KEY, t: timeTypes(s, batch), score: timeTypes(s, batch) };
  const data = batchTypes(s, batch);
  const training: Stage = {
    name: 'training',
    host: hostOf(s, shapes, adaptersOf([student, fake], s)),
    held: [
      { cause: 'weights', what: 'teacher, frozen', bytes: treeBytes(real) },
      ...heldBy('generator', own),
      ...heldBy('fake model', follower),
    ],
    runs: [
      run(
        'fake',
        accumulate * fake.updates,
        fakeStep(config, fake.adam),
        target,
        follower,
        [real, own.params],
        data,
        { ...at, ...ratesOf(o) },
        s.run.precision,
      ),
      run(
        'priming',
        accumulate,
        primingStep(config, generator.adam),
        target,
        own,
        [real, follower.params],
        data,
        { ...at, ...decaying(o) },
        s.run.precision,
      ),
    ],
  };
  return { job: 'prime', unit: 'step', stages: [training, ...(s.encoders ? [pictures(training, s, target)] : [])] };
}

export function equilibriumCost(s: Subject, target: Target): JobCost {
  const { phase2: o, student } = s;
  const { generator, head, accumulate, taps, backbone, loss, sees, lambda, guidance, str1, apart } = o;
  const batch = microBatch(o);
  const shapes = ditShapes(s.config);
  const real = paramTypes(shapes, s.stored);
  const config: EquilibriumConfig = {
    dit: s.config,
    student,
    head: s.head,
    taps,
    backbone,
    loss,
    sees,
    lambda,
    guidance,
    str1,
    apart,
  };
  const own = trained(paramTypes(ownShapes(student, s.config)), generator.adam, true, o);
  const psi = trained(paramTypes(discriminatorShapes(config)), head.adam, false, o);
  const at = { key: KEY, noiseKey: KEY, end: timeTypes(s, batch), t: timeTypes(s, batch), score: timeTypes(s, batch) };
  const data = batchTypes(s, batch);
  const training: Stage = {
    name: 'training',
    host: hostOf(s, shapes, [paramTypes(headShapes(s.head)), ...adaptersOf([student], s)]),
    held: [
      { cause: 'weights', what: 'teacher, frozen', bytes: treeBytes(real) },
      ...heldBy('generator', own),
      ...heldBy('discriminator', psi),
    ],
    runs: [
      run(
        'discriminator',
        accumulate,
        discriminatorStep(config, head.adam),
        target,
        psi,
        [own.params, own.ema!, real],
        data,
        { ...at, ...ratesOf(o) },
      ),
      ...(apart
        ? [
            run(
              'judgement',
              accumulate,
              judgeStep(config),
              target,
              { params: {}, v: {} },
              [own.params, own.ema!, psi.params, real],
              data,
              { ...at, ...decaying(o) },
              s.run.precision,
            ),
            run(
              'equilibrium',
              accumulate,
              followStep(config, generator.adam),
              target,
              own,
              [real, data.x0],
              data,
              { ...at, ...decaying(o) },
              s.run.precision,
            ),
          ]
        : [
            run(
              'equilibrium',
              accumulate,
              generatorStep(config, generator.adam),
              target,
              own,
              [psi.params, real],
              data,
              { ...at, ...decaying(o) },
              s.run.precision,
            ),
          ]),
    ],
  };
  return {
    job: 'equilibrium',
    unit: 'step',
    stages: [training, ...(s.encoders ? [pictures(training, s, target)] : [])],
  };
}
