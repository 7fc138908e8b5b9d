/** An earlier run to compare with. */
import { readFileSync } from 'node:fs';
import type { Report, Result } from './report.ts';

/** @throws one line when the file is not what --save wrote */
export function readBaseline(path: string): Report {
  let report: Partial<Report>;
  try {
    report = JSON.parse(readFileSync(path, 'utf8')) as Partial<Report>;
  } catch (error) {
    throw new Error(`--against ${path}: ${(error as Error).message}`, { cause: error });
  }
  if (!Array.isArray(report.results) || !report.clock)
    throw new Error(`--against ${path}: it is no report of \`vpae bench --save\``);
  return report as Report;
}

/** How many times as fast a case is as in the baseline: by the clock of both, else by the wall, as with a script of another framework. */
export const against = (baseline: Report, now: Report) => {
  const key = baseline.clock === 'processor' && now.clock === 'processor' ? 'cpuMs' : 'ms';
  return (r: Result): number | undefined => {
    const before = baseline.results.find((b) => b.of === r.of && b.name === r.name && b.shape === r.shape);
    return before && before[key] / r[key];
  };
};
