/**
 * `vpae demo` (npm start): the main job once, in minutes: distil the bundled teacher for a while, then see what one evaluation is worth.
 */
import { copyFileSync, existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { CommandModule } from 'yargs';
import type { NDArray } from '../engine/runtime/ndarray.ts';
import { freeTree, toDevice } from '../train/loop/checkpoint.ts';
import { videoShape } from '../train/methods/conditions.ts';
import { Judge } from '../train/judge/eval.ts';
import { loadClassifier } from '../train/metrics/classifier.ts';
import { checkPair, loadVAE, saveModel } from '../train/loop/models.ts';
import { runStages, turnsOf } from '../train/distill.ts';
import { METHODS } from '../train/methods/index.ts';
import { readAverage } from '../train/loop/loop.ts';
import { within, type Timed } from '../train/loop/within.ts';
import type { Preset } from '../train/presets/index.ts';
import { RunFolder } from '../train/loop/run.ts';
import { Codec, endsOf, Sampler, studentSampler, teacherSampler } from '../train/methods/sample.ts';
import type { HostParams } from '../model/params.ts';
import type { Sampling } from '../model/pipeline/diffuse.ts';
import { readResults } from './ablate/results.ts';
import { clipsThatFit, trainingTime, type Speeds } from './demo/budget.ts';
import { origins, writeOutcome, type Outcome, type Shown } from './demo/report.ts';
import { UsageError } from './common/errors.ts';
import { CLASSIFIER, loadNet, modelFile, willWrite } from './common/files.ts';
import type { Video } from './media/picture.ts';
import { bundle, type Args } from './common/options.ts';
import { duration, jobMeter, meter } from './common/progress.ts';
import { session, type Session } from './common/session.ts';
import { makeShards } from './common/shards.ts';
import { cells, COLUMNS, draw, NOTE, type Row } from './common/table.ts';

const options = {
  ...bundle,
  budget: { type: 'number', describe: 'seconds for everything; 480 unless given, 720 where only SwiftShader is there' },
  out: { type: 'string', default: 'out/demo', describe: 'folder for pictures and report' },
} as const;
type DemoArgs = Args<typeof options>;

/**
 * By kind of adapter: clips sampled together, conditions and training clips at most,
 * steps in which fake model and head learn alone at first.
 */
const SIZES = {
  gpu: { group: 32, clips: 256, train: 4096, alone: 50 },
  software: { group: 16, clips: 64, train: 512, alone: 6 },
  slow: { group: 4, clips: 16, train: 64, alone: 1 },
} as const;

const say = (line: string): void => console.error(line);
/** Seconds since the program started. */
const now = (): number => performance.now() / 1000;

async function demo(args: DemoArgs): Promise<void> {
  if (args.budget !== undefined && !(args.budget >= 10 && args.budget <= 86_400))
    throw new UsageError(`--budget must be 10 to 86400 seconds, got ${args.budget}`);
  if (!existsSync(modelFile(args.bundle, 'teacher'))) {
    throw new Error(
      `[demo] there is no ${modelFile(args.bundle, 'teacher')}; train it with: vpae train vae --run ${args.bundle} && vpae train teacher --run ${args.bundle}`,
    );
  }
  const run = join(args.out, 'run');
  willWrite(join(run, 'x'));
  await session('stopped; the demo begins anew next time', async (s) => {
    const folder = await RunFolder.open(run, { job: 'demo' }, {}); // keeps a second demo out
    try {
      rmSync(join(run, 'data'), { recursive: true, force: true });
      await work(s, args, run);
    } finally {
      folder.close();
    }
  });
}

async function work({ device, signal }: Session, args: DemoArgs, run: string): Promise<void> {
  const slow = /swiftshader/i.test(device.info.name + device.info.driver);
  const sizes = SIZES[device.info.kind === 'gpu' ? 'gpu' : slow ? 'slow' : 'software'];
  const budget = args.budget ?? (slow ? 720 : 480);
  if (slow) say(`SwiftShader is slow: training and judging are cut to what fits into ${duration(budget)}`);
  const vae = await loadVAE(modelFile(args.bundle, 'vae'));
  const teacher = await loadNet(args.bundle, 'teacher');
  const student = existsSync(modelFile(args.bundle, 'student')) ? await loadNet(args.bundle, 'student') : undefined;
  for (const net of student ? [teacher, student] : [teacher]) checkPair(vae, net);
  const made = teacher.about.preset;
  const { priming, equilibrium } = (student ?? teacher).about.preset;
  const trainClips = Math.min(sizes.train, made.data.trainClips);
  const alone = (usual: number): number => Math.min(usual, sizes.alone);
  const preset: Preset = {
    ...made,
    data: { ...made.data, trainClips, shardClips: Math.min(made.data.shardClips, trainClips) },
    priming: { ...priming, fake: { ...priming.fake, warmup: alone(priming.fake.warmup) } },
    equilibrium: { ...equilibrium, head: { ...equilibrium.head, warmup: alone(equilibrium.head.warmup) } },
    best: { ...made.best, clips: Math.min(2 * sizes.group, made.best.clips) },
  };
  const classifier = await loadClassifier(CLASSIFIER);
  const ablations = readResults(join(args.bundle, 'ablation.json'));

  const shards = await makeShards({ device, preset, out: run, signal, vae: vae.path });
  const codec = new Codec(device, vae.config, vae.params);
  const sampler = new Sampler(device, preset, endsOf(preset, codec));
  const onDevice = (params: HostParams) => toDevice(device, params) as Record<string, NDArray>;

  const net = onDevice(teacher.params);
  const wanted = Math.min(sizes.clips, made.data.heldOutClips);
  const evaluations = made.teacher.sampler.steps;
  const speeds = await sampling(sampler, Judge.heldOut(preset, classifier, sizes.group), net, teacherSampler(preset));
  signal.throwIfAborted();
  const time = trainingTime(speeds, budget - now(), wanted, evaluations);
  say(
    `${duration(budget - now())} left of ${duration(budget)}: ${duration(time.priming)} for stability priming, ${duration(time.equilibrium)} for adversarial equilibrium, the rest for judging`,
  );

  const validation = Judge.validation(preset, classifier);
  const progress = jobMeter(() => device.allocated);
  const seconds = [time.priming, time.equilibrium];
  const timed: Timed[] = [];
  const turns = turnsOf(METHODS.vpae, preset, { data: shards.made, teacher: teacher.hash });
  for (const { folder } of turns) rmSync(join(run, folder), { recursive: true, force: true });
  const start = now();
  const {
    done,
    files: { high: file },
  } = await runStages(
    { device, out: run, signal, onProgress: progress.onProgress, onAlarm: progress.onAlarm },
    turns.map((turn, i) => ({ ...turn, limit: (job) => (timed[i] = within(job, seconds[i]!)) })),
    {
      shards,
      teacher: teacher.params,
      choose: (weights) => validation.choose(sampler, weights, studentSampler(), { batch: sizes.group, signal }),
    },
  ).finally(progress.end);
  if (!done) throw signal.reason;
  const [primed, trained] = timed as [Timed, Timed];
  const trainingSeconds = now() - start;
  const trainedHere = (await readAverage(file!)).params;
  copyFileSync(vae.path, modelFile(run, 'vae')); // so that `sample --model` finds both
  await saveModel(modelFile(run, 'student'), {
    kind: 'student',
    config: teacher.config,
    params: trainedHere,
    about: { preset, steps: trained.steps, vae: vae.hash, teacher: teacher.hash },
  });

  const clips = clipsThatFit(speeds, budget - now(), wanted, evaluations);
  const judge = Judge.heldOut(preset, classifier, clips);
  const rows: Row[] = [{ name: 'real clips', evaluation: judge.evaluate(judge.clips.map((c) => c.video)) }];
  const video = (data: Float32Array): Video => ({ data, shape: videoShape(preset) });
  const shown: Shown[] = [
    { title: 'real clip', note: 'held out', file: 'real.webp', videos: judge.clips.map((c) => video(c.video)) },
  ];
  const see = async (
    name: string,
    file: string,
    weights: Record<string, NDArray>,
    settings: Sampling,
  ): Promise<void> => {
    const bar = meter(name, { unit: 'clips', total: clips, memory: () => device.allocated });
    const { samples, evaluation } = await judge
      .judge(sampler, weights, settings, {
        batch: sizes.group,
        signal,
        onProgress: (n) => bar.at(Math.floor(Math.min(n, clips))),
      })
      .finally(bar.end);
    rows.push({ name, evaluations: samples.evaluations, secondsPerClip: samples.seconds / clips, evaluation });
    shown.push({
      title: name,
      note: `${samples.evaluations} evaluation${samples.evaluations > 1 ? 's' : ''}`,
      file,
      videos: samples.videos.map(video),
    });
    freeTree(weights);
  };
  await see('teacher', 'teacher.webp', net, teacherSampler(made));
  await see('student trained here', 'student-here.webp', onDevice(trainedHere), studentSampler());
  if (student)
    await see(
      'bundled student',
      'student-bundled.webp',
      onDevice(student.params),
      studentSampler(student.about.preset.student.steps),
    );
  await Promise.all([sampler.close(), codec.close()]);

  const outcome: Outcome = {
    device,
    preset,
    primed,
    trained,
    seconds: trainingSeconds,
    trainClips,
    teacher,
    student,
    conditions: judge.clips,
    rows,
    shown,
    ablations,
  };
  const files = await writeOutcome(args.out, outcome);
  console.log(`\n${draw(COLUMNS, cells(rows))}\n${clips} held-out conditions. ${NOTE}\n`);
  for (const { title, text } of origins(outcome)) console.log(`${title}. ${text}\n`);
  console.log(
    `Look at ${files.at(-1)} (and ${files
      .slice(0, -1)
      .map((f) => f.slice(dirname(f).length + 1))
      .join(', ')} beside it). ${duration(now())} in all.`,
  );
}

/** Seconds of a guided step and of all around it, for one group of clips. */
async function sampling(
  sampler: Sampler,
  judge: Judge,
  net: Record<string, NDArray>,
  settings: Sampling,
): Promise<Speeds> {
  await judge.judge(sampler, net, { ...settings, steps: 1 }); // compiles
  const start = now();
  const {
    samples: { seconds },
  } = await judge.judge(sampler, net, { ...settings, steps: 1 });
  return { group: judge.clips.length, guidedStep: seconds, around: now() - start - seconds };
}

const command: CommandModule<object, DemoArgs> = {
  command: 'demo',
  describe: 'distil the bundled teacher for some minutes, and compare teacher and students side by side',
  builder: (y) =>
    y
      .options(options)
      .example('$0 demo', 'everything, in ten minutes at most on two cores')
      .example('$0 demo --budget 120', 'less training'),
  handler: demo,
};
export default command;
