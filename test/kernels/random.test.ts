/** Threefry against the published vectors, draws bit for bit against JavaScript, and the moments of both distributions. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { shader, type Launch } from '../../kernels/kernel.ts';
import { random, THREEFRY } from '../../kernels/random/index.ts';
import { launch, openTest, validate } from './harness.ts';

const { caps } = await openTest();

function threefry(k0: number, k1: number, c0: number, c1: number): [number, number] {
  const ks = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  let a = (c0 + k0) | 0,
    b = (c1 + k1) | 0;
  for (let g = 0; g < 5; g++) {
    for (const r of g % 2 ? [17, 29, 16, 24] : [13, 15, 26, 6]) {
      a = (a + b) | 0;
      b = ((b << r) | (b >>> (32 - r))) ^ a;
    }
    a = (a + ks[(g + 1) % 3]!) | 0;
    b = (b + ks[(g + 2) % 3]! + g + 1) | 0;
  }
  return [a >>> 0, b >>> 0];
}

/** Random123's known answers: key, counter, result. */
const VECTORS = [
  [0, 0, 0, 0, 0x6b200159, 0x99ba4efe],
  [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x1cb996fc, 0xbb002be7],
  [0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3, 0xc4923a9c, 0x483df7a0],
];

test('known answers', async () => {
  const wgsl = shader({
    params: [],
    workgroup: [1, 1, 1],
    functions: THREEFRY,
    buffers: [
      { name: 'src', type: 'vec4u', access: 'read' },
      { name: 'dst', type: 'vec2u', access: 'read_write' },
    ],
    main: '  dst[wid.x] = threefry(src[wid.x].xy, src[wid.x].zw);',
  });
  const l: Launch = {
    dispatches: [{ label: 'threefry', wgsl, grid: [3, 1, 1], params: [], bind: [0, 1], flops: 0, bytes: 0 }],
    scratch: [],
  };
  const [out] = await launch(l, [Uint32Array.from(VECTORS.flatMap((v) => v.slice(0, 4)))], [24]);
  assert.equal(
    [...new Uint32Array(out!)],
    VECTORS.flatMap((v) => v.slice(4)),
  );
  for (const [k0, k1, c0, c1, ...want] of VECTORS) assert.equal(threefry(k0!, k1!, c0!, c1!), want);
});

const N = 200_003;
const key = new Uint32Array([0xdeadbeef, 42]);
async function draw(dist: 'normal' | 'uniform', stream: number, n = N) {
  const l = random(caps, { n, dist, stream, access: 'read' });
  await validate(l.dispatches[0]!.label, l.dispatches[0]!.wgsl);
  return new Float32Array((await launch(l, [key], [4 * n]))[0]!);
}
const moment = (x: Float32Array, k: number) => x.reduce((s, v) => s + v ** k, 0) / x.length;

test('uniform: exact, in [0, 1), flat', async () => {
  const x = await draw('uniform', 7);
  for (let i = 0; i < N; i++) assert.is(x[i], (threefry(key[0]!, key[1]!, i, 7)[0] >>> 8) * 2 ** -24);
  assert.ok(Math.abs(moment(x, 1) - 0.5) < 0.003 && Math.abs(moment(x, 2) - 1 / 3) < 0.003);
});

test('normal: Box-Muller of the same words, standard moments', async () => {
  const x = await draw('normal', 3);
  for (let i = 0; i < 2000; i++) {
    const [a, b] = threefry(key[0]!, key[1]!, i, 3);
    const want = Math.sqrt(-2 * Math.log(((a >>> 8) + 1) * 2 ** -24)) * Math.cos(2 * Math.PI * (b >>> 8) * 2 ** -24);
    assert.ok(Math.abs(x[i]! - want) < 1e-4, `${i}: ${x[i]} for ${want}`);
  }
  assert.ok(Math.abs(moment(x, 1)) < 0.01 && Math.abs(moment(x, 2) - 1) < 0.015);
  assert.ok(Math.abs(moment(x, 3)) < 0.04 && Math.abs(moment(x, 4) - 3) < 0.1);
});

test('the same key and stream give the same bits, another stream others', async () => {
  const [a, b, c] = [await draw('normal', 0, 1000), await draw('normal', 0, 1000), await draw('normal', 1, 1000)];
  assert.equal(a, b);
  assert.not.equal(a, c);
});

test.run();
