/** Adapters and discriminator heads in the float64 oracle. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { ditConfig } from '../../model/config.ts';
import { head, headShapes, headSpecs, initHead, semanticLengths, type HeadConfig } from '../../model/heads.ts';
import { initLora, loraSpecs, mergeLora, withLora } from '../../model/lora.ts';
import { Scope, type HostParams } from '../../model/params.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise, scrambled } from './tiny.ts';

const shapes = { 'blocks.0.ffn.0.weight': [6, 4], 'blocks.0.ffn.0.bias': [6], 'blocks.0.other.weight': [6, 4] };
const base: HostParams = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, noise(name, shape)]));
const x = noise('x', [2, 3, 4]);

test('targets of a Wan DiT: the attention projections and the feed-forward', () => {
  const wan = {
    model_type: 't2v',
    patch_size: [1, 2, 2],
    text_len: 512,
    freq_dim: 256,
    text_dim: 4096,
    in_dim: 16,
    out_dim: 16,
  };
  const size = (c: object) =>
    Object.values(loraSpecs(ditShapes(ditConfig({ ...wan, ...c })), 1)).reduce(
      (n, { shape }) => n + shape[0]! * shape[1]!,
      0,
    );
  assert.is(size({ dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30 }), 1_367_040);
  assert.is(size({ dim: 192, ffn_dim: 768, num_heads: 6, num_layers: 8 }), 39_936);
  assert.throws(() => loraSpecs(shapes, 0), /rank/);
  assert.throws(() => loraSpecs(shapes, 2, /nothing/), /no linear among 3 weights fits/);
});

test('an adapter starts as nothing, and its first gradient goes to B', async () => {
  const lora = initLora(shapes, 2, 7);
  assert.equal(Object.keys(lora), ['blocks.0.ffn.0.lora_A.weight', 'blocks.0.ffn.0.lora_B.weight']);
  const { plain, adapted, a, b } = await oracle.run(
    ({ base, lora, x }) => {
      const adapted = withLora(base, lora, 0.5).scope('blocks').scope(0).linear('ffn.0', x);
      const [a, b] = vjp(adapted, adapted, [
        lora['blocks.0.ffn.0.lora_A.weight']!,
        lora['blocks.0.ffn.0.lora_B.weight']!,
      ]);
      return { plain: new Scope(base, 'blocks.0').linear('ffn.0', x), adapted, a: a!, b: b! };
    },
    { base, lora, x },
  );
  assert.is(largest(plain!, adapted!), 0);
  assert.ok(a!.data.every((v) => v === 0) && b!.data.every((v) => v !== 0));
});

test('merged weights do what base and adapter do', async () => {
  const lora = scrambled(loraSpecs(shapes, 2), 1);
  const merged = mergeLora(base, lora, 0.75);
  const { adapted, alone } = await oracle.run(
    ({ base, lora, merged, x }) => ({
      adapted: withLora(base, lora, 0.75).linear('blocks.0.ffn.0', x),
      alone: Scope.of(merged).linear('blocks.0.ffn.0', x),
    }),
    { base, lora, merged, x },
  );
  assert.ok(largest(adapted!, alone!) < 1e-5);
  assert.is(merged['blocks.0.other.weight'], base['blocks.0.other.weight']);
  assert.throws(() => mergeLora({}, lora, 1), /"blocks\.0\.ffn\.0\.weight" in the base/);
});

const config: HeadConfig = {
  kind: 'semantic',
  taps: 3,
  queries: 3,
  input_dim: 12,
  dim: 16,
  head_dim: 8,
  clip_dim: 6,
  text_dim: 5,
  grid: [2, 4, 5],
  checkpoint: false,
};
const taps = [0, 1, 2].map((l) => noise(`tap${l}`, [2, 7, 12]));

async function logits(c: HeadConfig, params: HostParams, context: HostTensor): Promise<HostTensor> {
  const condition = { imageTokens: noise('image', [2, 4, 6]), context, lengths: semanticLengths(c, 4, [2, 3]) };
  return (
    await oracle.run(({ params, taps, condition }) => ({ logit: head(params, c, taps, condition) }), {
      params,
      taps,
      condition,
    })
  )['logit']!;
}

test('a semantic head sees the caption without its padding; a cross head does not see it', async () => {
  const params = scrambled(headSpecs(config), 0.3);
  const context = noise('context', [2, 4, 5]);
  const changed = (from: number) =>
    host(
      context.data.map((v, i) => (i % 20 >= from * 5 ? v + 1 : v)),
      context.shape,
    );
  const before = await logits(config, params, context);
  assert.equal(before.shape, [2]);
  assert.is(largest(before, await logits(config, params, changed(3))), 0);
  assert.ok(largest(before, await logits(config, params, changed(1))) > 1e-4);
  const cross: HeadConfig = { ...config, kind: 'cross' };
  assert.is(largest(await logits(cross, params, context), await logits(cross, params, changed(0))), 0);
});

test('one query may read every tap', async () => {
  const one = { ...config, queries: 1 };
  assert.equal(headShapes(one)['queries'], [1, 16]);
  const params = scrambled(headSpecs(one), 0.3);
  const thrice = host(Array.from({ length: 3 }, () => [...params['queries']!.data]).flat(), [3, 16]);
  // A cross head's queries do not see each other: three that are equal are as good as one.
  const [cross, context] = [{ kind: 'cross' } as const, noise('context', [2, 4, 5])];
  const same = await logits({ ...config, ...cross }, { ...params, queries: thrice }, context);
  assert.ok(largest(await logits({ ...one, ...cross }, params, context), same) < 1e-6);
  assert.equal((await logits(one, params, context)).shape, [2]);
  assert.throws(() => headShapes({ ...config, queries: 2 }), /one for each of 3 taps, or 1 for all, got 2/);
});

test('a semantic head is a cross head plus its self attention; logits start small but not at zero', async () => {
  const names = (kind: HeadConfig['kind']) => Object.keys(headShapes({ ...config, kind }));
  assert.equal(
    names('semantic').filter((n) => !n.startsWith('semantic.')),
    names('cross'),
  );
  const { data } = await logits(config, initHead(config, 1), noise('context', [2, 4, 5]));
  assert.ok(data.every((v) => v !== 0 && Math.abs(v) < 1));
  assert.throws(() => headShapes({ ...config, head_dim: 5 }), /multiple of head_dim 5/);
});

test.run();
