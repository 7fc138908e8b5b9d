/** What `bench` found, as a table for people and as plain data for scripts and later comparisons. */
import type { AdapterInfo } from '../../engine/host/adapter.ts';
import { draw } from '../common/table.ts';
import type { Times } from './clock.ts';
import type { Comparison } from './compare.ts';
import type { Verdict } from './targets.ts';
import type { Roofline } from './roofline.ts';

export interface Result extends Times {
  /** Named shape or preset. */
  of: string;
  name: string;
  shape: string;
  /** GFLOP/s and GB/s by the adapter's clock; absent for what no program counts. */
  gflops?: number;
  gbs?: number;
  /** Of what the roofline allows. */
  share?: number;
  /** Bytes on the device at most. */
  peak?: number;
  /** What `vpae plan` says of it: bytes, the least milliseconds, and the share of the arithmetic that matrix units do. */
  planned?: { peak: number; ms: number; onUnits: number };
}

export interface Skipped {
  of: string;
  name: string;
  shape: string;
  reason: string;
}

/** The file that --save writes and --against reads; cli/bench/pytorch.py prints the same form. */
export interface Report {
  adapter: string;
  driver: string;
  kind: AdapterInfo['kind'];
  tier: string;
  /** What rates and shares are counted by. */
  clock: 'wall' | 'processor';
  cores: number;
  /** It validates and computes nothing: all times are the host's own, what a step takes at least on a GPU of any speed. */
  nothing?: boolean;
  roofline: Roofline;
  results: Result[];
  skipped: Skipped[];
  comparisons?: Comparison[];
  verdicts?: Verdict[];
}

export const number = (x: number): string => (x < 100 ? x.toPrecision(3) : x.toFixed(0));
const percent = (x: number): string => `${(100 * x).toFixed(0)} %`;

function line(r: Result, software: boolean, speedUp: ((r: Result) => number | undefined) | undefined): string[] {
  const faster = speedUp?.(r);
  return [
    r.of,
    r.name,
    r.shape,
    `${number(r.ms)} ± ${percent(r.spread)}`,
    ...(software ? [number(r.cpuMs)] : []),
    r.gflops && r.gflops >= 0.1 ? number(r.gflops) : '–',
    r.gbs ? number(r.gbs) : '–',
    r.share ? percent(r.share) : '–',
    number(r.firstMs),
    r.peak ? number(r.peak / 2 ** 20) : '–',
    ...(speedUp ? [faster === undefined ? '–' : `${number(faster)} x`] : []),
  ];
}

/** Results beside what was planned. */
export function againstPlan(results: readonly Result[], clock: (r: Result) => number): string {
  const mib = (bytes: number): string => number(bytes / 2 ** 20);
  const off = (is: number, plan: number): string =>
    is === plan ? '0' : `${is > plan ? '+' : ''}${(100 * (is / plan - 1)).toPrecision(2)} %`;
  return draw(
    ['', 'peak, MiB', 'planned', 'off', 's', 'least, planned', 'times as long', 'on matrix units'],
    results
      .filter((r) => r.planned)
      .map(({ name, peak, planned, ...r }) => [
        name,
        mib(peak!),
        mib(planned!.peak),
        off(peak!, planned!.peak),
        number(clock({ name, ...r }) / 1000),
        number(planned!.ms / 1000),
        number(clock({ name, ...r }) / planned!.ms),
        percent(planned!.onUnits),
      ]),
  );
}

/** @param speedUp how many times as fast as in the baseline a case is */
export function table(report: Report, speedUp?: (r: Result) => number | undefined): string {
  const software = report.kind === 'software';
  const columns = [
    '',
    '',
    'shape',
    'ms a call',
    ...(software ? ['processor ms'] : []),
    'GFLOP/s',
    'GB/s',
    'of roofline',
    'first call, ms',
    'peak, MiB',
    ...(speedUp ? ['speed-up'] : []),
  ];
  const rows = report.results.map((r, i) => {
    const cells = line(r, software, speedUp);
    return r.of === report.results[i - 1]?.of ? ['', ...cells.slice(1)] : cells;
  });
  const skipped = report.skipped.map((s) => `not run: ${s.of}, ${s.name} ${s.shape}: ${s.reason}`);
  return [draw(columns, rows), ...skipped].join('\n');
}

/** What the numbers were measured on and by. */
export function heading({
  adapter,
  driver,
  kind,
  tier,
  cores,
  nothing,
  roofline: { gflops, f16gflops, copies },
}: Report): string {
  if (nothing)
    return `${adapter}, tier ${tier}: it computes nothing, so these are the host's own times, the least that a GPU of any speed takes`;
  const what =
    kind === 'software'
      ? `software adapter, no GPU: rates and shares are by processor time, all ${cores} cores counted as ours`
      : 'rates and shares are by wall time';
  return [
    `${adapter}, ${driver}, tier ${tier}; ${what}`,
    `ceilings, measured in this run: ${number(gflops)} GFLOP/s of multiply-add${f16gflops === undefined ? '' : `, ${number(f16gflops)} in f16`}; copying ${copies.map((c) => `${number(c.gbs)} GB/s of ${c.bytes / 2 ** 20} MiB`).join(', ')}`,
  ].join('\n');
}
