/** A figure of rows of measurements: a dot a seed, a bar at their mean, as SVG that is read on light and dark paper. */

interface DotRow {
  title: string;
  values: readonly number[];
}

const [ROW, LEFT, WIDTH, TOP, BOTTOM] = [24, 250, 640, 46, 44]; // px
const RIGHT = 24;

const escape = (text: string): string =>
  text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]!);

/** Round numbers that divide [lo, hi] into four to eight parts. */
export function ticks(lo: number, hi: number): number[] {
  const rough = (hi - lo) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10);
  const first = Math.ceil(lo / step - 1e-9);
  return Array.from({ length: Math.floor(hi / step + 1e-9) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/**
 * @param axis what the values are
 * @param mark the row whose mean is drawn through all others
 */
export function dotPlot(title: string, axis: string, rows: readonly DotRow[], mark?: string): string {
  const all = rows.flatMap((r) => r.values);
  const [min, max] = [Math.min(...all), Math.max(...all)];
  const margin = 0.05 * (max - min || Math.abs(max) || 1);
  const [lo, hi] = [min - margin, max + margin];
  const x = (v: number): string => (LEFT + ((v - lo) / (hi - lo)) * WIDTH).toFixed(1);
  const height = TOP + rows.length * ROW + BOTTOM;
  const bottom = height - BOTTOM;
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const grid = ticks(lo, hi).map(
    (v) =>
      `<line class="grid" x1="${x(v)}" x2="${x(v)}" y1="${TOP}" y2="${bottom}"/><text class="quiet" x="${x(v)}" y="${bottom + 17}" text-anchor="middle">${v}</text>`,
  );
  const marked = rows.find((r) => r.title === mark);
  const line = marked
    ? [`<line class="mark" x1="${x(mean(marked.values))}" x2="${x(mean(marked.values))}" y1="${TOP}" y2="${bottom}"/>`]
    : [];
  const shown = rows.map(({ title: name, values }, i) => {
    const y = TOP + (i + 0.5) * ROW;
    const dots = values.map((v) => `<circle cx="${x(v)}" cy="${y}" r="4"/>`).join('');
    return `<text x="${LEFT - 12}" y="${y + 4}" text-anchor="end"${name === mark ? ' class="own"' : ''}>${escape(name)}</text>${dots}<line class="mean" x1="${x(mean(values))}" x2="${x(mean(values))}" y1="${y - 8}" y2="${y + 8}"/>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${LEFT + WIDTH + RIGHT}" height="${height}" viewBox="0 0 ${LEFT + WIDTH + RIGHT} ${height}">
<style>
svg { background: #fff; } text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #1c1e21; } .title, .own { font-weight: 600; } .quiet { fill: #63686e; font-size: 12px; }
.grid { stroke: #dfe2e6; } .mark { stroke: #0b6bcb; stroke-dasharray: 4 3; } .mean { stroke: #1c1e21; stroke-width: 2; } circle { fill: #0b6bcb; fill-opacity: .45; }
@media (prefers-color-scheme: dark) { svg { background: #121417; } text { fill: #e8eaed; } .quiet { fill: #9aa0a6; } .grid { stroke: #2d3136; } .mean { stroke: #e8eaed; } .mark { stroke: #7ab8ff; } circle { fill: #7ab8ff; } }
</style>
<text class="title" x="${LEFT}" y="24">${escape(title)}</text>
${[...grid, ...line, ...shown].join('\n')}
<text class="quiet" x="${LEFT + WIDTH / 2}" y="${height - 8}" text-anchor="middle">${escape(axis)}</text>
</svg>
`;
}
