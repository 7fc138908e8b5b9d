/** Work in small pieces: parts cover a grid, give the bits of the whole, and are cut by what they turn out to take. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { attention, conv3d, normal } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { host } from '../../engine/frontend/tree.ts';
import { Cuts } from '../../engine/runtime/cuts.ts';
import { open } from '../../engine/runtime/device.ts';
import { easeSubmits, Pace } from '../../engine/runtime/pace.ts';
import { foldGrid, shader, type Dispatch } from '../../kernels/kernel.ts';
import { cuttable, partsOf } from '../../kernels/parts.ts';

const wgsl = shader({
  params: [],
  buffers: [{ name: 'y', type: 'u32', access: 'read_write' }],
  workgroup: [1, 1, 1],
  main: 'let at = (wid.z * nwg.y + wid.y) * nwg.x + wid.x; y[at] = y[at] * 31u + at;',
});
const kernel = (grid: Dispatch['grid'], seconds = 1): Dispatch => {
  return { label: 'one', wgsl, grid, params: [], bind: [0], flops: seconds * 1e12, bytes: 0 };
};
const BEGIN = 1; // behind the word that stands in for no parameters

test('parts cover the grid once, in whole slices of it where these are enough', () => {
  for (const grid of [[7, 1, 1], [5, 3, 1], [4, 3, 2], foldGrid(70_000)] as Dispatch['grid'][])
    for (const count of [1, 2, 3, 7, 20, 1e9]) {
      if (count > 100 && grid[0] > 100) continue;
      const parts = partsOf(cuttable(kernel(grid)), count);
      const all = grid[0] * grid[1] * grid[2];
      assert.ok(parts.length >= Math.min(count, all), `${grid.join()} in ${count}: ${parts.length}`);
      const seen = new Set<string>();
      let total = 0;
      for (const p of parts) {
        assert.equal(p.params.slice(BEGIN + 3), grid);
        seen.add(p.params.slice(BEGIN, BEGIN + 3).join());
        total += p.grid[0] * p.grid[1] * p.grid[2];
      }
      assert.equal([seen.size, total], [parts.length, all]);
      assert.ok(Math.abs(parts.reduce((sum, p) => sum + p.flops, 0) / 1e12 - 1) < 1e-9);
    }
  assert.equal(
    partsOf(cuttable(kernel([4, 3, 2])), 2).map((p) => p.grid),
    [
      [4, 3, 1],
      [4, 3, 1],
    ],
  );
});

const network = (x: Tensor, w: Tensor, key: Tensor) => {
  const h = x.matmul(w, { transB: true }).layerNorm().add(normal(key, x.shape));
  const q = h.reshape([1, 48, 2, 32]);
  const o = attention(q, q.mul(2), q.mul(3)).reshape([1, 64, 3, 4, 4]);
  const y = conv3d(o, w.slice(0, 0, 27).reshape([1, 64, 3, 3, 3]));
  const loss = y.square().sum().add(o.sum());
  return { loss, y, top: h.topK(3).values, grads: vjp(loss, loss.like(1), [x, w]) };
};

test('every kernel of a program in single workgroups gives the bits of the whole', async () => {
  const args = [
    host(
      Float32Array.from({ length: 48 * 64 }, (_, i) => Math.sin(i)),
      [48, 64],
    ),
    host(
      Float32Array.from({ length: 64 * 64 }, (_, i) => Math.cos(i * 1.3) / 8),
      [64, 64],
    ),
    host(Uint32Array.of(1, 2), [2], 'u32'),
  ] as const;
  const results: Uint32Array[][] = [];
  const counts: number[] = [];
  for (const limit of [undefined, 1e-9]) {
    const device = await open();
    if (limit) device.pace.limit = limit;
    const fn = device.compile(network);
    for (let run = 0; run < 3; run++) {
      const before = device.counters.dispatches;
      const { loss, y, top, grads } = await fn(...args);
      const read = await Promise.all([loss, y, top, ...grads].map((t) => t.read()));
      results.push(read.map((r) => new Uint32Array(r.buffer)));
      counts.push(device.counters.dispatches - before);
    }
    await fn.free();
    assert.is(device.allocated, 0);
    device.close();
  }
  for (const other of results.slice(1)) assert.equal(other, results[0]);
  assert.ok(counts[3]! > 3 * counts[0]!, `${counts.join()} dispatches`);
});

test('submits hold what the limit lets, and long kernels are cut', () => {
  const pace = new Pace('software');
  pace.limit = 0.1;
  const cuts = new Cuts(
    [[kernel([100, 1, 1], 0.35)], [kernel([4, 1, 1], 0.04)], [kernel([4, 1, 1], 0.05), kernel([4, 1, 1], 0.04)]],
    pace,
  );
  assert.ok(cuts.cut());
  assert.equal(cuts.firsts, [0, 4, 5, 7]);
  const submits: number[] = [];
  for (let at = 0; at < cuts.steps.length; at = cuts.endOf(at, cuts.steps.length)) submits.push(at);
  assert.equal(submits, [0, 1, 2, 3, 4, 6]);
  pace.limit = Infinity;
  const whole = new Cuts([Array.from({ length: 300 }, () => kernel([100, 1, 1], 10))], pace);
  assert.is(whole.cut(), undefined, 'nothing is cut where nothing watches');
  assert.equal([whole.endOf(0, 300), whole.endOf(256, 300)], [256, 300]);
  assert.is(whole.watch(), undefined);
});

test('what a run took is how the next is cut, and how new programs are', async () => {
  const pace = new Pace('software');
  pace.limit = 0.1;
  const cuts = new Cuts([[kernel([100, 1, 1], 0.1), kernel([100, 1, 1], 0.001)]], pace);
  cuts.cut();
  assert.is(cuts.steps.length, 3);
  const run = async (...seconds: number[]) => {
    const watch = cuts.watch()!;
    seconds.forEach((s, i) => watch.add([cuts.steps[i]!], Promise.resolve(s)));
    await cuts.learn(watch);
  };
  await run(0.39, 0.39, 0.008);
  assert.ok(cuts.miscut, 'eight times as slow');
  cuts.cut();
  assert.is(cuts.steps.filter((s) => s.whole === 0).length, 8);
  assert.ok(pace.predict(kernel([1, 1, 1])) > 2, 'other programs are taken for slow as well');
  await run(...Array<number>(9).fill(0.005));
  assert.ok(cuts.miscut, 'parts are far too short');
  cuts.cut();
  assert.is(cuts.steps.length, 2);
  const lost = cuts.watch()!;
  lost.add(cuts.steps, Promise.reject(new Error('lost')));
  await cuts.learn(lost);
  assert.not(cuts.miscut);
});

test('after a lost device work goes in smaller pieces', () => {
  const before = new Pace('gpu').limit;
  easeSubmits();
  assert.is(new Pace('gpu').limit, before / 4);
  for (let i = 0; i < 5; i++) easeSubmits();
  assert.is(new Pace('gpu').limit, before / 64);
  assert.is(new Pace('software').limit, Infinity);
});

test.run();
