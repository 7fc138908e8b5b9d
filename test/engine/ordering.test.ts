/** Ops along an axis and what is made of them: right values by hand, and what is refused with the op and the user's line. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { oneHot } from '../../engine/frontend/functional.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';

const run = (fn: (...x: Tensor[]) => Tensor | Tensor[], ...inputs: HostTensor[]): number[][] => {
  const { graph, outputs } = trace(fn, inputs);
  return evaluate(graph, outputs, inputs).map((t) => [...t.data]);
};
const refused = (fn: (x: Tensor) => unknown, message: RegExp, shape: readonly number[] = [2, 3]): void =>
  assert.throws(() => trace(fn, [{ shape, dtype: 'f32' }]), message);

test('one-hot rows; an id outside gives zeros', () => {
  const ids = host([2, -1, 0, 3], [2, 2], 'i32');
  assert.equal(
    run((x) => oneHot(x!, 3), ids),
    [[0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]],
  );
});

test('the logarithm of softmax keeps what softmax loses', () => {
  const [y] = run((x) => x!.logSoftmax(), host([0, 200, -Infinity], [1, 3]));
  assert.equal(y, [-200, 0, -Infinity]);
});

test('argmax, argmin and topK of NaN and ties are as in NumPy and PyTorch', () => {
  const x = host([3, NaN, 7, 7, NaN], [5]);
  assert.equal(
    run((t) => [t!.argmax(), t!.argmin(), ...Object.values(t!.topK(4)), t!.topK(3, -1, false).indices], x),
    [[1], [1], [NaN, NaN, 7, 7], [1, 4, 2, 3], [0, 2, 3]],
  );
});

test('what does not fit is refused by name and line', () => {
  refused((x) => x.argmax(2), /\[argmax\] no axis 2 in \[2,3\] \(test\/engine\/ordering\.test\.ts:\d+\)/);
  refused((x) => x.argmin(1), /\[argmin\] axis 1 of \[2,0\] is empty/, [2, 0]);
  refused((x) => x.topK(4), /\[topK\] expected k from 1 to 3, the size of axis 1 of \[2,3\], got 4 \(test/);
  refused((x) => x.topK(1.5), /\[topK\] expected k from 1 to 3/);
  refused((x) => x.cumSum(-3), /\[cumSum\] no axis -3/);
  refused((x) => oneHot(x, 3), /\[oneHot\] expected i32 or u32 ids, got f32\[2,3\] \(test/);
  refused((x) => x.prod([5]), /\[prod\] no axis 5/);
});

test.run();
