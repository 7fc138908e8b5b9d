/** Properties of the DiT in the float64 oracle; the numbers themselves are checked against the reference tensors. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { Triple } from '../../engine/frontend/graph.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { ditConfig, vaeConfig, WAN_VAE, type DiTConfig } from '../../model/config.ts';
import { dit, ditShapes, GROUP, initDiT, type DiTInput } from '../../model/wan/dit.ts';
import {
  ditTables,
  rotaryPairs,
  rotaryTables,
  rotate,
  timeEmbedding,
  tokenGrid,
  type DiTTables,
} from '../../model/wan/tables.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise, scrambledDiT, tinyDiT } from './tiny.ts';

interface Sample<T> {
  x: T;
  y: T;
  context: T;
  imageTokens: T;
  tEmb: T;
}

const inputs = (config: DiTConfig, name: string, batch: number, size: Triple) => ({
  x: noise(`${name}.x`, [batch, 4, ...size]),
  y: noise(`${name}.y`, [batch, 8, ...size]),
  context: noise(`${name}.c`, [batch, 3, config.text_dim]),
  imageTokens: noise(`${name}.i`, [batch, 6, config.clip_dim]),
  tEmb: timeEmbedding(
    Array.from({ length: batch }, (_, b) => 100 + 300 * b),
    config.freq_dim,
  ),
});

test('samples of two sizes in one padded batch give what each gives alone', async () => {
  const config = tinyDiT();
  const params = scrambledDiT(config);
  const sizes: Triple[] = [
    [2, 4, 6],
    [3, 2, 4],
  ];
  const alone = sizes.map((size, b) => inputs(config, `s${b}`, 1, size));
  const grids = alone.map((s) => tokenGrid(config, s.x.shape));
  const apart = await Promise.all(
    alone.map((s, b) =>
      oracle.run(
        ({ p, s, tables }: { p: Record<string, Tensor>; s: Sample<Tensor>; tables: DiTTables<Tensor> }) => ({
          v: dit(p, config, { ...s, tables }).v as Tensor,
        }),
        { p: params, s, tables: ditTables(config, [grids[b]!]) },
      ),
    ),
  );
  const together = await oracle.run(
    ({ p, a, b, tables }) => {
      const both = (k: keyof Sample<Tensor>) => [a[k].squeeze(0), b[k].squeeze(0)];
      const rows = (k: keyof Sample<Tensor>) =>
        a[k]
          .pad(
            a[k].shape.map(() => 0),
            a[k].shape.map((_, i) => Number(i === 0)),
          )
          .add(
            b[k].pad(
              b[k].shape.map((_, i) => Number(i === 0)),
              b[k].shape.map(() => 0),
            ),
          );
      const [v0, v1] = dit(p, config, {
        x: both('x'),
        y: both('y'),
        context: rows('context'),
        imageTokens: rows('imageTokens'),
        tEmb: rows('tEmb'),
        tables,
      }).v as Tensor[];
      return { v0: v0!, v1: v1! };
    },
    { p: params, a: alone[0]!, b: alone[1]!, tables: ditTables(config, grids, 20) },
  );
  assert.equal(together['v1']!.shape, [4, 3, 2, 4]);
  assert.ok(largest(together['v0']!, apart[0]!['v']!) < 1e-12);
  assert.ok(largest(together['v1']!, apart[1]!['v']!) < 1e-12);
});

test('checkpointed blocks and a feed-forward in parts give the same tokens and gradients', async () => {
  const size: Triple = [2, 4, 4];
  const run = (changes: Partial<DiTConfig>) => {
    const config = tinyDiT(changes);
    return oracle.run(
      ({ p, s, tables }) => {
        const { v, taps } = dit(p, config, { ...s, tables }, { taps: [config.num_layers - 1, 0] });
        const g = vjp([v as Tensor], [(v as Tensor).sin()], { p, x: s.x });
        return {
          last: taps[0]!,
          first: taps[1]!,
          x: g.x,
          q: g.p['blocks.1.self_attn.q.weight']!,
          modulation: g.p['blocks.0.modulation']!,
        };
      },
      {
        p: scrambledDiT(config),
        s: inputs(config, 'c', 2, size),
        tables: ditTables(config, [tokenGrid(config, size)]),
      },
    );
  };
  const plain = await run({});
  assert.equal(plain['last']!.shape, [2, 8, 24]);
  const deep = { num_layers: GROUP + 2 };
  for (const [one, ...others] of [
    [plain, await run({ checkpoint: true }), await run({ checkpoint: 'lean', ffn_parts: 3 })],
    [await run(deep), await run({ ...deep, checkpoint: 'nested' })],
  ] as const) {
    for (const other of others)
      for (const name of Object.keys(one)) assert.ok(largest(one[name]!, other[name]!) < 1e-12, name);
  }
  assert.ok(largest(plain['last']!, plain['first']!) > 0.1);
});

test('an untrained network predicts zero, and its first values depend on the seed', async () => {
  const config = tinyDiT({ model_type: 't2v', in_dim: 4 });
  const size: Triple = [1, 4, 4];
  const { x, context, tEmb } = inputs(config, 'z', 1, size);
  const { v } = await oracle.run(({ p, s, tables }) => ({ v: dit(p, config, { ...s, tables }).v as Tensor }), {
    p: initDiT(config, 1),
    s: { x, context, tEmb },
    tables: ditTables(config, [tokenGrid(config, size)]),
  });
  assert.ok(v!.data.every((e) => e === 0));
  const name = 'blocks.0.ffn.0.weight';
  assert.equal(initDiT(config, 1)[name], initDiT(config, 1)[name]);
  assert.is.not(initDiT(config, 1)[name]!.data[0], initDiT(config, 2)[name]!.data[0]);
});

test('names and counts of the released networks', () => {
  const wan = { patch_size: [1, 2, 2], text_len: 512, freq_dim: 256, text_dim: 4096, out_dim: 16 };
  const count = (c: DiTConfig) => Object.values(ditShapes(c)).reduce((sum, s) => sum + s.reduce((a, b) => a * b, 1), 0);
  assert.is(
    count(
      ditConfig({ ...wan, model_type: 't2v', in_dim: 16, dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30 }),
    ),
    1_418_996_800,
  );
  assert.is(
    count(
      ditConfig({ ...wan, model_type: 'i2v', in_dim: 36, dim: 5120, ffn_dim: 13824, num_heads: 40, num_layers: 40 }),
    ),
    16_394_878_784,
  );
  assert.is(WAN_VAE.latent_std.length, 16);
});

test('a first frame that is held is a frame in the sample whose tokens have time 0, for the samples that have one', async () => {
  const config = tinyDiT({ model_type: 'ti2v', in_dim: 4, clip_dim: 0 });
  const params = scrambledDiT(config);
  const [b, t, grid] = [2, 640, [3, 2, 2] as Triple];
  const x = noise('x', [b, 4, 3, 4, 4]);
  const first = noise('first', [b, 4, 1, 4, 4]);
  const context = noise('c', [b, 3, config.text_dim]);
  const [frame, all] = [grid[1] * grid[2], grid[0] * grid[1] * grid[2]];
  const angles = timeEmbedding(
    Array.from({ length: b * all }, (_, i) => (i < frame ? 0 : t)), // of the first sample alone
    config.freq_dim,
  );
  const replaced = { ...x, data: Float32Array.from(x.data) };
  for (let c = 0; c < 4; c++) replaced.data.set(first.data.slice(c * 16, (c + 1) * 16), c * 48);
  const tables = ditTables(config, [grid]);
  const run = (input: Record<string, HostTensor>) =>
    oracle.run(
      ({ params: p, ...told }: { params: Record<string, Tensor> } & DiTInput) => ({
        v: dit(p, config, told).v as Tensor,
      }),
      { params, context, tables, ...input } as never,
    );
  const alone = await run({ x: replaced, tEmb: { ...angles, shape: [b, all, config.freq_dim] } });
  const held = await run({
    x,
    tEmb: timeEmbedding([t, t], config.freq_dim),
    first,
    held: host(Float32Array.of(1, 0), [b]),
  });
  assert.ok(largest(alone['v']!, held['v']!) < 1e-6);
});

test('attention sees only how far tokens lie apart', async () => {
  const head = 20;
  const { cos, sin } = rotaryTables(head, [[4, 5, 6]]);
  const at = (t: number, h: number, w: number) => (t * 5 + h) * 6 + w;
  const { scores } = await oracle.run(
    ({ q, k, cos, sin }) => {
      const row = (x: Tensor) => rotate(x.expand([1, 120, 1, head]), { cos, sin }).reshape([120, head]);
      return { scores: row(q).matmul(row(k), { transB: true }) };
    },
    { q: noise('q', [1, 1, 1, head]), k: noise('k', [1, 1, 1, head]), cos, sin },
  );
  const score = (a: number, b: number) => scores!.data[a * 120 + b]!;
  assert.ok(Math.abs(score(at(0, 1, 2), at(2, 0, 3)) - score(at(1, 4, 4), at(3, 3, 5))) < 1e-5);
  assert.ok(Math.abs(score(at(0, 1, 2), at(2, 0, 3)) - score(at(0, 1, 2), at(2, 1, 3))) > 1e-3);
  assert.equal(rotaryPairs(128), [22, 21, 21]);
  assert.equal(rotaryPairs(20), [4, 3, 3]);
});

test('timestep angles are exact at large t', () => {
  const { data } = timeEmbedding([999.5], 4);
  assert.equal([...data], [Math.cos(999.5), Math.cos(9.995), Math.sin(999.5), Math.sin(9.995)].map(Math.fround));
});

test('configs and inputs that do not fit are refused in one line each', () => {
  assert.throws(
    () => tinyDiT({ dim: 25, freq_dim: 15 }),
    /\[dit config\] dim: must be num_heads 2 times an even head size, got 25\n\[dit config\] freq_dim: must be even, got 15/,
  );
  assert.throws(() => tinyDiT({ model_type: 't2v' }), /in_dim: must equal out_dim 4 for t2v, got 12/);
  assert.throws(() => ditConfig({}), /model_type/);
  assert.throws(
    () =>
      vaeConfig({ dim: 8, z_dim: 4, dim_mult: [1, 2], num_res_blocks: 1, temperal_downsample: [], latent_mean: [0] }),
    /temperal_downsample: needs one entry[^\n]*\n[^\n]*latent_mean: needs z_dim 4 entries, got 1/,
  );
  const config = tinyDiT();
  assert.throws(() => tokenGrid(config, [4, 3, 5, 4]), /latent \[4,3,5,4\] does not divide into patches/);
  assert.throws(() => ditTables(config, [[2, 2, 2]], 7), /do not fit into 7/);
});

test.run();
