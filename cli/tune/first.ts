/** Quiet tuning: the first long job on a GPU without a table measures its heaviest kernels for a few seconds, once for each driver. */
import type { AdapterInfo } from '../../engine/host/adapter.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { flags } from '../../engine/host/flags.ts';
import { isTuned, ownTable, tunedFile, tuningFor, type Tuned } from '../../engine/runtime/tuning.ts';
import { writeWhole } from '../../train/loop/files.ts';
import type { JobName } from '../../train/planning/jobs.ts';
import type { Subject } from '../../train/planning/subject.ts';
import type { Ranks } from '../../train/ranks/ranks.ts';
import { measure, questions, type Measured } from './measure.ts';

const SECONDS = 10;
/** One call of a problem with more operations may take the whole time: `vpae tune` measures these. */
const MOST_FLOPS = 2e11;
/** Blocks of a released model whose problems are asked for: all its blocks ask the same. */
export const LAYERS = 3;

export const tuneOption = {
  tune: {
    type: 'boolean',
    default: true,
    describe: `on a GPU's first use, measure kernel configurations for ${SECONDS} s; --no-tune leaves it out`,
  },
} as const;

/** Whether a job begins with it. A software adapter's table ships, and one that it does not fit is no reason to wait. */
export const isFirstUse = (kind: AdapterInfo['kind'], tuned: boolean, wanted: boolean): boolean =>
  kind === 'gpu' && !tuned && wanted;

/** Why nothing was learnt: every configuration of every problem failed. */
const failureOf = ({ found }: Measured): string | undefined =>
  found.length && found.every((f) => f.bad.length >= f.tried) ? found[0]!.bad[0] : undefined;

/**
 * Says one line, measures and takes what it found into the device's planners. Where it fails it says so in one line, and the
 * planners' rules serve; it is not tried again.
 * @param wanted --tune; @param of the jobs that come, and what they work on
 */
export async function tuneFirst(
  device: Device,
  wanted: boolean,
  of: () => { jobs: readonly JobName[]; subject: Subject },
  signal: AbortSignal,
  seconds = SECONDS,
): Promise<void> {
  const { info, caps } = device;
  if (!isFirstUse(info.kind, isTuned(info, caps), wanted && !flags.NO_TUNE)) return;
  const file = tunedFile(info, caps);
  console.error(
    `first use of ${info.name}: measuring kernel configurations for up to ${seconds} s, kept in ${file}; vpae tune measures more, --no-tune or NO_TUNE=1 leaves it out`,
  );
  const over = AbortSignal.timeout(1000 * seconds);
  let failure: string | undefined;
  try {
    const { jobs, subject } = of();
    const asked = await questions(device, jobs, subject);
    failure = failureOf(
      await measure(
        device,
        asked.filter((a) => a.flops <= MOST_FLOPS),
        () => over.aborted,
        AbortSignal.any([signal, over]),
        () => {},
      ),
    );
  } catch (error) {
    signal.throwIfAborted();
    if (!over.aborted) failure = (error as Error).message.split('\n')[0];
  }
  if (failure !== undefined) console.error(`tuning failed: ${failure}; going on with the planners' own rules`);
  if (ownTable(info, caps) === undefined) {
    const nothing: Tuned = {
      adapter: info.name,
      driver: info.driver,
      tier: caps.tier,
      subgroup: caps.subgroup,
      table: {},
    };
    writeWhole(file, `${JSON.stringify(nothing, undefined, 1)}\n`);
  }
  const tuning = tuningFor(info, caps);
  if (tuning) caps.tuning = tuning;
}

/** The same on several ranks: rank 0 measures, and all take what it found, for kernels that differ would differ in their last digits. */
export async function tuneTogether(
  ranks: Ranks | undefined,
  ...[device, ...more]: Parameters<typeof tuneFirst>
): Promise<void> {
  if (!ranks) return tuneFirst(device, ...more);
  const { info, caps } = device;
  const table = await ranks.told(async () => {
    await tuneFirst(device, ...more);
    return ownTable(info, caps);
  });
  const tuning = tuningFor(info, caps, table ?? undefined);
  if (tuning) caps.tuning = tuning;
}
