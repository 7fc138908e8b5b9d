import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import sharp from 'sharp';
import { markdown, readResults, sectionOf, type Results } from '../../cli/ablate/results.ts';
import { animate, writeGrid } from '../../cli/media/animation.ts';
import { dotPlot, ticks } from '../../cli/media/dotplot.ts';
import { textPath, textWidth } from '../../cli/media/letters.ts';
import type { Video } from '../../cli/media/picture.ts';
import { sinkFor } from '../../cli/media/sink.ts';
import { host } from '../../engine/frontend/tree.ts';
import { reportHtml, writeReport, type Report } from '../../cli/media/report.ts';
import { contactSheet } from '../../cli/media/sheet.ts';
import { compare, summarise } from '../../train/ablation/table.ts';
import { conditions } from '../../train/data/digits.ts';

const clips = conditions(0, 3);
const videos = clips.map((c): Video => ({ data: c.video, shape: [1, 9, 32, 32] }));
const root = mkdtempSync(join(tmpdir(), 'media-'));
test.after(() => rmSync(root, { recursive: true }));

test('an animated WebP plays every frame, pixel for pixel', async () => {
  const path = join(root, 'new', 'clip.webp');
  const sink = await (await sinkFor(path))({ width: 32, height: 32, frames: 9, fps: 8, scale: 4 });
  await sink.add(host(videos[0]!.data, videos[0]!.shape));
  await sink.end();
  const { pages, delay, width, pageHeight } = await sharp(path, { animated: true }).metadata();
  assert.equal([pages, width, pageHeight, delay?.length], [9, 128, 128, 9]);
  for (const t of [0, 8]) {
    const pixels = await sharp(path, { page: t }).removeAlpha().raw().toBuffer();
    for (let i = 0; i < 1024; i++) {
      const corner = 3 * (Math.floor(i / 32) * 4 * 128 + (i % 32) * 4);
      const expected = Math.round(255 * Math.min(1, (clips[0]!.video[t * 1024 + i]! + 1) / 2));
      assert.equal([...pixels.subarray(corner, corner + 3)], [expected, expected, expected], `frame ${t}, pixel ${i}`);
    }
  }
  assert.equal(
    readdirSync(dirname(path)).filter((f) => f.startsWith(basename(path))),
    [basename(path)],
  );
});

test('a grid keeps its cells, shorter clips rest on their last frame, colour stays colour', async () => {
  const red: Video = {
    data: Float32Array.from({ length: 3 * 2 * 1024 }, (_, i) => (i < 2048 ? 1 : -1)),
    shape: [3, 2, 32, 32],
  };
  await writeGrid(
    join(root, 'grid.webp'),
    [
      [videos[0]!, red],
      [videos[1]!, videos[2]!],
    ],
    { scale: 2, titles: ['one', 'a much longer title'] },
  );
  const last = await sharp(join(root, 'grid.webp'), { page: 8 })
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const at = 3 * (40 * last.info.width + 100); // inside the red clip
  assert.equal([...last.data.subarray(at, at + 3)], [255, 0, 0]);
  const tall: Video = { data: new Float32Array(16 * 64 * 9), shape: [1, 9, 16, 64] };
  await animate([[videos[0]!, tall]], 'webp', { scale: 1 }).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /clips differ in size: 16x64 beside 32x32/),
  );
});

test('the contact sheet has a labelled row a condition and a column a sampler', async () => {
  const columns = [
    { title: 'Real clip', clips: videos },
    { title: 'Student', note: '1 evaluation', clips: videos },
  ];
  const sheet = sharp(
    await contactSheet(
      clips.map((c) => c.caption),
      columns,
      3,
    ),
  );
  const { data, info } = await sheet.removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const dark = (x0: number, y0: number, x1: number, y1: number): number => {
    let n = 0;
    for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) if (data[3 * (y * info.width + x)]! < 140) n++;
    return n;
  };
  assert.is(info.height, 18 + 48 + 3 * 72 - 8 + 18);
  assert.ok(dark(18, 66, 100, 66 + 64) > 30, 'the first caption is drawn, without any font');
  assert.ok(dark(100, 10, info.width, 60) > 60, 'titles are drawn');
});

test('text is drawn by strokes of the width it reports', () => {
  assert.ok(textWidth('iii', 10) < textWidth('mmm', 10));
  assert.is(textWidth('ab', 20), 2 * textWidth('ab', 10));
  const svg = textPath('<a§', 0, 10, { height: 7, color: '#000' });
  assert.is(svg.match(/<path/g)?.length, 3); // unknown characters are boxes
});

test('a dot plot has a dot a value, means where they belong, and round ticks', async () => {
  assert.equal(ticks(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.equal(ticks(-15.6, -15.1), [-15.6, -15.5, -15.4, -15.3, -15.2, -15.1]);
  const svg = dotPlot(
    'title',
    'axis',
    [
      { title: 'a < b', values: [0, 1] },
      { title: 'c', values: [0.5, 0.5] },
    ],
    'c',
  );
  assert.is(svg.match(/<circle/g)?.length, 4);
  assert.ok(svg.includes('a &lt; b'));
  const means = [...svg.matchAll(/class="mean" x1="([\d.]+)"/g)].map((m) => m[1]);
  assert.is(means[0], means[1]);
  assert.ok((await sharp(Buffer.from(svg)).metadata()).width > 0);
});

test('the report is one file that holds everything and escapes what it is given', async () => {
  const report: Report = {
    title: 'A <b> & "c"',
    lead: ['Look.'],
    table: {
      columns: ['', 'Evaluations'],
      rows: [
        ['Teacher', '100'],
        ['Student <1>', '1'],
      ],
      note: 'n = 3',
    },
    columns: [{ title: 'Teacher', note: '100 evaluations' }, { title: 'Student' }],
    comparisons: clips.map((c, i) => ({ caption: c.caption, videos: [videos[i]!, videos[i]!] })),
    origins: [
      { title: 'Trained here', text: 'The student.' },
      { title: 'Bundled', text: 'The teacher.' },
    ],
    footer: ['seed 1'],
  };
  await writeReport(join(root, 'report.html'), report);
  const html = readFileSync(join(root, 'report.html'), 'utf8');
  assert.is(html, await reportHtml(report));
  assert.match(html, '<h1>A &lt;b&gt; &amp; &quot;c&quot;</h1>');
  assert.match(html, '<th scope="row">Student &lt;1&gt;</th>');
  assert.match(html, 'prefers-color-scheme: dark');
  assert.not.match(html, /(src|href)="(?!data:)/);
  assert.is(html.match(/src="data:image\/webp;base64,/g)?.length, 3);
  const image = Buffer.from(/base64,([^"]+)/.exec(html)![1]!, 'base64');
  assert.is((await sharp(image, { animated: true }).metadata()).pages, 9);
  await reportHtml({ ...report, columns: [] }).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /has 2 clips for 0 columns/),
  );
});

test("ablations stand in a report with their figure, their spread, and the paper's order; a file of something else is refused", async () => {
  const summary = (...values: number[]) =>
    Object.fromEntries(['score', 'score at the end', 'sharpness'].map((name) => [name, summarise(values)]));
  const rows = [
    { id: 'method', title: 'both phases', seeds: 2, columns: summary(0.7, 0.9) },
    { id: 'no-priming', title: 'no priming', seeds: 2, columns: summary(0.5, 0.6) },
    { id: 'dmd2', title: 'DMD2, jointly', seeds: 0, columns: {}, failed: 'it diverged' },
  ];
  const results: Results = {
    preset: 'digits',
    updates: 160,
    seeds: 2,
    adapter: 'a GPU',
    set: ['priming.batch=8'],
    scored: 'by eye',
    rows,
    paper: compare([{ about: 'priming', rows: ['no-priming', 'method'] }], rows),
  };
  const path = join(root, 'ablation.json');
  assert.is(readResults(path), undefined);
  writeFileSync(path, JSON.stringify(results));
  const html = await reportHtml({ title: 'x', lead: [], sections: [sectionOf(readResults(path)!)], footer: [] });
  assert.match(html, '<th scope="row">both phases</th><td>2</td><td>0.800 ± 0.141</td>');
  assert.match(html, '<td>no priming</td><td>both phases</td><td>0.250</td><td>agrees</td>');
  assert.match(html, 'DMD2, jointly failed with at least one seed: it diverged');
  assert.is(
    Buffer.from(/svg\+xml;base64,([^"]+)/.exec(html)![1]!, 'base64')
      .toString()
      .match(/<circle/g)?.length,
    4,
  );
  assert.match(markdown(results), '| no priming | 2 | 0.550 ± 0.071 |');
  assert.not.match(html, 'Side by side');
  writeFileSync(path, '{}');
  assert.throws(
    () => readResults(path),
    /^\[ablate\] .*ablation\.json holds no results of vpae ablate: copy the table\.json/,
  );
});

test.run();
