/** What `vpae sample` is to make: one prompt, some seeds of it, or a file of prompts, and where each clip goes. */
import { existsSync, realpathSync } from 'node:fs';
import { dirname, isAbsolute, join, relative, resolve } from 'node:path';
import { quoted } from '../../model/files/json.ts';
import { UsageError } from '../common/errors.ts';
import { readText } from '../common/text.ts';
import { placeClips, type Placed } from './made.ts';
import { MOST_SEED } from '../common/options.ts';

export interface Wanted {
  prompt: string;
  negative?: string | undefined;
  seed: number;
  image?: string | undefined;
  lastImage?: string | undefined;
  out: string;
}

export interface Asked {
  prompt?: string | undefined;
  prompts?: string | undefined;
  negative?: string | undefined;
  image?: string | undefined;
  lastImage?: string | undefined;
  seed: number;
  count: number;
  out: string;
}

/** What a line of a JSONL file may say, under the names of Diffusers' arguments. */
const FIELDS: Record<string, 'string' | 'number'> = {
  prompt: 'string',
  negative_prompt: 'string',
  seed: 'number',
  image: 'string',
  last_image: 'string',
  out: 'string',
};
interface Line {
  prompt: string;
  negative_prompt?: string;
  seed?: number;
  image?: string;
  last_image?: string;
  out?: string;
}

/** `out/clip.mp4` and 7 → `out/clip-7.mp4`. */
const numbered = (out: string, n: string | number): string => out.replace(/(\.\w+)$/, `-${n}$1`);

/** Of a .jsonl every line that begins with `{` is JSON; elsewhere it may be a prompt, as `{red|blue} car` is, unless a name follows. */
function parseLine(text: string, where: string, isJsonl: boolean): Line {
  if (!text.startsWith('{') || !(isJsonl || /^\{\s*"/.test(text))) return { prompt: text };
  const fail = (why: string) => new UsageError(`${where}: ${why}`);
  let line: Record<string, unknown>;
  try {
    line = JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw fail(
      `is not JSON: ${(error as Error).message}; a prompt that begins with { is written as {"prompt": "{…"}, or without more in a .txt`,
    );
  }
  for (const [name, value] of Object.entries(line)) {
    if (!Object.hasOwn(FIELDS, name))
      throw fail(`unknown field ${quoted(name)}; known are ${Object.keys(FIELDS).join(', ')}`);
    if (typeof value !== FIELDS[name]) throw fail(`${name} must be a ${FIELDS[name]}, got ${quoted(value)}`);
  }
  if (!line['prompt']) throw fail('there is no prompt');
  const { seed = 0 } = line as { seed?: number };
  if (!Number.isInteger(seed) || seed < 0 || seed > MOST_SEED)
    throw fail(`seed must be a whole number from 0 to ${MOST_SEED}, got ${seed}`);
  return line as unknown as Line;
}

/** The nearest folder above a path that is there, whatever links lead to it. */
const realAbove = (path: string): string => (existsSync(path) ? realpathSync(path) : realAbove(dirname(path)));

/**
 * Where a line's `out` is, in the folder of the file of prompts: who wrote that may not be who runs it.
 * @throws one line when it is elsewhere
 */
function placeOf(out: string, path: string, where: string): string {
  const folder = resolve(dirname(path));
  const place = resolve(folder, out);
  const leaves = (from: string, to: string) =>
    /^\.\.($|[\\/])/.test(relative(from, to)) || isAbsolute(relative(from, to));
  if (isAbsolute(out) || leaves(folder, place) || leaves(realpathSync(folder), realAbove(dirname(place))))
    throw new UsageError(
      `${where}: out must be a path within ${dirname(path)}, the folder of the file, got ${quoted(out)}`,
    );
  return join(dirname(path), out);
}

/** `named`: whether the line gives its clip's name itself. */
type PromptLine = { wanted: Wanted; named: boolean };

function readLines(path: string, { negative, image, lastImage, seed, out }: Asked): PromptLine[] {
  let text: string;
  try {
    text = readText(path);
  } catch (error) {
    throw new UsageError(`--prompts ${(error as Error).message}`);
  }
  const lines = text
    .split('\n')
    .map((line, i) => ({ text: line.trim(), where: `${path}:${i + 1}` }))
    .filter((l) => l.text);
  if (!lines.length) throw new UsageError(`--prompts ${path}: it has no prompts`);
  const from = (file: string) => (isAbsolute(file) ? file : join(dirname(path), file));
  const own = (file: string | undefined, usual: string | undefined) => (file === undefined ? usual : from(file));
  const jobs = lines.map((l, i): PromptLine => {
    const line = parseLine(l.text, l.where, /\.jsonl?$/i.test(path));
    const wanted = {
      prompt: line.prompt,
      negative: line.negative_prompt ?? negative,
      seed: line.seed ?? seed,
      image: own(line.image, image),
      lastImage: own(line.last_image, lastImage),
      out: line.out === undefined ? ofLine(out, i + 1, lines.length) : placeOf(line.out, path, l.where),
    };
    return { wanted, named: line.out !== undefined };
  });
  const places = jobs.map((j) => j.wanted.out);
  const twice = places.find((p, i) => places.indexOf(p) < i);
  if (twice !== undefined) throw new UsageError(`--prompts ${path}: two lines write ${twice}`);
  return jobs;
}

/** A clip's name by its line. */
const ofLine = (out: string, n: number, lines: number): string =>
  numbered(out, String(n).padStart(String(lines).length, '0'));

/**
 * One job a line of a file of prompts or of JSON objects; paths in it are seen from its
 * folder. Clips without a name of their own are numbered after `out`.
 */
export const readPrompts = (path: string, asked: Asked): Wanted[] => readLines(path, asked).map((l) => l.wanted);

/** Every clip that is asked for, and how many of a file's are there already. */
export function wantedClips(asked: Asked): Placed {
  const { prompt, prompts, negative, image, lastImage, seed, count, out } = asked;
  if ((prompt === undefined) === (prompts === undefined))
    throw new UsageError('say what to make: --prompt "…", or --prompts with a file of them');
  if (prompts === undefined) {
    return {
      todo: Array.from({ length: count }, (_, i) => ({
        prompt: prompt!,
        negative,
        image,
        lastImage,
        seed: seed + i,
        out: count > 1 ? numbered(out, seed + i) : out,
      })),
      done: 0,
      unknown: 0,
    };
  }
  if (count > 1) throw new UsageError("--count goes with --prompt: give a file's lines seeds of their own");
  const lines = readLines(prompts, asked);
  return placeClips(lines, (n) => ofLine(out, n, lines.length));
}
