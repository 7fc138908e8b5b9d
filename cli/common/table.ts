/** The table of samplers: what each costs and what its clips are worth. */
import Table from 'cli-table3';
import type { FlareReport } from '../../train/judge/flarejudge.ts';
import type { Evaluation } from '../../train/metrics/evaluate.ts';

/** One sampler on the conditions; the real clips cost nothing and have neither. */
export interface Row<E = Evaluation> {
  name: string;
  evaluations?: number;
  secondsPerClip?: number;
  evaluation: E;
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

/** What it is and what it costs. */
const costs = ({ name, evaluations, secondsPerClip }: Row<unknown>): string[] => [
  name,
  evaluations?.toString() ?? '–',
  secondsPerClip?.toPrecision(3) ?? '–',
];

/** Rows as text, in the order of COLUMNS. */
export const cells = (rows: readonly Row[]): string[][] =>
  rows.map((row) => {
    const { evaluation: e } = row;
    return [
      ...costs(row),
      percent(e.digitAccuracy),
      percent(e.directionAccuracy),
      e.motion.toFixed(2),
      row.evaluations === undefined ? '–' : e.firstFramePsnr.toFixed(1),
      e.frechet.toFixed(2),
    ];
  });

export const FLARE_COLUMNS = [
  '',
  'evaluations',
  'seconds a clip',
  'right action',
  'direction',
  'garment',
  'Fréchet',
  'texture',
  'precision',
  'recall',
  'sharpness',
  'motion',
  'first frame, dB',
  'spread',
] as const;

export const FLARE_NOTE =
  "Right action, direction, garment: read by a frozen classifier. Fréchet: distance of its features to the real clips'; texture: of fixed random " +
  "filters' answers, times 100. Precision, recall: shares of the clips among the real ones, and the reverse. Sharpness (energy of the Laplacian) and " +
  "motion: over the real clips'. First frame: PSNR to the given one. Spread: distance between samples of one condition from other seeds.";

/** Rows as text, in the order of FLARE_COLUMNS. */
export const flareCells = (rows: readonly Row<FlareReport>[]): string[][] =>
  rows.map((row) => {
    const { evaluation: e } = row;
    return [
      ...costs(row),
      ...[e.actionAccuracy, e.directionAccuracy, e.garmentAccuracy].map(percent),
      ...[e.frechet, e.texture, e.precision, e.recall, e.sharpness, e.motionRatio].map((x) => x.toFixed(2)),
      row.evaluations === undefined ? '–' : e.firstFramePsnr.toFixed(1),
      e.spread?.toFixed(3) ?? '–',
    ];
  });

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
