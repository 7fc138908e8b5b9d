/** Files of prompts: what was made of a line is known again when the file is edited, lines are text of any make, and a cut is said. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { cutTexts } from '../../cli/common/tokens.ts';
import { readPrompts, wantedClips, type Wanted } from '../../cli/sample/jobs.ts';
import { noteClip } from '../../cli/sample/made.ts';
import type { VideoModel } from '../../model/pipeline/generate.ts';
import { Tokenizer } from '../../model/tokenizer.ts';
import { tinyTokenizer } from '../model/tiny.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-made-'));
test.after(() => rmSync(dir, { recursive: true }));
const prompts = join(dir, 'p.txt');
const asked = { prompts, seed: 1, count: 1, out: join(dir, 'clip.webp') };

/** As sample makes them. @returns prompts and names */
function make(lines: readonly string[], make = (w: Wanted) => writeFileSync(w.out, w.prompt)): string[] {
  writeFileSync(prompts, lines.join('\n'));
  const { todo } = wantedClips(asked);
  for (const w of todo) {
    noteClip(w);
    make(w);
  }
  return todo.map((w) => `${w.prompt}: ${basename(w.out)}`);
}

test('a line in front, an edited line and more digits make what is new, under names that are free', () => {
  assert.equal(make(['first', 'second']), ['first: clip-1.webp', 'second: clip-2.webp']);
  assert.equal(make(['first', 'second']), []);
  assert.equal(make(['new', 'first', 'second']), ['new: clip-4.webp'], 'what stands there stays');
  assert.equal(make(['second', 'new', 'first']), []);
  assert.equal(make(['new', 'first', 'other']), ['other: clip-3.webp']);
  assert.is(readFileSync(join(dir, 'clip-2.webp'), 'utf8'), 'second');
  const ten = ['new', 'first', 'other', ...'abcdefg'.split('')];
  assert.equal(
    make(ten),
    [4, 5, 6, 7, 8, 9, 10].map((n, i) => `${'abcdefg'[i]}: clip-${String(n).padStart(2, '0')}.webp`),
  );
  assert.equal(make(ten), []);
  assert.equal(make(['{"prompt": "first", "seed": 9}']), ['first: clip-5.webp'], 'another seed is another clip');
  rmSync(join(dir, 'clip-1.webp'));
  assert.is(make(['new', 'first']).length, 1, 'one that was removed is made again');
});

test('equal lines are two clips; a line that names its clip makes it anew when it changes', () => {
  rmSync(join(dir, 'vpae-clips.jsonl'));
  for (let n = 0; n < 12; n++)
    for (const name of [`clip-${n}.webp`, `clip-0${n}.webp`]) rmSync(join(dir, name), { force: true });
  assert.equal(make(['same', 'same']), ['same: clip-1.webp', 'same: clip-2.webp']);
  assert.equal(make(['same', 'same']), []);
  assert.equal(make(['{"prompt": "a", "out": "mine.gif"}']), ['a: mine.gif']);
  assert.equal(make(['{"prompt": "a", "out": "mine.gif"}']), []);
  assert.equal(make(['{"prompt": "b", "out": "mine.gif"}']), ['b: mine.gif']);
  writeFileSync(join(dir, 'clip-3.webp'), 'by other means');
  writeFileSync(prompts, 'same\nsame\nwhat');
  assert.equal(wantedClips(asked), { todo: [], done: 2, unknown: 1 });
  assert.throws(
    () =>
      make(['killed'], () => {
        throw new Error('a kill before the clip stands');
      }),
    /a kill/,
  );
  assert.is(make(['killed']).length, 1, 'a note without its clip is no clip');
});

test('prompts may be UTF-16 by its mark, begin with {, and are refused when they are rubbish', () => {
  const read = (name: string, bytes: Buffer) => {
    writeFileSync(join(dir, name), bytes);
    return readPrompts(join(dir, name), { ...asked, prompts: join(dir, name) }).map((w) => w.prompt);
  };
  const utf16 = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('café\r\ntwo\r\n', 'utf16le')]);
  assert.equal(read('a.txt', utf16), ['café', 'two']);
  assert.equal(read('a.txt', Buffer.from('\ufeffone\n{red|blue} car\n{"prompt": "x"}')), [
    'one',
    '{red|blue} car',
    'x',
  ]);
  for (const [name, text, said] of [
    ['b.txt', Buffer.from('ok\ncaf\xe9', 'latin1'), /b\.txt: is not UTF-8 \(byte 0xe9 in line 2\)/],
    ['b.jsonl', Buffer.from('{red|blue} car'), /b\.jsonl:1: is not JSON.*; a prompt that begins with \{ is written as/],
    ['b.txt', Buffer.from('{"prompt": }'), /b\.txt:1: is not JSON/],
  ] as const)
    assert.throws(() => read(name, text), said);
  assert.not(existsSync(join(dir, 'none.txt')));
  assert.throws(() => readPrompts(join(dir, 'none.txt'), asked), /--prompts .*none\.txt: there is no such file/);
});

test('a text that is longer than what is read of it is named with how much is cut', async () => {
  const tokenizer = new Tokenizer(tinyTokenizer());
  const long = 'a cat '.repeat(20);
  const whole = tokenizer.count(long);
  assert.is(tokenizer.encode(long, 16).length, 16);
  assert.is(tokenizer.count('a cat'), tokenizer.encode('a cat', 512).length);
  const model = {
    dit: { text_len: 16 },
    countTokens: (texts: readonly string[]) => Promise.resolve(texts.map((t) => tokenizer.count(t))),
  } as unknown as VideoModel;
  assert.is(
    await cutTexts(model, [
      { name: 'x.mp4', text: long },
      { name: 'y', text: 'a cat' },
    ]),
    `cut off at 16 tokens, the most that the model reads: 1 text: x.mp4 by ${whole - 16} of ${whole}`,
  );
  assert.is(await cutTexts(model, [{ name: 'y', text: 'a cat' }]), undefined);
});

test.run();
