/** What `vpae ablate` has measured, as people read it: a figure, a table, and where it agrees with the paper's order. */
import { existsSync, readFileSync } from 'node:fs';
import { ROWS } from '../../train/ablation/rows.ts';
import type { Summary, TableRow, Verdict } from '../../train/ablation/table.ts';
import { dotPlot } from '../media/dotplot.ts';
import type { Section, Table } from '../media/report.ts';

/** As it lies in a file. */
export interface Results {
  preset: string;
  /** Generator updates of each row. */
  updates: number;
  /** That were asked for. */
  seeds: number;
  adapter: string;
  /** Overrides of the preset. */
  set: readonly string[];
  /** How the score is made, in words. */
  scored: string;
  rows: TableRow[];
  paper: Verdict[];
}

/** Undefined where there is no such file. @throws one line when it holds something else */
export function readResults(path: string): Results | undefined {
  if (!existsSync(path)) return undefined;
  try {
    const results = JSON.parse(readFileSync(path, 'utf8')) as Results;
    if (Array.isArray(results.rows) && Array.isArray(results.paper) && Array.isArray(results.set)) return results;
  } catch {
    /* said below */
  }
  throw new Error(
    `[ablate] ${path} holds no results of vpae ablate: copy the table.json that it wrote, or remove the file`,
  );
}

const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;
const FORMATS: Record<string, (x: number) => string> = {
  'right digit': percent,
  'in the last frame': percent,
  'right direction': percent,
  motion: (x) => x.toFixed(2),
  'first frame, dB': (x) => x.toFixed(1),
  Fréchet: (x) => x.toFixed(2),
  'read rightly': percent,
  action: percent,
  sharpness: (x) => x.toFixed(2),
  texture: (x) => x.toFixed(2),
};
const cell = (name: string, s: Summary | undefined): string => {
  const text = FORMATS[name] ?? ((x: number) => x.toFixed(3));
  return !s ? '–' : s.spread === undefined ? text(s.mean) : `${text(s.mean)} ± ${text(s.spread)}`;
};

export const about = ({ preset, updates, seeds, adapter, set }: Results): string =>
  `Preset ${preset}${set.length ? ` with ${set.join(', ')}` : ''}; ${updates} generator updates a row, ${seeds} seed${seeds > 1 ? 's' : ''} asked for; ${adapter}.`;

const note = ({ scored }: Results): string =>
  `Score: ${scored} as in eval, on held-out conditions, of the average with the best score on validation clips, and of the last. ` +
  "Mean ± standard deviation over seeds. Motion and sharpness: relative to the real clips'. Fréchet: comparable within this table only.";

/** The rows' table, mean and spread. */
export function measured(results: Results): Table {
  const { rows } = results;
  const names = Object.keys(rows.find((r) => r.seeds)?.columns ?? {});
  return {
    columns: ['', 'seeds', ...names],
    rows: rows.map(({ title, seeds, columns, failed }) => [
      failed && !seeds ? `${title} (failed)` : title,
      String(seeds),
      ...names.map((name) => cell(name, columns[name])),
    ]),
    note: [
      note(results),
      ...rows.filter((r) => r.failed).map((r) => `${r.title} failed with at least one seed: ${r.failed}`),
    ].join(' '),
  };
}

/** Pairs of rows that the paper orders, beside ours; nothing where none of them was measured. */
const beside = ({ rows, paper }: Results): Table[] =>
  paper.length
    ? [
        {
          columns: ["beside the paper's order", 'worse in the paper', 'better in the paper', 'difference here', 'ours'],
          rows: paper.map((v) => [v.about, v.worse, v.better, v.difference.toFixed(3), v.verdict]),
          note: `By mean score; undecided where two rows differ by less than the standard error of their difference${rows.some((r) => r.seeds === 1) ? ', which one seed does not have: there the sign decides' : ''}.`,
        },
      ]
    : [];

/** A dot a seed, as SVG; undefined before the first result. */
export function figure({ preset, updates, rows }: Results): string | undefined {
  const shown = rows.filter((r) => r.seeds);
  return shown.length
    ? dotPlot(
        `Ablations: ${preset}, ${updates} updates`,
        'score (higher is better)',
        shown.map((r) => ({ title: r.title, values: r.columns['score']!.values })),
        ROWS[0]!.title,
      )
    : undefined;
}

/** For a report. */
export function sectionOf(results: Results): Section {
  const svg = figure(results);
  return {
    title: 'Ablations',
    text: [about(results)],
    ...(svg && { figure: { svg, alt: 'score of each row, a dot a seed' } }),
    tables: [measured(results), ...beside(results)],
  };
}

/** For a README. */
export function markdown(results: Results): string {
  const line = (texts: readonly string[]): string => `| ${texts.join(' | ')} |`;
  const table = ({ columns, rows, note }: Table): string[] => [
    line(columns),
    line(columns.map((_, i) => (i ? '---:' : '---'))),
    ...rows.map(line),
    '',
    note ?? '',
    '',
  ];
  return ['# Ablations', '', about(results), '', ...[measured(results), ...beside(results)].flatMap(table)].join('\n');
}
