/** METHOD.md and the code that cites it: every section that is cited is there, and every method of the table says where it stands. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { METHODS } from '../../train/methods/index.ts';

const train = fileURLToPath(new URL('../../train/', import.meta.url));
const page = readFileSync(`${train}METHOD.md`, 'utf8');
const sections = [...page.matchAll(/^## (\d+\.\d+) /gm)].map((m) => m[1]!);

test('the sections are numbered without a gap', () => {
  assert.equal(
    sections,
    sections.map((_, i) => `1.${i}`),
  );
});

test('every section that train/ and its tests cite is there', () => {
  let cited = 0;
  for (const folder of [train, fileURLToPath(new URL('.', import.meta.url))])
    for (const name of readdirSync(folder, { recursive: true }) as string[]) {
      if (!/\.(ts|md)$/.test(name)) continue;
      for (const [, section] of readFileSync(`${folder}/${name}`, 'utf8').matchAll(/§(\d+\.\d+)/g)) {
        cited++;
        assert.ok(sections.includes(section!), `${name} cites §${section}`);
      }
    }
  assert.ok(cited > 50);
});

test('every method names its paper and its section', () => {
  for (const [name, { paper, section }] of Object.entries(METHODS)) {
    assert.match(paper, /arXiv \d{4}\.\d{5}/, name);
    assert.ok(sections.includes(section.replace('§', '')), `${name}: ${section}`);
  }
});

test.run();
