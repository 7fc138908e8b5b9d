/** A grid of clips with titles as one animated WebP or GIF, playing in step. */
import { writeWhole } from '../../train/loop/files.ts';
import { textPath, textWidth } from './letters.ts';
import type { ClipShape } from '../../train/data/frames.ts';
import { Picture, type Video } from './picture.ts';

const FRAME_MS = 120;
const HOLD_MS = 700; // the last frame stands a while, so that one sees where a motion ends

const GAP = 2; // between clips, in their own pixels
const TITLE = 9; // px, capitals

interface GridStyle {
  /** Screen pixels a pixel of the clip; below 1 some of its pixels are left out. */
  scale: number;
  /** One title a column. */
  titles?: readonly string[];
}

/** Every clip of a grid of rows as one animation; shorter clips rest on their last frame. */
export async function animate(
  rows: readonly (readonly Video[])[],
  format: 'webp' | 'gif',
  { scale, titles }: GridStyle,
): Promise<Buffer> {
  const first = rows[0]?.[0];
  if (!first) throw new Error('[animation] there is no clip to show');
  const [, , height, width] = first.shape;
  const columns = Math.max(...rows.map((r) => r.length));
  const frames = Math.max(...rows.flat().map((v) => v.shape[1]));
  const gap = Math.ceil(GAP * scale);
  const head = titles ? 2 * TITLE + gap : 0;
  const [cell, line] = [Math.floor(width * scale) + gap, Math.floor(height * scale) + gap];
  const picture = new Picture(
    columns * cell - gap,
    head + rows.length * line - gap,
    frames,
    titles ? [255, 255, 255, 255] : undefined,
  );
  for (let t = 0; t < frames; t++) {
    rows.forEach((row, r) =>
      row.forEach((video, c) => {
        if (video.shape[2] !== height || video.shape[3] !== width)
          throw new Error(
            `[animation] clips differ in size: ${video.shape[2]}x${video.shape[3]} beside ${height}x${width}`,
          );
        picture.frame(video, Math.min(t, video.shape[1] - 1), { left: c * cell, top: head + r * line, scale, page: t });
      }),
    );
  }
  if (titles) {
    await picture.draw(
      titles
        .map((title, c) => {
          const fit = Math.min(TITLE, (TITLE * (width * scale)) / textWidth(title, TITLE));
          return textPath(title, c * cell + (width * scale) / 2, 1.5 * TITLE, {
            height: fit,
            color: '#222',
            anchor: 'middle',
          });
        })
        .join(''),
    );
  }
  return picture.encode(
    format,
    Array.from({ length: frames }, (_, t) => (t === frames - 1 ? HOLD_MS : FRAME_MS)),
  );
}

const WIDEST = 256; // px of a clip among samples

/** Rows of equal clips, small: what a run's folder keeps of its steps. */
export const drawSamples = (rows: readonly (readonly Float32Array[])[], shape: ClipShape): Promise<Buffer> =>
  animate(
    rows.map((row) => row.map((data) => ({ data, shape }))),
    'webp',
    { scale: 2 * shape[3] <= WIDEST ? 2 : 1 / Math.ceil(shape[3] / WIDEST) },
  );

/** Writes a grid of clips, rows of columns, as one animated WebP. */
export async function writeGrid(path: string, rows: readonly (readonly Video[])[], style: GridStyle): Promise<void> {
  writeWhole(path, await animate(rows, 'webp', style));
}
