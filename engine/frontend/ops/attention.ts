/** Attention over [B,N,H,D] with its log-sum-exp, and its gradient. Keys at or past lengths[b] are masked; lengths are ≥ 1. */
import { fail, printShapes } from '../../host/errors.ts';
import type { TensorType } from '../graph.ts';
import type { Tensor } from '../tensor.ts';
import type { HostTensor } from '../tree.ts';
import type { Make, OpDef } from './op.ts';
import { arity, floats, sameShape } from './op.ts';
import { KERNEL } from './traits.ts';

interface Sizes {
  B: number;
  N: number;
  L: number;
  H: number;
  D: number;
}

function sizes(q: readonly number[], k: readonly number[]): Sizes {
  const [B, N, H, D] = q as [number, number, number, number];
  return { B, N, L: k[1]!, H, D };
}

function check(op: 'attention' | 'attentionGrad', x: readonly TensorType[], lengths: TensorType | undefined): Sizes {
  const [q, k, v] = x as [TensorType, TensorType, TensorType];
  floats(op, [q, k, v]);
  const s = sizes(q.shape, k.shape);
  if (q.shape.length !== 4 || !sameShape(k.shape, [s.B, s.L, s.H, s.D]) || !sameShape(v.shape, k.shape)) {
    fail(op, `expected q [B,N,H,D] and k, v [B,L,H,D], got ${printShapes(q.shape, k.shape, v.shape)}`);
  }
  if (lengths && (lengths.dtype !== 'u32' || !sameShape(lengths.shape, [s.B])))
    fail(op, `expected lengths u32[${s.B}], got ${lengths.dtype}${printShapes(lengths.shape)}`);
  return s;
}

const f32 = (shape: readonly number[]): TensorType => ({ shape, dtype: 'f32' });

/** Visits every row of scores: offsets of q's row and of lse, a function from key to k's offset, and the number of keys. */
function eachRow(
  { B, N, L, H, D }: Sizes,
  lengths: HostTensor | undefined,
  visit: (q: number, k: (j: number) => number, row: number, keys: number) => void,
): void {
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let n = 0; n < N; n++) {
        visit(
          ((b * N + n) * H + h) * D,
          (j) => ((b * L + j) * H + h) * D,
          (b * H + h) * N + n,
          lengths ? Math.min(L, lengths.data[b]!) : L,
        );
      }
}

const dot = (a: HostTensor, i: number, b: HostTensor, j: number, D: number): number => {
  let sum = 0;
  for (let d = 0; d < D; d++) sum += a.data[i + d]! * b.data[j + d]!;
  return sum;
};

/** Scores with masked keys at -1e30, [B,H,N,L], and the mask. Heads are batches: operands are [B·H, rows, D]. */
function scores(q: Tensor, k: Tensor, lengths: Tensor | undefined, scale: number, make: Make): Tensor {
  const { B, N, L, H } = sizes(q.shape, k.shape);
  const s = heads(q).matmul(heads(k), { transB: true }).mul(scale).reshape([B, H, N, L]);
  if (!lengths) return s;
  const key = make('iota', [], { shape: [B, H, N, L], axis: 3 })[0]!;
  return s.select(key.lt(lengths.cast('f32').reshape([B, 1, 1, 1])), -1e30);
}

/** [B,N,H,D] → [B·H,N,D] and back. */
function heads(x: Tensor): Tensor {
  const [B, N, H, D] = x.shape as [number, number, number, number];
  return x.permute([0, 2, 1, 3]).reshape([B * H, N, D]);
}
function unheads(x: Tensor, B: number): Tensor {
  const [BH, N, D] = x.shape as [number, number, number];
  return x.reshape([B, BH / B, N, D]).permute([0, 2, 1, 3]);
}

const attention: OpDef<'attention'> = {
  infer(x) {
    arity('attention', x, 3, 4);
    const { B, N, H } = check('attention', x, x[3]);
    return [f32(x[0]!.shape), f32([B, H, N])];
  },
  oracle([q, k, v, lengths], { scale }, outs) {
    const s = sizes(q!.shape, k!.shape);
    const o = new Float64Array(q!.data.length);
    const lse = new Float64Array(outs[1]!.shape.reduce((a, b) => a * b, 1));
    eachRow(s, lengths, (qi, kj, row, keys) => {
      const score = Array.from({ length: keys }, (_, j) => scale * dot(q!, qi, k!, kj(j), s.D));
      const top = Math.max(...score);
      const total = score.reduce((sum, e) => sum + Math.exp(e - top), 0);
      lse[row] = top + Math.log(total);
      score.forEach((e, j) => {
        const p = Math.exp(e - lse[row]!);
        for (let d = 0; d < s.D; d++) o[qi + d]! += p * v!.data[kj(j) + d]!;
      });
    });
    return [o, lse];
  },
  vjp({ x: [q, k, v, lengths], y: [o, lse], dy, attrs, make, throughComposed }) {
    if (!dy[0] || dy[1]) return throughComposed();
    return [
      ...make('attentionGrad', [q!, k!, v!, o!, lse!, dy[0], ...(lengths ? [lengths] : [])], attrs),
      ...(lengths ? [null] : []),
    ];
  },
  composed([q, k, v, lengths], { scale }, make) {
    const s = scores(q!, k!, lengths, scale, make);
    const top = make('detach', [s.amax([3], true)], {})[0]!;
    const lse = s.sub(top).exp().sum([3], true).log().add(top);
    const [B, H, N, L] = s.shape as [number, number, number, number];
    const p = s
      .sub(lse)
      .exp()
      .reshape([B * H, N, L]);
    return [unheads(p.matmul(heads(v!)), B), lse.reshape([B, H, N])];
  },
  flops([q, k]) {
    const { B, N, L, H, D } = sizes(q!.shape, k!.shape);
    return 4 * B * H * N * L * D;
  },
  traits: { ...KERNEL, half: 'kernel' },
};

/**
 * With p = exp(s − lse): dv = pᵀ do, ds = p (do vᵀ − Σ do·o), dq = scale ds k, dk = scale dsᵀ q (FlashAttention, arXiv 2205.14135, B.4).
 */
const attentionGrad: OpDef<'attentionGrad'> = {
  infer(x) {
    arity('attentionGrad', x, 6, 7);
    const { B, N, H } = check('attentionGrad', x, x[6]);
    const [q, k, v, o, lse, dO] = x.map((t) => t.shape) as [
      readonly number[],
      readonly number[],
      readonly number[],
      readonly number[],
      readonly number[],
      readonly number[],
    ];
    if (!sameShape(o, q) || !sameShape(dO, q) || !sameShape(lse, [B, H, N]))
      fail(
        'attentionGrad',
        `expected o, do ${printShapes(q)} and lse [${[B, H, N].join()}], got ${printShapes(o, dO, lse)}`,
      );
    return [f32(q), f32(k), f32(v)];
  },
  oracle([q, k, v, o, lse, dO, lengths], { scale }) {
    const s = sizes(q!.shape, k!.shape);
    const dq = new Float64Array(q!.data.length);
    const dk = new Float64Array(k!.data.length);
    const dv = new Float64Array(v!.data.length);
    eachRow(s, lengths, (qi, kj, row, keys) => {
      const delta = dot(dO!, qi, o!, qi, s.D);
      for (let j = 0; j < keys; j++) {
        const at = kj(j);
        const p = Math.exp(scale * dot(q!, qi, k!, at, s.D) - lse!.data[row]!);
        const ds = scale * p * (dot(dO!, qi, v!, at, s.D) - delta);
        for (let d = 0; d < s.D; d++) {
          dv[at + d]! += p * dO!.data[qi + d]!;
          dq[qi + d]! += ds * k!.data[at + d]!;
          dk[at + d]! += ds * q!.data[qi + d]!;
        }
      }
    });
    return [dq, dk, dv];
  },
  vjp: ({ throughComposed }) => throughComposed(),
  composed([q, k, v, o, lse, dO, lengths], { scale }, make) {
    const { B, N, L, H } = sizes(q!.shape, k!.shape);
    const p = scores(q!, k!, lengths, scale, make)
      .sub(lse!.reshape([B, H, N, 1]))
      .exp()
      .reshape([B * H, N, L]);
    const delta = heads(dO!.mul(o!)).sum([2], true);
    const ds = heads(dO!).matmul(heads(v!), { transB: true }).sub(delta).mul(p).mul(scale);
    const [dq, dk, dv] = [
      ds.matmul(heads(k!)),
      ds.matmul(heads(q!), { transA: true }),
      p.matmul(heads(dO!), { transA: true }),
    ];
    return [unheads(dq, B), unheads(dk, B), unheads(dv, B)];
  },
  flops([q, k]) {
    const { B, N, L, H, D } = sizes(q!.shape, k!.shape);
    return 10 * B * H * N * L * D;
  },
  traits: { ...KERNEL, half: 'kernel', linear: [5] },
};

export const attentionOps = { attention, attentionGrad };
