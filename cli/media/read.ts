/** Videos from files of any make: WebP, GIF and folders of pictures through sharp, everything else through ffmpeg where it is on PATH. */
import { statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Unusable } from '../../train/data/videoindex.ts';
import type { Footage, Frame } from '../../train/vbench/footage.ts';
import type { Take } from '../../train/vbench/measure.ts';
import { isAnimation, isPicture, type VideoFile } from './find.ts';
import { readFilm, type FilmOptions } from './film.ts';
import { naturally } from './order.ts';
import { steady } from './steady.ts';
import { openStill, pixelsOf, readStill } from './still.ts';

const FPS = 8; // of a folder of pictures, which does not say: VBench's own assumption for flow

/** Reads videos one after the other. @param onRead told how many are read before each */
export async function* readTakes(
  files: readonly VideoFile[],
  onRead: (done: number) => void = () => {},
): AsyncGenerator<Take> {
  for (const [i, { name, path, image }] of files.entries()) {
    onRead(i);
    yield { name, footage: await readVideo(path), image: image === undefined ? undefined : await readStill(image) };
  }
}

/**
 * @param film of a film alone: which of its frames, and near what size
 * @throws one line: what cannot be read, and what would help; `Unusable` where no machine could read it
 */
export async function readVideo(path: string, film?: FilmOptions): Promise<Footage> {
  try {
    if (statSync(path).isDirectory()) return await readFrames(path);
    return isAnimation(path) ? await readAnimation(path) : await readFilm(path, film);
  } catch (error) {
    const Kind = error instanceof Unusable ? Unusable : Error;
    throw new Kind(`[read] ${path}: ${(error as Error).message}`, { cause: error });
  }
}

async function readAnimation(path: string): Promise<Footage> {
  const image = await openStill(path, true);
  const { data, info } = await pixelsOf(image);
  const { delay = [] } = await image.metadata();
  const height = info.pageHeight ?? info.height;
  const size = 3 * info.width * height;
  const frames = Array.from(
    { length: info.height / height },
    (_, t) => new Uint8Array(data.subarray(t * size, (t + 1) * size)),
  );
  const times = [0];
  for (const t of frames.keys()) times.push(times[t]! + (delay[t] || 1000 / FPS) / 1000);
  return { width: info.width, height, ...steady(frames, times) };
}

async function readFrames(folder: string): Promise<Footage> {
  const files = (await readdir(folder)).filter((f) => isPicture(f) && !f.startsWith('.'));
  const stem = (file: string) => file.replace(/\.[^.]*$/, '');
  files.sort((a, b) => naturally(stem(a), stem(b)) || naturally(a, b));
  const frames: Frame[] = [];
  for (const f of files) frames.push(await readStill(join(folder, f)));
  const { width, height } = frames[0]!;
  const other = frames.findIndex((f) => f.width !== width || f.height !== height);
  if (other >= 0)
    throw new Unusable(
      `${files[other]!} is ${frames[other]!.width}x${frames[other]!.height}, the first picture is ${width}x${height}`,
    );
  return { width, height, fps: FPS, frames: frames.map((f) => f.data) };
}
