/** Small videos, and settings that distil on them in two steps. */
import sharp from 'sharp';

export const SIDE = 32;

/** A square that moves over grey, at 62 ms a frame: what is taken at 16 a second. */
export async function writeClip(path: string, frames: number, width = SIDE): Promise<void> {
  const pages = Array.from({ length: frames }, (_, t) =>
    Array.from({ length: width * SIDE * 3 }, (_v, i) =>
      Math.abs((Math.floor(i / 3) % width) - 4 * t) < 4 ? 250 : 40 + 3 * t,
    ),
  ).flat();
  const raw = { width, height: frames * SIDE, channels: 3 as const, pageHeight: SIDE };
  await sharp(Uint8Array.from(pages), { raw })
    .webp({ lossless: true, delay: Array<number>(frames).fill(62) })
    .toFile(path);
}

/** Two steps of both phases. */
export const BRIEF_SETTINGS = [
  'best.every=1',
  'run.sampleEvery=1',
  'student.rank=2',
  'priming.fake.rank=2',
  'priming.steps=1',
  'priming.fake.warmup=1',
  'priming.fake.updates=1',
  'equilibrium.steps=1',
  'equilibrium.head.warmup=1',
  'equilibrium.head.head_dim=24',
  'equilibrium.taps=[0,1]',
];
export const BRIEF = BRIEF_SETTINGS.flatMap((s) => ['--set', s]);
export const ADAPTERS = [...BRIEF, '--set', 'student.mode=lora'];
