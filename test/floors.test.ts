/** A floor imports only from floors below it; read from the sources, so that the rule can't rot. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('..', import.meta.url));
const FLOORS = ['kernels', 'engine', 'model', 'train', 'cli'];

function* sources(floor: string): Generator<{ file: string; imports: string[] }> {
  for (const name of readdirSync(join(root, floor), { recursive: true }) as string[]) {
    if (!name.endsWith('.ts')) continue;
    const file = join(root, floor, name);
    const text = readFileSync(file, 'utf8');
    const imports = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((m) =>
      relative(root, resolve(dirname(file), m[1]!)),
    );
    yield { file: relative(root, file), imports };
  }
}

for (const [height, floor] of FLOORS.entries()) {
  test(`${floor} imports from ${FLOORS.slice(0, height + 1).join(', ')} only`, () => {
    let files = 0;
    for (const { file, imports } of sources(floor)) {
      files++;
      for (const target of imports) {
        const below = FLOORS.slice(0, height + 1).some((f) => target.startsWith(`${f}/`));
        assert.ok(below, `${file} imports ${target}`);
      }
    }
    assert.ok(files > 3);
  });
}

test('no source is longer than 500 lines', () => {
  for (const floor of [...FLOORS, 'test']) {
    for (const { file } of sources(floor)) {
      const lines = readFileSync(join(root, file), 'utf8').split('\n').length;
      assert.ok(lines <= 500, `${file} has ${lines} lines`);
    }
  }
});

test.run();
