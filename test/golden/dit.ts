/** Reference cases of the DiT, text- and image-to-video, with one time or one for each token: outputs, intermediates, gradients. */
import { concat, stack } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { ditConfig, type DiTConfig } from '../../model/config.ts';
import { imagesOf } from '../../model/files/configs.ts';
import { dit, type Samples } from '../../model/wan/dit.ts';
import { ditTables, timeEmbedding, tokenGrid, type DiTTables } from '../../model/wan/tables.ts';
import type { Executor } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';

interface Inputs<T> {
  weights: Record<string, T>;
  x: readonly T[];
  y: readonly T[] | undefined;
  gout: readonly T[];
  /** [B, text_len, text_dim]. */
  context: T;
  imageTokens: T | undefined;
  tEmb: T;
  tables: DiTTables<T>;
}

/** Texts of several lengths as one zero-padded [B, length, dim]. */
function padded(texts: readonly HostTensor[], length: number): HostTensor {
  const dim = texts[0]!.shape[1]!;
  const data = new Float32Array(texts.length * length * dim);
  texts.forEach((t, b) => data.set(t.data, b * length * dim));
  return host(data, [texts.length, length, dim]);
}

function inputsOf(fixture: Fixture, c: Case, config: DiTConfig): Inputs<HostTensor> {
  const given = fixture.under(`${c.name}/in/`);
  const t = given['t']!;
  const list = (name: string) => Array.from({ length: t.shape[0]! }, (_, b) => given[`${name}.${b}`]!);
  const angles = timeEmbedding([...t.data], config.freq_dim);
  const x = list('x');
  return {
    weights: fixture.weights(),
    x,
    gout: list('gout'),
    y: given['y.0'] && list('y'),
    context: padded(list('context'), config.text_len),
    imageTokens: given['clip_fea'],
    tEmb: { ...angles, shape: [...t.shape, config.freq_dim] },
    tables: ditTables(
      config,
      x.map((s) => tokenGrid(config, s.shape)),
      c['seq_len'] as number,
    ),
  };
}

export async function ditCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const config = imagesOf(
    ditConfig({
      ...fixture.entry.config,
      ...(c['text_len'] && { text_len: c['text_len'] as number }),
      checkpoint: true,
    }),
    [...fixture.tensors.keys()],
  );
  const inputs = inputsOf(fixture, c, config);
  const expected = fixture.expected(c.name);
  const lengths = inputs.x.map((_, b) => fixture.get(`${c.name}/in/context.${b}`).shape[0]!);
  // Samples of one size go in as one batch, others as a list.
  const alike = inputs.x.every((s) => String(s.shape) === String(inputs.x[0]!.shape));
  const samples = (list: readonly Tensor[]): Samples => (alike ? stack(list, 0) : list);

  const model = ({
    weights,
    x,
    y,
    gout,
    context,
    imageTokens,
    tEmb,
    tables,
  }: Inputs<Tensor>): Record<string, Tensor> => {
    const out: Record<string, Tensor> = {};
    const { v } = dit(
      weights,
      config,
      { x: samples(x), tEmb, context, imageTokens, tables, ...(y && { y: samples(y) }) },
      {
        probe: (name, value) => {
          const split = name === 'e0' && value.shape.length === 3; // of every token, the reference has its six parts apart
          out[`out/${name}`] = split ? value.reshape([...value.shape.slice(0, 2), 6, config.dim]) : value;
        },
      },
    );
    const each = Array.isArray(v) ? (v as Tensor[]) : (v as Tensor).split(0, x.length).map((s) => s.squeeze(0));
    each.forEach((s, b) => {
      out[`out/y.${b}`] = s;
    });
    out['out/loss'] = concat(
      each.map((s, b) => s.mul(gout[b]!).reshape([-1])),
      0,
    ).sum();
    const grads = vjp(each, gout, { weights, x, y, context, imageTokens });
    for (const [name, g] of Object.entries(grads.weights)) out[`grad/w/${name}`] = g;
    x.forEach((_, b) => {
      out[`grad/x.${b}`] = grads.x[b]!;
      if (grads.y) out[`grad/y.${b}`] = grads.y[b]!;
      out[`grad/context.${b}`] = grads.context
        .slice(0, b, b + 1)
        .squeeze(0)
        .slice(0, 0, lengths[b]);
    });
    if (grads.imageTokens) out['grad/clip_fea'] = grads.imageTokens;
    return Object.fromEntries(expected.filter((n) => out[n]).map((n) => [n, out[n]!]));
  };
  const got = await executor.run(model, inputs);
  return judge(fixture, c.name, { ...got, 'out/sinusoid': inputs.tEmb });
}
