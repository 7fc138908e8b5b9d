import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { key, Stream, threefry } from '../../train/loop/rng.ts';

test('threefry gives the published answers', () => {
  assert.equal(threefry([0, 0], [0, 0]), [0x6b200159, 0x99ba4efe]);
  assert.equal(threefry([0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff]), [0x1cb996fc, 0xbb002be7]);
  assert.equal(threefry([0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3]), [0xc4923a9c, 0x483df7a0]);
});

test('a key depends on seed, step and role, and on nothing else', () => {
  assert.equal(key(1, 2, 'noise'), key(1, 2, 'noise'));
  const keys = [
    key(1, 2, 'noise'),
    key(2, 1, 'noise'),
    key(1, 2, 'time'),
    key(1, 3, 'noise'),
    key(1, 2 ** 40, 'noise'),
    key(2 ** 40, 2, 'noise'),
  ];
  assert.is(new Set(keys.map((k) => k.data.join())).size, keys.length);
  assert.throws(() => key(-1, 0, 'noise'), /seed must be a whole number/);
  assert.throws(() => key(0, 0.5, 'noise'), /step must be a whole number/);
});

test('the samplers have the moments they claim', () => {
  const random = new Stream(7, 0, 'moments');
  const n = 20000;
  const moments = (draw: () => number): [number, number] => {
    const xs = Float64Array.from({ length: n }, draw);
    const mean = xs.reduce((a, b) => a + b) / n;
    return [mean, xs.reduce((a, b) => a + (b - mean) ** 2, 0) / n];
  };
  const near = ([m, v]: [number, number], mean: number, variance: number) =>
    assert.ok(Math.abs(m - mean) < 0.03 && Math.abs(v - variance) < 0.04, `${m} ${v}`);
  near(
    moments(() => random.normal()),
    0,
    1,
  );
  near(
    moments(() => random.uniform(-1, 1)),
    0,
    1 / 3,
  );
  const counts = [0, 0, 0, 0, 0, 0];
  for (let i = 0; i < 6000; i++) counts[random.int(6)]!++;
  assert.ok(
    counts.every((c) => Math.abs(c - 1000) < 120),
    counts.join(),
  );
});

test('shuffle is a permutation, the same for the same stream', () => {
  const order = new Stream(3, 1, 'order').shuffle(1000);
  assert.equal(
    [...order].sort((a, b) => a - b),
    Array.from({ length: 1000 }, (_, i) => i),
  );
  assert.equal(order, new Stream(3, 1, 'order').shuffle(1000));
  assert.not.equal(order, new Stream(3, 2, 'order').shuffle(1000));
});

test.run();
