/**
 * `vpae eval --suite`: the prompt-image pairs of VBench's suite as a file for `vpae
 * sample --prompts`, each clip named as the suite looks for it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join, relative, dirname, resolve } from 'node:path';
import { writeWhole } from '../../train/loop/files.ts';
import { UsageError } from '../common/errors.ts';

/** Clips a pair. */
const TAKES = 5;

interface Entry {
  prompt_en: string;
  image_name: string;
}

/** @param info vbench2_i2v_full_info.json of the suite. @param images its pictures, cropped to the model's ratio. @throws one line */
export function writeSuite(info: string, images: string | undefined, out: string): void {
  if (images === undefined)
    throw new UsageError("--suite needs the suite's pictures: --images vbench2_beta_i2v/data/crop/16-9");
  const entries = readEntries(info);
  const missing = entries.filter((e) => !existsSync(join(images, e.image_name)));
  if (missing.length)
    throw new Error(
      `[suite] ${missing.length} of ${entries.length} pictures are not in ${images}, as ${missing[0]!.image_name}`,
    );
  const lines = entries.flatMap(({ prompt_en: prompt, image_name }) =>
    Array.from({ length: TAKES }, (_, seed) =>
      JSON.stringify({
        prompt,
        image: relative(resolve(dirname(out)), resolve(images, image_name)),
        seed,
        out: join('videos', `${prompt}-${seed}.mp4`),
      }),
    ),
  );
  writeWhole(out, `${lines.join('\n')}\n`);
  const videos = join(dirname(out), 'videos');
  console.log(
    `${out}: ${lines.length} clips of ${entries.length} prompt-image pairs. Make them with vpae sample --model MODEL --prompts ${out}; then, in the suite's folder, ` +
      `python evaluate_i2v.py --videos_path ${resolve(videos)} --ratio RATIO --dimension i2v_subject … reads ${videos}`,
  );
}

function readEntries(info: string): Entry[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(info, 'utf8'));
  } catch (error) {
    throw new Error(
      `[suite] ${info}: ${(error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (error as Error).message}`,
      { cause: error },
    );
  }
  const isEntry = (e: unknown): e is Entry =>
    typeof (e as Entry)?.prompt_en === 'string' && typeof (e as Entry).image_name === 'string';
  if (!Array.isArray(parsed) || !parsed.length || !parsed.every(isEntry))
    throw new Error(`[suite] ${info} is no list of prompt_en and image_name, as vbench2_i2v_full_info.json is`);
  return [...new Map(parsed.map((e) => [e.prompt_en, e])).values()]; // a prompt names one picture
}
