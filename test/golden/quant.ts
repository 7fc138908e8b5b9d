/** Reference cases of quantised weights: GGUF's types and files, eight-bit floats with and without scales, and the networks on them. */
import { join } from 'node:path';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { ditConfig } from '../../model/config.ts';
import { DIT_NAMES } from '../../model/files/checkpoint.ts';
import { checkFit } from '../../model/files/load.ts';
import { inOwnNames, transformersUMT5 } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { packedAs, type StoredType } from '../../model/files/stored.ts';
import { uploadWeights } from '../../model/files/upload.ts';
import type { Weights } from '../../model/files/weights.ts';
import { fromF8E4M3, fromF8E5M2 } from '../../model/halves.ts';
import { unpack } from '../../model/packed.ts';
import type { Params } from '../../model/params.ts';
import { umt5Config } from '../../model/umt5/config.ts';
import { relativeBuckets, umt5, umt5Shapes } from '../../model/umt5/umt5.ts';
import { dit, ditShapes } from '../../model/wan/dit.ts';
import { ditTables, timeEmbedding, tokenGrid } from '../../model/wan/tables.ts';
import { Skip, type Executor, type Traced } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';
import { prefixLengths } from './ops.ts';

type Got = Record<string, HostTensor>;

async function opened<T>(path: string, use: (w: Weights) => Promise<T>): Promise<T> {
  const weights = await openWeights(path);
  try {
    return await use(weights);
  } finally {
    await weights.close();
  }
}

const fail = (note: string): Verdict => ({ status: 'fail', note });

/** Blocks and values of a type, the same bytes in a file of ggml's, and a product on the device as they lie. */
export async function ggufCase(fixture: Fixture, c: Case, { device }: Executor): Promise<Verdict> {
  const path = join(fixture.folder, c['gguf'] as string);
  if (c.op === 'gguf_plain')
    return opened(path, async (w) => {
      const got: Got = {};
      for (const name of fixture.expected(c.name)) {
        const t = await w.tensor(name);
        const { shape } = fixture.get(`${c.name}/${name}`);
        got[name] = { ...t, shape: t.data.length === fixture.get(`${c.name}/${name}`).data.length ? shape : t.shape };
      }
      return judge(fixture, c.name, got);
    });
  const type = c['type'] as StoredType;
  const bytes = Uint8Array.from(fixture.get(`${c.name}/in/blocks`).data);
  const dtype = packedAs(type);
  return opened(path, async (w) => {
    const own = await w.read(c['tensor'] as string);
    const stored = new Uint8Array(own.buffer, own.byteOffset, own.byteLength);
    if (stored.length !== bytes.length || stored.some((b, i) => b !== bytes[i])) return fail(`${path} has other bytes`);
    const shape = c['shape'] as number[];
    const weight = host(dtype ? unpack(dtype, bytes) : (await w.tensor(c['tensor'] as string)).data, shape);
    const got: Got = { 'out/weight': weight };
    if (c.op === 'gguf_matmul') {
      if (!device) throw new Skip('packed matrices are multiplied on a device');
      const program = device.compile((x: Tensor, w: Tensor) => x.matmul(w, { transB: true }));
      const packed = dtype ? device.tensor(bytes, shape, dtype) : device.tensor(weight.data, shape);
      const y = await program(fixture.get(`${c.name}/in/x`), packed);
      got['out/y'] = host(await y.read(), y.shape);
      await program.free();
      packed.free();
    }
    return judge(fixture, c.name, got);
  });
}

/** Every code of an eight-bit float, and a matrix of them that the fixture's reader has read. */
export async function eightBitCase(fixture: Fixture, c: Case): Promise<Verdict> {
  if (c.op !== 'fp8_decode') throw new Skip('a case of how other programs round');
  const { data, shape } = fixture.get(`${c.name}/in/bytes`);
  const values = c['dtype'] === 'F8_E4M3' ? fromF8E4M3 : fromF8E5M2;
  return judge(fixture, c.name, {
    'out/value': host(values(Uint8Array.from(data)), shape),
    'out/matrix': fixture.get(`${c.name}/in/matrix`),
  });
}

/** Values under our names, and what a model makes of them where they lie as stored. */
async function valuesAnd<I>(
  { device }: Executor,
  weights: Weights,
  expected: readonly string[],
  input: I,
  forward: (params: Params, input: Traced<I>) => Tensor,
): Promise<{ got: Got; y?: HostTensor }> {
  const got: Got = {};
  for (const name of expected) if (weights.entries.has(name.slice(4))) got[name] = await weights.tensor(name.slice(4));
  if (!device) return { got };
  const params = await uploadWeights(device, weights);
  const program = device.compile(forward);
  try {
    const y = await program(params, input as never);
    return { got, y: host(await y.read(), y.shape) };
  } finally {
    await program.free();
    for (const t of Object.values(params)) t.free();
  }
}

export async function scaledCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const config = ditConfig({ ...fixture.entry.config });
  const { 'x.0': x, 'context.0': context, t } = fixture.under('common/in/') as Record<string, HostTensor>;
  const text = new Float32Array(config.text_len * config.text_dim);
  text.set(context!.data);
  return opened(join(fixture.folder, c['file'] as string), async (file) => {
    const weights = inOwnNames(file, ditShapes(config), DIT_NAMES);
    checkFit(weights, ditShapes(config));
    const input = {
      x: host(x!.data, [1, ...x!.shape]),
      tEmb: timeEmbedding([...t!.data], config.freq_dim),
      context: host(text, [1, config.text_len, config.text_dim]),
      tables: ditTables(config, [tokenGrid(config, x!.shape)]),
    };
    const { got, y } = await valuesAnd(
      executor,
      weights,
      fixture.expected(c.name),
      input,
      (params, given) => dit(params, config, given).v as Tensor,
    );
    if (!y) throw new Skip('packed matrices are multiplied on a device');
    return judge(fixture, c.name, { ...got, 'out/y.0': host(y.data, y.shape.slice(1)) });
  });
}

export async function encoderCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const config = umt5Config(fixture.entry.config);
  const ids = fixture.get(`${c.name}/in/ids`);
  return opened(join(fixture.folder, c['file'] as string), async (file) => {
    const weights = inOwnNames(file, umt5Shapes(config), [transformersUMT5]);
    checkFit(weights, umt5Shapes(config));
    const { data } = await weights.rows('token_embedding.weight', [...ids.data]);
    const context = {
      lengths: prefixLengths(fixture.get(`${c.name}/in/mask`))!,
      buckets: relativeBuckets(ids.shape[1]!, config),
    };
    const input = { x: host(data, [...ids.shape, config.dim]), context };
    const { got, y } = await valuesAnd(executor, weights, fixture.expected(c.name), input, (params, given) =>
      umt5(params, config, given.x, given.context),
    );
    if (!y) throw new Skip('packed matrices are multiplied on a device');
    return judge(fixture, c.name, { ...got, 'out/hidden': y });
  });
}
