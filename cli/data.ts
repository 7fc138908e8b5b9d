/** `vpae data`: the clips of a preset as a picture to look at, or as precomputed latents to train on. */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { conditions, digits } from '../train/data/digits.ts';
import { videoShape } from '../train/conditions.ts';
import { ownOr, willWrite } from './files.ts';
import { writeSheet } from './media/sheet.ts';
import { bundle, count, preset, presetOf, run, seed, type Args } from './options.ts';
import { session } from './session.ts';
import { makeShards } from './shards.ts';
import { makeVideos, videoOptions } from './videodata.ts';

const options = {
  ...preset, ...seed, ...run('runs/digits'), ...bundle, ...videoOptions,
  split: { choices: ['train', 'heldout'] as const, default: 'heldout' as const, describe: 'show: which clips' },
  count: { type: 'number', default: 16, describe: 'show: how many' },
  out: { type: 'string', default: 'out/data.png', describe: 'show: the picture' },
} as const;
type DataArgs = Args<typeof options> & { action: 'show' | 'make'; folder?: string };

async function show(args: DataArgs): Promise<void> {
  const p = presetOf(args);
  const total = count('count', args.count, 1, 200);
  willWrite(args.out);
  const { clip } = digits('train', p.seed, p.data);
  const clips = args.split === 'heldout' ? conditions(p.seed, total, p.data) : Array.from({ length: total }, (_, i) => clip(i));
  const videos = clips.map(({ video }) => ({ data: video, shape: videoShape(p) }));
  await writeSheet(args.out, clips.map((c) => c.caption), [{ title: `${p.name}, ${args.split}`, clips: videos }], p.data.frames);
  console.log(`${args.out}: ${total} clips of ${p.data.frames} frames, ${p.data.size}x${p.data.size}`);
}

async function make(args: DataArgs): Promise<void> {
  const p = presetOf(args);
  willWrite(join(args.run, 'run.lock'));
  await session(`stopped; the shards that are done stay in ${args.run}, the same command makes the rest`, async ({ device, signal }) => {
    const shards = await makeShards({ device, preset: p, out: args.run, signal, vae: ownOr(args.run, args.bundle, 'vae') });
    console.log(`${args.run}/data: latents of ${shards.count} clips (${shards.made})`);
  });
}

const command: CommandModule<object, DataArgs> = {
  command: 'data <action> [folder]',
  describe: 'look at the clips, or precompute latents: of a preset, or of a folder of videos',
  builder: (y) => y
    .positional('action', { choices: ['show', 'make'] as const, demandOption: true, describe: 'show: a contact sheet; make: latents of the training clips in the run\'s folder (training does so by itself)' })
    .positional('folder', { type: 'string', describe: 'make: of these videos instead, with NAME.txt beside each or a captions.jsonl, by the parts of --model' })
    .options(options)
    .example('$0 data show --count 24', 'held-out clips with their captions in out/data.png')
    .example('$0 data make clips --model Wan2.1-T2V-1.3B --records data/clips', 'latents and embeddings of real videos; start it several times to share the work')
    .example('$0 data make --run runs/mine', 'encodes with the run\'s VAE, or the bundled one'),
  handler: (args) => (args.action === 'show' ? show(args) : args.folder === undefined ? make(args) : makeVideos(args.folder, args)),
};
export default command;
