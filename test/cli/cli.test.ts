/** Bad input: each gives one clear line, an exit code, and nothing half-written. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync, cpSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { oneLine, didYouMean } from '../../cli/common/errors.ts';
import { host } from '../../engine/frontend/tree.ts';
import { loadDiT, saveModel } from '../../train/loop/models.ts';
import { writeBundle } from './bundle.ts';
import { vpae, type Result } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-cli-'));
const good = join(dir, 'good');
const at = (name: string): string => join(dir, name);
const PROMPT = ['sample', '--prompt', 'a 3 moving up-left', '--out', at('x.webp'), '--model'];

/** A bundle whose student is spoiled. */
function spoiled(name: string, spoil: (student: string) => void): string {
  cpSync(good, at(name), { recursive: true });
  spoil(join(at(name), 'student.safetensors'));
  return at(name);
}

interface Case {
  what: string;
  args: string[];
  env?: Record<string, string>;
  code?: number;
  line: RegExp;
}

async function cases(): Promise<Case[]> {
  await writeBundle(good);
  writeFileSync(at('file'), 'not a picture');
  const student = await loadDiT(join(good, 'student.safetensors'));
  const names = Object.keys(student.params);
  const { [names[0]!]: first, ...others } = student.params;
  const spoil = (name: string, change: Partial<typeof student>) =>
    saveModel(
      join(
        spoiled(name, () => {}),
        'student.safetensors',
      ),
      { ...student, ...change },
    );
  await spoil('renamed', { params: { ...others, other: first! } });
  await spoil('reshaped', { params: { ...others, [names[0]!]: host(new Float32Array(3), [3]) } });
  await spoil('othervae', { about: { ...student.about, vae: '0123456789abcdef' } });
  const cut = spoiled('cut', (f) => writeFileSync(f, readFileSync(f).subarray(0, 100_000)));
  const swapped = spoiled('swapped', (f) => cpSync(join(good, 'teacher.safetensors'), f));
  const short = spoiled('short', (f) => writeFileSync(f, 'abc'));
  return [
    { what: 'no command', args: [], code: 2, line: /say which command/ },
    { what: 'unknown command', args: ['trian', 'vae'], code: 2, line: /unknown word "trian"; did you mean "train"\?/ },
    {
      what: 'unknown network',
      args: ['train', 'vea'],
      code: 2,
      line: /network must be one of .*got "vea"; did you mean "vae"\?/,
    },
    {
      what: 'unknown option',
      args: ['distill', '--preste', 'digits'],
      code: 2,
      line: /no option --preste.*did you mean "--preset"\?/,
    },
    { what: 'option without a value', args: ['train', 'vae', '--seed'], code: 2, line: /--seed needs a value/ },
    { what: 'text for a number', args: ['train', 'vae', '--seed', 'one'], code: 2, line: /--seed must be a number/ },
    { what: 'unknown preset', args: ['plan', '--preset', 'digts'], line: /no preset "digts".*did you mean "digits"\?/ },
    { what: 'unknown setting', args: ['plan', '--set', 'teacher.stps=3'], line: /no setting "teacher.stps"/ },
    { what: 'setting out of range', args: ['plan', '--set', 'priming.batch=0'], line: /priming\.batch: / },
    {
      what: 'setting against another',
      args: ['plan', '--set', 'dit.num_heads=3'],
      line: /not a multiple of dit.num_heads/,
    },
    {
      what: 'count out of range',
      args: [...PROMPT, good, '--count', '0'],
      code: 2,
      line: /--count must be a whole number/,
    },
    {
      what: 'unknown word',
      args: ['sample', '--prompt', 'a 3 movin up', '--model', good],
      line: /unknown word "movin".*did you mean "moving"\?/,
    },
    {
      what: 'ending of a file',
      args: ['sample', '--prompt', 'a 3 moving up', '--out', 'x.avi'],
      code: 2,
      line: /must end in \.mp4, \.webm, \.webp, \.gif or \.png/,
    },
    { what: 'no prompt', args: ['sample'], code: 2, line: /say what to make: --prompt/ },
    {
      what: 'frames between',
      args: [...PROMPT, good, '--frames', '8'],
      line: /frames must be 1 more than a multiple of 4, as 5 or 9, got 8/,
    },
    {
      what: 'a folder for a file',
      args: ['export', join(good, 'student.safetensors'), '--out', good],
      code: 2,
      line: /good" is a folder: name a file/,
    },
    {
      what: 'records without a model',
      args: ['distill', '--records', 'clips'],
      code: 2,
      line: /--records goes with --model/,
    },
    { what: 'no picture', args: [...PROMPT, good, '--image', at('file')], line: /\[image\].*file: / },
    {
      what: 'missing checkpoint',
      args: [...PROMPT, at('nothing')],
      line: /\[checkpoint\] .*nothing: there is no such folder/,
    },
    {
      what: 'truncated checkpoint',
      args: [...PROMPT, cut],
      line: /student\.safetensors: tensor .* data ends at byte \d+, the file has \d+/,
    },
    { what: 'tiny checkpoint', args: [...PROMPT, short], line: /student\.safetensors: has 3 bytes/ },
    {
      what: 'renamed tensor',
      args: [...PROMPT, at('renamed')],
      line: /does not fit the model of \d+ tensors: 1 missing: .*1 unexpected: other/,
    },
    { what: 'wrong shape', args: [...PROMPT, at('reshaped')], line: /wrong shape: .*\[3\], expected \[/ },
    { what: "another model's file", args: [...PROMPT, swapped], line: /is a teacher, expected a student/ },
    { what: 'another VAE', args: [...PROMPT, at('othervae')], line: /trained with another VAE/ },
    {
      what: 'no teacher for the demo',
      args: ['demo', '--bundle', at('nothing'), '--out', at('demo')],
      line: /train it with: vpae train vae/,
    },
    {
      what: 'a folder that cannot be',
      args: ['train', 'vae', '--preset', 'digits-test', '--run', join(at('file'), 'run')],
      line: /could not write .*a part of the path is a file/,
    },
    {
      what: 'no adapter',
      args: ['plan', '--preset', 'digits-test'],
      env: { VPAE_ADAPTER: 'system', VK_DRIVER_FILES: at('none.json'), VK_ICD_FILENAMES: at('none.json') },
      code: 3,
      line: /\[adapter\]/,
    },
    {
      what: 'another wrong flag',
      args: ['doctor'],
      env: { DEBUG: 'much' },
      line: /DEBUG: expected 0 to 4, got "much"/,
    },
    {
      what: 'a wrong developer flag',
      args: ['doctor'],
      env: { TIER: 'fast' },
      line: /TIER: expected scalar, tiled, matrix, got "fast"/,
    },
  ];
}

test('bad input is one line and an exit code', async () => {
  const todo = await cases();
  const results: [Case, Result][] = [];
  const worker = async (): Promise<void> => {
    for (let c = todo.shift(); c; c = todo.shift()) results.push([c, await vpae(c.args, c.env)]);
  };
  await Promise.all([worker(), worker(), worker()]);
  for (const [{ what, code = 1, line }, { code: got, said }] of results) {
    const text = `${what}: ${said.join('\n')}`;
    assert.is(said.length, 1, text);
    assert.match(said.join('\n'), line, text);
    assert.is(got, code, text);
  }
  assert.not(existsSync(at('x.webp')));
});

test('Ctrl-C finishes the step, saves and says how to go on', async () => {
  let sent = false;
  const run = at('stopped');
  const { code, said } = await vpae(
    ['train', 'vae', '--preset', 'digits-test', '--set', 'trainVae.steps=100000', '--run', run],
    {},
    (stderr, kill) => {
      if (!sent && stderr.includes('adapter: ')) kill('SIGINT');
      sent ||= stderr.includes('adapter: ');
    },
  );
  assert.is(code, 130, said.join('\n'));
  assert.match(said.at(-1)!, /stopped/);
});

test('long messages keep their first lines and their last', () => {
  assert.is(oneLine('one'), 'one');
  assert.is(oneLine('a:\n  b\n  c'), 'a: b; c');
  assert.is(oneLine('a:\nb\nc\nd\ne\nf'), 'a: b; c; 2 more (DEBUG=1 shows them); f');
  assert.is(didYouMean('tset', ['test', 'other']), '; did you mean "test"?');
  assert.is(didYouMean('zebra', ['test', 'other']), '');
});

test.after(() => rmSync(dir, { recursive: true, force: true }));
test.run();
