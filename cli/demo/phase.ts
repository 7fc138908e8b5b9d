/** One phase of the distillation, against the clock: as many steps as fit, and the best average of them. */
import type { Device } from '../../engine/device.ts';
import type { HostParams } from '../../model/params.ts';
import { freeTree, toDevice, toHost, type State } from '../../train/checkpoint.ts';
import type { Judge } from '../../train/eval.ts';
import type { OpenJob } from '../../train/jobs.ts';
import { studentSampler, type Sampler } from '../../train/sample.ts';
import { jobMeter } from '../progress.ts';
import { stepsThatFit } from './budget.ts';

export interface Phase {
  device: Device;
  job: OpenJob;
  /** Steps at the start in which the fake model or the head learns alone. */
  alone: number;
  seconds: number;
  judge: Judge;
  sampler: Sampler;
  /** Clips that are sampled together. */
  group: number;
  signal: AbortSignal;
}

export interface Trained { params: HostParams; steps: number; seconds: number }

/**
 * The first whole step compiles, the next is timed and decides how many there will be; when the time is up the phase ends all the same.
 * The generator's average is judged half-way and at the end, on clips that are neither trained on nor held out; the better is kept.
 */
export async function trainPhase({ device, job, alone, seconds, judge, sampler, group, signal }: Phase): Promise<Trained> {
  const start = performance.now();
  const spent = (): number => (performance.now() - start) / 1000;
  const { onProgress, end } = jobMeter(() => device.allocated);
  let state = toDevice(device, await job.initial()) as State;
  let best: { score: number; params: HostParams } | undefined;
  const score = async (): Promise<void> => {
    const average = state['generator']!.ema!;
    const { evaluation } = await judge.judge(sampler, average, studentSampler(), { batch: group, signal });
    const found = judge.score(evaluation);
    if (!best || found > best.score) best = { score: found, params: await toHost(average) as HostParams };
  };
  try {
    let total = job.steps;
    let done = 0;
    while (done < total) {
      const before = spent();
      const { state: next, metrics } = await job.advance(state, done);
      state = next;
      done++;
      signal.throwIfAborted();
      if (done === alone + 2) total = stepsThatFit(done, spent() - before, seconds - spent(), job.steps);
      if (done > alone && spent() > seconds) total = done;
      onProgress({ job: job.name, step: done, steps: total, metrics, speed: 0, eta: 0 });
      if (done === Math.ceil((total + alone) / 2) && done > alone + 2) await score();
    }
    await score();
    return { params: best!.params, steps: done, seconds: spent() };
  } finally {
    end();
    freeTree(state);
    await job.close();
  }
}
