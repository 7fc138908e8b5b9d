/** Trees: order, paths, rebuilding; host tensors. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { flatten, host, mapTree } from '../../engine/frontend/tree.ts';

test('leaves come in order of sorted keys, with paths', () => {
  const flat = flatten({ b: [1, { z: 2 }], a: 3 });
  assert.equal(flat.leaves, [3, 1, 2]);
  assert.equal(flat.paths, ['a', 'b.0', 'b.1.z']);
  assert.equal(flat.rebuild([30, 10, 20]), { a: 30, b: [10, { z: 20 }] });
});

test('equal structures have equal keys, whatever the leaves', () => {
  assert.is(flatten({ a: 1, b: 2 }).key, flatten({ b: new Date(), a: 'x' }).key);
  assert.is.not(flatten([1, [2]]).key, flatten([[1], 2]).key);
  assert.is.not(flatten({ a: 1 }).key, flatten({ a: undefined }).key);
});

test('tensor types and host tensors are leaves, a single leaf is a tree', () => {
  const t = host([1, 2], [2]);
  assert.equal(flatten([t, { shape: [1], dtype: 'f32' }]).leaves.length, 2);
  assert.equal(flatten(t).paths, ['']);
  assert.is(flatten(t).rebuild([5]), 5);
});

test('mapTree goes over trees of one structure', () => {
  assert.equal(
    mapTree((a: number, b: number) => a + b, { x: 1, y: [2] }, { y: [20], x: 10 }),
    { x: 11, y: [22] },
  );
  assert.throws(() => mapTree((a: number) => a, { x: 1 }, { y: 1 }), /\[tree\] structures differ/);
});

test('host tensors take their dtype from the array', () => {
  assert.is(host(new Uint32Array(2), [2]).dtype, 'u32');
  assert.is(host([1.5], [1]).data.constructor, Float32Array);
  assert.is(host([1], [1], 'i32').data.constructor, Int32Array);
  assert.throws(() => host([1, 2, 3], [2]), /\[host\] 3 numbers do not fill \[2\]/);
});

test.run();
