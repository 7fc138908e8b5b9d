/**
 * The umT5 text encoder as functions over parameters under the names of Wan's checkpoint.
 *
 * Reference: wan/modules/t5.py of Wan2.1. No 1/√d in attention, one table of relative position biases a layer, RMS norms,
 * a feed-forward gated by a tanh GELU.
 */
import { concat, gather, gelu, iota } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import {
  linearSpecs,
  materialise,
  normal,
  ones,
  Scope,
  shapesOf,
  under,
  type HostParams,
  type Params,
  type Specs,
} from '../params.ts';
import type { UMT5Config } from './config.ts';

/** What every block is told beside its tokens. */
export interface UMT5Context<T = Tensor> {
  /** u32 [B]: tokens of each text, at least 1; keys past them are masked. */
  lengths: T;
  /** i32 [L, L]: `relativeBuckets`. */
  buckets: T;
}

export function umt5BlockSpecs(c: UMT5Config): Specs {
  const gain = { shape: [c.dim], init: ones };
  const weight = (inputs: number, outputs: number, std: number) => ({
    weight: linearSpecs(inputs, outputs, normal(std))['weight']!,
  });
  return {
    'norm1.weight': gain,
    ...under('attn.q', weight(c.dim, c.dim_attn, (c.dim * c.dim_attn) ** -0.5)),
    ...under('attn.k', weight(c.dim, c.dim_attn, c.dim ** -0.5)),
    ...under('attn.v', weight(c.dim, c.dim_attn, c.dim ** -0.5)),
    ...under('attn.o', weight(c.dim_attn, c.dim, (c.num_heads * c.dim_attn) ** -0.5)),
    'norm2.weight': gain,
    ...under('ffn.gate.0', weight(c.dim, c.dim_ffn, c.dim ** -0.5)),
    ...under('ffn.fc1', weight(c.dim, c.dim_ffn, c.dim ** -0.5)),
    ...under('ffn.fc2', weight(c.dim_ffn, c.dim, c.dim_ffn ** -0.5)),
    'pos_embedding.embedding.weight': {
      shape: [c.num_buckets, c.num_heads],
      init: normal((2 * c.num_buckets * c.num_heads) ** -0.5),
    },
  };
}

/** Every parameter with its shape and Wan's initialisation. */
export function umt5Specs(c: UMT5Config): Specs {
  return {
    'token_embedding.weight': { shape: [c.vocab, c.dim], init: normal(1) },
    ...(Object.assign(
      {},
      ...Array.from({ length: c.num_layers }, (_, i) => under(`blocks.${i}`, umt5BlockSpecs(c))),
    ) as Specs),
    'norm.weight': { shape: [c.dim], init: ones },
  };
}

/** Name → shape of the checkpoint. */
export const umt5Shapes = (config: UMT5Config): Record<string, readonly number[]> => shapesOf(umt5Specs(config));
export const initUMT5 = (config: UMT5Config, seed: number): HostParams => materialise(umt5Specs(config), seed);

/**
 * The row of the bias table for a key `distance` tokens behind the query (negative: before it). Keys after the query have the
 * upper half of the table. In each half the first rows are one distance each; the rest grow by powers up to max_dist and stay there.
 */
export function relativeBucket(
  distance: number,
  { num_buckets, max_dist }: Pick<UMT5Config, 'num_buckets' | 'max_dist'>,
): number {
  const half = num_buckets / 2;
  const exact = half / 2;
  const far = Math.abs(distance);
  const log = () => exact + Math.floor((Math.log(far / exact) / Math.log(max_dist / exact)) * (half - exact));
  return (distance > 0 ? half : 0) + (far < exact ? far : Math.min(log(), half - 1));
}

/** Buckets of key - query for `length` tokens, [query, key]. */
export const relativeBuckets = (length: number, config: UMT5Config): HostTensor =>
  host(
    Int32Array.from({ length: length * length }, (_, at) =>
      relativeBucket((at % length) - Math.floor(at / length), config),
    ),
    [length, length],
  );

/** Scores of some heads at a time: at most this many bytes of them. */
const SCORE_BYTES = 2 ** 26;

/** x [B,L,dim] → [B,L,dim]; bias [heads,L,L]. */
function attend(s: Scope, c: UMT5Config, x: Tensor, bias: Tensor, lengths: Tensor): Tensor {
  const [b, l] = x.shape as [number, number];
  const [q, k, v] = ['q', 'k', 'v'].map((n) =>
    s.linear(n, x).reshape([b, l, c.num_heads, -1]).permute([0, 2, 1, 3]),
  ) as [Tensor, Tensor, Tensor];
  const counts = iota([l], 0).lt(lengths.cast('f32').reshape([b, 1, 1, 1]));
  const some = Math.max(1, Math.floor(SCORE_BYTES / (4 * b * l * l)));
  const parts = Array.from({ length: Math.ceil(c.num_heads / some) }, (_, i) => {
    const heads = (t: Tensor, axis: number) => t.slice(axis, i * some, Math.min(c.num_heads, (i + 1) * some));
    const scores = heads(q, 1).matmul(heads(k, 1), { transB: true }).add(heads(bias, 0));
    return scores.select(counts, -1e30).softmax().matmul(heads(v, 1));
  });
  return s.linear('o', concat(parts, 1).permute([0, 2, 1, 3]).reshape([b, l, c.dim_attn]));
}

/** x [B,L,dim] → [B,L,dim]. */
export function umt5Block(
  s: Scope,
  c: UMT5Config,
  x: Tensor,
  { lengths, buckets }: UMT5Context,
  probe: (name: string, value: Tensor) => void = () => {},
): Tensor {
  const bias = gather(s.get('pos_embedding.embedding.weight').cast('f32'), buckets).permute([2, 0, 1]);
  probe('pos_bias', bias);
  const h = x.add(attend(s.scope('attn'), c, s.rmsNorm('norm1', x, c.eps), bias, lengths));
  const ffn = s.scope('ffn');
  const normed = s.rmsNorm('norm2', h, c.eps);
  return h.add(ffn.linear('fc2', ffn.linear('fc1', normed).mul(gelu(ffn.linear('gate.0', normed), 'tanh'))));
}

/** The norm behind the last block. */
export const umt5Norm = (s: Scope, c: UMT5Config, x: Tensor): Tensor => s.rmsNorm('norm', x, c.eps);

/**
 * All of the encoder behind the token embedding: x [B,L,dim] → [B,L,dim]. Rows past a text's length hold numbers of no meaning.
 * @param probe told of intermediate values, under the names of the reference tensors; for tests
 */
export function umt5(
  params: Params | Scope,
  config: UMT5Config,
  x: Tensor,
  context: UMT5Context,
  probe: (name: string, value: Tensor) => void = () => {},
): Tensor {
  const s = Scope.of(params);
  for (let i = 0; i < config.num_layers; i++) {
    x = umt5Block(s.scope('blocks').scope(i), config, x, context, (name, value) => probe(`${name}_block${i}`, value));
    probe(`block${i}`, x);
  }
  return umt5Norm(s, config, x);
}
