/** One phase of the distillation, against the clock: as many steps as fit, and the best average of them. */
import type { Device } from '../../engine/runtime/device.ts';
import type { HostParams } from '../../model/params.ts';
import { freeTree, toHost } from '../../train/loop/checkpoint.ts';
import type { Judge } from '../../train/judge/eval.ts';
import type { StudentJob } from '../../train/methods/jobs.ts';
import { studentSampler, type Sampler } from '../../train/methods/sample.ts';
import { jobMeter } from '../common/progress.ts';
import { stepsThatFit } from './budget.ts';

export interface Phase {
  device: Device;
  job: StudentJob;
  /** Steps at the start in which the fake model or the head learns alone; cut short where they take over a quarter of the time. */
  alone: number;
  seconds: number;
  judge: Judge;
  sampler: Sampler;
  /** Clips that are sampled together. */
  group: number;
  signal: AbortSignal;
}

export interface Trained {
  params: HostParams;
  steps: number;
  /** Of them. */ alone: number;
  seconds: number;
}

/** The step of both networks that decides how many there will be: the one before it compiles. */
const TIMED = 2;

/**
 * One step of both networks compiles, the next is timed and decides how many there will be; when the time is up the phase ends all the same.
 * The generator's average is judged half-way and at the end, on clips that are neither trained on nor held out; the better is kept.
 */
export async function trainPhase({
  device,
  job,
  alone,
  seconds,
  judge,
  sampler,
  group,
  signal,
}: Phase): Promise<Trained> {
  const start = performance.now();
  const spent = (): number => (performance.now() - start) / 1000;
  const { onProgress, end } = jobMeter(() => device.allocated);
  let state = await job.initial();
  let best: { score: number; params: HostParams } | undefined;
  const score = async (): Promise<void> => {
    const { evaluation } = await judge.judge(sampler, job.student(state), studentSampler(), { batch: group, signal });
    const found = judge.score(evaluation);
    if (!best || found > best.score)
      best = { score: found, params: (await toHost(state['generator']!.ema!)) as HostParams };
  };
  const most = job.steps - alone;
  /** Steps done alone and by both networks, and how many of the latter the time allows. */
  const done = { alone: 0, both: 0, fit: most };
  const step = async (n: number): Promise<void> => {
    const before = spent();
    const { state: next, metrics: pending } = await job.advance(state, n);
    state = next;
    const metrics = await pending;
    signal.throwIfAborted();
    if (n < alone) done.alone++;
    else done.both++;
    if (done.both <= TIMED) done.fit = stepsThatFit(done.both, spent() - before, seconds - spent(), most);
    if (done.both > 0 && spent() > seconds) done.fit = done.both;
    onProgress({
      job: job.name,
      step: done.alone + done.both,
      steps: done.alone + done.fit,
      metrics,
      speed: 0,
      eta: 0,
    });
  };
  try {
    while (done.alone < alone && spent() < seconds / 4) await step(done.alone);
    while (done.both < done.fit) {
      await step(alone + done.both);
      if (done.both > TIMED && done.both === Math.ceil(done.fit / 2)) await score();
    }
    await score();
    return { params: best!.params, steps: done.alone + done.both, alone: done.alone, seconds: spent() };
  } finally {
    end();
    freeTree(state);
    await job.close();
  }
}
