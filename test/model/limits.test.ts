/** A binding limit below the largest activation: the feed-forward goes in parts, with the answers of a device without it. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Params } from '../../model/params.ts';
import { forwardFunctions, networkOf, WholeForward, type Told } from '../../model/pipeline/forward.ts';
import { dit } from '../../model/wan/dit.ts';
import { ditTables, tokenGrid } from '../../model/wan/tables.ts';
import { noise, scrambledDiT, tinyDiT } from './tiny.ts';

const LIMIT = 10_000;

test('a lowered binding limit is met by parts', async () => {
  const device = await open();
  const tight = Object.create(device) as typeof device;
  Object.assign(tight, { caps: { ...device.caps, maxBindingBytes: LIMIT } });
  const config = tinyDiT({ model_type: 't2v', in_dim: 4, ffn_dim: 96, num_layers: 1 });
  const latent = [1, 4, 2, 8, 8];
  const [x, tEmb, context] = [
    noise('x', latent),
    noise('t', [1, config.freq_dim]),
    noise('text', [1, config.text_len, config.text_dim]),
  ];
  const on = (d: typeof device) => {
    const upload = (t: HostTensor): NDArray => d.tensor(t.data, t.shape, t.dtype);
    const told = { tables: mapTree(upload, ditTables(config, [tokenGrid(config, latent)])) } as unknown as Told;
    return { upload, told, weights: mapTree(upload, scrambledDiT(config)) as unknown as Record<string, NDArray> };
  };
  const roomy = on(device);
  const { upload, told, weights } = on(tight);

  const whole = device.compile(
    (p: Params, x: Tensor, tEmb: Tensor, context: Tensor, t: Told<Tensor>) =>
      dit(p, config, { x, tEmb, context, ...t }).v as Tensor,
    { name: 'whole' },
  );
  const { largest } = await whole.plan(roomy.weights, x, tEmb, context, roomy.told);
  assert.is(largest!.bytes, 4 * 32 * 96, 'the hidden layer of 32 tokens is what is over the limit');
  const want = await (await whole(roomy.weights, x, tEmb, context, roomy.told)).read();
  const forward = new WholeForward(tight, forwardFunctions(config, LIMIT));
  const got = await (await forward.run(networkOf(weights), upload(x), tEmb, upload(context), told)).read();
  want.forEach((v, i) => assert.ok(Math.abs(v - got[i]!) <= 1e-5 * (1 + Math.abs(v)), `${i}: ${got[i]} for ${v}`));
});

test.run();
