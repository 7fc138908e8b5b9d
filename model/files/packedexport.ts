/** Models as quantised files: GGUF, or safetensors of scaled fp8 as ComfyUI has them; and how far each layer is from what it was. */
import { Draft } from '../../engine/host/draft.ts';
import { numel } from '../../kernels/kernel.ts';
import { BLOCKS } from '../../kernels/packed.ts';
import { fromF8E4M3 } from '../halves.ts';
import { unpack } from '../packed.ts';
import { quantise, scaleOf, toF8E4M3, type Quantised } from '../quantise.ts';
import { encoded, type FloatType } from './encode.ts';
import type { ExportOptions } from './export.ts';
import { ALIGN, ggufHeader } from './ggufwrite.ts';
import { mergeFiles } from './lora.ts';
import { writeTensors, type Output } from './safetensors.ts';
import { bytesOf, WeightsError, type StoredType } from './stored.ts';
import type { Weights } from './weights.ts';

export const PACKED_EXPORTS = ['q8_0', 'q4_k', 'fp8_scaled'] as const;
export type PackedExport = (typeof PACKED_EXPORTS)[number];

/** ‖w - q‖ and ‖w‖, squared. */
export interface LayerError {
  name: string;
  dtype: StoredType;
  difference: number;
  norm: number;
}

/** The linears of the blocks, which are most of a model: what stands around them, tables too, is small and matters more. */
const PACKS = /^blocks\.\d+\.(?!.*embedding).*\.weight$/;
const isPacked = (name: string, shape: readonly number[]): boolean => shape.length === 2 && PACKS.test(name);

/** Rows that are no whole blocks get the type with five bits and small ones, as llama.cpp's tools have it, or else f16. */
function typeOf(dtype: Quantised, row: number): Quantised | undefined {
  return ([dtype, 'q5_0'] as const).find((t) => row % BLOCKS[t].elements === 0);
}

/** Matrices that stay floats; convolutions and vectors are f32. */
const around = (name: string, shape: readonly number[]): FloatType =>
  shape.length === 2 && name.endsWith('.weight') ? 'F16' : 'F32';

type Options = Omit<ExportOptions, 'dtype'> & { dtype: PackedExport };

/** One tensor's values with the LoRAs merged. */
async function valuesOf(weights: Weights, name: string, { loras = [] }: Options): Promise<Float32Array> {
  return Float32Array.from(mergeFiles(name, await weights.finiteTensor(name), loras).data);
}

function errorOf(name: string, dtype: StoredType, values: Float32Array, kept: Float32Array): LayerError {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    difference += (values[i]! - kept[i]!) ** 2;
    norm += values[i]! ** 2;
  }
  return { name, dtype, difference, norm };
}

function floats(weights: Weights, name: string, values: Float32Array, dtype: FloatType): Float32Array | Uint16Array {
  try {
    return encoded(name, values, dtype);
  } catch (error) {
    throw new WeightsError('export', weights.path, (error as Error).message, error);
  }
}

/**
 * Writes every tensor of `weights`, which have Wan's names; one is in memory at a time. All or nothing.
 * @returns the error of every matrix that was packed
 */
export const exportPacked = (path: string, weights: Weights, options: Options): Promise<LayerError[]> =>
  options.dtype === 'fp8_scaled'
    ? exportScaled(path, weights, options)
    : exportGguf(path, weights, options, options.dtype);

async function exportGguf(path: string, weights: Weights, options: Options, dtype: Quantised): Promise<LayerError[]> {
  const { naming, metadata, onTensor = () => {} } = options;
  const tensors = [...weights.entries].map(([name, { shape }]) => {
    const packed = isPacked(name, shape) ? typeOf(dtype, shape[1]!) : undefined;
    const type = packed ? (packed.toUpperCase() as StoredType) : around(name, shape);
    return { name, shape, packed, type, bytes: bytesOf(type, numel(shape)) };
  });
  const errors: LayerError[] = [];
  const draft = new Draft(path);
  try {
    draft.write(
      ggufHeader(
        { 'general.architecture': 'wan', ...metadata },
        tensors.map(({ name, ...t }) => ({ ...t, name: naming.theirs(name)[0]! })),
      ),
    );
    for (const [done, { name, packed, type, bytes }] of tensors.entries()) {
      const values = await valuesOf(weights, name, options);
      const data = packed ? quantise(packed, values) : floats(weights, name, values, type as FloatType);
      if (packed) errors.push(errorOf(name, type, values, unpack(packed, data as Uint8Array)));
      draft.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      draft.write(new Uint8Array((ALIGN - (bytes % ALIGN)) % ALIGN));
      onTensor(done + 1, tensors.length);
    }
    draft.keep();
    return errors;
  } catch (error) {
    draft.drop();
    throw error;
  }
}

async function exportScaled(path: string, weights: Weights, options: Options): Promise<LayerError[]> {
  const { naming, metadata, onTensor = () => {} } = options;
  const errors: LayerError[] = [];
  const outputs: Record<string, Output> = { scaled_fp8: { dtype: 'F8_E4M3', shape: [0], values: () => [] } };
  let done = 0;
  const total = weights.entries.size;
  for (const [name, { shape }] of weights.entries) {
    const own = naming.theirs(name)[0]!;
    const packed = isPacked(name, shape);
    const dtype: StoredType = packed ? 'F8_E4M3' : around(name, shape);
    outputs[own] = {
      dtype,
      shape,
      async *values() {
        const values = await valuesOf(weights, name, options);
        if (packed) {
          const scale = scaleOf(values);
          const codes = toF8E4M3(values.map((x) => x / scale));
          errors.push(
            errorOf(
              name,
              dtype,
              values,
              fromF8E4M3(codes).map((x) => x * scale),
            ),
          );
          yield codes;
        } else yield floats(weights, name, values, dtype as FloatType);
        onTensor(++done, total);
      },
    };
    if (packed)
      outputs[own.replace(/weight$/, 'scale_weight')] = {
        dtype: 'F32',
        shape: [],
        async *values() {
          yield Float32Array.of(scaleOf(await valuesOf(weights, name, options)));
        },
      };
  }
  await writeTensors(path, outputs, metadata);
  return errors;
}
