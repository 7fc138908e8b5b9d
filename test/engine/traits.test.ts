/** Traits of ops: what they say agrees with the lists of names that types are made of, and with what kernels do. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { INLINE, POINTWISE, REDUCTIONS } from '../../engine/frontend/graph.ts';
import { OPS } from '../../engine/frontend/ops/index.ts';
import type { Traits } from '../../engine/frontend/ops/traits.ts';

const of = Object.entries(OPS).map(([op, { traits }]): [string, Traits] => [op, traits]);
const having = (is: (t: Traits) => boolean): string[] => of.filter(([, t]) => is(t)).map(([op]) => op);

test('an op is inlined or has a kernel', () => {
  for (const [op, { cost }] of of)
    assert.is(cost !== 'kernel', (INLINE as ReadonlySet<string>).has(op), `${op} costs ${cost}`);
});

test('only pointwise code is expensive or goes number by number', () => {
  for (const op of having((t) => t.cost === 'expensive' || t.lanes === 'single'))
    assert.ok((POINTWISE as ReadonlySet<string>).has(op), op);
});

test('reductions read f32; names of bytes cost nothing', () => {
  for (const op of REDUCTIONS) assert.is(OPS[op].traits.reads, 'f32', op);
  assert.equal(having((t) => t.cost === 'free').sort(), ['const', 'detach', 'reshape']);
});

test('what rounds its operands by itself stores without a cast in front', () => {
  assert.equal(
    having((t) => t.half === 'cast'),
    ['matmul'],
  );
  for (const op of having((t) => t.half === 'kernel')) assert.match(op, /^(conv3d|attention)/);
});

test.run();
