/** What the demo leaves behind: moving pictures, a contact sheet and a report, and the words that say what was trained where. */
import { join } from 'node:path';
import type { Device } from '../../engine/runtime/device.ts';
import { runtime } from '../../engine/host/runtime.ts';
import type { Clip } from '../../train/data/sets.ts';
import type { Model } from '../../train/loop/models.ts';
import type { DiTConfig } from '../../model/config.ts';
import type { Preset } from '../../train/presets/index.ts';
import { writeGrid } from '../media/animation.ts';
import type { Video } from '../media/picture.ts';
import { writeReport } from '../media/report.ts';
import { writeSheet } from '../media/sheet.ts';
import { duration } from '../common/progress.ts';
import { cells, COLUMNS, NOTE, type Row } from '../common/table.ts';
import { sectionOf, type Results } from '../ablate/results.ts';
import type { Timed } from '../../train/loop/within.ts';

/** One sampler's clips, in the order of the conditions. */
export interface Shown {
  title: string;
  note: string;
  file: string;
  videos: readonly Video[];
}

export interface Outcome {
  device: Device;
  /** As it was trained here. */
  preset: Preset;
  /** Both phases, and the seconds that they took. */
  primed: Timed;
  trained: Timed;
  seconds: number;
  trainClips: number;
  teacher: Model<DiTConfig>;
  student?: Model<DiTConfig> | undefined;
  conditions: readonly Clip[];
  rows: readonly Row[];
  shown: readonly Shown[];
  /** That lie in the bundle. */
  ablations?: Results | undefined;
}

const SHOWN = 8; // conditions side by side
const GRID = 4;
const SCALE = 4;

/** What was trained in this run and what came with the program. */
export function origins({
  preset: { priming, equilibrium },
  primed,
  trained,
  seconds,
  trainClips,
  teacher,
  student,
}: Outcome): { title: string; text: string }[] {
  const bundled = [`the VAE`, `the teacher (${teacher.about.steps} steps of flow matching)`];
  if (student)
    bundled.push(
      `the bundled student (${student.about.steps} steps of its second phase, distilled from this teacher with the full budget)`,
    );
  return [
    {
      title: 'Trained here',
      text:
        `The student "trained here": distilled from the bundled teacher in ${duration(seconds)}, on ${trainClips} clips. Stability priming took ${primed.steps} steps ` +
        `(the first ${primed.rested} for the fake model alone), adversarial equilibrium ${trained.steps} (the first ${trained.rested} for the head alone), ` +
        `batches of ${priming.batch} and ${equilibrium.batch}. This is a small part of a full run: it shows the way, not its end.`,
    },
    {
      title: 'Came bundled',
      text: `${bundled.join(', ')}, and the digit classifier that judges. Nothing of them was trained in this run. All were trained by this program's own commands; the README has them.`.replace(
        /^t/,
        'T',
      ),
    },
  ];
}

const chunk = <T>(all: readonly T[], size: number): T[][] =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));

/** Writes everything into `dir` and returns the paths. */
export async function writeOutcome(dir: string, o: Outcome): Promise<string[]> {
  const {
    device: { info },
    conditions,
    rows,
    shown,
    ablations,
  } = o;
  const captions = conditions.slice(0, SHOWN).map((c) => c.caption);
  const path = (name: string): string => join(dir, name);
  for (const { file, videos } of shown)
    await writeGrid(path(file), chunk(videos.slice(0, GRID * GRID), GRID), { scale: SCALE });
  await writeGrid(
    path('side-by-side.webp'),
    captions.map((_, i) => shown.map((s) => s.videos[i]!)),
    { scale: SCALE, titles: shown.map((s) => s.title) },
  );
  await writeSheet(
    path('contact-sheet.png'),
    captions,
    shown.map(({ title, note, videos }) => ({ title, note, clips: videos })),
  );
  const [first] = rows;
  await writeReport(path('report.html'), {
    title: 'One-step video by V-PAE',
    lead: [
      `A video diffusion model (the teacher) needs 100 evaluations of its network for one clip. V-PAE distils it into a student that needs one. Below, both get the same held-out conditions: a caption, and the first frame in a handwriting that neither has seen.`,
    ],
    table: { columns: COLUMNS, rows: cells(rows), note: `${first?.evaluation.clips} held-out conditions. ${NOTE}` },
    columns: shown.map(({ title, note }) => ({ title, note })),
    comparisons: captions.map((caption, i) => ({ caption, videos: shown.map((s) => s.videos[i]!) })),
    ...(ablations && { sections: [sectionOf(ablations)] }),
    origins: origins(o),
    footer: [`${info.name}, ${info.driver}`, `${runtime}, preset ${o.preset.name}, seed ${o.preset.seed}`],
  });
  return [...shown.map((s) => s.file), 'side-by-side.webp', 'contact-sheet.png', 'report.html'].map(path);
}
