/** Models as files for other programs: all weights under another project's names, or the change from a base as a LoRA. */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { lowRank } from '../lowrank.ts';
import type { HostParams } from '../params.ts';
import { encoded, type FloatType } from './encode.ts';
import { mergeFiles, type Lora, type LoraFile } from './lora.ts';
import type { Naming } from './names.ts';
import { writeTensors, type Output } from './safetensors.ts';
import { WeightsError } from './stored.ts';
import type { Weights } from './weights.ts';

export interface ExportOptions {
  naming: Naming;
  dtype: FloatType;
  /** Merged into the weights, each in its strength. */
  loras?: readonly Lora[];
  metadata: Readonly<Record<string, string>>;
  /** Told of tensors written so far. */
  onTensor?: (done: number, total: number) => void;
}

/** Writes every tensor of `weights`, which have Wan's names; one is in memory at a time. All or nothing. */
export async function exportWeights(
  path: string,
  weights: Weights,
  { naming, dtype, loras = [], metadata, onTensor = () => {} }: ExportOptions,
): Promise<void> {
  let done = 0;
  const output = (name: string, shape: readonly number[]): Output => ({
    dtype,
    shape,
    async *values() {
      const merged = mergeFiles(name, await weights.tensor(name), loras);
      try {
        yield encoded(name, Float32Array.from(merged.data), dtype);
      } catch (error) {
        throw new WeightsError('export', weights.path, (error as Error).message, error);
      }
      onTensor(++done, weights.entries.size);
    },
  });
  await writeTensors(
    path,
    Object.fromEntries([...weights.entries].map(([name, { shape }]) => [naming.theirs(name)[0]!, output(name, shape)])),
    metadata,
  );
}

export interface Change extends Pick<LoraFile, 'adapters' | 'differences'> {
  /** Share of the squared change of the linears that the ranks keep. */
  readonly kept: number;
}

/** What turns `base` into `model`, both under Wan's names and of the same shapes: linears by `rank` ranks, all else whole. */
export async function changeOf(
  model: Weights,
  base: Weights,
  rank: number,
  onTensor: (done: number, total: number) => void = () => {},
): Promise<Change> {
  const adapters: HostParams = {},
    differences: HostParams = {};
  let kept = 0,
    all = 0,
    done = 0;
  for (const [name, { shape }] of model.entries) {
    const change = difference(await model.tensor(name), await base.tensor(name));
    onTensor(++done, model.entries.size);
    const norm = change.reduce((sum, x) => sum + x * x, 0);
    if (norm === 0) continue;
    if (shape.length !== 2 || !name.endsWith('.weight')) {
      differences[name] = host(change, shape);
      continue;
    }
    const [outputs, inputs] = shape as [number, number];
    const { a, b, kept: share } = lowRank(change, outputs, inputs, rank);
    const module = name.slice(0, -'.weight'.length);
    adapters[`${module}.lora_A.weight`] = host(a, [a.length / inputs, inputs]);
    adapters[`${module}.lora_B.weight`] = host(b, [outputs, a.length / inputs]);
    kept += share * norm;
    all += norm;
  }
  return { adapters, differences, kept: all ? kept / all : 1 };
}

const difference = (a: HostTensor, b: HostTensor): Float32Array<ArrayBuffer> =>
  Float32Array.from(a.data, (x, i) => x - b.data[i]!);
