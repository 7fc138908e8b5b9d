/** Ops without operands: inputs, constants, iota. */
import { numel } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import { isFloat, strides } from './op.ts';
import type { OpDef } from './op.ts';
import { rounded } from './rounding.ts';
import { INLINED, KERNEL } from './traits.ts';

const input: OpDef<'input'> = {
  infer: (_, { type }) => [type],
  oracle: (_, { index, name }) => fail('input', `number ${index} (${name}) has no value: the evaluator binds inputs`),
  vjp: null,
  flops: () => 0,
  traits: { ...KERNEL, source: true },
};

const constant: OpDef<'const'> = {
  infer(_, { value, dtype }) {
    if (typeof value !== 'number') fail('const', `expected a number, got ${typeof value}`);
    if (!isFloat(dtype) && rounded(value, dtype) !== value)
      fail('const', `${value} is no ${dtype}: cast the tensor beside it first`);
    return [{ shape: [], dtype }];
  },
  oracle: (_, { value }) => [[value]],
  vjp: null,
  flops: () => 0,
  traits: { ...INLINED, cost: 'free', source: true },
};

const iota: OpDef<'iota'> = {
  infer(_, { shape, axis }) {
    if (!(Number.isInteger(axis) && axis >= 0 && axis < shape.length))
      fail('iota', `no axis ${axis} in ${printShapes(shape)}`);
    return [{ shape, dtype: 'f32' }];
  },
  oracle(_, { shape, axis }) {
    const step = strides(shape)[axis]!;
    return [Float64Array.from({ length: numel(shape) }, (_e, i) => Math.floor(i / step) % shape[axis]!)];
  },
  vjp: null,
  flops: () => 0,
  traits: INLINED,
};

export const leafOps = { input, const: constant, iota };
