/** ONNX's operator cases: the reader of their files, and where they are installed those of the ops that go along an axis or slide. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { deviceExecutor } from './golden/executor.ts';
import { readModel, readTensor } from './onnx/proto.ts';
import { cases, DATA, installed, runCase } from './onnx/run.ts';

/** Messages of onnx.proto, written by hand: fields of bytes, of packed and of single numbers. */
const bytes = (field: number, body: readonly number[]): number[] => [(field << 3) | 2, body.length, ...body];
const number = (field: number, ...varint: number[]): number[] => [field << 3, ...varint];
const letters = (s: string): number[] => [...new TextEncoder().encode(s)];

test('tensors are read whichever way their numbers lie', () => {
  const raw = Uint8Array.from([
    ...bytes(1, [2]),
    ...number(2, 7),
    ...bytes(9, [5, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255]),
  ]);
  assert.equal(readTensor(raw), { name: '', shape: [2], type: 'int64', data: [5, -2] });
  const halves = Uint8Array.from([
    ...number(1, 3),
    ...number(2, 10),
    ...bytes(5, [0x80, 0x78, 0x80, 0x80, 0x02, 1]),
    ...bytes(8, letters('h')),
  ]);
  assert.equal(readTensor(halves), { name: 'h', shape: [3], type: 'float16', data: [1, -0, 2 ** -24] });
});

test('models are read, and a damaged one is refused', () => {
  const axis = bytes(5, [...bytes(1, letters('axis')), ...number(3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)]);
  const node = bytes(1, [
    ...bytes(1, letters('x')),
    ...bytes(2, letters('y')),
    ...bytes(4, letters('ArgMax')),
    ...axis,
  ]);
  const type = bytes(2, bytes(1, number(1, 1)));
  const graph = bytes(7, [
    ...node,
    ...bytes(11, [...bytes(1, letters('x')), ...type]),
    ...bytes(12, bytes(1, letters('y'))),
  ]);
  const model = Uint8Array.from([...graph, ...bytes(8, number(2, 13))]);
  const { nodes, inputs, outputs, opset } = readModel(model);
  assert.equal([opset, inputs, outputs], [13, [{ name: 'x', type: 'float' }], [{ name: 'y' }]]);
  assert.is(nodes[0]!.op, 'ArgMax');
  assert.is(nodes[0]!.attributes.get('axis')!.i, -1);
  assert.throws(() => readModel(model.subarray(0, 20)), /field 7 at byte 0 is longer than its message/);
});

const SOME =
  /^node\/test_(argm(ax|in)_(no_)?keepdims_example|top_k|cumsum_1d|cumsum_2d_axis|onehot_with_axis|hardmax_axis|reduce_(prod|min)_do_not.*random|round|logsoftmax_(axis_0|large_number)|maxpool_(1d|2d_dilations|2d_ceil|3d)|averagepool_(2d_ceil|2d_pads|3d)|convtranspose_(dilations|pads|3d)|resize_upsample_scales_linear)/;
if (installed()) {
  const executor = await deviceExecutor();
  for (const name of cases().filter((n) => SOME.test(n) && !n.endsWith('_expanded')))
    test(name, async () => {
      const { status, note } = await runCase(name, executor);
      assert.is(status, 'passed', note);
    });
} else {
  console.log(`ONNX's operator cases were not run: ${DATA} is not there (Debian: libonnx-testdata)`);
}

test.run();
