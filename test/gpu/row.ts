/** A session's line in the table of docs/gpus.md: what was measured, and a dash for what was not. */
import { clockOf } from '../../cli/bench/clock.ts';
import { number, type Report } from '../../cli/bench/report.ts';
import type { WorkName } from '../../cli/bench/works.ts';
import type { Outcome } from './parts.ts';

export interface Session {
  described?: { info: { name: string; driver: string } } | undefined;
  parts: readonly Outcome[];
}

export const TESTS = ['tests of the engine', 'tests of the kernels', 'reference tensors'] as const;
export const BENCH = 'bench --vs';
export const blockName = (job: string, precision: string): string => `block, ${job}, ${precision}`;
const WORKS: readonly WorkName[] = ['matmul 1024', 'attention', 'conv3d'];
const NONE = '–';

/** `passed/failed` of a part that was not stopped. */
export const counts = (part: Outcome | undefined): string | undefined => {
  const [, passed, failed] = /(\d+) passed, (\d+) failed/.exec(part?.said.at(-1) ?? '') ?? [];
  return passed && `${passed}/${failed}`;
};

export function rowOf({ described, parts }: Session): string {
  const part = (name: string) => parts.find((p) => p.name === name);
  const bench = part(BENCH)?.result as Report | undefined;
  const speed = (work: WorkName): string => {
    const found = bench?.comparisons?.find((c) => c.work === work);
    const us = found?.contenders.find((c) => c.engine === 'ours' && !c.wrong);
    if (!bench || !found || !us) return NONE;
    const torch = bench.verdicts?.find((v) => v.work === work && v.what.startsWith('of torch'));
    const rate = number(found.flops / clockOf(bench.kind).fastest(us) / 1e6);
    return torch ? `${rate} (${number(torch.best)})` : rate;
  };
  const seconds = (job: string): string =>
    ['f32', 'f16']
      .map((precision) => (part(blockName(job, precision))?.result as Report | undefined)?.results[0])
      .map((result) => (result ? number(result.ms / 1000) : NONE))
      .join(' / ');
  const ceiling = bench && [bench.roofline.gflops, bench.roofline.f16gflops].flatMap((x) => x ?? []);
  const cells = [
    described ? `${described.info.name}, ${described.info.driver}` : NONE,
    TESTS.map((name) => counts(part(name)) ?? NONE).join(', '),
    ceiling ? ceiling.map(number).join(' / ') : NONE,
    ...WORKS.map(speed),
    seconds('sample'),
    seconds('teacher'),
  ];
  return `| ${cells.join(' | ')} |`;
}
