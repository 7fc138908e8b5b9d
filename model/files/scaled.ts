/**
 * Eight-bit floats with scales, as ComfyUI, Kijai's nodes, LightX2V and musubi-tuner write them: a weight is its code times a number of its
 * matrix, of its row or of its run of inputs, which stands beside it as `scale_weight` or `weight_scale`.
 */
import { printShapes } from '../../engine/host/errors.ts';
import { numel } from '../../kernels/kernel.ts';
import { quoted } from './json.ts';
import { FLOATS, WeightsError, type StoredTensor } from './stored.ts';

const isEight = ({ dtype }: StoredTensor): boolean => dtype === 'F8_E4M3' || dtype === 'F8_E5M2';

/** Beside the weights: markers, and the scales of activations, which are not part of a weight. */
const BESIDE = /(^|\.)(scaled_fp8|scale_input|input_scale|comfy_quant)$/;

/** Whether these numbers are one for all, one a row, or one for each of equal runs of a row. */
function fits(weight: readonly number[], scale: readonly number[]): boolean {
  const [out = 1, runs = 1, ...rest] = scale;
  if (numel(scale) === 1) return true;
  return out === weight[0] && (numel(weight) / out) % runs === 0 && numel(rest) === 1;
}

/** The tensors with the scales as parts of those that they are of. @throws WeightsError for scales that fit no weight */
export function withScales(path: string, tensors: ReadonlyMap<string, StoredTensor>): Map<string, StoredTensor> {
  const out = new Map(tensors);
  if (![...tensors.values()].some(isEight)) return out;
  for (const [name, t] of tensors) {
    if (BESIDE.test(name)) out.delete(name);
    if (!isEight(t) || !name.endsWith('.weight')) continue;
    const module = name.slice(0, -'.weight'.length);
    const [key, ...more] = [`${module}.scale_weight`, `${module}.weight_scale`].filter((k) => tensors.has(k));
    if (key === undefined) continue;
    const scale = tensors.get(key)!;
    if (more.length || !FLOATS[scale.dtype] || !fits(t.shape, scale.shape))
      throw new WeightsError(
        'weights',
        path,
        `tensor ${quoted(key)} is ${scale.dtype}${printShapes(scale.shape)}, which is no scale of ${name} ${printShapes(t.shape)}: floats, one for all of it, for each row or for each of equal runs of a row${more.length ? `; and ${more[0]} stands beside it` : ''}`,
      );
    out.set(name, { ...t, scale });
    out.delete(key);
  }
  return out;
}
