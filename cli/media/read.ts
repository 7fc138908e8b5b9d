/** Videos from files of any make: WebP, GIF and folders of pictures through sharp, everything else through ffmpeg where it is on PATH. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, extname, join } from 'node:path';
import sharp from 'sharp';
import type { Footage, Frame } from '../../train/vbench/footage.ts';
import type { Take } from '../../train/vbench/measure.ts';

const ANIMATIONS = ['.webp', '.gif'];
const PICTURES = ['.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff'];
const FILMS = ['.mp4', '.webm', '.mkv', '.mov', '.avi', '.m4v'];
const FPS = 8; // of a folder of pictures, which does not say: VBench's own assumption for flow

export interface VideoFile {
  name: string;
  path: string;
  /** What it was made from, if that is known. */ image?: string | undefined;
}

/**
 * The videos of a folder, sorted: files, and folders of pictures. The layout that VBench reads is understood: videos in `videos/`,
 * pictures in `images/`, `NAME-0.mp4` made from `NAME.png`.
 * @param images folder of the pictures that the videos were made from
 * @throws one line when there is none
 */
export function findVideos(folder: string, images?: string): VideoFile[] {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) throw new Error(`[videos] there is no folder ${folder}`);
  const isSuite = statSync(join(folder, 'videos'), { throwIfNoEntry: false })?.isDirectory() ?? false;
  const at = isSuite ? join(folder, 'videos') : folder;
  const stills = images ?? (isSuite && existsSync(join(folder, 'images')) ? join(folder, 'images') : undefined);
  const known = new Map(
    stills === undefined
      ? []
      : readdirSync(stills)
          .filter((f) => PICTURES.includes(extname(f).toLowerCase()))
          .map((f) => [basename(f, extname(f)), join(stills, f)]),
  );
  const found = readdirSync(at, { withFileTypes: true }).flatMap((entry): VideoFile[] => {
    const path = join(at, entry.name);
    const isVideo = entry.isDirectory()
      ? readdirSync(path).some((f) => PICTURES.includes(extname(f).toLowerCase()))
      : [...ANIMATIONS, ...FILMS].includes(extname(path).toLowerCase());
    const name = entry.isDirectory() ? entry.name : basename(path, extname(path));
    return isVideo ? [{ name, path, image: known.get(name) ?? known.get(name.replace(/-\d+$/, '')) }] : [];
  });
  if (!found.length)
    throw new Error(
      `[videos] ${at} holds no video (${[...ANIMATIONS, ...FILMS].join(' ')}, or a folder of pictures each)`,
    );
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Reads videos one after the other. @param onRead told how many are read before each */
export async function* readTakes(
  files: readonly VideoFile[],
  onRead: (done: number) => void = () => {},
): AsyncGenerator<Take> {
  for (const [i, { name, path, image }] of files.entries()) {
    onRead(i);
    yield { name, footage: await readVideo(path), image: image === undefined ? undefined : await readPicture(image) };
  }
}

/** @throws one line: what cannot be read, and what would help */
export async function readVideo(path: string): Promise<Footage> {
  if (statSync(path).isDirectory()) return readFrames(path);
  try {
    return ANIMATIONS.includes(extname(path).toLowerCase()) ? await readAnimation(path) : await readFilm(path);
  } catch (error) {
    throw new Error(`[read] ${path}: ${(error as Error).message}`, { cause: error });
  }
}

async function readAnimation(path: string): Promise<Footage> {
  const image = sharp(path, { animated: true, limitInputPixels: false });
  const { delay = [] } = await image.metadata();
  const { data, info } = await image
    .flatten({ background: '#ffffff' })
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true });
  const height = info.pageHeight ?? info.height;
  const size = 3 * info.width * height;
  const frames = Array.from(
    { length: info.height / height },
    (_, t) => new Uint8Array(data.subarray(t * size, (t + 1) * size)),
  );
  const usual = [...delay].sort((a, b) => a - b)[Math.floor(delay.length / 2)]; // the last frame may stand longer
  return { width: info.width, height, fps: usual ? 1000 / usual : FPS, frames };
}

async function readPicture(path: string): Promise<Frame> {
  const { data, info } = await sharp(path)
    .flatten({ background: '#ffffff' })
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}

async function readFrames(folder: string): Promise<Footage> {
  const files = readdirSync(folder)
    .filter((f) => PICTURES.includes(extname(f).toLowerCase()))
    .sort();
  const frames: Frame[] = [];
  for (const f of files) frames.push(await readPicture(join(folder, f)));
  const { width, height } = frames[0]!;
  const other = frames.findIndex((f) => f.width !== width || f.height !== height);
  if (other >= 0)
    throw new Error(
      `[read] ${join(folder, files[other]!)} is ${frames[other]!.width}x${frames[other]!.height}, the first picture is ${width}x${height}`,
    );
  return { width, height, fps: FPS, frames: frames.map((f) => f.data) };
}

/** Whether ffmpeg reads it. */
export const isFilm = (path: string): boolean => FILMS.includes(extname(path).toLowerCase());

/** Frames as ffmpeg prints them, one PPM after the other. @param output options of ffmpeg, as how many frames and of what size */
export async function readFilm(path: string, output: readonly string[] = []): Promise<Footage> {
  const child = spawn(
    'ffmpeg',
    [
      '-hide_banner',
      '-nostdin',
      '-protocol_whitelist',
      'file,pipe',
      '-i',
      `file:${path}`,
      ...output,
      '-f',
      'image2pipe',
      '-c:v',
      'ppm',
      '-',
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const out: Buffer[] = [];
  let told = '';
  child.stdout.on('data', (d: Buffer) => out.push(d));
  child.stderr.setEncoding('utf8').on('data', (d: string) => {
    told += d;
  });
  const code = await new Promise<number | null>((done, failed) => {
    child.on('error', (error: NodeJS.ErrnoException) =>
      failed(
        error.code === 'ENOENT'
          ? new Error(
              'ffmpeg is needed for this format and is not on PATH: install it, or convert the video to .webp or .gif',
              { cause: error },
            )
          : error,
      ),
    );
    child.on('close', done);
  });
  if (code !== 0) throw new Error(`ffmpeg could not read it: ${told.trim().split('\n').at(-1)}`);
  const frames = parsePpms(Buffer.concat(out));
  const fps = /([\d.]+) fps/.exec(told)?.[1];
  return {
    width: frames[0]!.width,
    height: frames[0]!.height,
    fps: fps ? Number(fps) : FPS,
    frames: frames.map((f) => f.data),
  };
}

function parsePpms(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length;) {
    const [header, width, height] = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.toString('latin1', at, at + 40)) ?? [];
    if (!header) throw new Error('ffmpeg gave something else than frames');
    const size = 3 * Number(width) * Number(height);
    frames.push({
      width: Number(width),
      height: Number(height),
      data: new Uint8Array(bytes.subarray(at + header.length, at + header.length + size)),
    });
    at += header.length + size;
  }
  if (!frames.length) throw new Error('it holds no frame');
  return frames;
}
