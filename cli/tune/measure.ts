/** From planned jobs to a table: what they ask the planners, measured problem after problem, every winner kept at once. */
import type { Device } from '../../engine/runtime/device.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { ownTable, tunedFile, type Tuned } from '../../engine/runtime/tuning.ts';
import { sameConfig, type TuningTable } from '../../kernels/tuning.ts';
import { precisionOn } from '../../model/pipeline/precision.ts';
import { writeWhole } from '../../train/loop/files.ts';
import { costOf, type JobName } from '../../train/planning/jobs.ts';
import type { Subject } from '../../train/planning/subject.ts';
import { programOf, recorder, type Seen } from './problems.ts';
import { Bench, search, type Found } from './search.ts';

interface Weighed {
  seen: Seen;
  flops: number;
}

/** What these jobs ask the planners; most arithmetic first. Only where there is a choice. */
export async function questions(device: Device, jobs: readonly JobName[], subject: Subject): Promise<Weighed[]> {
  const { tuning, seen } = recorder();
  const target = { caps: { ...device.caps, tuning }, maxBufferBytes: device.maxBufferBytes };
  const precision = subject.preset ? 'f32' : precisionOn(device.caps);
  for (const job of jobs) costOf(job, subject, { steps: 1, guided: false, offload: false, precision }, target);
  const weighed: Weighed[] = [];
  for (const s of seen.values()) {
    const program = programOf(s.family, s.problem);
    if (!program || s.options.length < 2) continue;
    const nothing = program.inputs.map(({ shape, dtype }): HostTensor => ({ shape, dtype, data: new Float32Array() }));
    const plan = await device.compile((x: Tensor[]) => program.fn(...x), { name: s.family }).plan(nothing);
    weighed.push({ seen: s, flops: plan.flops });
  }
  return weighed.sort((a, b) => b.seen.count * b.flops - a.seen.count * a.flops);
}

/** The table with one more winner in it; a rule that stands is no entry. */
function withWinner(table: TuningTable, { family, shape, rule, winner }: Found): TuningTable {
  const { [shape]: _old, ...others } = (table[family as keyof TuningTable] ?? {}) as Record<string, object>;
  return { ...table, [family]: sameConfig(rule, winner) ? others : { ...others, [shape]: winner } };
}

export interface Measured {
  found: Found[];
  tuned: Tuned;
  file: string;
}

/**
 * Adds winners to the user's own table for this adapter and driver.
 * @param enough asked before each problem; @param signal ends it in the middle of one: what its reason is, is thrown
 */
export async function measure(
  device: Pick<Device, 'info' | 'caps'>,
  asked: readonly Weighed[],
  enough: () => boolean,
  signal: AbortSignal,
  onFound: (found: Found) => void,
): Promise<Measured> {
  const { info, caps } = device;
  const file = tunedFile(info, caps);
  const bench = new Bench(info.kind);
  const found: Found[] = [];
  let tuned: Tuned = {
    adapter: info.name,
    driver: info.driver,
    tier: caps.tier,
    subgroup: caps.subgroup,
    table: ownTable(info, caps) ?? {},
  };
  const stop = (): void => bench.close();
  signal.addEventListener('abort', stop);
  try {
    for (const { seen, flops } of asked) {
      if (enough()) break;
      const result = await search(bench, caps, seen, flops, signal);
      found.push(result);
      tuned = { ...tuned, table: withWinner(tuned.table, result) };
      writeWhole(file, `${JSON.stringify(tuned, undefined, 1)}\n`);
      onFound(result);
    }
  } finally {
    signal.removeEventListener('abort', stop);
    bench.close();
  }
  return { found, tuned, file };
}
