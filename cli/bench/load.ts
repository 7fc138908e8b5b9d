/** Weights from a file to the device, beside a plain read of the same file. */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Device } from '../../engine/runtime/device.ts';
import { openWeights } from '../../model/files/open.ts';
import { writeTensors, type Output } from '../../model/files/safetensors.ts';
import { uploadWeights, type FloatStorage } from '../../model/files/upload.ts';
import { CHUNK_BYTES } from '../../model/files/weights.ts';
import { freeTree } from '../../train/loop/checkpoint.ts';
import type { Case, Opened } from './case.ts';

const MATRICES = 4; // of 64 MiB each
const SIDE = 4096;
const BYTES = MATRICES * 4 * SIDE * SIDE;

/** A file of f32 matrices in a folder of its own, which `close` removes. */
async function inFile(body: (path: string) => Promise<Opened>): Promise<Opened> {
  const folder = await mkdtemp(join(tmpdir(), 'vpae-load-'));
  const path = join(folder, 'weights.safetensors');
  const rows = Float32Array.from({ length: 256 * SIDE }, (_, i) => Math.sin(i) / 10);
  const matrix: Output = {
    dtype: 'F32',
    shape: [SIDE, SIDE],
    values: () => Array.from({ length: SIDE / 256 }, () => rows),
  };
  await writeTensors(
    path,
    Object.fromEntries(Array.from({ length: MATRICES }, (_, i) => [`blocks.${i}.weight`, matrix])),
  );
  const opened = await body(path);
  return {
    ...opened,
    async close() {
      await opened.close();
      await rm(folder, { recursive: true });
    },
  };
}

const upload = (device: Device, dtype: FloatStorage): Case => ({
  name: `weights to device as ${dtype}`,
  shape: `${BYTES / 2 ** 20} MiB of f32`,
  moves: BYTES,
  open: () =>
    inFile(async (path) => {
      const weights = await openWeights(path);
      return {
        call: async () => freeTree(await uploadWeights(device, weights, { dtype })),
        settle: () => device.idle(),
        close: () => weights.close(),
      };
    }),
});

/** What the operating system gives, into one piece of memory. */
const plain: Case = {
  name: 'plain read',
  shape: `${BYTES / 2 ** 20} MiB`,
  moves: BYTES,
  open: () =>
    inFile(async (path) => {
      const file = await open(path);
      const memory = new Uint8Array(CHUNK_BYTES);
      return {
        async call() {
          for (let at = 0, bytesRead = -1; bytesRead; at += bytesRead)
            ({ bytesRead } = await file.read(memory, 0, memory.length, at));
        },
        settle: () => Promise.resolve(),
        close: () => file.close(),
      };
    }),
};

export const loadCases = (device: Device): Case[] => [
  plain,
  ...(['f32', 'f16', 'bf16'] as const).map((dtype) => upload(device, dtype)),
];
