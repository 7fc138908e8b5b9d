/** Films through ffmpeg, where it is on PATH: frames as they are shown, upright, of square pixels, in eight bits, and their rate. */
import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { openFile } from '../../engine/host/files.ts';
import type { Size } from '../../model/pipeline/size.ts';
import { standIn, TELLING } from '../../model/files/standin.ts';
import { Unusable } from '../../train/data/videoindex.ts';
import type { Footage } from '../../train/vbench/footage.ts';
import { isHdr, toSdr } from './hdr.ts';
import { steady } from './steady.ts';

export interface FilmOptions {
  /** Frames a second that are taken; all frames unless given. */
  fps?: number;
  /** Scaled so that it is filled. */
  cover?: Size;
  /** The first so many; all unless given. */
  frames?: number;
}

/** Pixels that are not square are stretched to be, never squeezed. */
const SQUARE = "scale='if(gt(sar,1),iw*sar,iw)':'if(gt(sar,1),ih,ih/sar)':flags=bicubic,setsar=1";

const MOST_BYTES = 3 * 2 ** 30; // of frames, which are held in memory

interface Said {
  code: number | null;
  signal: NodeJS.Signals | null;
  out: Buffer;
  told: string;
}

function ffmpeg(args: readonly string[], input?: Uint8Array): Promise<Said> {
  return new Promise((done, failed) => {
    const child = spawn('ffmpeg', ['-hide_banner', '-nostdin', '-nostats', ...args], { stdio: 'pipe' });
    const [out, told]: [Buffer[], Buffer[]] = [[], []];
    let left = MOST_BYTES;
    child.stdout.on('data', (d: Buffer) => {
      out.push(d);
      left -= d.length;
      if (left >= 0) return;
      child.kill('SIGKILL');
      failed(
        new Unusable(`its frames take more than ${MOST_BYTES / 2 ** 30} GiB: cut it into parts, or make it smaller`),
      );
    });
    child.stderr.on('data', (d: Buffer) => told.push(d));
    child.stdin.on('error', () => {}); // it ended early: its exit code tells
    child.stdin.end(input);
    child.on('error', (error: NodeJS.ErrnoException) =>
      failed(
        error.code === 'ENOENT'
          ? new Error(
              'ffmpeg is needed for this format and is not on PATH: install it, or convert the video to .webp or .gif',
              { cause: error },
            )
          : new Error(`ffmpeg does not start: ${error.message}`, { cause: error }),
      ),
    );
    child.on('close', (code, signal) =>
      done({ code, signal, out: Buffer.concat(out), told: Buffer.concat(told).toString() }),
    );
  });
}

/** What an ffmpeg says that lacks a part, or a machine that lacks memory, files or rights. */
const MACHINE =
  /cannot allocate|too many open files|no space left|permission denied|input\/output error|resource temporarily|shared librar|(decoder|encoder|filter|protocol)[^\n]* not found|unknown (decoder|encoder)|no such filter|no decoder|doesn't support hardware/i;

const lastLine = (text: string): string => text.trim().split('\n').at(-1) ?? '';

/** Whether ffmpeg still does its part with a picture that is known to be right. */
async function isWell(): Promise<boolean> {
  const picture = Buffer.from('P6\n2 2\n255\nabcdefghijkl');
  const args = ['-f', 'image2pipe', '-c:v', 'ppm', '-i', 'pipe:0', '-f', 'image2pipe', '-c:v', 'ppm', '-'];
  return ffmpeg(args, picture).then(
    ({ code, out }) => code === 0 && out.equals(picture),
    () => false,
  );
}

async function beginOf(path: string): Promise<Uint8Array> {
  const file = await openFile(path);
  try {
    const begin = new Uint8Array(TELLING);
    return begin.subarray(0, await file.read(begin, 0, TELLING, 0));
  } finally {
    await file.close();
  }
}

/**
 * Frames as ffmpeg prints them, and all that it says.
 * @throws Unusable where the film is damaged, another error where the machine is at fault
 */
async function decode(path: string, options: FilmOptions, deep: boolean): Promise<{ frames: Raw[]; told: string }> {
  const { fps, cover, frames: count } = options;
  const filters = [
    'showinfo', // tells when each frame is shown, and its transfer
    SQUARE,
    ...(fps ? [`fps=${fps}`] : ['settb=1/25,setpts=N']), // each frame once
    ...(cover ? [`scale=${cover.width}:${cover.height}:force_original_aspect_ratio=increase:flags=bicubic`] : []),
  ];
  const input = ['-protocol_whitelist', 'file,pipe', '-i', `file:${path}`]; // no option, no protocol, and no way to other files
  const which = ['-vf', filters.join(), ...(fps ? [] : ['-r', '25'])];
  const most = count === undefined ? [] : ['-frames:v', String(count)];
  const output = ['-pix_fmt', deep ? 'rgb48be' : 'rgb24', '-f', 'image2pipe', '-c:v', 'ppm', '-'];
  const args = [...input, ...which, ...most, ...output];
  const other = standIn(await beginOf(path));
  if (other !== undefined) throw new Unusable(other);
  const attempt = async (): Promise<{ frames: Raw[]; told: string } | Said> => {
    const said = await ffmpeg(args);
    const frames = said.code === 0 ? parsePpms(said.out) : undefined;
    return frames ? { frames, told: said.told } : said;
  };
  let made = await attempt();
  if (!('frames' in made)) made = await attempt(); // what fails twice is no accident
  if ('frames' in made) return made;
  await access(path, constants.R_OK);
  const why = made.signal ? `was stopped by ${made.signal}` : lastLine(made.told) || 'it gave no frames';
  const machine = made.signal || MACHINE.test(made.told.replaceAll(path, '')) || !(await isWell());
  if (machine) throw new Error(`ffmpeg does not work on this machine: ${why}`);
  throw new Unusable(`ffmpeg could not read it: ${why}`);
}

/** @throws Unusable where the film is damaged, another error where the machine is at fault */
export async function readFilm(path: string, options: FilmOptions = {}): Promise<Footage> {
  let { frames, told } = await decode(path, options, false);
  const said = told.replaceAll(path, ''); // the one thing in it that could begin a line with any words
  const info = (what: RegExp) => [
    ...said.matchAll(new RegExp(`^\\[Parsed_showinfo_0 @[^\\]]*\\] ${what.source}`, 'gm')),
  ];
  const transfer = info(/.*color_trc:(\S+)/)[0]?.[1];
  if (isHdr(transfer)) ({ frames } = await decode(path, options, true));
  const { width, height } = frames[0]!;
  const other = frames.find((f) => f.width !== width || f.height !== height);
  if (other)
    throw new Unusable(`its pictures change their size, from ${width}x${height} to ${other.width}x${other.height}`);
  const pixels = frames.map((f) => (isHdr(transfer) ? toSdr(f.deep!, transfer) : f.data));
  if (options.fps) return { width, height, fps: options.fps, frames: pixels };
  const [, over, under] = info(/config in time_base: \S+ frame_rate: (\d+)\/(\d+)/)[0] ?? [];
  const rate = Number(over) / Number(under) || undefined;
  const times = info(/n: *\d+ +pts: *\S+ +pts_time: *(\S+)/).map((m) => Number(m[1]));
  const known = times.length >= frames.length && times.every(Number.isFinite);
  const begins = known ? times.slice(0, frames.length) : frames.map((_, i) => i / (rate ?? FALLBACK));
  const last = begins.length > 1 ? begins.at(-1)! - begins.at(-2)! : 1 / (rate ?? FALLBACK);
  return { width, height, ...steady(pixels, [...begins, begins.at(-1)! + last], rate) };
}

const FALLBACK = 25; // frames a second, of a film that names none: ffmpeg's own

/** `deep`: codes of 16 bits. */
interface Raw extends Size {
  data: Uint8Array;
  deep?: Uint16Array;
}

/** Nothing where something else than pictures stands there. */
function parsePpms(bytes: Buffer): Raw[] | undefined {
  const frames: Raw[] = [];
  for (let at = 0; at < bytes.length;) {
    const [header, w, h, most] =
      /^P6\s+(\d+)\s+(\d+)\s+(255|65535)\s/.exec(bytes.toString('latin1', at, at + 40)) ?? [];
    if (!header) return undefined;
    const [width, height] = [Number(w), Number(h)];
    const size = 3 * width * height * (most === '255' ? 1 : 2);
    const data = new Uint8Array(bytes.subarray(at + header.length, at + header.length + size));
    if (data.length < size) return undefined;
    const deep = () => Uint16Array.from({ length: size / 2 }, (_, i) => (data[2 * i]! << 8) | data[2 * i + 1]!);
    frames.push({ width, height, data, ...(most !== '255' && { deep: deep() }) });
    at += header.length + size;
  }
  return frames.length ? frames : undefined;
}
