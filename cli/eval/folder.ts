/**
 * `vpae eval FOLDER`: any videos, whoever made them, by VBench's formulas; beside reference videos also by the distance of their features.
 */
import { few } from '../../model/files/stored.ts';
import { judgeFolder, type FolderReport } from '../../train/vbench/folder.ts';
import { openNetworks, type NetworkFiles } from '../../train/vbench/networks.ts';
import { PROXIES } from '../../train/vbench/proxies.ts';
import type { Eye, Instruments } from '../../train/vbench/measure.ts';
import { findVideos } from '../media/find.ts';
import { readTakes } from '../media/read.ts';
import { meter } from '../common/progress.ts';
import { session } from '../common/session.ts';
import { draw } from '../common/table.ts';
import { vbenchTable } from './vbench.ts';

interface FolderArgs extends NetworkFiles {
  folder: string;
  images?: string | undefined;
  reference?: string | undefined;
  json: boolean;
}

export async function evaluateFolder(args: FolderArgs): Promise<void> {
  const { videos: files, passedOver } = findVideos(args.folder, args.images);
  if (passedOver.length) console.error(`no kind of video that is read: ${few('files', passedOver)}`);
  const reference = args.reference === undefined ? undefined : findVideos(args.reference).videos;
  const judge = async (own: Instruments) => {
    const shown = meter('videos', { unit: 'videos', total: files.length });
    const instruments = {
      ...PROXIES,
      ...own,
      subject_consistency: (own.subject_consistency ?? PROXIES.subject_consistency) as Eye,
    };
    const report = await judgeFolder(
      readTakes(files, (done) => shown.at(done)),
      instruments,
      reference && readTakes(reference),
    ).finally(shown.end);
    tell(args, report);
  };
  if (!args.dino && !args.clip && !args.clipLarge) return judge({});
  await session('stopped; nothing was written', async ({ device }) => {
    const { instruments, close } = await openNetworks(device, args);
    await judge(instruments).finally(close);
  });
}

function tell({ folder, json }: FolderArgs, r: FolderReport): void {
  if (json) {
    console.log(JSON.stringify(r));
    return;
  }
  console.log(vbenchTable([{ name: folder, measured: r }]));
  const of = `${r.features.of}${r.features.proxy ? ', a proxy' : ''}`;
  const rows: [string, string, string][] = [
    ['motion energy', r.motionEnergy.toPrecision(3), 'mean |difference| of consecutive frames, pixels in [-1, 1]'],
    ['brightness drift', r.brightnessDrift.toPrecision(3), "of the channels' means from frame 0"],
    ['contrast', r.contrast.toFixed(3), 'deviation of later frames over that of frame 0'],
    ['diversity', r.diversity.toPrecision(3), `mean distance of two videos (${of})`],
  ];
  if (r.psnrByFrame)
    rows.push(['PSNR to the picture, by frame', r.psnrByFrame.map((x) => x.toFixed(1)).join(' '), 'dB']);
  if (r.reference) {
    rows.push(
      ['Fréchet distance', r.reference.frechet.toPrecision(4), `to ${r.reference.videos} reference videos (${of})`],
      [
        'precision, recall',
        `${r.reference.precision.toFixed(3)}, ${r.reference.recall.toFixed(3)}`,
        'share of these among the reference, and the other way',
      ],
      ['motion ratio', r.reference.motionRatio.toFixed(3), "motion energy over the reference's"],
    );
  }
  console.log(`\n${draw(['', `${r.videos} videos`, ''], rows)}`);
}
