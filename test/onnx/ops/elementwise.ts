/** ONNX's elementwise operators. */
import * as F from '../../../engine/frontend/functional.ts';
import { isFloat } from '../../../engine/frontend/ops/op.ts';
import type { Tensor } from '../../../engine/frontend/tensor.ts';
import { dtypeFor, Unsupported, type Call, type OnnxOps } from '../call.ts';
import { typeNamed } from '../proto.ts';

const unary = (ops: Record<string, (x: Tensor, c: Call) => Tensor>): OnnxOps =>
  Object.fromEntries(Object.entries(ops).map(([name, f]) => [name, (c) => f(c.x(0), c)]));
const binary = (ops: Record<string, (a: Tensor, b: Tensor, c: Call) => Tensor>): OnnxOps =>
  Object.fromEntries(Object.entries(ops).map(([name, f]) => [name, (c) => f(...sided(c), c)]));
const folded = (ops: Record<string, (a: Tensor, b: Tensor) => Tensor>): OnnxOps =>
  Object.fromEntries(Object.entries(ops).map(([name, f]) => [name, (c) => c.all().reduce(f)]));

/** Old operator sets line a smaller second operand up with an axis of the first. */
function sided(c: Call): [Tensor, Tensor] {
  const [a, b] = [c.x(0), c.x(1)];
  if (c.opset >= 7 || !c.number('broadcast', 0)) return [a, b];
  const axis = c.number('axis', a.shape.length - b.shape.length);
  return [a, b.reshape([...b.shape, ...Array<number>(Math.max(0, a.shape.length - axis - b.shape.length)).fill(1)])];
}

export const not = (x: Tensor): Tensor => x.eq(0);
const isNaN = (x: Tensor): Tensor => not(x.le(0).max(x.like(0).le(x)));
/** Towards 0. */
const truncate = (x: Tensor): Tensor => x.abs().floor().mul(x.sign());

/** Remainders with the sign of the divisor, or with `fmod` of the dividend. */
function mod(a: Tensor, b: Tensor, c: Call): Tensor {
  if (!isFloat(a.dtype)) {
    const rest = a.sub(a.div(b).mul(b));
    if (c.number('fmod', 0) || a.dtype === 'u32') return rest;
    const wrong = rest.mul(b).lt(0);
    return rest.add(b).select(wrong, rest);
  }
  const rest = a.sub(truncate(a.div(b)).mul(b));
  return rest;
}

function cast(x: Tensor, type: string): Tensor {
  if (type === 'bool') return not(not(x));
  if (type === 'string' || type === 'bfloat16') throw new Unsupported(`${type} is no type of the engine`);
  return x.cast(dtypeFor(type as 'float'));
}

/** Powers of whole numbers are taken in f32. */
function power(a: Tensor, b: Tensor): Tensor {
  if (isFloat(a.dtype)) return a.pow(b.cast(a.dtype));
  return a.cast('f32').pow(b.cast('f32')).add(0.5).floor().cast(a.dtype);
}

function clip(x: Tensor, c: Call): Tensor {
  const bound = (name: string, i: number): Tensor | number | undefined => c.maybe(i) ?? c.attribute(name)?.f;
  const [lo, hi] = [bound('min', 1), bound('max', 2)];
  const above = lo === undefined ? x : x.max(lo);
  return hi === undefined ? above : above.min(hi);
}

const positive = (x: Tensor): Tensor => x.like(0).lt(x);
const elu = (x: Tensor, alpha: number, scale = 1): Tensor =>
  x.select(positive(x), x.min(0).exp().sub(1).mul(alpha)).mul(scale);

export const ELEMENTWISE: OnnxOps = {
  ...unary({
    Identity: (x) => x,
    Abs: (x) => x.abs(),
    Neg: (x) => x.neg(),
    Sign: (x) => x.sign(),
    Exp: (x) => x.exp(),
    Log: (x) => x.log(),
    Sqrt: (x) => x.sqrt(),
    Sin: (x) => x.sin(),
    Cos: (x) => x.cos(),
    Tan: (x) => x.sin().div(x.cos()),
    Sinh: (x) => x.exp().sub(x.neg().exp()).mul(0.5),
    Cosh: (x) => x.exp().add(x.neg().exp()).mul(0.5),
    Asinh: (x) => x.abs().add(x.square().add(1).sqrt()).log().mul(x.sign()),
    Acosh: (x) => x.add(x.square().sub(1).sqrt()).log(),
    Atanh: (x) => x.add(1).div(x.neg().add(1)).log().mul(0.5),
    Tanh: (x) => x.tanh(),
    Sigmoid: (x) => x.sigmoid(),
    Erf: (x) => x.erf(),
    Floor: (x) => x.floor(),
    Ceil: (x) => x.neg().floor().neg(),
    Round: (x) => x.round(),
    Reciprocal: (x) => x.like(1).div(x),
    Relu: (x) => F.relu(x),
    LeakyRelu: (x, c) => x.select(positive(x), x.mul(c.number('alpha', 0.01))),
    Elu: (x, c) => elu(x, c.number('alpha', 1)),
    Selu: (x, c) => elu(x, c.number('alpha', 1.67326319217681884765625), c.number('gamma', 1.05070102214813232421875)),
    Celu: (x, c) => x.max(0).add(x.div(c.number('alpha', 1)).min(0).exp().sub(1).mul(c.number('alpha', 1))),
    HardSigmoid: (x, c) => F.clamp(x.mul(c.number('alpha', 0.2)).add(c.number('beta', 0.5)), 0, 1),
    HardSwish: (x) => x.mul(F.clamp(x.div(6).add(0.5), 0, 1)),
    Softplus: (x) => F.softplus(x),
    Softsign: (x) => x.div(x.abs().add(1)),
    ThresholdedRelu: (x, c) => x.select(x.like(c.number('alpha', 1)).lt(x), 0),
    Shrink: (x, c) => {
      const [edge, bias] = [c.number('lambd', 0.5), c.number('bias', 0)];
      return x.add(bias).select(x.lt(-edge), x.sub(bias).select(x.like(edge).lt(x), 0));
    },
    Clip: clip,
    Not: not,
    IsNaN: isNaN,
    IsInf: (x, c) => {
      const infinite = not(x.isFinite().max(isNaN(x)));
      if (!c.number('detect_negative', 1)) return infinite.mul(positive(x));
      return c.number('detect_positive', 1) ? infinite : infinite.mul(x.lt(0));
    },
    Cast: (x, c) => cast(x, typeNamed(c.number('to', 0))),
  }),
  ...binary({
    Add: (a, b) => a.add(b),
    Sub: (a, b) => a.sub(b),
    Mul: (a, b) => a.mul(b),
    Div: (a, b) => a.div(b),
    Pow: power,
    PRelu: (x, slope, c) => {
      const channels = c.opset < 7 && slope.shape.length === 1 && x.shape.length > 1;
      const lined = channels ? slope.reshape([-1, ...x.shape.slice(2).map(() => 1)]) : slope;
      return x.select(positive(x), x.mul(lined));
    },
    Mod: mod,
    Equal: (a, b) => a.eq(b),
    Less: (a, b) => a.lt(b),
    LessOrEqual: (a, b) => a.le(b),
    Greater: (a, b) => b.lt(a),
    GreaterOrEqual: (a, b) => b.le(a),
    And: (a, b) => a.mul(b),
    Or: (a, b) => a.max(b),
    Xor: (a, b) => not(a.eq(b)),
    CastLike: (a, b) => a.cast(b.dtype),
  }),
  ...folded({ Max: (a, b) => a.max(b), Min: (a, b) => a.min(b), Sum: (a, b) => a.add(b) }),
  Mean: (c) =>
    c
      .all()
      .reduce((a, b) => a.add(b))
      .div(c.all().length),
  Where: (c) => F.where(c.x(0), c.x(1), c.x(2)),
};
