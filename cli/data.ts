/**
 * `vpae data`: the clips of a preset as a picture to look at, as precomputed latents to train on, or fetched where they do not come along.
 */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { emojiFolder, PACKS } from '../train/data/emoji.ts';
import { clipsOf } from '../train/data/sets.ts';
import { videoShape } from '../train/methods/conditions.ts';
import { ownOr, willWrite } from './common/files.ts';
import { writeSheet } from './media/sheet.ts';
import { bundle, count, preset, presetOf, run, seed, type Args } from './common/options.ts';
import { session, untilInterrupted } from './common/session.ts';
import { fetchEmoji } from './data/fetchemoji.ts';
import { fetchFlare } from './data/fetchflare.ts';
import { flareFolder } from '../train/data/flare/sprites.ts';
import { UsageError } from './common/errors.ts';
import { makeShards } from './common/shards.ts';
import { farmShards } from './data/latents.ts';
import { makeVideos, videoOptions } from './data/videos.ts';
import { Farm, queueOption } from './farm/farm.ts';

const options = {
  ...preset,
  ...seed,
  ...run('runs/digits'),
  ...bundle,
  ...videoOptions,
  ...queueOption,
  split: { choices: ['train', 'heldout'] as const, default: 'heldout' as const, describe: 'show: which clips' },
  count: { type: 'number', default: 16, describe: 'show: how many' },
  out: { type: 'string', default: 'out/data.png', describe: 'show: the picture' },
  packs: {
    type: 'number',
    default: 1,
    describe: `fetch emoji: how many of the ${PACKS} packages of animations, about 170 MB each`,
  },
  from: {
    type: 'string',
    describe:
      "fetch flare: the .deb of Debian's flare-game, or a folder with the game's files, where there is no apt-get",
  },
} as const;
type DataArgs = Args<typeof options> & { action: 'show' | 'make' | 'fetch'; what?: string };

async function show(args: DataArgs): Promise<void> {
  const p = presetOf(args);
  const total = count('count', args.count, 1, 200);
  if (!args.out.endsWith('.png')) throw new UsageError(`--out "${args.out}": the name must end in .png`);
  willWrite(args.out);
  const clip = clipsOf(p, args.split);
  const clips = Array.from({ length: total }, (_, i) => clip(i));
  const videos = clips.map(({ video }) => ({ data: video, shape: videoShape(p) }));
  await writeSheet(
    args.out,
    clips.map((c) => c.caption),
    [{ title: `${p.name}, ${args.split}`, clips: videos }],
    p.data.frames,
  );
  console.log(`${args.out}: ${total} clips of ${p.data.frames} frames, ${p.data.size}x${p.data.size}`);
}

async function make(args: DataArgs): Promise<void> {
  const p = presetOf(args);
  const { run: out, queue } = args;
  willWrite(join(out, 'run.lock'));
  const work = { preset: p, out, vae: ownOr(out, args.bundle, 'vae') };
  const stopped = `stopped; the shards that are done stay in ${out}, the same command makes the rest`;
  const shards =
    queue === undefined
      ? await session(stopped, ({ device, signal }) => makeShards({ ...work, device, signal }))
      : await Farm.open({ address: queue, folder: out, stopped }, (farm) => farmShards(farm, work));
  console.log(`${out}/data: latents of ${shards.count} clips (${shards.made})`);
}

async function fetch(args: DataArgs): Promise<void> {
  if (args.what === 'flare') {
    const folder = await untilInterrupted('stopped; nothing was kept', (signal) => fetchFlare(args.from, signal));
    console.log(folder ? `${folder}: train with --preset flare` : `${flareFolder()}: all is here already`);
    return;
  }
  if (args.what !== 'emoji') throw new UsageError('say what to fetch: vpae data fetch flare, or emoji');
  const packs = count('packs', args.packs, 1, PACKS);
  const made = await untilInterrupted('stopped; packages that are done stay', (signal) => fetchEmoji(packs, signal));
  console.log(
    made.length
      ? `${made.join(', ')}: train with --preset emoji`
      : `${emojiFolder(1)} and what is beside it: all ${packs} are here already`,
  );
}

const command: CommandModule<object, DataArgs> = {
  command: 'data <action> [what]',
  describe: 'look at the clips, precompute latents of a preset or of a folder of videos, or fetch a data set',
  builder: (y) =>
    y
      .positional('action', {
        choices: ['show', 'make', 'fetch'] as const,
        demandOption: true,
        describe:
          "show: a contact sheet; make: latents of the training clips in the run's folder (training does so by itself); fetch: a data set that does not come along, into your cache",
      })
      .positional('what', {
        type: 'string',
        describe:
          'make: a folder of videos instead, with NAME.txt beside each or a captions.jsonl, by the parts of --model; fetch: flare or emoji',
      })
      .options(options)
      .example('$0 data show --count 24', 'held-out clips with their captions in out/data.png')
      .example('$0 data fetch flare', 'sprites of the game Flare, for --preset flare')
      .example('$0 data fetch emoji', 'animated emoji with their names, for --preset emoji')
      .example(
        '$0 data make clips --model Wan2.1-T2V-1.3B --records data/clips',
        'latents and embeddings of real videos; start it several times to share the work',
      )
      .example('$0 data make --run runs/mine', "encodes with the run's VAE, or the bundled one"),
  handler: (args) => {
    if (args.queue !== undefined && (args.action !== 'make' || args.what !== undefined))
      throw new UsageError(
        "--queue goes with data make of a preset's clips: start it several times to share a folder of videos",
      );
    return args.action === 'show'
      ? show(args)
      : args.action === 'fetch'
        ? fetch(args)
        : args.what === undefined
          ? make(args)
          : makeVideos(args.what, args);
  },
};
export default command;
