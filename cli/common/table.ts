/** The table of samplers: what each costs and what its clips are worth. */
import Table from 'cli-table3';
import type { Evaluation } from '../../train/metrics/evaluate.ts';

/** One sampler on the conditions; the real clips cost nothing and have neither. */
export interface Row {
  name: string;
  evaluations?: number;
  secondsPerClip?: number;
  evaluation: Evaluation;
}

export const COLUMNS = [
  '',
  'evaluations',
  'seconds a clip',
  'right digit',
  'right direction',
  'motion, px/frame',
  'first frame, dB',
  'Fréchet',
] as const;

export const NOTE =
  "Right digit: read by a frozen classifier. Right direction, motion: the bright centroid's. First frame: PSNR to the given one. " +
  "Fréchet: distance of the classifier's features to the real clips', smaller is better; comparable within this table only.";

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** Rows as text, in the order of COLUMNS. */
export const cells = (rows: readonly Row[]): string[][] =>
  rows.map(({ name, evaluations, secondsPerClip, evaluation: e }) => [
    name,
    evaluations?.toString() ?? '–',
    secondsPerClip?.toPrecision(3) ?? '–',
    percent(e.digitAccuracy),
    percent(e.directionAccuracy),
    e.motion.toFixed(2),
    evaluations === undefined ? '–' : e.firstFramePsnr.toFixed(1),
    e.frechet.toFixed(2),
  ]);

/** The same clips frame by frame, where a drift shows that means over frames hide. */
export function byFrame(rows: readonly Row[]): string {
  const frames = rows[0]!.evaluation.byFrame.digit.map((_, t) => String(t));
  return draw(
    ['right digit in frame, %', ...frames],
    rows.map(({ name, evaluation: e }) => [name, ...e.byFrame.digit.map((x) => (100 * x).toFixed(0))]),
  );
}

/** No lines between rows. */
const NO_RULES = { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' };

/** Plain text with ruled columns, numbers to the right. */
export function draw(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new Table({
    head: [...columns],
    colAligns: columns.map((_, i) => (i ? 'right' : 'left')),
    style: { head: [], border: [] },
    chars: NO_RULES,
  });
  table.push(...rows.map((r) => [...r]));
  return table.toString();
}
