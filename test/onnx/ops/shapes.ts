/** ONNX's operators that move, pick and make elements. */
import * as F from '../../../engine/frontend/functional.ts';
import { isFloat } from '../../../engine/frontend/ops/op.ts';
import { make, type Tensor } from '../../../engine/frontend/tensor.ts';
import { numel, type DType } from '../../../kernels/kernel.ts';
import { dtypeFor, Unsupported, type Call, type OnnxOps } from '../call.ts';
import { typeNamed } from '../proto.ts';

/** A few numbers as a tensor: the graph has only constants of one. */
export function literal(data: readonly number[], shape: readonly number[], dtype: DType): Tensor {
  if (!data.length) throw new Unsupported('a literal without elements');
  if (data.every((v) => v === data[0])) return F.full(shape, data[0]!, dtype);
  if (data.length > 64) throw new Unsupported(`a literal of ${data.length} numbers inside the graph`);
  return F.concat(
    data.map((v) => F.constant(v, dtype).reshape([1])),
    0,
  ).reshape(shape);
}

function reshape(c: Call): Tensor {
  const shape = c.given('shape', 1) ?? [];
  const from = c.x(0).shape;
  return c.x(0).reshape(shape.map((n, i) => (n === 0 && !c.number('allowzero', 0) ? from[i]! : n)));
}

function flatten(c: Call): Tensor {
  const axis = c.axis(c.number('axis', 1));
  return c.x(0).reshape([numel(c.x(0).shape.slice(0, axis)), numel(c.x(0).shape.slice(axis))]);
}

/** Each axis from start towards end, as NumPy counts. */
function slice(c: Call): Tensor {
  const x = c.x(0);
  const [starts, ends] = [c.given('starts', 1) ?? [], c.given('ends', 2) ?? []];
  const axes = c.given('axes', 3) ?? starts.map((_, i) => i);
  const steps = c.given('steps', 4) ?? starts.map(() => 1);
  return axes.reduce((y, a, i) => {
    const axis = c.axis(a);
    const n = y.shape[axis]!;
    const down = steps[i]! < 0;
    const at = (v: number): number => Math.min(Math.max(v < 0 ? v + n : v, down ? -1 : 0), down ? n - 1 : n);
    const [from, to] = [at(starts[i]!), at(ends[i]!)];
    if (down ? from <= to : from >= to) throw new Unsupported('a slice without elements');
    return down ? y.flip(axis).slice(axis, n - 1 - from, n - 1 - to, -steps[i]!) : y.slice(axis, from, to, steps[i]);
  }, x);
}

function split(c: Call): Tensor[] {
  const axis = c.axis(c.number('axis', 0));
  const n = c.x(0).shape[axis]!;
  const each = Math.ceil(n / c.wanted);
  const sizes = c.given('split', 1) ?? Array.from({ length: c.wanted }, (_, i) => Math.min(each, n - i * each));
  if (sizes.includes(0)) throw new Unsupported('a part without elements');
  let at = 0;
  return sizes.map((size) => c.x(0).slice(axis, at, (at += size)));
}

const squeeze = (c: Call): Tensor => {
  const { shape } = c.x(0);
  const axes = c.given('axes', 1)?.map((a) => c.axis(a)) ?? [...shape.keys()].filter((a) => shape[a] === 1);
  return c.x(0).reshape(shape.filter((_, a) => !axes.includes(a)));
};

function unsqueeze(c: Call): Tensor {
  const axes = c.given('axes', 1) ?? [];
  const rank = c.x(0).shape.length + axes.length;
  const own = [...c.x(0).shape];
  const ones = new Set(axes.map((a) => c.axis(a, rank)));
  return c.x(0).reshape(Array.from({ length: rank }, (_, a) => (ones.has(a) ? 1 : own.shift()!)));
}

function expand(c: Call): Tensor {
  const [from, shape] = [c.x(0).shape, c.known(c.x(1))];
  const rank = Math.max(from.length, shape.length);
  const at = (s: readonly number[], i: number): number => s[s.length - rank + i] ?? 1;
  return c.x(0).expand(Array.from({ length: rank }, (_, i) => Math.max(at(from, i), at(shape, i))));
}

function tile(c: Call): Tensor {
  const { shape } = c.x(0);
  const repeats = c.known(c.x(1));
  const spread = shape.flatMap((n, i) => [repeats[i]!, n]);
  return c
    .x(0)
    .reshape(shape.flatMap((n) => [1, n]))
    .expand(spread)
    .reshape(shape.map((n, i) => n * repeats[i]!));
}

/** Positions along an axis: of `edge` and `reflect` those that stand for what lies outside. */
function pad(c: Call): Tensor {
  const x = c.x(0);
  const flat = c.given('pads', 1) ?? c.list('paddings') ?? [];
  const rank = x.shape.length;
  const pads = x.shape.map((_, i) => [flat[i]!, flat[rank + i]!] as const);
  const mode = c.text('mode', 'constant');
  if (mode === 'constant') {
    const value = c.has(2) ? c.known(c.x(2))[0]! : c.number('value', 0);
    const cut = pads.reduce((y, [lo, hi], a) => y.slice(a, Math.max(0, -lo), y.shape[a]! + Math.min(0, hi)), x);
    const [lo, hi] = [pads.map(([n]) => Math.max(0, n)), pads.map(([, n]) => Math.max(0, n))];
    return value ? cut.pad(lo, hi).select(cut.cast('f32').like(1).pad(lo, hi), value) : cut.pad(lo, hi);
  }
  return pads.reduce((y, [lo, hi], a) => {
    const n = y.shape[a]!;
    const outside = (i: number): number => (mode === 'edge' ? (i < 0 ? 0 : n - 1) : i < 0 ? -i : 2 * (n - 1) - i);
    const parts = [
      ...Array.from({ length: lo }, (_, i) => outside(i - lo)).map((i) => y.slice(a, i, i + 1)),
      y,
      ...Array.from({ length: hi }, (_, i) => outside(n + i)).map((i) => y.slice(a, i, i + 1)),
    ];
    return parts.length > 1 ? F.concat(parts, a) : y;
  }, x);
}

/** Indices from the end become those from the front. */
const fromFront = (ids: Tensor, n: number): Tensor => ids.add(n).select(ids.cast('f32').lt(0), ids);
export function gather(x: Tensor, ids: Tensor, axis: number): Tensor {
  const order = [axis, ...[...x.shape.keys()].filter((a) => a !== axis)];
  const y = F.gather(x.permute(order), fromFront(ids, x.shape[axis]!));
  const r = ids.shape.length;
  const lead = Array.from({ length: axis }, (_, i) => r + i);
  return y.permute([...lead, ...Array.from({ length: r }, (_, i) => i), ...y.shape.map((_, i) => i).slice(r + axis)]);
}

/** Flat places of elements picked along an axis. */
function picked(shape: readonly number[], ids: Tensor, axis: number): Tensor {
  const own = fromFront(ids, shape[axis]!);
  return shape
    .map((_, a) => (a === axis ? own : F.iota(ids.shape, a).cast('i32')))
    .reduce((at, c, a) => at.mul(shape[a]!).add(c));
}

/** Flat places of the rows that tuples of indices name. */
function tuples(shape: readonly number[], ids: Tensor): Tensor {
  const depth = ids.shape.at(-1)!;
  return Array.from({ length: depth }, (_, a) => fromFront(ids.slice(-1, a, a + 1).squeeze(-1), shape[a]!)).reduce(
    (at, c, a) => at.mul(shape[a]!).add(c),
  );
}

function gatherND(c: Call): Tensor {
  const batch = c.number('batch_dims', 0);
  const [x, ids] = [c.x(0), c.x(1)];
  const depth = ids.shape.at(-1)!;
  let at = tuples(x.shape.slice(batch), ids);
  const span = numel(x.shape.slice(batch, batch + depth));
  if (batch)
    at = at.add(
      F.iota([numel(ids.shape.slice(0, batch))], 0)
        .cast('i32')
        .mul(span)
        .reshape([...ids.shape.slice(0, batch), ...at.shape.slice(batch).map(() => 1)]),
    );
  return F.gather(x.reshape([-1, ...x.shape.slice(batch + depth)]), at);
}

/** `at` names rows of x [n,width]; `updates` [count,width] take their place, or are added. */
function scatter(x: Tensor, at: Tensor, updates: Tensor, reduction: string): Tensor {
  if (!isFloat(x.dtype)) throw new Unsupported('whole numbers are not scattered');
  const onto = (values: Tensor): Tensor => make('scatterAdd', [at, values], { rows: x.shape[0]! })[0]!;
  if (reduction === 'add') return x.add(onto(updates));
  if (reduction !== 'none') throw new Unsupported(`a scatter that combines by ${reduction}`);
  return onto(updates).select(onto(updates.like(1)), x);
}

function trilu(c: Call): Tensor {
  const { shape } = c.x(0);
  const k = c.has(1) ? c.known(c.x(1))[0]! : 0;
  const [row, column] = [F.iota(shape, -2).add(k), F.iota(shape, -1)];
  return c.x(0).select(c.number('upper', 1) ? row.le(column) : column.le(row), 0);
}

function blocks(c: Call, deep: boolean): Tensor {
  const [n, ch, h, w] = c.x(0).shape as [number, number, number, number];
  const b = c.number('blocksize', 1);
  if (!deep)
    return c
      .x(0)
      .reshape([n, ch, h / b, b, w / b, b])
      .permute([0, 3, 5, 1, 2, 4])
      .reshape([n, ch * b * b, h / b, w / b]);
  const rest = ch / b / b;
  const y =
    c.text('mode', 'DCR') === 'DCR'
      ? c.x(0).reshape([n, b, b, rest, h, w]).permute([0, 3, 4, 1, 5, 2])
      : c.x(0).reshape([n, rest, b, b, h, w]).permute([0, 1, 4, 2, 5, 3]);
  return y.reshape([n, rest, h * b, w * b]);
}

function reverse(c: Call): Tensor {
  const [time, batch] = [c.number('time_axis', 0), c.number('batch_axis', 1)];
  const parts = c.known(c.x(1)).map((length, i) => {
    const one = c.x(0).slice(batch, i, i + 1);
    const turned = one.slice(time, 0, length).flip(time);
    return length < one.shape[time]! ? F.concat([turned, one.slice(time, length)], time) : turned;
  });
  return F.concat(parts, batch);
}

const sizes = (c: Call): number[] => {
  const { shape } = c.x(0);
  return shape.slice(c.number('start', 0), c.number('end', shape.length));
};

export const SHAPES: OnnxOps = {
  Reshape: reshape,
  Flatten: flatten,
  Transpose: (c) => c.x(0).permute(c.list('perm') ?? [...c.x(0).shape.keys()].reverse()),
  Concat: (c) => F.concat(c.all(), c.number('axis', 1)),
  Split: split,
  Slice: slice,
  Squeeze: squeeze,
  Unsqueeze: unsqueeze,
  Expand: expand,
  Tile: tile,
  Pad: pad,
  Gather: (c) => gather(c.x(0), c.x(1), c.axis(c.number('axis', 0))),
  GatherElements: (c) =>
    F.gather(c.x(0).reshape([-1, 1]), picked(c.x(0).shape, c.x(1), c.axis(c.number('axis', 0)))).squeeze(-1),
  GatherND: gatherND,
  ...Object.fromEntries(
    ['Scatter', 'ScatterElements'].map((name) => [
      name,
      (c: Call) => {
        const at = picked(c.x(0).shape, c.x(1), c.axis(c.number('axis', 0))).reshape([-1]);
        const y = scatter(c.x(0).reshape([-1, 1]), at, c.x(2).reshape([-1, 1]), c.text('reduction', 'none'));
        return y.reshape(c.x(0).shape);
      },
    ]),
  ),
  ScatterND: (c) => {
    const { shape } = c.x(0);
    const depth = c.x(1).shape.at(-1)!;
    const width = numel(shape.slice(depth));
    const at = tuples(shape, c.x(1)).reshape([-1]);
    const y = scatter(c.x(0).reshape([-1, width]), at, c.x(2).reshape([-1, width]), c.text('reduction', 'none'));
    return y.reshape(shape);
  },
  Trilu: trilu,
  DepthToSpace: (c) => blocks(c, true),
  SpaceToDepth: (c) => blocks(c, false),
  ReverseSequence: reverse,
  Shape: (c) => literal(sizes(c), [sizes(c).length], 'i32'),
  Size: (c) => F.constant(numel(c.x(0).shape), 'i32'),
  Constant: (c) => {
    const one = c.attribute('value_float')?.f ?? c.attribute('value_int')?.i;
    const list = c.list('value_floats') ?? c.list('value_ints');
    const dtype = c.attribute('value_float') || c.attribute('value_floats') ? 'f32' : 'i32';
    if (one === undefined && !list) throw new Unsupported('a constant that is no tensor of numbers');
    return list ? literal(list, [list.length], dtype) : F.constant(one!, dtype);
  },
  ConstantOfShape: (c) => {
    const t = c.attribute('value')?.t;
    return F.full(c.known(c.x(0)), t?.data[0] ?? 0, dtypeFor(t?.type ?? 'float'));
  },
  Range: (c) => {
    const [start, limit, delta] = [0, 1, 2].map((i) => c.known(c.x(i))[0]!) as [number, number, number];
    const count = Math.max(0, Math.ceil((limit - start) / delta));
    if (!count) throw new Unsupported('a range without elements');
    return F.iota([count], 0).mul(delta).add(start).cast(c.x(0).dtype);
  },
  EyeLike: (c) => {
    const { shape, dtype } = c.x(0);
    const eye = F.iota(shape, 0).add(c.number('k', 0)).eq(F.iota(shape, 1));
    return c.attribute('dtype') ? eye.cast(dtypeFor(typeNamed(c.number('dtype', 1)))) : eye.cast(dtype);
  },
  OneHot: (c) => {
    const depth = c.known(c.x(1))[0]!;
    const ids = fromFront(c.x(0).cast('i32'), depth);
    const axis = c.axis(c.number('axis', -1), ids.shape.length + 1);
    const mask = F.oneHot(ids, depth);
    const order = [...ids.shape.keys()];
    const [off, on] = [c.x(2).slice(0, 0, 1), c.x(2).slice(0, 1, 2)];
    return F.where(mask.permute(order.toSpliced(axis, 0, order.length)), on, off);
  },
  Dropout: (c) => {
    if (c.has(2) && c.known(c.x(2))[0] && !(c.has(1) && c.known(c.x(1))[0] === 0))
      throw new Unsupported('ONNX does not say which random numbers dropout takes');
    return [c.x(0), c.x(0).cast('f32').like(1)];
  },
};
