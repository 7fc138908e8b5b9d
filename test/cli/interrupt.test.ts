/** Ctrl-C in a clip that would take minutes: the command ends at once, and nothing of the clip is left. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { writeFolder } from '../model/folders.ts';
import { vpae } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-interrupt-'));
test.after(() => rmSync(dir, { recursive: true }));
await writeFolder(join(dir, 't2v'), 'original', 't2v');
mkdirSync(join(dir, 'out'));
const sample = (size: string, ...more: string[]) =>
  `sample --model ${join(dir, 't2v')} --prompt x --size ${size} --frames 33 --out ${join(dir, 'out/x.webp')}`
    .split(' ')
    .concat(more);

test('the first Ctrl-C stops within the step that is under way', async () => {
  let sent = 0;
  const { code, said } = await vpae(sample('832x480'), {}, (stderr, kill) => {
    if (sent || !stderr.includes('loading: ')) return;
    sent = performance.now();
    setTimeout(() => kill('SIGINT'), 2000);
  });
  assert.is(code, 130);
  assert.ok(performance.now() - sent < 30_000, `${performance.now() - sent} ms`);
  assert.match(said.at(-1)!, /^vpae: stopped; clips that were finished are kept$/);
  assert.equal(readdirSync(join(dir, 'out')), []);
});

for (const adapter of ['lavapipe', 'swiftshader']) {
  const queued = async (how: string, signals: readonly NodeJS.Signals[]) => {
    let since = Infinity;
    const { code, said } = await vpae(
      [how],
      { VPAE_ADAPTER: adapter },
      (stderr, kill) => {
        if (since < Infinity || !stderr.includes('queued')) return;
        since = performance.now();
        signals.forEach((s) => kill(s));
      },
      'test/cli/queued.ts',
    );
    assert.ok(performance.now() - since < 10_000, `${performance.now() - since} ms`); // of minutes
    return { code, last: said.at(-1) };
  };

  test(`${adapter}: Ctrl-C ends a command whose kernel takes minutes`, async () =>
    assert.equal(await queued('wait', ['SIGINT']), { code: 130, last: 'vpae: stopped' }));

  test(`${adapter}: an error ends a command whose kernel takes minutes`, async () =>
    assert.equal(await queued('fail', []), { code: 1, last: 'vpae: something else is wrong' }));
}

test('what does not fit into --memory says what makes it fit', async () => {
  const { code, said } = await vpae(sample('832x480', '--memory', '1MB'));
  assert.is(code, 1);
  assert.match(said.at(-1)!, /exceed the budget of .*: give more by --memory, or make the clip smaller by --size or/);
  assert.not.match(said.at(-1)!, /\.ts:\d/);
});

test.run();
