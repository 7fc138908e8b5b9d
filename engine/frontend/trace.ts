/** Runs a function of tensors with symbolic ones: its graph. */
import { withTrace } from './tracing.ts';
import type { Graph, TensorType, Value } from './graph.ts';
import { Tensor, make, scalar } from './tensor.ts';
import type { Flat } from './tree.ts';
import { flatten, nameOf } from './tree.ts';
import { fail } from '../host/errors.ts';

export interface Traced {
  graph: Graph;
  /** Leaves of what the function returned; numbers have become constants. */
  outputs: Value[];
  /** Its structure and paths. */
  outTree: Flat<Tensor | number>;
}

/**
 * `argTypes` holds one tree of tensor types an argument. Input nodes are numbered in the order of `flatten(argTypes)` and named by path.
 */
export function trace(fn: (...args: never[]) => unknown, argTypes: readonly unknown[]): Traced {
  return withTrace(({ graph }) => {
    const args = flatten<TensorType>(argTypes);
    const inputs = args.leaves.map(
      ({ shape, dtype }, index) => make('input', [], { index, name: args.paths[index]!, type: { shape, dtype } })[0]!,
    );
    const outTree = flatten<Tensor | number>(fn(...(args.rebuild(inputs) as never[])));
    const outputs = outTree.leaves.map((leaf, i) => {
      if (leaf instanceof Tensor) return leaf.value;
      if (typeof leaf === 'number') return scalar(leaf).value;
      const other: unknown = leaf;
      if (other instanceof Promise) other.catch(() => {}); // what it fails for is told here
      const why = other instanceof Promise ? ': a traced function may not be async' : '';
      return fail('trace', `output ${outTree.paths[i] || 'value'} is no tensor but ${nameOf(other)}${why}`);
    });
    return { graph, outputs, outTree };
  });
}
