/** What a comparison says: the engines side by side, and our ratios beside what we aim at on a software adapter. */
import { draw } from '../common/table.ts';
import { clockOf, type Clock } from './clock.ts';
import type { Comparison, Contender } from './compare.ts';
import { number, type Report } from './report.ts';
import { leastMs } from './roofline.ts';
import type { WorkName } from './works.ts';

/**
 * On a software adapter, ratios of speed: ours over onnxruntime's on the CPU, over the
 * best correct WebGPU peer, and the share of the copy bandwidth.
 */
const TARGETS: Record<WorkName, { cpu?: number; peer?: number; share?: number }> = {
  'matmul 512': {},
  'matmul 1024': { cpu: 0.2, peer: 6 },
  attention: { cpu: 0.12, peer: 3 },
  conv3d: { cpu: 0.4, peer: 5 },
  'conv3d gradient': { peer: 4 },
  'layer norm': { share: 0.5 },
  GELU: { share: 0.5 },
  'training step': { peer: 4 },
};
/** On a GPU, ours over PyTorch's on the same card, f32. */
const TORCH: Partial<Record<WorkName, number>> = {
  'matmul 512': 0.7,
  'matmul 1024': 0.7,
  attention: 0.35,
  conv3d: 0.4,
  'conv3d gradient': 0.4,
  'training step': 0.4,
};
/** Seconds that a tiny training step may take for the first time. */
export const COLD_TARGET = 10;

const MIB = 2 ** 20;

/** One row an engine. */
export function sideBySide(comparisons: readonly Comparison[], { kind }: Pick<Report, 'kind'>): string {
  const { fastest } = clockOf(kind);
  const rows = comparisons.flatMap(({ work, shape, flops, contenders }) =>
    contenders.map((c, i) => [
      i ? '' : `${work}, ${shape}`,
      `${c.engine}${c.version && ` ${c.version}`}${c.on === 'WebGPU' ? '' : `, ${c.on}`}`,
      `${number(c.ms)} (${number(c.bestMs)})`,
      `${number(c.cpuMs)} (${number(c.bestCpuMs)})`,
      number(flops / fastest(c) / 1e6),
      number(c.firstMs),
      c.wrong ? `${c.error.toExponential(0)} WRONG` : c.error.toExponential(0),
      (c.peakBytes / MIB).toFixed(0),
    ]),
  );
  const failed = comparisons.flatMap(({ work, failed: list }) =>
    list.map((f) => `${work}: ${f.engine} failed: ${f.reason}`),
  );
  return [
    draw(
      ['', 'engine', 'ms a call (best)', 'processor ms (best)', 'GFLOP/s', 'first call, ms', 'error', 'process, MiB'],
      rows,
    ),
    ...failed,
  ].join('\n');
}

/** Ratios by the adapter's clock of the best samples and of the medians, and by wall time of the medians. */
export interface Verdict {
  work: string;
  what: string;
  best: number;
  median?: number;
  wall?: number;
  target?: number | undefined;
  met?: boolean;
}

/** The best correct engine of those that are so. */
const rivalOf = (
  contenders: readonly Contender[],
  is: (c: Contender) => boolean,
  { fastest }: Clock,
): Contender | undefined =>
  contenders.filter((c) => c.engine !== 'ours' && is(c) && !c.wrong).sort((a, b) => fastest(a) - fastest(b))[0];

/** Our ratios. They are judged by the best samples: neighbours on the machine can only add to a time. */
export function verdicts(
  comparisons: readonly Comparison[],
  { kind, roofline }: Pick<Report, 'roofline' | 'kind'>,
): Verdict[] {
  const clock = clockOf(kind);
  return comparisons.flatMap(({ work, flops, traffic, contenders }): Verdict[] => {
    const us = contenders.find((c) => c.engine === 'ours' && !c.wrong);
    if (!us) return [];
    const { cpu, peer, share } = kind === 'software' ? TARGETS[work] : {};
    const found: Verdict[] = [];
    const against = (is: (c: Contender) => boolean, target: number | undefined) => {
      const rival = rivalOf(contenders, is, clock);
      if (!rival) return;
      const best = clock.fastest(rival) / clock.fastest(us);
      found.push({
        work,
        what: `of ${rival.engine}${rival.on === 'WebGPU' ? ', the best correct WebGPU peer' : ` on ${rival.on === 'CPU' ? 'the CPU' : rival.on}`}`,
        best,
        median: clock.typical(rival) / clock.typical(us),
        wall: rival.ms / us.ms,
        ...(target !== undefined && { target, met: best >= target }),
      });
    };
    against((c) => c.on === 'WebGPU', peer);
    against((c) => c.engine === 'onnxruntime-node', cpu);
    against((c) => c.engine === 'torch', kind === 'gpu' ? TORCH[work] : undefined);
    if (share !== undefined) {
      const reached = leastMs(roofline, { flops, traffic }) / clock.fastest(us);
      found.push({ work, what: 'of the copy bandwidth', best: reached, target: share, met: reached >= share });
    }
    return found;
  });
}

/** What holds kernels back on a software adapter, as read in Mesa 25.0.7 (lp_bld_nir_soa.c) and seen in timings. */
const WHY =
  "A CPU driver loads number by number, each behind a bounds check, which takes more of these kernels' time than their arithmetic. Runs differ by a sixth.";

/** Which aims are missed, and why where that is known; undefined where all are met. */
export function shortfall(all: readonly Verdict[], { kind }: Pick<Report, 'kind'>): string | undefined {
  const missed = all.filter((v) => v.met === false).map((v) => `${v.work} (${number(v.best)} instead of ${v.target!})`);
  return missed.length ? `Missed: ${missed.join(', ')}.${kind === 'software' ? ` ${WHY}` : ''}` : undefined;
}

export const verdictTable = (all: readonly Verdict[]): string =>
  draw(
    ['our speed', '', 'best samples', 'median', 'by wall', 'aim', ''],
    all.map((v) => [
      v.work,
      v.what,
      number(v.best),
      v.median === undefined ? '–' : number(v.median),
      v.wall === undefined ? '–' : number(v.wall),
      v.target?.toString() ?? '–',
      v.met === undefined ? '' : v.met ? 'met' : 'missed',
    ]),
  );
