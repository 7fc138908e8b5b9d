/** Kernels of a named shape, one by one, as its DiT and its VAE use them: products, attention, convolutions, rows, pointwise chains. */
import type { Device } from '../../engine/runtime/device.ts';
import { adamW, attention, conv3d, gelu } from '../../engine/frontend/functional.ts';
import { make, type Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import type { Caps, DType } from '../../kernels/kernel.ts';
import { unitFor } from '../../kernels/mma.ts';
import { headDim } from '../../model/config.ts';
import { programCase, wanted, type Case, type Wanted } from './case.ts';
import { tokensOf, type Shape } from './shapes.ts';

type Fn = (...x: Tensor[]) => unknown;

/** A function of tensors that is worth timing by itself. */
export interface Work {
  name: string;
  text: string;
  inputs: readonly Wanted[];
  fn: Fn;
}

const kernel = (name: string, text: string, inputs: readonly Wanted[], fn: Fn): Work => ({ name, text, inputs, fn });

const CAUSAL = { stride: [1, 1, 1], padLo: [2, 1, 1], padHi: [0, 1, 1] } as const;

function products(f16: boolean, rows: number, dim: number, ffn: number): Work[] {
  const linear = (name: string, k: number, n: number, dtype: DType) =>
    kernel(
      `${name} ${dtype}`,
      `${rows}x${k} · (${n}x${k})ᵀ`,
      [wanted([rows, k], dtype), wanted([n, k], dtype)],
      (x, w) => x!.matmul(w!, { transB: true }),
    );
  return [
    linear('projection', dim, dim, 'f32'),
    linear('feed-forward', dim, ffn, 'f32'),
    ...(f16 ? [linear('projection', dim, dim, 'f16'), linear('feed-forward', dim, ffn, 'f16')] : []),
    kernel('input gradient', `${rows}x${ffn} · ${ffn}x${dim}`, [wanted([rows, ffn]), wanted([ffn, dim])], (g, w) =>
      g!.matmul(w!),
    ),
    kernel(
      'weight gradient',
      `(${rows}x${ffn})ᵀ · ${rows}x${dim}`,
      [wanted([rows, ffn]), wanted([rows, dim])],
      (g, x) => g!.matmul(x!, { transA: true }),
    ),
  ];
}

interface Heads {
  batch: number;
  tokens: number;
  heads: number;
  /** Numbers of a head. */
  size: number;
  textLen: number;
}

function attentions(units: boolean, { batch, tokens, heads, size, textLen }: Heads): Work[] {
  const q = wanted([batch, tokens, heads, size]),
    text = wanted([batch, textLen, heads, size]);
  const lse = wanted([batch, heads, tokens]);
  const lengths = host(new Uint32Array(batch).fill(textLen), [batch]); // all of them, or less would be done than is counted
  const of = `${batch} of ${tokens} tokens, ${heads} heads of ${size}`;
  return [
    kernel(
      'scores, batched',
      `${batch * heads} of ${tokens}x${size} · (${tokens}x${size})ᵀ`,
      [wanted([batch * heads, tokens, size]), wanted([batch * heads, tokens, size])],
      (a, b) => a!.matmul(b!, { transB: true }),
    ),
    ...(units ? [false, true] : [false]).flatMap((half) => {
      const [in16, attrs] = half
        ? ([' f16', { scale: size ** -0.5, half }] as const)
        : (['', { scale: size ** -0.5 }] as const);
      return [
        kernel(`attention${in16}`, of, [q, q, q], (...x) => make('attention', x, attrs)[0]),
        // Statistics of another forward pass: the gradient's work does not depend on what they say.
        kernel(`attention gradient${in16}`, of, [q, q, q, q, lse, q], (...x) => make('attentionGrad', x, attrs)),
      ];
    }),
    kernel('cross-attention', `${of}, ${textLen} keys`, [q, text, text, lengths], (a, b, c, n) =>
      attention(a!, b!, c!, { lengths: n }),
    ),
  ];
}

function convolutions(channels: number, clip: readonly [number, number, number]): Work[] {
  const video = [1, channels, ...clip],
    weight = [channels, channels, 3, 3, 3];
  const text = `[${video.join()}], ${channels} channels, 3³ causal`;
  return [
    kernel('conv3d', text, [wanted(video), wanted(weight)], (x, w) => conv3d(x!, w!, undefined, CAUSAL)),
    kernel('conv3d, input gradient', text, [wanted(video), wanted(weight)], (dy, w) =>
      make('conv3dInput', [dy!, w!], { ...CAUSAL, shape: video }),
    ),
    kernel('conv3d, weight gradient', text, [wanted(video), wanted(video)], (x, dy) =>
      make('conv3dWeight', [x!, dy!], { ...CAUSAL, shape: weight }),
    ),
  ];
}

const ADAM = { lr: 1e-4, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.01, step: 10 } as const;

export function kernelWorks(caps: Caps, s: Shape): Work[] {
  const { dim, ffn_dim: ffn, num_heads: heads, text_len: textLen } = s.dit;
  const tokens = tokensOf(s);
  const rows = s.batch * tokens;
  const x = wanted([rows, dim]);
  return [
    ...products(caps.f16, rows, dim, ffn),
    ...attentions(unitFor(caps, 'f16')?.operands === 'f16', {
      batch: s.batch,
      tokens,
      heads,
      size: headDim(s.dit),
      textLen,
    }),
    ...convolutions(s.vae.dim, s.clip),
    kernel('layer norm', `${rows}x${dim}`, [x], (a) => a!.layerNorm()),
    kernel('RMS norm', `${rows}x${dim}`, [x], (a) => a!.rmsNorm()),
    kernel('softmax', `${rows}x${dim}`, [x], (a) => a!.softmax()),
    kernel('GELU of x + b', `${rows}x${ffn}`, [wanted([rows, ffn]), wanted([ffn])], (a, b) => gelu(a!.add(b!), 'tanh')),
    kernel(
      'AdamW',
      `${ffn}x${dim}`,
      [0, 0, 0, 0].map(() => wanted([ffn, dim])),
      (p, g, m, v) => adamW(p!, g!, { m, v: v!.square() }, ADAM),
    ),
  ];
}

/** Products with weights of a type beside the same with bf16: as layers have them, and towards their input. */
function weightWorks(s: Shape, dtype: DType): Work[] {
  const { dim, ffn_dim: ffn } = s.dit;
  const rows = s.batch * tokensOf(s);
  const sizes = [['projection', dim, dim] as const, ['feed-forward', dim, ffn] as const];
  return sizes.flatMap(([name, k, n]) =>
    [...new Set<DType>(['bf16', dtype])].flatMap((type) => [
      kernel(`${name} ${type}`, `${rows}x${k} · (${n}x${k})ᵀ`, [wanted([rows, k]), wanted([n, k], type)], (x, w) =>
        x!.matmul(w!, { transB: true }),
      ),
      kernel(
        `${name}, input gradient ${type}`,
        `${rows}x${n} · ${n}x${k}`,
        [wanted([rows, n]), wanted([n, k], type)],
        (g, w) => g!.matmul(w!),
      ),
    ]),
  );
}

/** @param dtype of the weights, where products alone are meant */
export const kernelCases = (device: Device, s: Shape, dtype?: DType): Case[] =>
  (dtype ? weightWorks(s, dtype) : kernelWorks(device.caps, s)).map(({ name, text, inputs, fn }) =>
    programCase(device, name, text, inputs, fn),
  );
