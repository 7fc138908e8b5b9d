/** Convolution over (time, height, width) and its two adjoints, which are each other's gradients. */
import { numel } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { ConvAttrs, OpName, TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { OpDef } from './op.ts';
import { arity, floats, sameShape } from './op.ts';
import { KERNEL } from './traits.ts';

const geometry = ({ stride, padLo, padHi }: ConvAttrs): ConvAttrs => ({ stride, padLo, padHi });

/** Shape of the output: [N, O, To, Ho, Wo]. */
function convShape(
  op: OpName,
  x: readonly number[],
  w: readonly number[],
  { stride, padLo, padHi }: ConvAttrs,
): number[] {
  if (x.length !== 5 || w.length !== 5)
    fail(op, `expected x [N,C,T,H,W] and w [O,C,kt,kh,kw], got ${printShapes(x, w)}`);
  if (x[1] !== w[1]) fail(op, `channels differ: x ${printShapes(x)} has ${x[1]}, w ${printShapes(w)} has ${w[1]}`);
  if (![...stride, ...padLo, ...padHi].every(Number.isInteger) || stride.some((n) => n < 1)) {
    fail(
      op,
      `strides must be whole numbers from 1 and pads whole numbers, got [${stride.join()}] and [${padLo.join()}] [${padHi.join()}]`,
    );
  }
  const out = [0, 1, 2].map((i) => Math.floor((x[i + 2]! + padLo[i]! + padHi[i]! - w[i + 2]!) / stride[i]!) + 1);
  if (out.some((n) => !(n >= 1)))
    fail(
      op,
      `the kernel ${printShapes(w)} is larger than the padded input ${printShapes(x)}, pads [${padLo.join()}] [${padHi.join()}]`,
    );
  return [x[0]!, w[0]!, ...out];
}

/** Visits every product of the convolution: flat indices into x, w and y. */
function eachProduct(
  xs: readonly number[],
  ws: readonly number[],
  { stride, padLo }: ConvAttrs,
  ys: readonly number[],
  visit: (x: number, w: number, y: number) => void,
): void {
  const [N, C, T, H, W] = xs as [number, number, number, number, number];
  const [O, , kt, kh, kw] = ws as [number, number, number, number, number];
  const [, , To, Ho, Wo] = ys as [number, number, number, number, number];
  for (let n = 0; n < N; n++)
    for (let o = 0; o < O; o++)
      for (let c = 0; c < C; c++) {
        for (let to = 0; to < To; to++)
          for (let ho = 0; ho < Ho; ho++)
            for (let wo = 0; wo < Wo; wo++) {
              const y = (((n * O + o) * To + to) * Ho + ho) * Wo + wo;
              for (let a = 0; a < kt; a++)
                for (let b = 0; b < kh; b++)
                  for (let d = 0; d < kw; d++) {
                    const t = to * stride[0] - padLo[0] + a;
                    const h = ho * stride[1] - padLo[1] + b;
                    const v = wo * stride[2] - padLo[2] + d;
                    if (t < 0 || t >= T || h < 0 || h >= H || v < 0 || v >= W) continue;
                    visit((((n * C + c) * T + t) * H + h) * W + v, (((o * C + c) * kt + a) * kh + b) * kw + d, y);
                  }
            }
      }
}

const flops = (y: readonly number[], w: readonly number[]): number => 2 * numel(y) * numel(w.slice(1));

function check(
  op: 'conv3dInput' | 'conv3dWeight',
  x: readonly number[],
  w: readonly number[],
  dy: readonly number[],
  attrs: ConvAttrs,
): void {
  const y = convShape(op, x, w, attrs);
  if (!sameShape(y, dy))
    fail(op, `expected dy ${printShapes(y)} for x ${printShapes(x)} and w ${printShapes(w)}, got ${printShapes(dy)}`);
}

const f32 = (shape: readonly number[]): TensorType[] => [{ shape, dtype: 'f32' }];

const conv3d: OpDef<'conv3d'> = {
  infer(x, attrs) {
    arity('conv3d', x, 2);
    floats('conv3d', x);
    return f32(convShape('conv3d', x[0]!.shape, x[1]!.shape, attrs));
  },
  oracle([x, w], attrs, outs) {
    const y = new Float64Array(sizeOf(outs[0]!));
    eachProduct(x!.shape, w!.shape, attrs, outs[0]!.shape, (i, j, k) => (y[k]! += x!.data[i]! * w!.data[j]!));
    return [y];
  },
  vjp: ({ x: [x, w], dy: [dy], attrs, needs, make }) => [
    needs[0] ? make('conv3dInput', [dy!, w!], { ...geometry(attrs), shape: x!.shape })[0]! : null,
    needs[1] ? make('conv3dWeight', [x!, dy!], { ...geometry(attrs), shape: w!.shape })[0]! : null,
  ],
  flops: ([, w], outs) => flops(outs[0]!.shape, w!.shape),
  traits: { ...KERNEL, epilogue: 'flat', half: 'kernel', linear: [0, 1] },
};

const conv3dInput: OpDef<'conv3dInput'> = {
  infer(x, attrs) {
    arity('conv3dInput', x, 2);
    floats('conv3dInput', x);
    check('conv3dInput', attrs.shape, x[1]!.shape, x[0]!.shape, attrs);
    return f32(attrs.shape);
  },
  oracle([dy, w], attrs) {
    const dx = new Float64Array(numel(attrs.shape));
    eachProduct(attrs.shape, w!.shape, attrs, dy!.shape, (i, j, k) => (dx[i]! += dy!.data[k]! * w!.data[j]!));
    return [dx];
  },
  vjp: ({ x: [dy, w], dy: [g], attrs, needs, make }) => [
    needs[0] ? make('conv3d', [g!, w!], geometry(attrs))[0]! : null,
    needs[1] ? make('conv3dWeight', [g!, dy!], { ...geometry(attrs), shape: w!.shape })[0]! : null,
  ],
  flops: ([dy, w]) => flops(dy!.shape, w!.shape),
  traits: { ...KERNEL, epilogue: 'flat', half: 'kernel', linear: [0, 1] },
};

const conv3dWeight: OpDef<'conv3dWeight'> = {
  infer(x, attrs) {
    arity('conv3dWeight', x, 2);
    floats('conv3dWeight', x);
    check('conv3dWeight', x[0]!.shape, attrs.shape, x[1]!.shape, attrs);
    return f32(attrs.shape);
  },
  oracle([x, dy], attrs) {
    const dw = new Float64Array(numel(attrs.shape));
    eachProduct(x!.shape, attrs.shape, attrs, dy!.shape, (i, j, k) => (dw[j]! += dy!.data[k]! * x!.data[i]!));
    return [dw];
  },
  vjp: ({ x: [x, dy], dy: [g], attrs, needs, make }) => [
    needs[0] ? make('conv3dInput', [dy!, g!], { ...geometry(attrs), shape: x!.shape })[0]! : null,
    needs[1] ? make('conv3d', [x!, g!], geometry(attrs))[0]! : null,
  ],
  flops: ([, dy], _, { shape }) => flops(dy!.shape, shape),
  traits: { ...KERNEL, half: 'kernel', linear: [0, 1] },
};

export const convOps = { conv3d, conv3dInput, conv3dWeight };
