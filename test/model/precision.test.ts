/** f16 operands: where they are chosen, how near the sampled latent stays to that of f32, and that an overflow is told. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import type { Caps } from '../../kernels/kernel.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import { Diffusion } from '../../model/pipeline/diffuse.ts';
import { generate } from '../../model/pipeline/generate.ts';
import { precisionOn, PRECISIONS } from '../../model/pipeline/precision.ts';
import { wanModel, wanSampling } from '../../model/pipeline/wan.ts';
import { writeFolder } from './folders.ts';
import { emulated, UNITS } from '../kernels/units.ts';
import { held } from '../held.ts';

const device = await open();
/** Of whole networks with rounded linears and attention, relative in the 2-norm: WAN.md. */
const HALF_LIMIT = 2e-2;
const SIZE = { width: 16, height: 32 };
const none = (): void => {};

test("f16 where matrix units are the adapter's own; never on a CPU driver, never where there is no f16", () => {
  const gpu: Caps = { ...device.caps, tier: 'tiled', f16: true, units: [UNITS.nvidia] };
  const { units: _, ...plain } = gpu;
  assert.is(precisionOn(gpu), 'f16');
  assert.is(precisionOn(gpu, 'f32'), 'f32');
  for (const caps of [
    plain,
    { ...gpu, f16: false },
    { ...gpu, tier: 'scalar' as const },
    { ...gpu, units: [emulated(UNITS.nvidia)] },
    { ...gpu, units: [UNITS.apple] },
  ])
    assert.is(precisionOn(caps), 'f32');
  assert.is(precisionOn(plain, 'f16'), 'f16');
  assert.throws(() => precisionOn({ ...gpu, f16: false }, 'f16'), /no f16 \(shader-f16\)/);
});

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'precision-'));
  try {
    await writeFolder(folder, 'original', 't2v');
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

if (device.caps.f16)
  test("a folder's latent stays within the limits of half precision, whole and block by block, and is not the same", () =>
    inFolder(async (folder) => {
      const checkpoint = await openCheckpoint(folder);
      const [text, negative] = await wanModel(checkpoint).encodeText(device, ['a cat', 'a dog'], none);
      const alone = (t: typeof text) => host(t!.data, [1, ...t!.shape]);
      const sampled = async (operands: 'f32' | 'f16', offload: boolean): Promise<Float32Array> => {
        const net = await wanModel(checkpoint, { offload }).loadDiT(device, none);
        const diffusion = new Diffusion(device, checkpoint.dit.config, { operands });
        const { latent } = await diffusion.run(
          net,
          { shape: [16, 2, 4, 2], seeds: [1], text: alone(text), negative: alone(negative) },
          { ...wanSampling(checkpoint, SIZE), steps: 3 },
        );
        const numbers = await latent.read();
        latent.free();
        await diffusion.close();
        await net.free();
        return numbers;
      };
      for (const offload of [false, true]) {
        const [want, got] = [await sampled('f32', offload), await sampled('f16', offload)];
        const error = Math.hypot(...want.map((v, i) => v - got[i]!)) / Math.hypot(...want);
        assert.ok(error > 1e-6 && error < HALF_LIMIT, `${error}`);
      }
    }));

for (const precision of PRECISIONS) {
  if (precision === 'f32' || device.caps.f16)
    test(`a latent that is not finite ends ${precision} sampling in one line`, () =>
      inFolder(async (folder) => {
        const checkpoint = await openCheckpoint(folder);
        const model = wanModel(checkpoint);
        const huge = precision === 'f16' ? 1e6 : 1e38; // f16 ends at 65504, f32 at 3e38
        const job = { prompt: 'a cat', negative: '', pictures: [], size: SIZE, frames: 5, seed: 1 };
        const before = await held(device);
        const text = {
          ...model,
          encodeText: (async (...args) =>
            (await model.encodeText(...args)).map((t) =>
              host(
                t.data.map((v) => huge * v),
                t.shape,
              ),
            )) satisfies typeof model.encodeText,
        };
        const message = await generate(device, text, [job], {
          sampling: { ...wanSampling(checkpoint, SIZE), steps: 1 },
          precision,
          progress: none,
          sink: () => {
            throw new Error('nothing may be decoded');
          },
        }).then(
          () => '',
          (e: Error) => e.message,
        );
        assert.match(
          message,
          precision === 'f16'
            ? /^\[sample\] \d+ of 256 numbers of the latent of "a cat" are not finite: values do not fit into f16, first: velocity: matmul reads .*\.ts:\d+\); use --precision f32$/
            : /are not finite: check the weights and LoRAs$/,
        );
        assert.is(device.allocated, before);
      }));
}

test.after(() => device.close());
test.run();
