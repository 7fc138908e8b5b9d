/** Where a clip's frames go, chunk by chunk as they are decoded: a movie, an animation, or all frames side by side. */
import type { HostTensor } from '../../engine/frontend/tree.ts';
import type { ClipShape } from '../../train/data/frames.ts';
import { writeWhole } from '../../train/loop/files.ts';
import { UsageError } from '../common/errors.ts';
import { movieMaker, type MovieShape } from './movie.ts';
import { Picture } from './picture.ts';

const ENDINGS = ['mp4', 'webm', 'webp', 'gif', 'png'] as const;
type Ending = (typeof ENDINGS)[number];

const GAP = 2; // px between the frames of a strip, in the clip's own

/** What a name asks for. @throws UsageError */
function endingOf(path: string): Ending {
  const ending = /\.(\w+)$/.exec(path)?.[1]?.toLowerCase() as Ending;
  if (!ENDINGS.includes(ending))
    throw new UsageError(`"${path}": the name must end in .mp4, .webm, .webp, .gif or .png`);
  return ending;
}

/** The unit of a delay, and the shortest and the longest, ms. Viewers slow delays of up to 10 ms down to 100. */
const DELAYS = { gif: { unit: 10, least: 20, most: 655_350 }, webp: { unit: 1, least: 11, most: 16_777_215 } };

/** Delays of frames at a rate, ms: whole units that add up, so that the rounding is spread. */
function delaysOf(ending: 'gif' | 'webp', frames: number, fps: number): number[] {
  const { unit } = DELAYS[ending];
  const at = (t: number) => unit * Math.round((t * 1000) / fps / unit);
  return Array.from({ length: frames }, (_, t) => at(t + 1) - at(t));
}

/** @throws UsageError where frames of this name cannot be shown so fast or so slowly */
export function checkRate(path: string, fps: number): void {
  const ending = endingOf(path);
  if (ending !== 'gif' && ending !== 'webp') return;
  const { least, most } = DELAYS[ending];
  if (1000 / fps < least || 1000 / fps > most)
    throw new UsageError(
      `"${path}": a .${ending} is shown at ${1000 / most} to ${Math.floor(1000 / least)} frames a second, not at ${fps}: lower --fps, or name an .mp4`,
    );
}

/** Takes chunks [channels, t, height, width] in [-1, 1]; one channel is grey, three are RGB. */
export interface Sink {
  add(chunk: HostTensor): Promise<void>;
  /** Writes the file, whole or not at all. */
  end(): Promise<void>;
  /** Leaves nothing behind. */
  abort(): Promise<void>;
}

interface ClipSize extends MovieShape {
  readonly frames: number;
  /** Screen pixels a pixel. */
  readonly scale: number;
}

/** How clips are written under this name. @throws one line when this machine can't, before any work is done for nothing */
export async function sinkFor(path: string): Promise<(size: ClipSize) => Promise<Sink>> {
  const ending = endingOf(path);
  if (ending !== 'mp4' && ending !== 'webm') return (size) => Promise.resolve(pictureSink(path, ending, size));
  const open = await movieMaker(path);
  return async ({ width, height, fps, scale }) => {
    const movie = await open(path, ending, { width: width * scale, height: height * scale, fps });
    return {
      async add(chunk) {
        const page = new Picture(width * scale, height * scale);
        for (let t = 0; t < chunk.shape[1]!; t++) {
          page.frame({ data: chunk.data as Float32Array, shape: chunk.shape as ClipShape }, t, {
            left: 0,
            top: 0,
            scale,
          });
          await movie.add(page.pixels.slice());
        }
      },
      end: () => movie.end(),
      abort: () => movie.abort(),
    };
  };
}

/** Frames wait as pixels of one picture. Enlarged clips are stored without loss, so that every square stays one colour. */
function pictureSink(
  path: string,
  ending: 'webp' | 'gif' | 'png',
  { width, height, frames, fps, scale }: ClipSize,
): Sink {
  checkRate(path, fps);
  const strip = ending === 'png';
  const step = (width + GAP) * scale;
  const picture = strip
    ? new Picture(frames * step - GAP * scale, height * scale)
    : new Picture(width * scale, height * scale, frames);
  let at = 0;
  return {
    add(chunk) {
      const video = { data: chunk.data as Float32Array, shape: chunk.shape as ClipShape };
      for (let t = 0; t < chunk.shape[1]!; t++, at++)
        picture.frame(video, t, { left: strip ? at * step : 0, top: 0, scale, page: strip ? 0 : at });
      return Promise.resolve();
    },
    async end() {
      writeWhole(path, await picture.encode(ending, strip ? [] : delaysOf(ending, frames, fps), scale > 1));
    },
    abort: () => Promise.resolve(),
  };
}
