/** `vpae ablate`: the paper's ablations and the baselines at equal budgets, as one table and one figure. */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { ablate as train, type Ablate, type Result } from '../train/ablation/ablate.ts';
import { PAPER, ROWS } from '../train/ablation/rows.ts';
import { compare, tableOf } from '../train/ablation/table.ts';
import { writeWhole } from '../train/loop/files.ts';
import { isLeader } from '../train/ranks/ranks.ts';
import { figure, markdown, measured, sectionOf, type Results } from './ablate/results.ts';
import { didYouMean, Interrupted, UsageError } from './common/errors.ts';
import { classifierOf, ownOr, willWrite } from './common/files.ts';
import { writeReport } from './media/report.ts';
import { bundle, count, preset, presetOf, run, type Args } from './common/options.ts';
import { meter, type Meter } from './common/progress.ts';
import { together } from './common/together.ts';
import { makeShards } from './common/shards.ts';
import { draw } from './common/table.ts';

const options = {
  ...preset,
  ...run('runs/digits'),
  ...bundle,
  rows: {
    type: 'string',
    describe: `which, with commas between them; all unless given: ${ROWS.map((r) => r.id).join(', ')}`,
  },
  seeds: { type: 'number', default: 3, describe: 'how many times each row is trained' },
  steps: { type: 'number', describe: "generator updates of each row in all; the two phases' unless given" },
} as const;

/** The rows named, in the table's order. @throws one line on a name that is none */
function chosen(names: string | undefined): typeof ROWS {
  if (names === undefined) return ROWS;
  const asked = names
    .split(',')
    .map((n) => n.trim())
    .filter(Boolean);
  const known = ROWS.map((r) => r.id);
  const wrong = asked.find((n) => !known.includes(n));
  if (wrong !== undefined || !asked.length)
    throw new UsageError(
      `--rows: there is no row "${wrong ?? ''}"${didYouMean(wrong ?? '', known)}; there are: ${known.join(', ')}`,
    );
  return ROWS.filter((r) => asked.includes(r.id));
}

async function ablate(args: Args<typeof options>): Promise<void> {
  const p = presetOf(args);
  const rows = chosen(args.rows);
  const seeds = count('seeds', args.seeds, 1, 100);
  const updates = count('steps', args.steps ?? p.priming.steps + p.equilibrium.steps, 2);
  const out = join(args.run, 'ablations');
  willWrite(join(out, 'x'));
  await together(
    `stopped; ${out} is as it was saved last, the same command goes on from there`,
    async ({ device, signal, ranks }) => {
      const [vae, teacher] = [ownOr(args.run, args.bundle, 'vae'), ownOr(args.run, args.bundle, 'teacher')];
      await makeShards({ device, preset: p, out: args.run, signal, ranks, vae });
      let shown: Meter | undefined;
      const write = async (results: readonly Result[], scored: string): Promise<Results> => {
        const rowsOf = tableOf(rows, results);
        const all: Results = {
          preset: p.name,
          updates,
          seeds,
          adapter: device.info.name,
          set: args.set,
          scored,
          rows: rowsOf,
          paper: compare(PAPER, rowsOf),
        };
        const svg = figure(all);
        writeWhole(join(out, 'table.md'), markdown(all));
        writeWhole(join(out, 'table.json'), JSON.stringify(all, null, 1));
        if (svg) writeWhole(join(out, 'table.svg'), svg);
        await writeReport(join(out, 'report.html'), {
          title: "The paper's ablations and baselines, at equal budgets",
          lead: [],
          sections: [sectionOf(all)],
          footer: [device.info.name],
        });
        return all;
      };
      const work: Ablate = {
        device,
        preset: p,
        out,
        data: args.run,
        signal,
        ranks,
        vae,
        teacher,
        classifier: classifierOf(p, args.run),
        rows,
        seeds,
        updates,
        onStep({ done, total, row, seed, job }) {
          shown ??= meter('ablations', { unit: 'steps', total, from: done - 1, memory: () => device.allocated });
          shown.at(done, `${row.id}, seed ${seed}: ${job}`);
        },
        onResult: async (results, scored) => void (await write(results, scored)),
      };
      const { results, done, scored } = await train(work).finally(() => shown?.end());
      if (!isLeader(ranks)) return;
      const all = await write(results, scored);
      if (!done)
        throw new Interrupted(
          `stopped; ${results.length} of ${rows.length * seeds} results are in ${out}, the same command goes on from there`,
        );
      const { columns, rows: cells } = measured(all);
      console.log(`${draw(columns, cells)}\n`);
      for (const v of all.paper)
        console.log(`${v.verdict}: ${v.about}: ${v.worse} < ${v.better} (${v.difference.toFixed(3)})`);
      console.log(`\n${join(out, 'report.html')} shows it all; table.md, table.json and table.svg lie beside it.`);
    },
  );
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'ablate',
  describe: "train and judge the paper's ablations and the baselines at equal budgets",
  builder: (y) =>
    y
      .options(options)
      .example('$0 ablate --steps 60 --seeds 1', 'every row, shortly')
      .example('$0 ablate --rows method,no-priming,vsd-only', 'some rows in full'),
  handler: ablate,
};
export default command;
