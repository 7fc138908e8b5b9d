/** `vpae data fetch emoji`: animations and their names from npm into the user's cache, each package checked against its hash. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import sharp from 'sharp';
import { untar } from '../../engine/host/archive.ts';
import { disown, partOf } from '../../engine/host/draft.ts';
import { emojiFiles, emojiFolder, STORED, type EmojiEntry } from '../../train/data/emoji.ts';
import { writeWhole } from '../../train/loop/files.ts';
import { meter } from '../common/progress.ts';

/** npm's own hashes of the packages as they were when this was written. */
const ANIMATIONS = [
  'sha512-/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==',
  'sha512-S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA==',
  'sha512-UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg==',
  'sha512-IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA==',
].map((integrity, i) => ({
  spec: `@lobehub/fluent-emoji-anim-${i + 1}@1.0.0`,
  integrity,
  mb: [161, 176, 191, 181][i]!,
}));
const NAMES = {
  spec: 'emojibase-data@17.0.0',
  integrity: 'sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==',
};

/** Of the animations: 24 frames a second. */
const EVERY = 24 / STORED.fps;

/** Fetches the first `packs` packages, or those that are missing. @throws one line: no npm, no network, another package than expected */
export async function fetchEmoji(packs: number, signal: AbortSignal): Promise<string[]> {
  const wanted = ANIMATIONS.slice(0, packs)
    .map((a, i) => ({ ...a, pack: i + 1 }))
    .filter(({ pack }) => !existsSync(emojiFiles(pack).index));
  if (!wanted.length) return [];
  mkdirSync(dirname(emojiFolder(1)), { recursive: true });
  const dir = mkdtempSync(join(dirname(emojiFolder(1)), 'fetch-'));
  try {
    const captions = captionsOf(await download(NAMES, dir, signal));
    for (const { pack, spec, integrity, mb } of wanted) {
      console.error(`${spec}: ${mb} MB`);
      await unpack(pack, await download({ spec, integrity }, dir, signal), captions, signal);
    }
    return wanted.map((w) => emojiFolder(w.pack));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function download(
  { spec, integrity }: { spec: string; integrity: string },
  dir: string,
  signal: AbortSignal,
): Promise<Buffer> {
  try {
    await promisify(execFile)(
      process.platform === 'win32' ? 'npm.cmd' : 'npm',
      ['pack', spec, '--silent', '--pack-destination', dir],
      { signal, shell: process.platform === 'win32' },
    );
  } catch (error) {
    signal.throwIfAborted();
    const why =
      (error as NodeJS.ErrnoException).code === 'ENOENT'
        ? 'npm is not on PATH'
        : (error as { stderr?: string }).stderr?.trim().split('\n').at(-1) || 'npm pack failed; is there a network?';
    throw new Error(`[fetch] ${spec}: ${why}`, { cause: error });
  }
  const [file] = readdirSync(dir)
    .filter((f) => f.endsWith('.tgz'))
    .map((f) => join(dir, f));
  const bytes = readFileSync(file!);
  rmSync(file!);
  const found = `sha512-${createHash('sha512').update(bytes).digest('base64')}`;
  if (found !== integrity)
    throw new Error(`[fetch] ${spec} is not the package that is expected (${found.slice(0, 20)}…): it is not used`);
  return gunzipSync(bytes);
}

/** Code points as file names have them → name, from emojibase's English data. */
function captionsOf(tar: Buffer): Map<string, string> {
  interface Named {
    hexcode: string;
    label: string;
    skins?: Named[];
  }
  const file = [...untar(tar)].find(({ name }) => name === 'package/en/data.json')!;
  const all = (JSON.parse(file.data.toString('utf8')) as Named[]).flatMap((e) => [e, ...(e.skins ?? [])]);
  return new Map(all.map(({ hexcode, label }) => [plain(hexcode), label.toLowerCase()]));
}

/** Code points without the selector of emoji presentation, which some lists write and some don't. */
const plain = (hex: string): string =>
  hex
    .toLowerCase()
    .split('-')
    .filter((c) => c !== 'fe0f')
    .join('-');

/** Decodes every animation with a name into one file of bytes; the index is written last. */
async function unpack(
  pack: number,
  tar: Buffer,
  captions: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<void> {
  const files = emojiFiles(pack);
  mkdirSync(emojiFolder(pack), { recursive: true });
  const pictures = [...untar(tar)].filter(({ name }) => name.endsWith('.webp'));
  const part = partOf(files.frames);
  const out = openSync(part, 'w');
  const shown = meter(`package ${pack}`, { unit: 'animations', total: pictures.length });
  const entries: EmojiEntry[] = [];
  let offset = 0;
  try {
    for (const [i, { name, data }] of pictures.entries()) {
      signal.throwIfAborted();
      const hex = plain(basename(name, '.webp'));
      const caption = captions.get(hex);
      const frames = caption === undefined ? [] : await decode(data);
      if (frames.length > 1) {
        entries.push({ hex, caption: caption!, frames: frames.length, offset });
        for (const frame of frames) offset += writeSync(out, frame);
      }
      shown.at(i + 1);
    }
  } finally {
    shown.end();
    closeSync(out);
  }
  renameSync(part, files.frames);
  disown(part);
  writeWhole(files.index, JSON.stringify(entries));
}

/** Every second frame of an animation as [64, 64, 3] bytes on white; a still has none. */
async function decode(webp: Buffer): Promise<Buffer[]> {
  const image = sharp(webp, { animated: true, limitInputPixels: false });
  const { pages = 1 } = await image.metadata();
  if (pages < 2) return [];
  const { size } = STORED;
  const bytes = await image
    .resize(size, size, { fit: 'contain', background: '#ffffff' })
    .flatten({ background: '#ffffff' })
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer();
  const frame = 3 * size * size;
  return Array.from({ length: Math.ceil(pages / EVERY) }, (_, t) =>
    bytes.subarray(EVERY * t * frame, (EVERY * t + 1) * frame),
  );
}
