/** The clips of a small model on disk, as VBench's suite and `vpae eval FOLDER` read them. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { host } from '../../engine/frontend/tree.ts';
import { writeWhole } from '../../train/loop/files.ts';
import { videoShape } from '../../train/methods/conditions.ts';
import { CLIP_FPS, type Conditions } from '../../train/vbench/clips.ts';
import { sinkFor } from '../media/sink.ts';
import { Picture } from '../media/picture.ts';

/** Caption and number: the suite reads what stands before the last number as the prompt, and looks for a picture of that name. */
const nameOf = (caption: string, i: number): string =>
  `${caption.replace(/[^\p{L}\p{N} -]/gu, '')}, ${String(i).padStart(3, '0')}`;

/**
 * Writes OUT/NAME/videos/CAPTION-0.mp4 and OUT/NAME/images/CAPTION.png: what `evaluate_i2v.py --mode custom_input` and
 * `vpae eval FOLDER` take. GIF where this machine writes no MP4; the suite then leaves motion out.
 */
export async function writeLayout(
  out: string,
  conditions: Conditions,
  videos: readonly Float32Array[],
): Promise<string> {
  const shape = videoShape(conditions.preset);
  const [channels, frames, height, width] = shape;
  const ending = await sinkFor(join(out, 'x.mp4')).then(
    () => 'mp4',
    () => 'gif',
  );
  for (const sub of ['videos', 'images']) mkdirSync(join(out, sub), { recursive: true });
  for (const [i, data] of videos.entries()) {
    const { caption, video } = conditions.clips[i]!;
    const path = join(out, 'videos', `${nameOf(caption, i)}-0.${ending}`);
    const sink = await (await sinkFor(path))({ width, height, frames, fps: CLIP_FPS, scale: 1 });
    await sink.add(host(data, [channels, frames, height, width]));
    await sink.end();
    const still = new Picture(width, height);
    still.frame({ data: video, shape }, 0, { left: 0, top: 0, scale: 1 });
    writeWhole(join(out, 'images', `${nameOf(caption, i)}.png`), await still.encode('png'));
  }
  return ending;
}
