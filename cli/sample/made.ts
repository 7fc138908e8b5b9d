/**
 * What the clips of a folder were made of, kept beside them: so that a line of prompts is known again by what it says, not by its number.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import type { Wanted } from './jobs.ts';

const FILE = 'vpae-clips.jsonl';

/** What decides a clip, as it is kept; pictures as seen from the clip. */
function noteOf({ prompt, negative, seed, image, lastImage, out }: Wanted): object {
  const seen = (picture: string | undefined) => picture && relative(resolve(dirname(out)), resolve(picture));
  return { prompt, negative, seed, image: seen(image), lastImage: seen(lastImage) };
}

/** Name → note of every clip that a folder tells of, the last one of each. */
function notesIn(folder: string): Map<string, string> {
  const path = join(folder, FILE);
  const notes = new Map<string, string>();
  for (const line of existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []) {
    try {
      const { out, ...note } = JSON.parse(line) as { out: string };
      notes.set(out, JSON.stringify(note));
    } catch {
      /* an empty line, or one that a kill cut short */
    }
  }
  return notes;
}

/** Before the clip takes its place: one that stands there without a note was made by other means. @throws what the file system throws */
export function noteClip(wanted: Wanted): void {
  const path = join(dirname(wanted.out), FILE);
  appendFileSync(path, `\n${JSON.stringify({ out: basename(wanted.out), ...noteOf(wanted) })}`);
}

/** Whether a folder keeps notes. */
export const keepsNotes = (clip: string): boolean => existsSync(join(dirname(clip), FILE));

export interface Placed {
  todo: Wanted[];
  /** Clips that were made of their lines. */
  done: number;
  /** Clips that stand at a line's name, and of which no note tells. */
  unknown: number;
}

/**
 * Which clips are still to be made, and where. A clip of a numbered series counts for the line that it was made of, whatever its number; a
 * line whose number is taken by another's clip gets the next free one.
 * @param named whether a line gives its clip's name itself
 * @param numbered the name of the series' clip of a number
 */
export function placeClips(
  lines: readonly { wanted: Wanted; named: boolean }[],
  numbered: (n: number) => string,
): Placed {
  const folders = new Map<string, Map<string, string>>();
  const noteAt = (clip: string): string | undefined => {
    const folder = dirname(clip);
    if (!folders.has(folder)) folders.set(folder, notesIn(folder));
    return folders.get(folder)!.get(basename(clip));
  };
  const isOf = ({ out, ...rest }: Wanted, clip: string): boolean =>
    existsSync(clip) && noteAt(clip) === JSON.stringify(noteOf({ ...rest, out }));
  const series = /^(.*-)\d+(\.\w+)$/.exec(basename(numbered(1)))!;
  const isInSeries = (name: string): boolean =>
    name.startsWith(series[1]!) &&
    name.endsWith(series[2]!) &&
    /^\d+$/.test(name.slice(series[1]!.length, -series[2]!.length));
  const folder = dirname(numbered(1));
  const known = [...notesIn(folder).keys()].filter(isInSeries).map((name) => join(folder, name));
  const taken = new Set<string>(lines.filter((l) => l.named).map((l) => resolve(l.wanted.out)));
  const claim = (clip: string | undefined): boolean => clip !== undefined && Boolean(taken.add(resolve(clip)));
  const rest = lines.filter(
    ({ wanted, named }) => named || !claim(known.find((clip) => !taken.has(resolve(clip)) && isOf(wanted, clip))),
  );
  let [done, unknown, next] = [lines.length - rest.length, 0, lines.length];
  const todo = rest.flatMap(({ wanted, named }): Wanted[] => {
    const { out } = wanted;
    const isFree = named || !taken.has(resolve(out));
    if (isFree && existsSync(out) && noteAt(out) === undefined) {
      unknown++;
      taken.add(resolve(out));
      return [];
    }
    if (named && isOf(wanted, out)) {
      done++;
      return [];
    }
    const isTaken = (clip: string) => taken.has(resolve(clip)) || existsSync(clip);
    let place = out;
    if (!named) while (isTaken(place)) place = numbered(++next);
    taken.add(resolve(place));
    return [{ ...wanted, out: place }];
  });
  return { todo, done, unknown };
}
