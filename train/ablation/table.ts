/** Ablation results as numbers a person can judge: mean and spread over seeds, and whether rows stand in the paper's order. */
import type { Order, Row } from './rows.ts';
import type { Judged, Result } from './ablate.ts';
import type { Metrics } from '../loop/pending.ts';

/** Over the seeds of a row; `spread` is the sample standard deviation, which one seed does not have. */
export interface Summary {
  mean: number;
  spread?: number;
  values: number[];
}

export interface TableRow {
  id: string;
  title: string;
  seeds: number;
  columns: Record<string, Summary>;
  /** Of seeds that came to nothing. */ failed?: string;
}

/** What is shown of a student: of its best average, but for the score at the end. */
const shown = ({ kept, last }: { kept: Judged; last: Judged }): Metrics => ({
  score: kept.score,
  'score at the end': last.score,
  ...kept.measures,
});

export function summarise(values: number[]): Summary {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  if (n < 2) return { mean, values };
  return { mean, spread: Math.sqrt(values.reduce((s, x) => s + (x - mean) ** 2, 0) / (n - 1)), values };
}

/** Rows that have a result, in the order of `rows`. */
export function tableOf(rows: readonly Row[], results: readonly Result[]): TableRow[] {
  return rows.flatMap(({ id, title }): TableRow[] => {
    const own = results.filter((r) => r.row === id);
    const made = own.filter(
      (r): r is Result & { kept: Judged; last: Judged } => r.kept !== undefined && r.last !== undefined,
    );
    const failed = own.find((r) => r.failed)?.failed;
    if (!own.length) return [];
    const all = made.map(shown);
    const columns = Object.fromEntries(
      Object.keys(all[0] ?? {}).map((name) => [name, summarise(all.map((row) => row[name]!))]),
    );
    return [{ id, title, seeds: made.length, columns, ...(failed && { failed }) }];
  });
}

/** How two rows stand that the paper orders: `undecided` where they differ by less than the standard error of the difference. */
export interface Verdict {
  about: string;
  worse: string;
  better: string;
  difference: number;
  verdict: 'agrees' | 'disagrees' | 'undecided';
}

/** Each two neighbours of the paper's orders, by mean score; those without results are left out. */
export function compare(orders: readonly Order[], table: readonly TableRow[]): Verdict[] {
  const scores = new Map(
    table.flatMap(({ id, title, columns }) =>
      columns['score'] ? [[id, { title, ...columns['score'] }] as const] : [],
    ),
  );
  return orders.flatMap(({ about, rows }) => {
    const there = rows.filter((id) => scores.has(id)).map((id) => scores.get(id)!);
    return there.slice(1).map((b, i): Verdict => {
      const a = there[i]!;
      const difference = b.mean - a.mean;
      const error = Math.sqrt([a, b].reduce((s, { spread = 0, values }) => s + spread ** 2 / values.length, 0));
      const verdict = Math.abs(difference) <= error ? 'undecided' : difference > 0 ? 'agrees' : 'disagrees';
      return { about, worse: a.title, better: b.title, difference, verdict };
    });
  });
}
