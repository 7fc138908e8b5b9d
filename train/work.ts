/** What every training function is given and gives back, and how a job runs in its folder. */
import type { Device } from '../engine/runtime/device.ts';
import { arch, platform, runtime } from '../engine/host/runtime.ts';
import type { Alarm } from './loop/alarms.ts';
import type { OpenJob } from './methods/jobs.ts';
import { drive, type LoopResult, type Progress } from './loop/loop.ts';
import type { Draw } from './judge/previews.ts';
import type { Preset } from './presets/index.ts';
import type { Ranks } from './ranks/ranks.ts';
import { folderOf } from './presets/renamed.ts';
import type { Json } from './loop/run.ts';

export interface Work {
  device: Device;
  preset: Preset;
  out: string;
  /** Aborted: the work stops after the step it is in, saved. */
  signal?: AbortSignal | undefined;
  onProgress?: ((p: Progress) => void) | undefined;
  onAlarm?: ((a: Alarm) => void) | undefined;
  /** The processes that do it together: rank 0 logs, judges, draws and saves. */
  ranks?: Ranks | undefined;
  /** For the pictures in the runs' `samples` folders; none are kept without it. */
  draw?: Draw | undefined;
}

/** What a training function made. `done` is false when the signal stopped it; then there is no model yet, and calling again resumes. */
export interface Made {
  done: boolean;
  step: number;
  path: string;
}

const environment = (device: Device): Record<string, Json> => ({
  runtime,
  platform,
  arch,
  adapter: JSON.parse(JSON.stringify(device.info)) as Json,
});

/** Drives a job in `out/NAME` to its end or to the signal, and closes it. The caller frees the state. */
export async function run(
  w: Omit<Work, 'preset'> & { preset: Pick<Preset, 'seed' | 'run'> },
  job: OpenJob,
  settings: Record<string, unknown>,
): Promise<LoopResult & { folder: string }> {
  const folder = folderOf(w.out, job.name);
  try {
    const result = await drive(job, {
      device: w.device,
      folder,
      environment: environment(w.device),
      signal: w.signal,
      ranks: w.ranks,
      onProgress: w.onProgress,
      onAlarm: w.onAlarm,
      config: { job: job.name, seed: w.preset.seed, ...settings } as Json,
      ...w.preset.run,
    });
    return { ...result, folder };
  } finally {
    await job.close();
  }
}
