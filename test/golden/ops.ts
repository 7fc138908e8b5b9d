/** Reference cases of single ops: outputs and gradients, found in the op table. */
import { EngineError } from '../../engine/host/errors.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { resizeTables } from '../../model/clip/resize.ts';
import { rotaryTables } from '../../model/wan/tables.ts';
import { Skip, type Executor } from './executor.ts';
import { judge, type Attrs, type Case, type Fixture, type Verdict } from './format.ts';
import { goldenOp, strictly, type GoldenOp, type Named } from './optable.ts';

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
  if (c.op === 'upsample' && c.attrs!['mode'] === 'bicubic') {
    const from = inputs['x']!.shape.slice(2) as [number, number];
    const { size, scale } = c.attrs!;
    return { ...resizeTables(from, size ?? from.map((n, i) => Math.floor(n * scale[i]))) };
  }
  const keep = inputs['keep'];
  if (c.op !== 'attention' || !keep || keep.shape[1] !== 1 || keep.shape[2] !== 1) return {};
  const lengths = prefixLengths(keep);
  return lengths ? { lengths } : {};
}

/** What the op of a case gives: its outputs and gradients, named as `Fixture.expected` names them. */
export function runOp(
  fixture: Fixture,
  c: Case,
  executor: Executor,
  op: GoldenOp | undefined = goldenOp(c.op!),
): Promise<Record<string, HostTensor>> {
  if (!op) throw new Skip(`op ${c.op} is not in the table`);
  const inputNames = (c['inputs'] as string[] | undefined)?.map((n) => n.slice(`${c.name}/in/`.length));
  const attrs: Attrs = c.attrs ?? {};
  const inputs = fixture.under(`${c.name}/in/`);
  const wanted = fixture
    .expected(c.name)
    .filter((n) => n.startsWith('grad/'))
    .map((n) => n.slice(5));
  const model = ({ x, gout }: { x: Named; gout: Named }): Named => {
    const result = op(x, attrs, inputNames);
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

/** Whatever the format can say of an op is run, or refused in one line. */
export async function opCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const op = goldenOp(c.op!);
  try {
    return judge(fixture, c.name, await runOp(fixture, c, executor, op && strictly(c.op!, op)));
  } catch (error) {
    // An operand or an attribute that the op cannot do without.
    const lacks =
      error instanceof TypeError || (error instanceof EngineError && error.message.includes('got undefined'));
    if (lacks) throw new Skip(`${c.op} of ${JSON.stringify(c.attrs ?? {})}: ${error.message}`);
    throw error;
  }
}
