/** Reference cases of single ops: outputs and gradients, found in the op table. */
import { vjp } from '../../engine/frontend/autodiff.ts';
import { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { resizeTables, type Taps } from '../../model/clip/resize.ts';
import { rotaryTables } from '../../model/wan/tables.ts';
import { Skip, type Executor } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';
import { goldenOp, type Named } from './optable.ts';

/** PyTorch's other ways to resize; where none stands here it is the library's own, bicubic. */
const TAPS: Record<string, Taps> = {
  'nearest-exact': (at) => [[Math.floor(at + 0.5), 1]],
  bilinear: (at) => [
    [Math.floor(at), 1 - (at - Math.floor(at))],
    [Math.floor(at) + 1, at - Math.floor(at)],
  ],
};

/** A mask [B,...,L], one row a sample, of ones and then zeros as the count of its ones. */
export function prefixLengths({ data, shape }: HostTensor): HostTensor | undefined {
  const [batch, keys] = [shape[0]!, shape.at(-1)!];
  const rows = Array.from({ length: batch }, (_, b) => Array.from(data.subarray(b * keys, (b + 1) * keys)));
  const lengths = rows.map((row) => row.reduce((a, v) => a + v, 0));
  return rows.every((row, b) => row.every((v, i) => v === (i < lengths[b]! ? 1 : 0)))
    ? host(lengths, [batch], 'u32')
    : undefined;
}

/** What some ops need beside the stored inputs: rotary and resizing tables, and a prefix mask as lengths. */
function extras(c: Case, inputs: Record<string, HostTensor>): Record<string, HostTensor> {
  if (c.op === 'rope3d') {
    const { cos, sin } = rotaryTables(c.attrs!['head_dim'] as number, [
      c.attrs!['grid_thw'] as [number, number, number],
    ]);
    return { cos, sin };
  }
  if (c.op === 'upsample') {
    const from = inputs['x']!.shape.slice(2) as [number, number];
    const { size, scale, mode } = c.attrs!;
    return { ...resizeTables(from, size ?? from.map((n, i) => n * scale[i]), TAPS[mode]) };
  }
  const keep = inputs['keep'];
  if (c.op !== 'attention' || !keep || keep.shape[1] !== 1 || keep.shape[2] !== 1) return {};
  const lengths = prefixLengths(keep);
  return lengths ? { lengths } : {};
}

/** What the op of a case gives: its outputs and gradients, named as `Fixture.expected` names them. */
export function runOp(fixture: Fixture, c: Case, executor: Executor): Promise<Record<string, HostTensor>> {
  const op = goldenOp(c.op!);
  if (!op) throw new Skip(`op ${c.op} is not in the table`);
  const inputNames = (c['inputs'] as string[] | undefined)?.map((n) => n.slice(`${c.name}/in/`.length));
  const attrs = { inputs: inputNames, ...c.attrs };
  const inputs = fixture.under(`${c.name}/in/`);
  const wanted = fixture
    .expected(c.name)
    .filter((n) => n.startsWith('grad/'))
    .map((n) => n.slice(5));
  const model = ({ x, gout }: { x: Named; gout: Named }): Named => {
    const result = op(x, attrs);
    const y: Named = result instanceof Tensor ? { y: result } : result;
    const out: Named = Object.fromEntries(Object.entries(y).map(([name, t]) => [`out/${name}`, t]));
    if (!wanted.length) return out;
    const seeded = Object.keys(gout);
    const grads = vjp(
      seeded.map((n) => y[n]!),
      seeded.map((n) => gout[n]!),
      wanted.map((n) => x[n]!),
    ) as Tensor[];
    wanted.forEach((n, i) => {
      out[`grad/${n}`] = grads[i]!;
    });
    return out;
  };
  return executor.run(model, { x: { ...inputs, ...extras(c, inputs) }, gout: fixture.under(`${c.name}/gout/`) });
}

export const opCase = async (fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> =>
  judge(fixture, c.name, await runOp(fixture, c, executor));
