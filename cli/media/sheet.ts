/** The contact sheet: one PNG in which a person sees what every sampler made of the same conditions. */
import { writeWhole } from '../../train/loop/files.ts';
import { textPath, textWidth } from './letters.ts';
import { Picture, type Video } from './picture.ts';

/** One sampler's clips, in the order of the conditions. */
interface SheetColumn {
  title: string;
  /** A second, quieter line, such as the number of evaluations. */
  note?: string;
  clips: readonly Video[];
}

const SCALE = 2;
const GAP = 3; // between frames, px
const GROUP = 22; // between columns
const ROW = 8;
const MARGIN = 18;
const HEAD = 48;
const CAPTION = 8.5; // px, capitals
const PAPER = [255, 255, 255, 255] as const;

/** Rows are conditions (a caption each), columns are samplers, each with `shown` frames spread evenly over the clip. */
export async function contactSheet(
  captions: readonly string[],
  columns: readonly SheetColumn[],
  shown = 5,
): Promise<Buffer> {
  const shape = columns[0]?.clips[0]?.shape;
  if (!shape) throw new Error('[sheet] there is no clip to show');
  const [, frames, height, width] = shape;
  const count = Math.min(shown, frames);
  const times = Array.from({ length: count }, (_, i) => Math.round((i * (frames - 1)) / Math.max(1, count - 1)));
  const [w, h] = [width * SCALE, height * SCALE];
  const group = times.length * (w + GAP) - GAP;
  const left = MARGIN + Math.ceil(Math.max(...captions.map((c) => textWidth(c, CAPTION)))) + GROUP;
  const x = (c: number, k: number): number => left + c * (group + GROUP) + k * (w + GAP);
  const y = (r: number): number => MARGIN + HEAD + r * (h + ROW);
  const picture = new Picture(x(columns.length, 0) - GROUP + MARGIN, y(captions.length) - ROW + MARGIN, 1, PAPER);

  columns.forEach(({ clips }, c) =>
    clips
      .slice(0, captions.length)
      .forEach((clip, r) =>
        times.forEach((t, k) => picture.frame(clip, t, { left: x(c, k), top: y(r), scale: SCALE })),
      ),
  );
  await picture.draw(
    [
      ...captions.map((caption, r) =>
        textPath(caption, MARGIN, y(r) + h / 2 + CAPTION / 2, { height: CAPTION, color: '#333' }),
      ),
      ...columns.map(
        ({ title, note }, c) =>
          textPath(title, x(c, 0), MARGIN + 11, { height: 11, color: '#111', bold: true }) +
          (note ? textPath(note, x(c, 0), MARGIN + 31, { height: CAPTION, color: '#666' }) : ''),
      ),
      ...columns.map(
        (_, c) => `<rect x="${x(c, 0)}" y="${MARGIN + HEAD - 8}" width="${group}" height="1" fill="#bbb"/>`,
      ),
    ].join(''),
  );
  return picture.encode('png');
}

export async function writeSheet(
  path: string,
  captions: readonly string[],
  columns: readonly SheetColumn[],
  shown?: number,
): Promise<void> {
  writeWhole(path, await contactSheet(captions, columns, shown));
}
