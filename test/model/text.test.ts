/** The tiny tokenizer, the frozen embedding and the image tokens. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { host } from '../../engine/frontend/tree.ts';
import { imageTokens } from '../../model/imagetokens.ts';
import { embedCaptions, embeddingTable, tokenize, VOCABULARY } from '../../model/text.ts';
import { oracle } from '../golden/executor.ts';

test('captions become ids; the empty caption has none', () => {
  assert.equal(
    tokenize('a 3 moving up-left').map((id) => VOCABULARY[id]),
    ['a', '3', 'moving', 'up-left'],
  );
  assert.equal(tokenize('  '), []);
});

test('an unknown word is an error that lists the vocabulary', () => {
  assert.throws(() => tokenize('a 3 flying up'), /unknown word "flying".*moving, up, down.*down-right/);
});

test('embeddings are unit normals, frozen, zero past the caption', () => {
  const table = embeddingTable(64);
  assert.equal(table, embeddingTable(64));
  const rows = table.data.subarray(64) as Float32Array;
  assert.ok(Math.abs(rows.reduce((a, x) => a + x * x, 0) / rows.length - 1) < 0.15);
  const { context, lengths } = embedCaptions(['a 7 moving down', '', 'a'], table, 6);
  assert.equal(context.shape, [3, 6, 64]);
  assert.equal(lengths, [4, 0, 1]);
  assert.equal(context.data.slice(0, 64), table.data.slice(64, 128));
  assert.ok(context.data.subarray(4 * 64, 12 * 64).every((x) => x === 0));
  assert.throws(() => embedCaptions(['a a a'], table, 2), /3 tokens, text_len is 2/);
});

test('image tokens are 8 px patches, row by row', async () => {
  const [b, c, h, w] = [2, 3, 16, 24] as const;
  const frame = host(
    Float32Array.from({ length: b * c * h * w }, (_, i) => i),
    [b, c, h, w],
  );
  const { y } = await oracle.run(({ x }) => ({ y: imageTokens(x) }), { x: frame });
  assert.equal(y!.shape, [2, 6, 192]);
  const at = (n: number, channel: number, row: number, column: number) => ((n * c + channel) * h + row) * w + column;
  // Token 4 is the patch at (1, 1); its number 64 + 8 + 2 is channel 1, row 1, column 2 of it.
  assert.is(y!.data[(1 * 6 + 4) * 192 + 64 + 10], at(1, 1, 8 + 1, 8 + 2));
});

test.run();
