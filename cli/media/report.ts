/** `report.html`: one file with everything in it, so that it can be mailed or opened anywhere; light or dark as the reader's system is. */
import { writeWhole } from '../../train/loop/files.ts';
import { animate } from './animation.ts';
import type { Video } from './picture.ts';

/** The first cell of a row is its name. */
export interface Table {
  columns: readonly string[];
  rows: readonly (readonly string[])[];
  note?: string;
}

/** A part of its own; its figure is SVG. */
export interface Section {
  title: string;
  text: readonly string[];
  figure?: { svg: string; alt: string };
  tables: readonly Table[];
}

/** What is left out is not shown. */
export interface Report {
  title: string;
  /** What a reader is looking at, a paragraph each. */
  lead: readonly string[];
  /** What was measured. */
  table?: Table;
  /** The samplers side by side, in the order of each comparison's videos. */
  columns?: readonly { title: string; note?: string }[];
  comparisons?: readonly { caption: string; videos: readonly Video[] }[];
  sections?: readonly Section[];
  /** What was trained in this run and what came bundled: a heading and a text each. */
  origins?: readonly { title: string; text: string }[];
  /** Device, versions, seeds: small print. */
  footer: readonly string[];
}

const escape = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
const SCALE = 3; // screen pixels a pixel; the page may stretch it further

const STYLE = `
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1e21; --quiet: #63686e; --line: #dfe2e6; --panel: #f6f7f8; --accent: #0b6bcb; }
@media (prefers-color-scheme: dark) { :root { --paper: #121417; --ink: #e8eaed; --quiet: #9aa0a6; --line: #2d3136; --panel: #1b1e22; --accent: #7ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
p { margin: 0 0 .8rem; max-width: 46rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { font-size: .8rem; font-weight: 600; color: var(--quiet); background: var(--panel); white-space: normal; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 600; }
.note { margin-top: .5rem; }
small, .note, footer { color: var(--quiet); font-size: .85rem; }
.clips { --gap: calc(100% * 2 / var(--strip)); }
.row { display: grid; grid-template-columns: 10.5rem minmax(0, 36rem); gap: 1rem; align-items: center; margin-bottom: .5rem; }
.heads { display: grid; column-gap: var(--gap); grid-template-columns: repeat(var(--n), 1fr); }
.head { position: sticky; top: 0; background: var(--paper); padding: .4rem 0; align-items: end; z-index: 1; }
.heads b { display: block; line-height: 1.25; } .heads small { display: block; line-height: 1.3; }
.row img { display: block; width: 100%; image-rendering: pixelated; }
@media (max-width: 40rem) { .row { grid-template-columns: 1fr; gap: .25rem; } .heads { font-size: .8rem; } }
.figure { display: block; max-width: 100%; margin: .5rem 0 1rem; }
.scroll + .scroll, .note + .scroll { margin-top: 1.25rem; }
.origins { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
.origins section { background: var(--panel); border-left: 3px solid var(--accent); border-radius: .25rem; padding: .9rem 1.1rem; }
.origins h3 { margin: 0 0 .3rem; font-size: 1rem; } .origins p { margin: 0; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; } footer div { overflow-wrap: anywhere; }
`;

const paragraph = (text: string): string => `<p>${escape(text)}</p>`;
const heading = (text: string): string => `<h2>${escape(text)}</h2>`;

function tableHtml({ columns, rows, note }: Table): string {
  const cells = (row: readonly string[]): string =>
    row.map((cell, i) => (i === 0 ? `<th scope="row">${escape(cell)}</th>` : `<td>${escape(cell)}</td>`)).join('');
  return `<div class="scroll"><table>
<thead><tr>${columns.map((c) => `<th scope="col">${escape(c)}</th>`).join('')}</tr></thead>
<tbody>
${rows.map((row) => `<tr>${cells(row)}</tr>`).join('\n')}
</tbody>
</table></div>
${note ? `<p class="note">${escape(note)}</p>` : ''}`;
}

/** Each comparison is one animation, so that its clips play in step. */
async function sideBySide(
  columns: NonNullable<Report['columns']>,
  comparisons: NonNullable<Report['comparisons']>,
): Promise<string> {
  const width = comparisons[0]?.videos[0]?.shape[3] ?? 32;
  const strip = columns.length * (width + 2) - 2; // as `animate` lays a row out, in the clips' pixels
  const rows = await Promise.all(
    comparisons.map(async ({ caption, videos }) => {
      if (videos.length !== columns.length)
        throw new Error(`[report] "${caption}" has ${videos.length} clips for ${columns.length} columns`);
      const image = (await animate([videos], 'webp', { scale: SCALE })).toString('base64');
      const alt = escape(`${caption}: ${columns.map((c) => c.title).join(', ')}`);
      return `<div class="row"><div>${escape(caption)}</div><img alt="${alt}" src="data:image/webp;base64,${image}"></div>`;
    }),
  );
  return `${heading('Side by side')}
<div class="clips" style="--n:${columns.length};--strip:${strip}">
<div class="row head"><small>Condition</small><div class="heads">${columns.map((c) => `<div><b>${escape(c.title)}</b>${c.note ? `<small>${escape(c.note)}</small>` : ''}</div>`).join('')}</div></div>
${rows.join('\n')}
</div>`;
}

const sectionHtml = ({ title, text, figure, tables }: Section): string =>
  [
    heading(title),
    ...text.map(paragraph),
    ...(figure
      ? [
          `<img class="figure" alt="${escape(figure.alt)}" src="data:image/svg+xml;base64,${Buffer.from(figure.svg).toString('base64')}">`,
        ]
      : []),
    ...tables.map(tableHtml),
  ].join('\n');

const originsHtml = (origins: NonNullable<Report['origins']>): string => `${heading('Where the networks come from')}
<div class="origins">
${origins.map(({ title, text }) => `<section><h3>${escape(title)}</h3><p>${escape(text)}</p></section>`).join('\n')}
</div>`;

/** The page as text. */
export async function reportHtml({
  title,
  lead,
  table,
  columns = [],
  comparisons = [],
  sections = [],
  origins,
  footer,
}: Report): Promise<string> {
  const parts = [
    ...lead.map(paragraph),
    ...(table ? [heading('Measured'), tableHtml(table)] : []),
    ...(comparisons.length ? [await sideBySide(columns, comparisons)] : []),
    ...sections.map(sectionHtml),
    ...(origins ? [originsHtml(origins)] : []),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escape(title)}</h1>
${parts.join('\n')}
<footer>${footer.map((line) => `<div>${escape(line)}</div>`).join('\n')}</footer>
</body>
</html>
`;
}

export async function writeReport(path: string, report: Report): Promise<void> {
  writeWhole(path, await reportHtml(report));
}
