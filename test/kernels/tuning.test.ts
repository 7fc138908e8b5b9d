/** Planners and the table: every configuration they offer prints valid WGSL, the table's is taken, and nonsense in it is not. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  attention,
  attentionGrad,
  conv3d,
  conv3dInput,
  conv3dWeight,
  layerNorm,
  matmul,
  softmax,
} from '../../kernels/index.ts';
import type { Caps, Launch, Tier } from '../../kernels/kernel.ts';
import { near, tuningOf, type Family, type Question, type Tuning } from '../../kernels/tuning.ts';
import { validate } from './harness.ts';

const capsOf = (tier: Tier, subgroup: number): Caps => ({
  tier,
  subgroup,
  f16: true,
  maxInvocations: 256,
  maxWorkgroupBytes: 16384,
  maxStorageBuffers: 8,
  maxBindingBytes: 2 ** 27,
});
const read = (n: number) => Array.from({ length: n }, () => 'read' as const);
const product = {
  batch: 1,
  M: 100,
  N: 60,
  K: 36,
  transA: false,
  transB: true,
  dtypeA: 'f32',
  dtypeB: 'f32',
  access: ['read', 'read'],
} as const;
const attended = { B: 2, N: 33, L: 65, H: 2, D: 32, scale: 0.2, lengths: false };
const convolved = {
  N: 1,
  C: 6,
  O: 20,
  in: [4, 9, 9],
  out: [4, 9, 9],
  kernel: [3, 3, 3],
  stride: [1, 1, 1],
  padLo: [2, 1, 1],
  access: 'read_write',
} as const;

const FAMILIES: Record<string, (caps: Caps) => Launch> = {
  matmul: (caps) => matmul(caps, product),
  attention: (caps) => attention(caps, { ...attended, access: read(3) }),
  attentionGrad: (caps) => attentionGrad(caps, { ...attended, access: read(6) }),
  conv3d: (caps) => conv3d(caps, convolved),
  conv3dInput: (caps) => conv3dInput(caps, convolved),
  conv3dWeight: (caps) => conv3dWeight(caps, convolved),
  softmax: (caps) => softmax(caps, { rows: 50, cols: 64, access: read(1) }),
  layerNorm: (caps) => layerNorm(caps, { rows: 50, cols: 64, access: read(1) }),
};

type Asked = Question<Family>;

/** What a family's planner asks for. */
function questions(caps: Caps, family: (caps: Caps) => Launch): Asked[] {
  const asked: Asked[] = [];
  const find: Tuning['find'] = (question) => {
    asked.push(question as unknown as Asked);
    return undefined;
  };
  family({ ...caps, tuning: { find } });
  return asked;
}

for (const [name, family] of Object.entries(FAMILIES)) {
  for (const [tier, subgroup] of [
    ['scalar', 0],
    ['scalar', 8],
    ['scalar', 32],
    ['tiled', 32],
  ] as const) {
    test(`${name}, ${tier}, subgroups of ${subgroup}: every option is valid WGSL and is taken from a table`, async () => {
      const caps = capsOf(tier, subgroup);
      for (const question of questions(caps, family)) {
        const options = question.options();
        assert.ok(
          options.some((o) => JSON.stringify(o) === JSON.stringify(question.rule)),
          'the rule is one of the options',
        );
        const texts = new Set<string>();
        for (const option of options) {
          const table = JSON.parse(JSON.stringify({ [question.family]: { [question.shape]: option } })) as object;
          const { dispatches } = family({ ...caps, tuning: tuningOf(table) });
          for (const d of dispatches) await validate(`${d.label} ${JSON.stringify(option)}`, d.wgsl);
          texts.add(dispatches.map((d) => d.wgsl + d.grid.join()).join());
        }
        assert.is(texts.size, options.length, 'options differ in what they do');
      }
    });
  }
}

test('an entry that is not among the options is passed over', () => {
  const caps = capsOf('scalar', 8);
  const [question] = questions(caps, FAMILIES['matmul']!);
  const plain = FAMILIES['matmul']!(caps).dispatches[0]!.wgsl;
  for (const entry of [{ ...question!.rule, rows: 7 }, { tier: 'tiled', BM: 64, BN: 64, BK: 16, TM: 8 }, {}, 'text']) {
    const table = { matmul: { [question!.shape]: entry } } as object;
    assert.is(FAMILIES['matmul']!({ ...caps, tuning: tuningOf(table) }).dispatches[0]!.wgsl, plain);
  }
});

test('sizes alike to within a power of two share a class', () => {
  assert.equal([1, 2, 3, 90, 91, 128, 180, 182].map(near), [1, 2, 4, 64, 128, 128, 128, 256]);
});

test.run();
