/** `vpae ablate`: the paper's ablations and the baselines at equal budgets, as one table and one figure. */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { ablate as train, type Ablate, type Result } from '../train/ablation/ablate.ts';
import { PAPER, ROWS } from '../train/ablation/rows.ts';
import { COLUMNS, compare, tableOf, type Summary, type TableRow } from '../train/ablation/table.ts';
import { writeWhole } from '../train/files.ts';
import { didYouMean, Interrupted, UsageError } from './common/errors.ts';
import { CLASSIFIER, ownOr, willWrite } from './common/files.ts';
import { dotPlot } from './media/dotplot.ts';
import { bundle, count, preset, presetOf, run, type Args } from './common/options.ts';
import { jobName, meter, type Meter } from './common/progress.ts';
import { session } from './common/session.ts';
import { makeShards } from './common/shards.ts';
import { draw } from './common/table.ts';

const options = {
  ...preset, ...run('runs/digits'), ...bundle,
  rows: { type: 'string', describe: `which, with commas between them; all unless given: ${ROWS.map((r) => r.id).join(', ')}` },
  seeds: { type: 'number', default: 3, describe: 'how many times each row is trained' },
  steps: { type: 'number', describe: 'generator updates of each row in all; the two phases\' unless given' },
} as const;

const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;
const FORMATS: Record<string, (x: number) => string> = {
  'right digit': percent, 'right direction': percent, 'motion': (x) => x.toFixed(2), 'first frame, dB': (x) => x.toFixed(1), 'Fréchet': (x) => x.toFixed(2),
};
const cell = (name: string, s: Summary | undefined): string => {
  const text = FORMATS[name] ?? ((x: number) => x.toFixed(3));
  return !s ? '–' : s.spread === undefined ? text(s.mean) : `${text(s.mean)} ± ${text(s.spread)}`;
};

const HEAD = ['', 'seeds', ...Object.keys(COLUMNS)];
const cells = (table: readonly TableRow[]): string[][] => table.map(({ title, seeds, columns, failed }) =>
  [failed && !seeds ? `${title} (failed)` : title, String(seeds), ...Object.keys(COLUMNS).map((name) => cell(name, columns[name]))]);

/** Table, notes and comparison as Markdown. */
function markdown(table: readonly TableRow[], about: string): string {
  const line = (texts: readonly string[]): string => `| ${texts.join(' | ')} |`;
  const verdicts = compare(PAPER, table);
  return [
    '# Ablations', '', about, '',
    line(HEAD), line(HEAD.map((_, i) => (i ? '---:' : '---'))), ...cells(table).map(line), '',
    'Score: right digit × right direction - 0.01 Fréchet as in `eval`, on held-out conditions, of the average with the best score on validation clips, and of the last.',
    'Mean ± standard deviation over seeds. Motion: relative to the real clips\'. Fréchet: comparable within this table only.', '',
    ...table.filter((r) => r.failed).map((r) => `${r.title} failed with at least one seed: ${r.failed}`),
    ...(verdicts.length ? [
      '## Beside the paper\'s order', '', `By mean score; undecided where two rows differ by less than the standard error of their difference${table.some((r) => r.seeds === 1) ? ', which one seed does not have: there the sign decides' : ''}.`, '',
      line(['', 'worse in the paper', 'better in the paper', 'difference here', 'ours']), line(['---', '---', '---', '---:', '---']),
      ...verdicts.map((v) => line([v.about, v.worse, v.better, v.difference.toFixed(3), v.verdict])), '',
    ] : []),
  ].join('\n');
}

/** The rows named, in the table's order. @throws one line on a name that is none */
function chosen(names: string | undefined): typeof ROWS {
  if (names === undefined) return ROWS;
  const asked = names.split(',').map((n) => n.trim()).filter(Boolean);
  const known = ROWS.map((r) => r.id);
  const wrong = asked.find((n) => !known.includes(n));
  if (wrong !== undefined || !asked.length) throw new UsageError(`--rows: there is no row "${wrong ?? ''}"${didYouMean(wrong ?? '', known)}; there are: ${known.join(', ')}`);
  return ROWS.filter((r) => asked.includes(r.id));
}

async function ablate(args: Args<typeof options>): Promise<void> {
  const p = presetOf(args);
  const rows = chosen(args.rows);
  const seeds = count('seeds', args.seeds, 1, 100);
  const updates = count('steps', args.steps ?? p.phase1.steps + p.phase2.steps, 2);
  const out = join(args.run, 'ablations');
  willWrite(join(out, 'x'));
  await session(`stopped; ${out} is as it was saved last, the same command goes on from there`, async ({ device, signal }) => {
    const [vae, teacher] = [ownOr(args.run, args.bundle, 'vae'), ownOr(args.run, args.bundle, 'teacher')];
    await makeShards({ device, preset: p, out: args.run, signal, vae });
    let shown: Meter | undefined;
    const about = `Preset ${p.name}, ${updates} generator updates a row, ${seeds} seed${seeds > 1 ? 's' : ''} asked for; ${device.info.name}.`;
    const write = (results: readonly Result[]): TableRow[] => {
      const table = tableOf(rows, results);
      const measured = table.filter((r) => r.seeds);
      writeWhole(join(out, 'table.md'), markdown(table, about));
      writeWhole(join(out, 'table.json'), JSON.stringify({ preset: p.name, updates, seeds, adapter: device.info.name, rows: table, paper: compare(PAPER, table) }, null, 1));
      if (measured.length) writeWhole(join(out, 'table.svg'), dotPlot(`Ablations: ${p.name}, ${updates} updates`, 'score (higher is better)', measured.map((r) => ({ title: r.title, values: r.columns['score']!.values })), ROWS[0]!.title));
      return table;
    };
    const work: Ablate = {
      device, preset: p, out, data: args.run, signal, vae, teacher, classifier: CLASSIFIER, rows, seeds, updates,
      onStep({ done, total, row, seed, job }) {
        shown ??= meter('ablations', { unit: 'steps', total, from: done - 1, memory: () => device.allocated });
        shown.at(done, `${row.id}, seed ${seed}: ${jobName(job)}`);
      },
      onResult: write,
    };
    const { results, done } = await train(work).finally(() => shown?.end());
    const table = write(results);
    if (!done) throw new Interrupted(`stopped; ${results.length} of ${rows.length * seeds} results are in ${out}, the same command goes on from there`);
    console.log(`${draw(HEAD, cells(table))}\n`);
    for (const v of compare(PAPER, table)) console.log(`${v.verdict}: ${v.about}: ${v.worse} < ${v.better} (${v.difference.toFixed(3)})`);
    console.log(`\n${join(out, 'table.md')}, table.json and table.svg hold it all.`);
  });
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'ablate',
  describe: 'train and judge the paper\'s ablations and the baselines at equal budgets',
  builder: (y) => y
    .options(options)
    .example('$0 ablate --steps 60 --seeds 1', 'every row, shortly')
    .example('$0 ablate --rows method,no-priming,vsd-only', 'some rows in full'),
  handler: ablate,
};
export default command;
