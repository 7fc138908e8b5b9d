/** Low-rank adapters (LoRA, arXiv 2106.09685) over a model's linears, by the names of their weights. */
import { fail } from '../engine/host/errors.ts';
import type { Like } from '../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../engine/frontend/tree.ts';
import { kaiming, materialise, Scope, shapesOf, zeros, type HostParams, type Params, type Specs } from './params.ts';

/** The attention projections and the feed-forward of every DiT block; the image keys and values keep their weights. */
export const LORA_TARGETS = /^blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])$/;

const A = '.lora_A.weight';
const B = '.lora_B.weight';

/**
 * A [rank, in] and B [out, rank] for each linear of a model that `targets` fits.
 * @param shapes the model's weights, as `ditShapes` gives them
 */
export function loraSpecs(
  shapes: Readonly<Record<string, readonly number[]>>,
  rank: number,
  targets = LORA_TARGETS,
): Specs {
  if (!Number.isInteger(rank) || rank < 1) fail('lora', `rank must be a whole number of 1 or more, got ${rank}`);
  const linears = Object.entries(shapes).filter(
    ([name, shape]) => shape.length === 2 && name.endsWith('.weight') && targets.test(name.slice(0, -7)),
  );
  if (!linears.length) fail('lora', `no linear among ${Object.keys(shapes).length} weights fits ${targets}`);
  return Object.fromEntries(
    linears.flatMap(([name, [outputs, inputs]]) => {
      const linear = name.slice(0, -7);
      return [
        [linear + A, { shape: [rank, inputs!], init: kaiming(inputs!) }],
        [linear + B, { shape: [outputs!, rank], init: zeros }],
      ];
    }),
  );
}

/** Name → shape. */
export const loraShapes = (
  shapes: Readonly<Record<string, readonly number[]>>,
  rank: number,
  targets = LORA_TARGETS,
): Record<string, readonly number[]> => shapesOf(loraSpecs(shapes, rank, targets));

/** First values: A Kaiming-uniform (a = √5), B zero, so that the adapted model starts as the base. */
export const initLora = (
  shapes: Readonly<Record<string, readonly number[]>>,
  rank: number,
  seed: number,
  targets = LORA_TARGETS,
): HostParams => materialise(loraSpecs(shapes, rank, targets), seed);

/** The base with x Wᵀ + scale · (x Aᵀ) Bᵀ in each adapted linear; scale is alpha / rank. */
export function withLora(base: Params | Scope, lora: Params, scale: Like): Scope {
  const s = Scope.of(base);
  return new Scope(s.params, s.prefix, [...s.adapters, { params: lora, scale }]);
}

/** weight [out, in] += scale · B A, with A [rank, in] and B [out, rank]. */
export function addLowRank(weight: Float32Array, { a, b }: { a: HostTensor; b: HostTensor }, scale: number): void {
  const [rank, inputs] = a.shape as [number, number];
  const row = new Float64Array(inputs);
  for (let o = 0, at = 0; at < weight.length; o++, at += inputs) {
    row.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = scale * b.data[o * rank + r]!;
      for (let i = 0, k = r * inputs; i < inputs; i++, k++) row[i]! += factor * a.data[k]!;
    }
    for (let i = 0; i < inputs; i++) weight[at + i]! += row[i]!;
  }
}

/** The base weights plus scale · B A, as weights of the base's own names. */
export function mergeLora(base: HostParams, lora: HostParams, scale: number): HostParams {
  const merged = { ...base };
  for (const [name, a] of Object.entries(lora)) {
    if (!name.endsWith(A)) continue;
    const linear = name.slice(0, -A.length);
    const weight = base[`${linear}.weight`];
    const b = lora[linear + B];
    if (!weight || !b)
      fail('lora', `"${name}" has no ${weight ? `"${linear + B}"` : `"${linear}.weight" in the base`}`);
    const sum = Float32Array.from(weight.data);
    addLowRank(sum, { a, b }, scale);
    merged[`${linear}.weight`] = host(sum, weight.shape);
  }
  return merged;
}
