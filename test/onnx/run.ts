/** ONNX's operator cases, each a folder with a model, inputs and outputs: run, and judged by ONNX's own tolerances. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { flatten, host, type HostTensor } from '../../engine/frontend/tree.ts';
import { oracle, Skip, type Executor } from '../golden/executor.ts';
import { Call, dtypeFor, Unsupported, type OnnxOps } from './call.ts';
import { ELEMENTWISE } from './ops/elementwise.ts';
import { LAYERS } from './ops/layers.ts';
import { OTHERS } from './ops/others.ts';
import { REDUCTIONS } from './ops/reductions.ts';
import { SHAPES } from './ops/shapes.ts';
import { readModel, readTensor, type ElementType, type Model, type TensorProto } from './proto.ts';

/** Where Debian's libonnx-testdata puts them. */
export const DATA = '/usr/share/libonnx-testdata/data';
export const installed = (): boolean => existsSync(join(DATA, 'node'));

const OPS: OnnxOps = { ...ELEMENTWISE, ...REDUCTIONS, ...SHAPES, ...LAYERS, ...OTHERS };

/** Cases whose expected values are not those of their model. */
const MISTAKEN: Record<string, string> = {
  'node/test_adam_multiple': 'its values were made with an epsilon of 1e-2, which the model does not carry',
};

/** Cases that are ties in exact arithmetic, whose expected values are those of f32's: the oracle's doubles give others. */
const TIES = ['node/test_dynamicquantizelinear', 'node/test_dynamicquantizelinear_expanded'];

/** Of ONNX's own runner. */
const RTOL = 1e-3;
const ATOL = 1e-7;

export interface Result {
  name: string;
  /** The last operator of the model. */
  op: string;
  status: 'passed' | 'failed' | 'unsupported';
  note: string;
}

/** `node/test_abs`, …: every case there is. */
export const cases = (data = DATA): string[] =>
  ['node', 'pytorch-operator', 'pytorch-converted', 'simple'].flatMap((group) =>
    readdirSync(join(data, group))
      .sort()
      .map((name) => `${group}/${name}`),
  );

/** Widths of whole numbers that wrap sooner than the engine's. */
const NARROW: Partial<Record<ElementType, number>> = { int8: 8, uint8: 8, int16: 16, uint16: 16 };

const F32 = 3.4028234663852886e38;

function toHost({ type, shape, data, name }: TensorProto): HostTensor {
  const dtype = dtypeFor(type);
  const [lo, hi] = dtype === 'i32' ? [-(2 ** 31), 2 ** 31 - 1] : dtype === 'u32' ? [0, 2 ** 32 - 1] : [-F32, F32];
  const beyond = data.find((v) => Number.isFinite(v) && (v < lo || v > hi));
  if (beyond !== undefined) throw new Unsupported(`${beyond} in ${name} does not fit ${dtype}`);
  return host(data, shape, dtype === 'f16' ? 'f32' : dtype);
}

function readSet(folder: string, kind: 'input' | 'output', count: number): TensorProto[] {
  return Array.from({ length: count }, (_, i) => {
    const path = join(folder, `${kind}_${i}.pb`);
    if (!existsSync(path)) throw new Unsupported(`${kind} ${i} is not there`);
    return readTensor(readFileSync(path));
  });
}

/** A model as a function of its inputs, by name; those in `halves` are f16, which comes in and goes out as f32. */
function express(
  model: Model,
  values: Record<string, HostTensor>,
  halves: ReadonlySet<string>,
  wanted: readonly string[],
) {
  return (inputs: Record<string, Tensor>): Record<string, Tensor> => {
    const made = new Map(Object.entries(inputs).map(([n, t]) => [n, halves.has(n) ? t.cast('f16') : t]));
    const known = flatten<HostTensor>(values).leaves;
    for (const node of model.nodes) {
      if (node.outputs.every((name) => made.has(name))) continue;
      const op = node.domain === '' || node.domain === 'ai.onnx.preview.training' ? OPS[node.op] : undefined;
      if (!op || [...node.attributes.values()].some((a) => a.graph)) throw new Unsupported('not in the table');
      const operands = node.inputs.map((name) => (name ? made.get(name) : undefined));
      const result = op(new Call(node, model.opset, operands, known));
      const outs = Array.isArray(result) ? (result as readonly (Tensor | undefined)[]) : [result as Tensor];
      node.outputs.forEach((name, i) => {
        if (name && outs[i]) made.set(name, outs[i]);
      });
    }
    return Object.fromEntries(
      wanted.map((name) => {
        const t = made.get(name);
        if (!t) throw new Unsupported(`output ${name} is not made`);
        return [name, t.dtype === 'f16' ? t.cast('f32') : t];
      }),
    );
  };
}

/** Why these are not the expected values; undefined where they are. */
function differs(got: HostTensor, want: TensorProto): string | undefined {
  if (String(got.shape) !== String(want.shape)) return `shape [${got.shape.join()}], expected [${want.shape.join()}]`;
  const wraps = 2 ** (NARROW[want.type] ?? 32);
  const exact = dtypeFor(want.type) === 'i32' || dtypeFor(want.type) === 'u32';
  const at = want.data.findIndex((e, i) => {
    const v = got.data[i]!;
    if (Object.is(e, v) || e === v) return false;
    if (exact) return (v - e) % wraps !== 0;
    return !(Math.abs(v - e) <= ATOL + RTOL * Math.abs(e));
  });
  return at < 0 ? undefined : `element ${at} is ${got.data[at]}, expected ${want.data[at]}`;
}

async function judge(
  name: string,
  model: Model,
  executor: Executor,
  data: string,
): Promise<Omit<Result, 'name' | 'op'>> {
  const folder = join(data, name);
  const odd = [...model.inputs, ...model.outputs].find((v) => !v.type);
  if (odd) throw new Unsupported('a value that is no tensor');
  for (const v of [...model.inputs, ...model.outputs]) dtypeFor(v.type!);
  const outputs = model.outputs.map((v) => v.name);
  const sets = readdirSync(folder).filter((n) => n.startsWith('test_data_set_'));
  for (const set of sets) {
    const constants = new Map(model.initializers.map((t) => [t.name, t]));
    const free = model.inputs.filter((v) => !constants.has(v.name));
    const given = readSet(join(folder, set), 'input', free.length);
    free.forEach((v, i) => constants.set(v.name, given[i]!));
    const expected = readSet(join(folder, set), 'output', model.outputs.length);
    for (const n of model.nodes) {
      const t = n.op === 'Constant' ? n.attributes.get('value')?.t : undefined;
      if (t) constants.set(n.outputs[0]!, t);
    }
    const values = Object.fromEntries([...constants].map(([n, t]) => [n, toHost(t)]));
    expected.forEach(toHost);
    const halves = new Set([...constants].filter(([, t]) => t.type === 'float16').map(([n]) => n));
    if (Object.values(values).some((t) => t.data.length === 0) || expected.some((t) => t.shape.includes(0)))
      throw new Unsupported('a tensor without elements');
    const got = await executor.run(express(model, values, halves, outputs), values);
    for (const [i, n] of outputs.entries()) {
      const why = differs(got[n]!, expected[i]!);
      if (why) return { status: 'failed', note: `${n}: ${why}` };
    }
  }
  return sets.length ? { status: 'passed', note: '' } : { status: 'unsupported', note: 'there is no data' };
}

/** Runs one case. */
export async function runCase(name: string, executor: Executor, data = DATA): Promise<Result> {
  const model = readModel(readFileSync(join(data, name, 'model.onnx')));
  const op = model.nodes.find((n) => !OPS[n.op])?.op ?? model.nodes.at(-1)?.op ?? 'nothing';
  try {
    const result = await judge(name, model, executor, data);
    const mistaken = executor === oracle && TIES.includes(name) ? 'a tie that f32 decides' : MISTAKEN[name];
    if (result.status === 'failed' && mistaken) return { name, op, status: 'unsupported', note: mistaken };
    return { name, op, ...result };
  } catch (error) {
    if (error instanceof Unsupported || error instanceof Skip)
      return { name, op, status: 'unsupported', note: error.message };
    return { name, op, status: 'failed', note: (error as Error).stack ?? String(error) };
  }
}
