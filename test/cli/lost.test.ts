/** A device that is lost while `sample` runs: the reason is told, and the clips are those of an untouched run. */
import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import yargs from 'yargs';
import command from '../../cli/sample.ts';
import { Device } from '../../engine/runtime/device.ts';
import { writeFolder } from '../model/folders.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-lost-'));
const at = (name: string): string => join(dir, name);
await writeFolder(at('t2v'), 'original', 't2v');
writeFileSync(at('prompts.jsonl'), 'a cat runs\na dog\n');

/** Runs `sample`, whose device is destroyed when a clip has been written. @returns what was said */
async function sample(out: string, lose: boolean): Promise<string> {
  const said: string[] = [];
  const { check } = Device.prototype as { check: (this: Device) => void };
  const [log, error] = [console.log, console.error];
  console.log = console.error = (...line: unknown[]) => said.push(line.join(' '));
  let lost = !lose;
  Device.prototype.check = function (this: Device) {
    if (!lost && said.some((line) => line.includes('"a cat runs"'))) {
      lost = true;
      this.gpu.destroy();
    }
    return check.call(this);
  };
  try {
    const args = ['sample', '--model', at('t2v'), '--prompts', at('prompts.jsonl'), '--out', at(out)];
    await yargs([...args, '--size', '32x32', '--frames', '5', '--steps', '1'])
      .command(command)
      .fail(false)
      .parseAsync();
  } finally {
    Device.prototype.check = check;
    [console.log, console.error] = [log, error];
  }
  return said.join('\n');
}

test('sample goes on with the clips that are missing', async () => {
  assert.not.match(await sample('whole.webp', false), 'alarm');
  const whole = readdirSync(dir).filter((f) => f.startsWith('whole'));
  assert.is(whole.filter((f) => f.endsWith('.webp')).length, 2, whole.join());
  const said = await sample('broken.webp', true);
  assert.match(said, /alarm: the device was lost: \S+ .*; opening another, which gets less work at a time/);
  assert.is(said.split('"a cat runs"').length, 2, `the first clip is made once:\n${said}`);
  const broken = readdirSync(dir).filter((f) => f.startsWith('broken'));
  assert.equal(
    broken.map((f) => f.replace('broken', 'whole')),
    whole,
    'nothing is left behind',
  );
  for (const name of whole.filter((f) => f.endsWith('.webp')))
    assert.ok(readFileSync(at(name)).equals(readFileSync(at(name.replace('whole', 'broken')))), name);
  assert.ok(statSync(at(broken[0]!)).size > 0);
});

test.run();
