/** Which files of a folder are videos, and what is made of what. */
import { closeSync, existsSync, openSync, readdirSync, readSync, realpathSync, statSync } from 'node:fs';
import { basename, extname, join } from 'node:path';

const ANIMATIONS = ['.webp', '.gif'];
const PICTURES = ['.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff'];
const FILMS = (
  '.mp4 .webm .mkv .mov .avi .m4v .mpg .mpeg .m2v .wmv .asf .flv .f4v .ts .mts .m2ts .vob .ogv .ogm .3gp .3g2 .mxf .dv ' +
  '.divx .rm .rmvb .y4m .mjpeg .qt .apng'
).split(' ');
/** What may lie beside videos and is none. */
const BESIDE = ['.txt', '.jsonl', '.json', '.csv', '.md', '.srt', '.vtt', '.npy', '.safetensors'];

const is = (kinds: readonly string[], path: string): boolean => kinds.includes(extname(path).toLowerCase());
export const isAnimation = (path: string): boolean => is(ANIMATIONS, path);
export const isPicture = (path: string): boolean => is(PICTURES, path);

/** Whether ffmpeg reads it. A .ts may be a program: a film's packets begin with 0x47. */
function isFilm(path: string): boolean {
  if (!is(FILMS, path)) return false;
  if (extname(path).toLowerCase() !== '.ts') return true;
  const first = Buffer.alloc(1);
  const file = openSync(path, 'r');
  try {
    return readSync(file, first, 0, 1, 0) === 1 && first[0] === 0x47;
  } finally {
    closeSync(file);
  }
}

export interface VideoFile {
  /** From the folder that was searched, without its ending. */
  name: string;
  path: string;
  /** What it was made from, if that is known. */ image?: string | undefined;
}

export interface Found {
  videos: VideoFile[];
  /** Files that are neither videos nor what lies beside such. */
  passedOver: string[];
}

/** Below a folder, its subfolders too; a folder of pictures without a film is a video. */
function search(folder: string, above: string, seen: Set<string>): Found {
  const found: Found = { videos: [], passedOver: [] };
  seen.add(realpathSync(folder));
  for (const entry of readdirSync(folder)) {
    if (entry.startsWith('.')) continue; // macOS keeps its notes in such
    const [path, inside] = [join(folder, entry), above + entry];
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat?.isDirectory()) {
      if (seen.has(realpathSync(path))) continue; // a link back
      const names = readdirSync(path);
      const isClip = names.some(isPicture) && !names.some((n) => is([...FILMS, ...ANIMATIONS], n));
      if (isClip) found.videos.push({ name: inside, path });
      else {
        const below = search(path, `${inside}/`, seen);
        found.videos.push(...below.videos);
        found.passedOver.push(...below.passedOver);
      }
    } else if (stat?.isFile() && (isAnimation(path) || isFilm(path)))
      found.videos.push({ name: inside.slice(0, -extname(inside).length), path });
    else if (!is([...BESIDE, ...PICTURES], path)) found.passedOver.push(inside);
  }
  return found;
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** The videos of a folder and of its subfolders, sorted: files, and folders of pictures. @throws one line when there is none */
export function videosBelow(folder: string): Found {
  if (!isFolder(folder)) throw new Error(`[videos] there is no folder ${folder}`);
  const { videos, passedOver } = search(folder, '', new Set());
  if (!videos.length)
    throw new Error(
      `[videos] ${folder} holds no video (${[...ANIMATIONS, ...FILMS].join(' ')}, or a folder of pictures each)`,
    );
  return { videos: videos.sort((a, b) => (a.name < b.name ? -1 : 1)), passedOver };
}

/**
 * As `videosBelow`. The layout that VBench reads is understood: videos in `videos/`,
 * pictures in `images/`, `NAME-0.mp4` made from `NAME.png`.
 * @param images folder of the pictures that the videos were made from
 */
export function findVideos(folder: string, images?: string): Found {
  const isSuite = isFolder(join(folder, 'videos'));
  const stills = images ?? (isSuite && existsSync(join(folder, 'images')) ? join(folder, 'images') : undefined);
  const known = new Map(
    stills === undefined
      ? []
      : readdirSync(stills)
          .filter(isPicture)
          .map((f) => [basename(f, extname(f)), join(stills, f)]),
  );
  const { videos, passedOver } = videosBelow(isSuite ? join(folder, 'videos') : folder);
  const made = (name: string) => known.get(basename(name)) ?? known.get(basename(name).replace(/-\d+$/, ''));
  return { videos: videos.map((v) => ({ ...v, image: made(v.name) })), passedOver };
}
