/** Rows of a table by index, and its adjoint. */
import { numel } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { OpName, TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { HostTensor } from '../tree.ts';
import type { OpDef } from './op.ts';
import { arity, floats, isFloat, sameShape } from './op.ts';
import { KERNEL } from './traits.ts';

function whole(op: OpName, ids: TensorType): void {
  if (isFloat(ids.dtype)) fail(op, `expected i32 or u32 ids, got ${ids.dtype}${printShapes(ids.shape)}`);
}

function eachId(op: OpName, ids: HostTensor, count: number, visit: (id: number, i: number) => void): void {
  ids.data.forEach((id, i) => {
    if (!(id >= 0 && id < count)) fail(op, `id ${id} at ${i} is outside 0..${count - 1}`);
    visit(id, i);
  });
}

const gather: OpDef<'gather'> = {
  infer(x) {
    arity('gather', x, 2);
    const [table, ids] = x as [TensorType, TensorType];
    whole('gather', ids);
    if (!table.shape.length) fail('gather', 'expected a table [V,...], got a scalar');
    return [{ shape: [...ids.shape, ...table.shape.slice(1)], dtype: table.dtype }];
  },
  oracle([table, ids], _, outs) {
    const row = numel(table!.shape.slice(1));
    const y = new Float64Array(sizeOf(outs[0]!));
    eachId('gather', ids!, table!.shape[0]!, (id, i) => y.set(table!.data.subarray(id * row, (id + 1) * row), i * row));
    return [y];
  },
  vjp: ({ x: [table, ids], dy, make }) => [make('scatterAdd', [ids!, dy[0]!], { rows: table!.shape[0]! })[0]!, null],
  flops: () => 0,
  traits: KERNEL,
};

const scatterAdd: OpDef<'scatterAdd'> = {
  infer(x, { rows }) {
    arity('scatterAdd', x, 2);
    const [ids, values] = x as [TensorType, TensorType];
    whole('scatterAdd', ids);
    floats('scatterAdd', [values]);
    const rank = ids.shape.length;
    if (!sameShape(values.shape.slice(0, rank), ids.shape))
      fail(
        'scatterAdd',
        `rows ${printShapes(values.shape)} do not start with the shape of ids ${printShapes(ids.shape)}`,
      );
    return [{ shape: [rows, ...values.shape.slice(rank)], dtype: values.dtype }];
  },
  oracle([ids, values], { rows }, outs) {
    const y = new Float64Array(sizeOf(outs[0]!));
    const row = y.length / rows;
    eachId('scatterAdd', ids!, rows, (id, i) => {
      for (let d = 0; d < row; d++) y[id * row + d]! += values!.data[i * row + d]!;
    });
    return [y];
  },
  vjp: ({ x: [ids], dy, make }) => [null, make('gather', [dy[0]!, ids!], {})[0]!],
  flops: (x) => sizeOf(x[1]!),
  traits: KERNEL,
};

export const gatherOps = { gather, scatterAdd };
