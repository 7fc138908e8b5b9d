/** A DiT from its files, with LoRAs: all of it on the device, or its blocks at every step anew. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel, storageBytes } from '../../kernels/kernel.ts';
import { storedBlocks, type BlockSource } from '../blocks.ts';
import type { DiTConfig } from '../config.ts';
import type { Part } from '../files/checkpoint.ts';
import { mergeFiles, type Lora } from '../files/lora.ts';
import { placedAs, uploadWeights, type FloatStorage, type Placement } from '../files/upload.ts';
import type { Weights } from '../files/weights.ts';
import type { HostParams } from '../params.ts';
import type { Network } from './forward.ts';

export interface NetworkOptions {
  loras?: readonly Lora[] | undefined;
  /** Of matrices: as they are stored unless given, but f32 becomes bf16, in which Wan runs. */
  dtype?: FloatStorage | undefined;
  /** Blocks come from their files at every step; without it they do where the device's budget could not hold them all. */
  offload?: boolean | undefined;
}

/** Of a device's budget, what weights may take: activations must fit beside them. */
const SHARE = 0.7;

/** Files' adapters as one for each linear: ranks side by side, strengths in B. */
function stackAdapters(loras: readonly Lora[]): HostParams {
  const all: HostParams = {};
  for (const {
    file: { adapters },
    scale,
  } of loras) {
    for (const [name, t] of Object.entries(adapters)) {
      const isA = name.endsWith('.lora_A.weight');
      const own = isA
        ? t
        : host(
            Float32Array.from(t.data, (x) => scale * x),
            t.shape,
          );
      all[name] = all[name] ? beside(all[name], own, isA ? 0 : 1) : own;
    }
  }
  return all;
}

/** Two matrices below one another (axis 0), or side by side. */
function beside(a: HostTensor, b: HostTensor, axis: 0 | 1): HostTensor {
  const [rows, columns] = a.shape as [number, number];
  if (axis === 0) return host(Float32Array.from([...a.data, ...b.data]), [rows + b.shape[0]!, columns]);
  const width = columns + b.shape[1]!;
  return host(
    Float32Array.from({ length: rows * width }, (_, i) => {
      const [row, column] = [Math.floor(i / width), i % width];
      return column < columns ? a.data[row * columns + column]! : b.data[row * (width - columns) + column - columns]!;
    }),
    [rows, width],
  );
}

/** What LoRA files add: adapters beside the weights, and differences that become part of them. */
class Additions {
  readonly adapters: Readonly<Record<string, NDArray>>;
  private readonly device: Device;
  private readonly file: Weights;
  private readonly whole: readonly Lora[];

  constructor(device: Device, file: Weights, loras: readonly Lora[]) {
    [this.device, this.file] = [device, file];
    this.adapters = Object.fromEntries(
      Object.entries(stackAdapters(loras)).map(([name, t]) => [name, device.tensor(t.data, t.shape)]),
    );
    this.whole = loras.map(({ file, scale }) => ({ file: { ...file, adapters: {} }, scale }));
  }

  /** Weights under names behind `prefix`, with what is added to them. */
  async to(weights: Record<string, NDArray>, prefix = ''): Promise<Record<string, NDArray>> {
    for (const name of Object.keys(weights).filter((n) =>
      this.whole.some((l) => `${prefix}${n}` in l.file.differences),
    )) {
      const merged = mergeFiles(`${prefix}${name}`, await this.file.tensor(`${prefix}${name}`), this.whole);
      weights[name]!.free();
      weights[name] = this.device.tensor(merged.data, merged.shape);
    }
    for (const [name, t] of Object.entries(this.adapters))
      if (name.startsWith(prefix)) weights[name.slice(prefix.length)] = t;
    return weights;
  }

  free(): void {
    for (const t of Object.values(this.adapters)) t.free();
  }
}

/** @param onProgress told of the bytes read so far, and of all that are read before the first step */
export async function loadNetwork(
  device: Device,
  dit: Part<DiTConfig>,
  { loras = [], dtype, offload = false }: NetworkOptions,
  onProgress: (done: number, total: number) => void,
): Promise<Network> {
  const file = await dit.open();
  const additions = new Additions(device, file, loras);
  try {
    const names = Object.keys(dit.shapes);
    const stored = file.entries.get('patch_embedding.weight')!.dtype === 'F32' ? ('bf16' as const) : undefined;
    const placement: Placement = dtype ? { dtype, unpacked: true } : { dtype: stored };
    const bytes = names.reduce((sum, name) => {
      const entry = file.entries.get(name)!;
      return sum + storageBytes(placedAs(name, entry, placement), numel(entry.shape));
    }, 0);
    const streamed = offload || bytes > SHARE * device.budget;
    const first = streamed ? names.filter((name) => !name.startsWith('blocks.')) : names;
    const weights = await additions.to(await uploadWeights(device, file, { names: first, ...placement, onProgress }));
    const blocks = storedBlocks(device, file, 'blocks', placement);
    const source: BlockSource = {
      fetch: async (i) => additions.to({ ...(await blocks.fetch(i)) }, `blocks.${i}.`),
      release: (fetched) =>
        blocks.release(
          Object.fromEntries(Object.entries(fetched).filter(([, t]) => !Object.values(additions.adapters).includes(t))),
        ),
    };
    if (!streamed) await file.close();
    return {
      weights,
      bytes,
      ...(streamed && { blocks: source }),
      async free() {
        Object.values(weights).forEach((t) => t.free());
        additions.free();
        await file.close();
      },
    };
  } catch (error) {
    additions.free();
    await file.close();
    throw error;
  }
}
