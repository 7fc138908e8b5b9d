/** The tokenizer on a small Unigram vocabulary, and the cleaning of prompts. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { cleanPrompt, loadTokenizer, Tokenizer } from '../../model/tokenizer.ts';
import { tinyTokenizer } from './tiny.ts';

const json = tinyTokenizer();
const tokenizer = new Tokenizer(json);
const pieces = (prompt: string, maxLength?: number) =>
  tokenizer.encode(prompt, maxLength).map((id) => json.model.vocab[id]![0]);

test('a prompt becomes the likeliest pieces and the closing token', () => {
  assert.equal(pieces('Two cats'), ['▁Two', '▁cat', 's', '</s>']);
  assert.equal(pieces(' two\n\n cats.'), ['▁', 't', 'w', 'o', '▁cat', 's', '.', '</s>']);
  assert.equal(pieces(''), ['</s>']);
});

test('what the vocabulary lacks is spelt in bytes', () => {
  assert.equal(pieces('cat 猫'), ['▁cat', '▁', '<0xE7>', '<0x8C>', '<0xAB>', '</s>']);
});

test('a long prompt is cut before the closing token', () => {
  assert.equal(pieces('cat cat cat cat', 3), ['▁cat', '▁cat', '</s>']);
  assert.is(tokenizer.encode('cat '.repeat(600)).length, 512);
  assert.equal(pieces('cat cat', 3), ['▁cat', '▁cat', '</s>']);
});

test('prompts are cleaned as Wan does it', () => {
  assert.is(cleanPrompt('  a\u00a0“cat”,\r\n it’s\tred\u200b '), 'a "cat", it\'s red\u200b');
  assert.is(cleanPrompt('A &amp;amp; B &lt;3 &#233;&#x2764; &nosuch;'), 'A & B <3 é❤ &nosuch;');
  assert.is(cleanPrompt('ﬁlm，１０　mm\u0007\u001b[31m!'), 'film,10 mm!');
  assert.is(cleanPrompt('e\u0301'), 'é');
});

test('patterns and words without end are left in the middle, nests are refused', async () => {
  const hostile = new Tokenizer({
    ...json,
    normalizer: { type: 'Replace', pattern: { Regex: '(a+)+$' }, content: 'b' },
  });
  assert.equal(hostile.encode('cat'), tokenizer.encode('cat'));
  const start = performance.now();
  assert.throws(
    () => hostile.encode(`${'a'.repeat(60)}!`),
    /^splitting "a{40}" did not end within 5 s: its patterns may never do$/,
  );
  assert.ok(performance.now() - start < 15_000);
  assert.equal(hostile.encode('cat'), tokenizer.encode('cat'), 'and can go on');
  const folder = await mkdtemp(join(tmpdir(), 'vpae-tokenizer-'));
  await writeFile(join(folder, 'tokenizer.json'), '['.repeat(1e6));
  await loadTokenizer(folder).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /^\[tokenizer\] .*nests objects and arrays deeper than 64$/),
  );
  await rm(folder, { recursive: true });
});

test('files: a folder or the file itself; what is missing or broken is named', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vpae-tokenizer-'));
  const message = (path: string) =>
    loadTokenizer(path).then(
      () => 'it was read',
      (e: Error) => e.message,
    );
  try {
    assert.match(await message(folder), /^\[tokenizer\] .*tokenizer\.json: there is no such file; download/);
    const file = join(folder, 'tokenizer.json');
    await writeFile(file, '{"vocab": 1}');
    assert.match(await message(file), /"model.type" is missing/);
    await writeFile(file, '{');
    assert.match(await message(file), /tokenizer\.json: .*JSON/);
    await writeFile(file, JSON.stringify(json));
    await writeFile(join(folder, 'tokenizer_config.json'), '{"eos_token": "</s>"}');
    for (const path of [folder, file])
      assert.equal((await loadTokenizer(path)).encode('Two cats'), tokenizer.encode('Two cats'));
  } finally {
    await rm(folder, { recursive: true });
  }
});

test.run();
