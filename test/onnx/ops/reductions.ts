/** ONNX's reductions, and what goes by order along an axis. */
import * as F from '../../../engine/frontend/functional.ts';
import type { Tensor } from '../../../engine/frontend/tensor.ts';
import type { Call, OnnxOp, OnnxOps } from '../call.ts';

type Reduce = (x: Tensor, axes: number[] | undefined, keep: boolean) => Tensor;

const reduction =
  (f: Reduce): OnnxOp =>
  (c) => {
    const x = c.x(0);
    const axes = c.given('axes', 1)?.map((a) => c.axis(a));
    if (!axes?.length && c.number('noop_with_empty_axes', 0)) return x;
    return f(x, axes?.length ? axes : undefined, c.number('keepdims', 1) !== 0);
  };

function place(c: Call, pick: (x: Tensor, axis: number, keep: boolean) => Tensor): Tensor {
  const axis = c.axis(c.number('axis', 0));
  const keep = c.number('keepdims', 1) !== 0;
  if (!c.number('select_last_index', 0)) return pick(c.x(0), axis, keep);
  return pick(c.x(0).flip(axis), axis, keep)
    .neg()
    .add(c.x(0).shape[axis]! - 1);
}

/** Of the largest of each line a 1, else 0. */
function hardmax(c: Call): Tensor {
  const x = c.x(0);
  const rank = x.shape.length;
  const axis = c.axis(c.number('axis', c.opset >= 13 ? -1 : 1));
  const order = [...x.shape.keys()].filter((a) => a !== axis);
  const back = Array.from({ length: rank }, (_, a) => (a === axis ? rank - 1 : order.indexOf(a)));
  return F.oneHot(x.argmax(axis), x.shape[axis]!).permute(back);
}

export const REDUCTIONS: OnnxOps = {
  ReduceSum: reduction((x, axes, keep) => x.sum(axes, keep)),
  ReduceMean: reduction((x, axes, keep) => x.mean(axes, keep)),
  ReduceProd: reduction((x, axes, keep) => x.prod(axes, keep)),
  ReduceMax: reduction((x, axes, keep) => x.amax(axes, keep)),
  ReduceMin: reduction((x, axes, keep) => x.amin(axes, keep)),
  ReduceL1: reduction((x, axes, keep) => x.abs().sum(axes, keep)),
  ReduceL2: reduction((x, axes, keep) => x.square().sum(axes, keep).sqrt()),
  ReduceSumSquare: reduction((x, axes, keep) => x.square().sum(axes, keep)),
  ReduceLogSum: reduction((x, axes, keep) => x.sum(axes, keep).log()),
  ReduceLogSumExp: reduction((x, axes, keep) => {
    const top = x.amax(axes, true);
    return x
      .sub(top)
      .exp()
      .sum(axes, keep)
      .log()
      .add(keep ? top : top.reshape(x.amax(axes).shape));
  }),
  ArgMax: (c) => place(c, (x, axis, keep) => x.argmax(axis, keep)),
  ArgMin: (c) => place(c, (x, axis, keep) => x.argmin(axis, keep)),
  Hardmax: hardmax,
  TopK: (c) => {
    const [k] = c.given('k', 1) ?? [c.number('k', 1)];
    const { values, indices } = c.x(0).topK(k!, c.number('axis', -1), c.number('largest', 1) !== 0);
    return [values, indices];
  },
  CumSum: (c) =>
    c
      .x(0)
      .cumSum(c.known(c.x(1))[0]!, {
        exclusive: c.number('exclusive', 0) !== 0,
        reverse: c.number('reverse', 0) !== 0,
      }),
};
