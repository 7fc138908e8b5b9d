/** A floor imports only from floors below it; read from the sources, so that the rule can't rot. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('..', import.meta.url));
const FLOORS = ['kernels', 'engine', 'model', 'train', 'cli'];

interface Source {
  file: string;
  imports: string[];
  /** Those that are there when it runs, not only for its types. */
  values: string[];
}

const IMPORT = /^(?:import|export)\s+(type\s+)?(?:\{([^}]*)\}|[^'"]*?)\s*from\s+'(\.[^']+)'/gms;

function* sources(floor: string): Generator<Source> {
  for (const name of readdirSync(join(root, floor), { recursive: true }) as string[]) {
    if (!name.endsWith('.ts')) continue;
    const file = join(root, floor, name);
    const text = readFileSync(file, 'utf8');
    const of = (specifier: string): string => relative(root, resolve(dirname(file), specifier));
    const imports = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((m) => of(m[1]!));
    const values = [...text.matchAll(IMPORT)]
      .filter(([, type, names]) => !type && !names?.split(',').every((n) => /^\s*(type\s|$)/.test(n)))
      .map((m) => of(m[3]!));
    yield { file: relative(root, file), imports, values };
  }
}

/** A floor and what it may import from: itself and those below. The page stands beside the command line. */
const ALLOWED = [
  ...FLOORS.map((floor, height) => [floor, FLOORS.slice(0, height + 1)] as const),
  ['web', ['kernels', 'engine', 'model', 'train', 'web']] as const,
];

for (const [floor, allowed] of ALLOWED) {
  test(`${floor} imports from ${allowed.join(', ')} only`, () => {
    let files = 0;
    for (const { file, imports } of sources(floor)) {
      files++;
      for (const target of imports) {
        const below = allowed.some((f) => target.startsWith(`${f}/`));
        assert.ok(below, `${file} imports ${target}`);
      }
    }
    assert.ok(files > 3);
  });
}

/** A way from `file` back to itself, or nothing. Files already found free of one are not entered again. */
function circleFrom(file: string, graph: ReadonlyMap<string, string[]>, path: string[], free: Set<string>): string[] {
  if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
  if (free.has(file)) return [];
  for (const next of graph.get(file) ?? []) {
    const circle = circleFrom(next, graph, [...path, file], free);
    if (circle.length) return circle;
  }
  free.add(file);
  return [];
}

test('no files import values from each other in a circle', () => {
  const graph = new Map(
    FLOORS.flatMap((floor) => [...sources(floor)].map(({ file, values }) => [file, values] as const)),
  );
  const free = new Set<string>();
  for (const file of graph.keys()) assert.equal(circleFrom(file, graph, [], free), []);
  assert.ok(free.size > 300);
  assert.equal(
    circleFrom(
      'a',
      new Map([
        ['a', ['b']],
        ['b', ['a']],
      ]),
      [],
      new Set(),
    ),
    ['a', 'b', 'a'],
  );
});

test('device.compile is the one way to compile', () => {
  for (const floor of ['model', 'train', 'cli', 'test'])
    for (const { file, values } of sources(floor)) assert.not(values.includes('engine/runtime/compile.ts'), file);
});

/** Code without its comments. */
const bare = (file: string): string =>
  readFileSync(join(root, file), 'utf8')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/\/\/ .*$/gm, '');

test('kernels, engine and model reach the host through engine/host only', () => {
  const reaches = /'node:|\bprocess\.\w|\bBuffer\b|\bNodeJS\./;
  assert.ok(reaches.test(bare('engine/host/runtime.ts')));
  const files = ['kernels', 'engine', 'model'].flatMap((floor) => [...sources(floor)].map(({ file }) => file));
  for (const file of files) {
    if (file.startsWith('engine/host/') && !file.startsWith('engine/host/browser/')) continue;
    assert.is(reaches.exec(bare(file))?.[0], undefined, file);
  }
});

test('no source is longer than 500 lines', () => {
  for (const floor of [...FLOORS, 'web', 'test']) {
    for (const { file } of sources(floor)) {
      const lines = readFileSync(join(root, file), 'utf8').split('\n').length;
      assert.ok(lines <= 500, `${file} has ${lines} lines`);
    }
  }
});

test('every family of kernels is exported', () => {
  const face = readFileSync(join(root, 'kernels/index.ts'), 'utf8');
  for (const { name } of readdirSync(join(root, 'kernels'), { withFileTypes: true }).filter((e) => e.isDirectory()))
    assert.ok(face.includes(`'./${name}/index.ts'`), `kernels/${name}`);
});

test('what is exported is imported somewhere', () => {
  const faces = ['kernels', 'engine', 'model', 'train'].map((floor) => `${floor}/index.ts`);
  const texts = new Map(
    [...FLOORS, 'web', 'test'].flatMap((floor) =>
      [...sources(floor)].map(({ file }) => [file, readFileSync(join(root, file), 'utf8')] as const),
    ),
  );
  const starred = [...texts.values()].flatMap((text) =>
    [...text.matchAll(/^export \* from '.*\/(\S+)';/gm)].map((m) => m[1]!),
  );
  const idle: string[] = [];
  for (const [file, text] of texts) {
    if (file.startsWith('test') || faces.includes(file) || starred.some((name) => file.endsWith(`/${name}`))) continue;
    for (const [, name] of text.matchAll(
      /^export (?:async |abstract )?(?:const|function\*?|class|interface|type) (\w+)/gm,
    )) {
      const word = new RegExp(`\\b${name}\\b`);
      if (![...texts].some(([other, its]) => other !== file && word.test(its))) idle.push(`${file}: ${name}`);
    }
  }
  assert.equal(idle, []);
});

test.run();
