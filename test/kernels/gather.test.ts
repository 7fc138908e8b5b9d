/** Gather and its ordered scatter-add against plain loops, ids out of range included. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { gather, scatterAdd } from '../../kernels/gather/index.ts';
import { launch, openTest, validate } from './harness.ts';

const { caps } = await openTest();
const rows = 13,
  width = 37,
  count = 101;
const table = Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i));
const src = Float32Array.from({ length: count * width }, (_, i) => Math.cos(i));

for (const idsDtype of ['i32', 'u32'] as const) {
  const numbers = Array.from({ length: count }, (_, i) => (i === 5 ? rows : i === 6 ? -1 : (i * 7) % rows));
  const ids = idsDtype === 'i32' ? new Int32Array(numbers) : new Uint32Array(numbers);
  const problem = { ids: count, rows, width, idsDtype, access: 'read' as const };

  test(`gather ${idsDtype}`, async () => {
    const l = gather(caps, problem);
    await validate(l.dispatches[0]!.label, l.dispatches[0]!.wgsl);
    const [out] = await launch(l, [table, ids], [4 * count * width]);
    const want = Float32Array.from(
      { length: count * width },
      (_, i) => table[ids[Math.floor(i / width)]! * width + (i % width)] ?? 0,
    );
    want.fill(0, 5 * width, 7 * width);
    assert.equal(new Float32Array(out!), want);
  });

  test(`scatterAdd ${idsDtype}`, async () => {
    const l = scatterAdd(caps, problem);
    await validate(l.dispatches[0]!.label, l.dispatches[0]!.wgsl);
    const want = new Float32Array(rows * width);
    ids.forEach((id, k) => {
      if (id >= rows || id < 0) return;
      for (let c = 0; c < width; c++) want[id * width + c]! += src[k * width + c]!;
    });
    const [first] = await launch(l, [ids, src], [want.byteLength]);
    assert.equal(new Float32Array(first!), want, 'ascending order: the same f32 sums as a plain loop');
  });
}

test.run();
