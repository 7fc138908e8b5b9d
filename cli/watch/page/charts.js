/** What each curve means and how it is drawn: the names are those of the log. */
import uPlot from './uplot.js';

/**
 * @typedef {{ title: string, of: string[], note: string, limit?: number, log?: boolean }} Chart
 * `of`: metrics drawn together; `limit`: where an alarm begins.
 * @typedef {{ at: number[], metrics: Record<string, { mean: (number | null)[], low: (number | null)[], high: (number | null)[] }> }} Curves
 */

/** @type {Chart[]} */
const STEPS = [
  { title: 'Loss', of: ['loss'], note: 'falls fast, then slowly', log: true },
  { title: 'Reconstruction error', of: ['mse'], note: 'of the VAE, squared, pixels in [-1, 1]', log: true },
  { title: 'KL', of: ['kl'], note: 'of the latents from a standard normal' },
  { title: 'Gap to the teacher', of: ['gap'], note: "mean |x̂0 - teacher's x̂0|: falls while priming teaches" },
  { title: "Fake model's loss", of: ['fakeLoss'], note: "on the generator's samples: should not rise" },
  {
    title: "Fake model's lag",
    of: ['lag'],
    note: "its error beside the teacher's: 1 means it learned nothing of the samples",
    limit: 1,
  },
  { title: 'Score gradient', of: ['G'], note: 'root mean square, normalised: steady' },
  { title: 'Normaliser at its floor', of: ['floor'], note: 'share of samples', limit: 0.5 },
  { title: 'Real and fake logits', of: ['real', 'fake'], note: 'apart, but not far: each side of 0 by about 1' },
  { title: 'Margin', of: ['margin'], note: 'real minus fake logit: healthy about 1, blind below 0.1', limit: 0.1 },
  { title: "Discriminator's loss", of: ['D'], note: 'hinge: 2 is a blind one, 0 one that has won' },
  { title: 'Active hinge terms', of: ['active'], note: 'share; the discriminator has won below 0.05', limit: 0.05 },
  { title: 'STR1', of: ['str1'], note: "slope of the head's logits in space and time" },
  { title: 'Conditional SDS', of: ['csds', 'csdsFirst'], note: 'all frames, and the first, which should be lowest' },
  { title: 'Gradients at x̂0', of: ['gD', 'gS'], note: 'adversarial and C-SDS: the second is 0.1 to 1 of the first' },
  {
    title: 'Angle',
    of: ['cos'],
    note: 'cosine: of gap and gradient while priming, of adversarial and C-SDS gradient later',
  },
  { title: 'Spread of the latents', of: ['deviation'], note: "over the data's: saturated above 1.15", limit: 1.15 },
  { title: 'Motion', of: ['motion'], note: "over the data's, between latent frames: static below 0.7", limit: 0.7 },
  { title: 'First frame', of: ['first'], note: 'squared distance to the given one: collapse when it grows', log: true },
  {
    title: "Out of f16's range",
    of: ['overflowed', 'vanished', 'headOverflowed', 'fakeOverflowed', 'judgementOverflowed'],
    note: 'operands of a step that are infinite in f16, and cotangents too small for it: 0',
    limit: 1,
  },
  { title: 'Gradient norms', of: ['norm', 'fakeNorm', 'headNorm'], note: 'before clipping', log: true },
];

/** @type {Chart[]} */
const JUDGED = [
  { title: 'Score', of: ['score'], note: 'what chooses the weights that are kept: higher is better' },
  {
    title: 'Read as the caption says',
    of: ['digitAccuracy', 'frameAccuracy', 'directionAccuracy', 'actionAccuracy', 'garmentAccuracy'],
    note: 'share of judged clips; of their frames',
  },
  { title: 'Fréchet distance', of: ['frechet', 'texture'], note: 'to real clips, lower is better' },
  { title: 'Sharpness', of: ['sharpness'], note: "over the real clips': below 1 is blurred, above it is noisy" },
  {
    title: 'Precision and recall',
    of: ['precision', 'recall'],
    note: 'real-looking clips; real clips that are reached',
  },
  { title: 'Diversity', of: ['spread'], note: 'distance between samples of one condition: falls when modes are lost' },
  { title: 'First frame, dB', of: ['firstFramePsnr'], note: 'against the given one' },
  { title: 'Motion', of: ['motionRatio'], note: "over the real clips'", limit: 0.7 },
];

const HIDDEN = /(skipped|overflowed|vanished)$/i;
const HEIGHT = 150;

/** Charts for the metrics that are there: the known ones in their order, any other for itself. @param {boolean} judged @param {Curves} curves @returns {Chart[]} */
export function chartsOf(judged, { metrics }) {
  const known = judged ? JUDGED : STEPS;
  const here = known.map((c) => ({ ...c, of: c.of.filter((m) => m in metrics) })).filter((c) => c.of.length);
  const told = new Set(here.flatMap((c) => c.of));
  const others = judged ? [] : Object.keys(metrics).filter((m) => !told.has(m) && !HIDDEN.test(m));
  return [...here, ...others.map((m) => ({ title: m, of: [m], note: '' }))];
}

const css = (/** @type {string} */ name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = () => [css('--accent'), css('--second'), css('--good')];

/** A number as short as can be read. @param {number | null | undefined} x */
export const short = (x) =>
  x === null || x === undefined
    ? '–'
    : Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3)
      ? x.toExponential(1)
      : String(Number(x.toPrecision(3)));

/** Mean of each metric as a line, least to largest as a band around it. @param {Chart} chart @param {Curves} curves @returns {(number | null)[][]} */
function columns(chart, { at, metrics }) {
  return [at, ...chart.of.flatMap((m) => [metrics[m].mean, metrics[m].low, metrics[m].high])];
}

/** A flat curve stands in the middle, any other fills the height. @param {uPlot} _ @param {number} low @param {number} high @returns {[number, number]} */
function spread(_, low, high) {
  const room = high > low ? 0.08 * (high - low) : Math.max(0.1 * Math.abs(low), 0.1);
  return [low - room, high + room];
}

/** One card. @param {Chart} chart @param {Curves} curves */
export function drawCard(chart, curves) {
  const card = document.createElement('section');
  const colors = palette();
  // A metric's name is whatever the log says: it is text, never markup.
  const make = (/** @type {string} */ tag, className = '', textContent = '') =>
    Object.assign(document.createElement(tag), { className, textContent });
  const [title, note, now, place] = [make('h3'), make('p', 'quiet', chart.note), make('span', 'now'), make('div')];
  title.append(make('span', '', chart.title), now);
  if (chart.of.length > 1) {
    const keys = chart.of.map((m, i) => {
      const key = make('span', 'key', m);
      key.style.color = colors[i % 3];
      return key;
    });
    note.append(' ', document.createElement('br'), ...keys);
  }
  card.append(title, note, place);
  const axis = {
    stroke: css('--quiet'),
    grid: { stroke: css('--line'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui, "Open Sans", sans-serif',
  };
  const plot = new uPlot(
    {
      width: 300,
      height: HEIGHT,
      padding: [6, 8, 0, 0],
      cursor: { sync: { key: 'steps' }, points: { size: 5 } },
      legend: { show: false },
      scales: { x: { time: false }, y: chart.log ? { distr: 3 } : { range: spread } },
      axes: [
        { ...axis, size: 24 },
        {
          ...axis,
          size: 48,
          values: (/** @type {unknown} */ _, /** @type {number[]} */ values) =>
            values.map((v) => (v === null ? '' : short(v))),
        },
      ],
      series: [
        {},
        ...chart.of.flatMap((label, i) => {
          const stroke = colors[i % 3];
          const edge = { stroke: 'transparent', points: { show: false }, spanGaps: true };
          return [
            { label, stroke, width: 1.75, spanGaps: true, points: { show: curves.at.length < 30, size: 4 } },
            edge,
            edge,
          ];
        }),
      ],
      bands: chart.of.map((_, i) => ({
        series: /** @type {[number, number]} */ ([3 * i + 3, 3 * i + 2]),
        fill: `${colors[i % 3]}26`,
      })),
      hooks: {
        draw: [(u) => drawLimit(u, chart.limit)],
        setCursor: [
          (u) => {
            now.textContent = told(chart, latest, u.cursor.idx);
          },
        ],
      },
    },
    columns(chart, curves),
    place,
  );
  let latest = curves;
  const fit = () => plot.setSize({ width: place.clientWidth, height: HEIGHT });
  const observer = new ResizeObserver(fit);
  observer.observe(place);
  now.textContent = told(chart, latest, null);
  return {
    card,
    /** @param {Curves} next */
    update(next) {
      latest = next;
      plot.setData(columns(chart, next));
      now.textContent = told(chart, next, plot.cursor.idx);
    },
    remove() {
      observer.disconnect();
      plot.destroy();
      card.remove();
    },
  };
}

/** The values under the cursor, or the latest. @param {Chart} chart @param {Curves} curves @param {number | null | undefined} index */
function told(chart, { at, metrics }, index) {
  const value = (/** @type {string} */ m) =>
    index === null || index === undefined ? metrics[m].mean.findLast((x) => x !== null) : metrics[m].mean[index];
  const where = index === null || index === undefined ? '' : `step ${at[index]}: `;
  return where + chart.of.map((m) => short(value(m))).join(' · ');
}

/** A dashed line where an alarm begins. @param {uPlot} u @param {number | undefined} limit */
function drawLimit(u, limit) {
  const { min, max } = u.scales.y;
  if (limit === undefined || min === undefined || max === undefined || limit < min || limit > max) return;
  const y = Math.round(u.valToPos(limit, 'y', true)) + 0.5;
  u.ctx.save();
  u.ctx.strokeStyle = css('--bad');
  u.ctx.setLineDash([4, 4]);
  u.ctx.beginPath();
  u.ctx.moveTo(u.bbox.left, y);
  u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
  u.ctx.stroke();
  u.ctx.restore();
}
