/**
 * VBench's own networks where their files are at hand: DINO ViT-B/16, CLIP ViT-B/32, CLIP
 * ViT-L/14 with LAION's linear head. Frames are prepared as the suite does.
 */
import type { CompiledFunction } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import { loadParams } from '../../model/files/load.ts';
import type { HostParams, Params } from '../../model/params.ts';
import { loadViT } from '../../model/vit/load.ts';
import { CLIP_VIT_B32, CLIP_VIT_L14, DINO_VIT_B16, positionsFor, vit, type ViTConfig } from '../../model/vit/vit.ts';
import { freeTree, toDevice } from '../loop/checkpoint.ts';
import { centreCrop, resizeShorter, type Frame } from './footage.ts';
import { type Feature } from './formulas.ts';
import type { Eye, Instruments, Rater } from './measure.ts';

/** Paths of weight files; those that are missing leave their dimensions out. */
export interface NetworkFiles {
  dino?: string | undefined;
  clip?: string | undefined;
  clipLarge?: string | undefined;
  laion?: string | undefined;
}

const BATCH = 8;

/** A transformer on a device, and what it says of prepared frames of one size. */
class Seer {
  private readonly config: ViTConfig;
  private readonly params: HostParams;
  private readonly loaded: Params;
  private readonly program: CompiledFunction<[Params, Tensor, Tensor], Tensor>;

  constructor(device: Device, config: ViTConfig, params: HostParams) {
    this.config = config;
    this.params = params;
    this.loaded = toDevice(device, params) as unknown as Params;
    this.program = device.compile((p: Params, x: Tensor, positions: Tensor) => vit(p, config, x, positions), {
      name: 'vit',
    });
  }

  async see(frames: readonly Frame[]): Promise<Float32Array[]> {
    const { patch_size: p, mean, std } = this.config;
    const [rows, columns] = [Math.floor(frames[0]!.height / p), Math.floor(frames[0]!.width / p)]; // a convolution leaves what does not fill a patch
    const positions = positionsFor(this.config, this.params['pos_embed']!, rows, columns);
    const [h, w] = [rows * p, columns * p];
    const out: Float32Array[] = [];
    for (let first = 0; first < frames.length; first += BATCH) {
      const some = frames.slice(first, first + BATCH);
      const pixels = new Float32Array(some.length * 3 * h * w);
      some.forEach(({ width, data }, b) => {
        for (let k = 0; k < 3; k++)
          for (let y = 0; y < h; y++)
            for (let x = 0; x < w; x++) {
              pixels[((b * 3 + k) * h + y) * w + x] = (data[3 * (y * width + x) + k]! / 255 - mean[k]!) / std[k]!;
            }
      });
      const features = await this.program(
        this.loaded as never,
        host(pixels, [some.length, 3, h, w]) as never,
        positions as never,
      );
      const all = (await features.read()) as Float32Array;
      const size = all.length / some.length;
      for (let b = 0; b < some.length; b++) out.push(all.slice(b * size, (b + 1) * size));
    }
    return out;
  }

  async close(): Promise<void> {
    await this.program.free();
    freeTree(this.loaded);
  }
}

/** Opens the networks whose files are named. Pictures go through Pillow in the suite, frames do not: their resizing differs. */
export async function openNetworks(
  device: Device,
  files: NetworkFiles,
): Promise<{ instruments: Instruments; close: () => Promise<void> }> {
  const seers: Seer[] = [];
  const open = async (path: string, config: ViTConfig) => {
    const seer = new Seer(device, config, await loadViT(path, config));
    seers.push(seer);
    return seer;
  };
  const eye = (name: string, seer: Seer, prepare: (f: Frame, what: 'video' | 'image') => Frame): Eye => ({
    name,
    proxy: false,
    see: (frames, what) => seer.see(frames.map((f) => prepare(f, what))) as Promise<Feature[]>,
  });
  const instruments: Instruments = {};
  if (files.dino) {
    const dino = await open(files.dino, DINO_VIT_B16);
    instruments.subject_consistency = eye('DINO ViT-B/16', dino, (f) => resizeShorter(f, 224, 'linear', false));
    instruments.i2v_subject = eye('DINO ViT-B/16', dino, (f, what) =>
      centreCrop(resizeShorter(f, 256, what === 'image' ? 'pillow' : 'cubic', what === 'image'), 224),
    );
  }
  const square = (f: Frame): Frame => centreCrop(resizeShorter(f, 224, 'cubic', false), 224);
  if (files.clip)
    instruments.background_consistency = eye('CLIP ViT-B/32', await open(files.clip, CLIP_VIT_B32), square);
  if (files.clipLarge && files.laion) {
    const clip = await open(files.clipLarge, CLIP_VIT_L14);
    const { weight, bias } = await loadParams(files.laion, { weight: [1, CLIP_VIT_L14.clip!.out_dim], bias: [1] });
    const rater: Rater = {
      name: "CLIP ViT-L/14 and LAION's head",
      proxy: false,
      rate: async (frames) =>
        (await clip.see(frames.map(square))).map((f) => {
          const length = Math.sqrt(f.reduce((s, x) => s + x * x, 0));
          return (f.reduce((s, x, i) => s + (x / length) * weight!.data[i]!, 0) + bias!.data[0]!) / 10;
        }),
    };
    instruments.aesthetic_quality = rater;
  }
  return {
    instruments,
    close: async () => {
      for (const s of seers) await s.close();
    },
  };
}
