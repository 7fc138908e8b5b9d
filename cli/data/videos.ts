/** `vpae data make FOLDER`: real videos and their captions become latents and embeddings of a downloaded folder's own VAE and encoders. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import sharp from 'sharp';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { givenFrames, hasBeside } from '../../model/config.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import { checkClip, parseSize, type Size } from '../../model/pipeline/size.ts';
import { wanModel } from '../../model/pipeline/wan.ts';
import { few } from '../../model/files/stored.ts';
import { Unusable, type Refused } from '../../train/data/videoindex.ts';
import { makeVideoShards, type VideoSource } from '../../train/data/videos.ts';
import { hashOf } from '../../train/loop/run.ts';
import type { Footage } from '../../train/vbench/footage.ts';
import { printable, UsageError } from '../common/errors.ts';
import { willWrite } from '../common/files.ts';
import { readText } from '../common/text.ts';
import { cutTexts } from '../common/tokens.ts';
import { videosBelow, type VideoFile } from '../media/find.ts';
import { readVideo } from '../media/read.ts';
import { count, weights, type Args } from '../common/options.ts';
import { stageMeter } from '../common/progress.ts';
import { session } from '../common/session.ts';

export const videoOptions = {
  model: { type: 'string', alias: 'ckpt_dir', describe: 'make, of videos: a folder of Wan2.1 or Wan2.2 as downloaded' },
  ...weights,
  records: {
    type: 'string',
    default: 'data/videos',
    describe: 'make, of videos: the folder to write; what is there stays',
  },
  size: {
    type: 'string',
    describe:
      "make, of videos: the area [the model's usual one, 832x480 for Wan2.1]; the form is the nearest of 16:9, 4:3, 1:1, 3:4, 9:16",
  },
  frames: { type: 'number', describe: 'make, of videos: frames of a clip, 1 + a multiple of 4 [81, 121 for TI2V-5B]' },
  fps: { type: 'number', describe: 'make, of videos: frames a second that are taken [16, 24 for TI2V-5B]' },
  shard: { type: 'number', default: 32, describe: 'make, of videos: clips a shard, which one process makes' },
} as const;
type VideoArgs = Args<typeof videoOptions>;

/** What a list of captions says, by the file's name as seen from the list. @throws one line */
function readList(list: string): Map<string, string> {
  const known = new Map<string, string>();
  readText(list)
    .split('\n')
    .forEach((line, i) => {
      if (!line.trim()) return;
      try {
        const { file, caption } = JSON.parse(line) as { file: unknown; caption: unknown };
        if (typeof file !== 'string' || typeof caption !== 'string') throw new Error('needs "file" and "caption"');
        known.set(file, caption.trim());
      } catch (error) {
        throw new Error(`[videos] ${list}:${i + 1}: ${(error as Error).message}`, { cause: error });
      }
    });
  return known;
}

/**
 * Captions of videos below a folder: a line of captions.jsonl beside a video or in a folder above it, or NAME.txt beside it.
 * @throws Unusable where a video's text cannot be read
 */
function captionsOf(folder: string): (video: VideoFile) => string | undefined {
  const lists = new Map<string, Map<string, string>>();
  const listed = (at: string): Map<string, string> => {
    const list = join(folder, at, 'captions.jsonl');
    if (!lists.has(at)) lists.set(at, existsSync(list) ? readList(list) : new Map());
    return lists.get(at)!;
  };
  return ({ name, path }) => {
    const above = name.split('/').slice(0, -1);
    for (let depth = above.length; depth >= 0; depth--) {
      const file = [...above.slice(depth), basename(path)].join('/');
      const caption = listed(above.slice(0, depth).join('/')).get(file);
      if (caption !== undefined) return caption;
    }
    const text = join(folder, `${name}.txt`);
    try {
      return existsSync(text) ? readText(text).trim() : undefined;
    } catch (error) {
      throw new Unusable((error as Error).message, { cause: error });
    }
  };
}

/** Frames at a rate and a size: the nearest in time, and the middle of each picture. @throws one line when there are too few */
async function clipOf(footage: Footage, frames: number, fps: number, { width, height }: Size): Promise<HostTensor> {
  const at = Array.from({ length: frames }, (_, t) => Math.round((t * footage.fps) / fps));
  if (at.at(-1)! >= footage.frames.length)
    throw new Unusable(
      `is too short: ${(footage.frames.length / footage.fps).toFixed(2)} s, ${frames} frames at ${fps} a second are ${(frames / fps).toFixed(2)} s`,
    );
  const plane = height * width;
  const out = new Float32Array(3 * frames * plane);
  for (const [t, from] of at.entries()) {
    const raw = { width: footage.width, height: footage.height, channels: 3 as const };
    const pixels = await sharp(footage.frames[from]!, { raw })
      .resize(width, height, { fit: 'cover', kernel: 'cubic' })
      .raw()
      .toBuffer();
    for (let i = 0; i < plane; i++)
      for (let k = 0; k < 3; k++) out[(k * frames + t) * plane + i] = pixels[3 * i + k]! / 127.5 - 1;
  }
  return host(out, [3, frames, height, width]);
}

/** Of the file, or of all pictures in a folder. */
const bytesOf = (path: string): number =>
  statSync(path).isDirectory()
    ? readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).size, 0)
    : statSync(path).size;

/** Of a film only what is needed is decoded, at the rate and near the size. */
const sourceOf = (folder: string, path: string, caption: string, frames: number, fps: number): VideoSource => ({
  file: relative(folder, path).replaceAll('\\', '/'),
  caption,
  bytes: bytesOf(path),
  size: () => readVideo(path, { frames: 1 }),
  frames: async (size) => clipOf(await readVideo(path, { fps, cover: size, frames }), frames, fps, size),
});

export async function makeVideos(folder: string, args: VideoArgs): Promise<void> {
  const { model: path, records: dir } = args;
  if (path === undefined) throw new Error('[videos] say which parts encode them: --model with a downloaded folder');
  const asked = args.size === undefined ? undefined : parseSize(args.size);
  const shardClips = count('shard', args.shard, 1, 10_000);
  if (args.fps !== undefined && !(args.fps > 0 && args.fps <= 240))
    throw new UsageError(`--fps must be above 0 and at most 240, got ${args.fps}`);
  const checkpoint = await openCheckpoint(path, args.weights);
  const { family } = checkpoint;
  const { frames = family.frames, fps = family.fps } = args;
  const size = asked ?? family.size;
  const refused = ({ file, why }: Refused): void => console.error(printable(`${file} is left out: ${why}`));
  const captionOf = captionsOf(folder);
  const { videos, passedOver } = videosBelow(folder);
  if (passedOver.length) console.error(`no kind of video that is read: ${few('files', passedOver)}`);
  const sources = videos.flatMap((v): VideoSource[] => {
    const file = relative(folder, v.path);
    try {
      const caption = captionOf(v);
      if (caption) return [sourceOf(folder, v.path, caption, frames, fps)];
      refused({ file, why: `it has no caption, neither ${v.name}.txt nor a line of captions.jsonl` });
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      refused({ file, why: `its caption ${error.message}` });
    }
    return [];
  });
  const model = wanModel(checkpoint);
  checkClip(model.dit, model.vae, size, frames);
  willWrite(join(dir, 'index.json'));
  const cut = await cutTexts(
    model,
    sources.map((s) => ({ name: s.file, text: s.caption })),
  );
  if (cut) console.error(cut);
  const vae = await checkpoint.vae.open();
  const given = hasBeside(model.dit) ? givenFrames(model.dit) : 0;
  const settings = {
    fps,
    vae: hashOf(await vae.tensor('encoder.conv1.weight')),
    text: checkpoint.text.config,
    image: checkpoint.image?.config ?? null,
    ...(given > (checkpoint.image ? 1 : 0) && { given }),
  };
  await vae.close();
  await session(
    `stopped; the shards that are done stay in ${dir}, the same command makes the rest`,
    async ({ device, signal }) => {
      const shown = stageMeter(() => device.allocated);
      const {
        records,
        refused: without,
        aside,
        others,
      } = await makeVideoShards({
        device,
        dir,
        model,
        sources,
        size,
        frames,
        shardClips,
        settings,
        progress(...at) {
          shown.at(...at);
          signal.throwIfAborted();
        },
        onShard: (done, total) => shown.say(`${dir}: ${done} of ${total} shards`),
        onRefused: (r) => shown.say(printable(`${r.file} is left out: ${r.why}`)),
      }).finally(() => shown.end());
      const rest = [
        ...(without.length
          ? [
              few(
                'videos left out',
                without.map((r) => r.file),
              ),
            ]
          : []),
        ...(aside ? [`${aside} of videos that are gone are left aside`] : []),
      ].map((part) => `; ${part}`);
      console.log(
        others
          ? `${dir}: ${others} shards are still being made by other processes`
          : `${dir}: all shards are there, ${records} records${rest.join('')}`,
      );
    },
  );
}
