/**
 * MP4 (H.264) and WebM (VP9) out of RGBA frames: by `ffmpeg`, or by mediabunny where that is installed. Neither comes with this program.
 */
import { spawn } from 'node:child_process';
import { renameSync, rmSync } from 'node:fs';
import process from 'node:process';
import { run } from '../../engine/host/runtime.ts';
import { disown, partOf } from '../../engine/host/draft.ts';
import { writeWhole } from '../../train/loop/files.ts';
import { toI420 } from './yuv.ts';

export interface MovieShape {
  readonly width: number;
  readonly height: number;
  /** Frames a second. */ readonly fps: number;
}

/** Takes a movie's frames in order. Nothing stands at its path before `end`. */
interface Movie {
  /** @param rgba width · height · 4 bytes */
  add(rgba: Uint8Array): Promise<void>;
  end(): Promise<void>;
  /** Leaves nothing behind. */
  abort(): Promise<void>;
}
type MovieFormat = 'mp4' | 'webm';
type Open = (path: string, format: MovieFormat, shape: MovieShape) => Promise<Movie>;

const CODECS: Record<MovieFormat, readonly string[]> = {
  mp4: ['-c:v', 'libx264', '-crf', '18', '-movflags', '+faststart'],
  webm: ['-c:v', 'libvpx-vp9', '-crf', '24', '-b:v', '0', '-row-mt', '1'],
};

/** Colours are BT.709's and the file says so: one that says nothing is taken for BT.601 by some players and for BT.709 by others. */
const BT709 = { primaries: 'bt709', transfer: 'bt709', matrix: 'bt709', fullRange: false } as const;
const COLOURS = [
  '-vf',
  [
    'scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+full_chroma_inp',
    'format=yuv420p',
    'setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709',
  ].join(),
  ...'-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv'.split(' '),
];

/** Frames go to the program's stdin; it writes beside the path, and the file is moved there once it is whole. */
const byFfmpeg: Open = (path, format, { width, height, fps }) => {
  const temporary = partOf(path);
  const child = spawn(
    'ffmpeg',
    [
      '-y',
      '-loglevel',
      'error',
      '-f',
      'rawvideo',
      '-pix_fmt',
      'rgba',
      '-s',
      `${width}x${height}`,
      '-r',
      String(fps),
      '-i',
      'pipe:0',
      ...COLOURS,
      ...CODECS[format],
      '-f',
      format,
      `file:${temporary}`, // a name that begins with - is no option, one with a colon no protocol
    ],
    { stdio: ['pipe', 'ignore', 'pipe'] },
  );
  let said = '';
  child.stderr.on('data', (d: Buffer) => {
    said += d.toString();
  });
  child.stdin.on('error', () => {
    /* it ended early: its exit code and its words tell why */
  });
  const ended = new Promise<string | undefined>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) =>
      resolve(code === 0 ? undefined : said.trim().split('\n').at(-1) || `ended with code ${code}`),
    );
  });
  const clear = (): void => {
    rmSync(temporary, { force: true });
    disown(temporary);
  };
  const failed = (why: string): Error => {
    clear();
    return new Error(`[ffmpeg] ${path}: ${why}`);
  };
  return Promise.resolve({
    async add(rgba) {
      const taken = new Promise<undefined>((resolve) => {
        child.stdin.write(rgba, () => resolve(undefined));
      });
      const gone = child.exitCode !== null || child.stdin.destroyed;
      const why = gone ? await ended : await Promise.race([taken, ended]);
      if (why !== undefined || gone) throw failed(why ?? 'ended before the last frame');
    },
    async end() {
      child.stdin.end();
      const why = await ended;
      if (why !== undefined) throw failed(why);
      renameSync(temporary, path);
      disown(temporary);
    },
    async abort() {
      child.kill();
      await ended;
      clear();
    },
  });
};

/** What is used of mediabunny, https://mediabunny.dev/api. */
interface Mediabunny {
  Output: new (o: { format: unknown; target: unknown }) => {
    addVideoTrack: (source: unknown, o: { frameRate: number }) => void;
    start: () => Promise<void>;
    finalize: () => Promise<void>;
    cancel: () => Promise<void>;
  };
  BufferTarget: new () => { buffer: ArrayBuffer | null };
  Mp4OutputFormat: new () => unknown;
  WebMOutputFormat: new () => unknown;
  VideoSampleSource: new (o: {
    codec: string;
    bitrate: unknown;
    onEncodedPacket: (packet: unknown, about?: { decoderConfig?: { colorSpace?: unknown } }) => void;
  }) => { add: (sample: unknown) => Promise<void> };
  VideoSample: new (
    data: Uint8Array,
    o: {
      format: 'I420';
      codedWidth: number;
      codedHeight: number;
      timestamp: number;
      duration: number;
      colorSpace: typeof BT709;
    },
  ) => { close: () => void };
  QUALITY_VERY_HIGH: unknown;
}
const PACKAGES = ['mediabunny', '@mediabunny/server'] as const;

/** Encodes within this process; the file is held in memory until its end. */
const byMediabunny: Open = async (path, format, { width, height, fps }) => {
  const bunny = (await import(PACKAGES[0] as string)) as Mediabunny;
  const server = (await import(PACKAGES[1] as string)) as {
    registerMediabunnyServer: (o: { hardwareContext: null }) => void;
  };
  server.registerMediabunnyServer({ hardwareContext: null }); // else it probes every kind of GPU, and each probe that fails prints
  const target = new bunny.BufferTarget();
  const output = new bunny.Output({
    format: format === 'mp4' ? new bunny.Mp4OutputFormat() : new bunny.WebMOutputFormat(),
    target,
  });
  const source = new bunny.VideoSampleSource({
    codec: format === 'mp4' ? 'avc' : 'vp9',
    bitrate: bunny.QUALITY_VERY_HIGH,
    // Its encoder forgets what the samples say.
    onEncodedPacket: (_, about) => {
      if (about?.decoderConfig) about.decoderConfig.colorSpace = BT709;
    },
  });
  output.addVideoTrack(source, { frameRate: fps });
  await output.start();
  let frames = 0;
  return {
    async add(rgba) {
      const sample = new bunny.VideoSample(toI420(rgba, width, height), {
        format: 'I420',
        colorSpace: BT709,
        codedWidth: width,
        codedHeight: height,
        timestamp: frames++ / fps,
        duration: 1 / fps,
      });
      await source.add(sample);
      sample.close();
    },
    async end() {
      await output.finalize();
      writeWhole(path, new Uint8Array(target.buffer!));
    },
    abort: () => output.cancel(),
  };
};

async function findMaker(): Promise<Open | undefined> {
  if ((await run('ffmpeg', ['-version'])).code === 0) return byFfmpeg;
  try {
    for (const name of PACKAGES) await import(name as string);
    return byMediabunny;
  } catch {
    return undefined;
  }
}

/** What was found, by the PATH it was found on: many clips ask. */
const makers = new Map<string, Promise<Open | undefined>>();

/** A way to write movies on this machine. @throws one line that names what to install, before any work is done for nothing */
export async function movieMaker(path: string): Promise<Open> {
  const where = process.env['PATH'] ?? '';
  if (!makers.has(where)) makers.set(where, findMaker());
  const maker = await makers.get(where)!;
  if (!maker)
    throw new Error(
      `[video] ${path}: needs ffmpeg on the PATH, or mediabunny (npm install --no-save ${PACKAGES.join(' ')}); a name that ends in .webp needs neither`,
    );
  return maker;
}
