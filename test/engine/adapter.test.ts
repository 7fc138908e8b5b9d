/** Choosing an adapter (pure), reading what systems say of their drivers, flags, and opening for real. */
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { advice } from '../../cli/doctor.ts';
import { openAdapter } from '../../engine/host/adapter.ts';
import { capsOf } from '../../engine/host/caps.ts';
import {
  fastestFirst,
  firstThatWorks,
  isSoftware,
  LISTED,
  mesaVersion,
  named,
  NoAdapterError,
  objection,
  type AdapterFacts,
  type Source,
} from '../../engine/host/choose.ts';
import { candidates } from '../../engine/host/drivers.ts';
import { loadOrder, readLibrary } from '../../engine/host/elf.ts';
import { FLAG_DOCS, readFlags } from '../../engine/host/flags.ts';
import { run, runScript, waiting, withEnv } from '../../engine/host/runtime.ts';
import { requestAdapter, systemAdapters } from '../../engine/host/system.ts';
import { untar } from '../../engine/host/archive.ts';
import { members, parseSources, parseUris } from '../../engine/host/debian.ts';
import { UNITS } from '../kernels/units.ts';

const facts = (device: string, description = '', isFallbackAdapter = false): AdapterFacts => ({
  vendor: '',
  architecture: '',
  device,
  description,
  isFallbackAdapter,
});
const nvidia = facts('nvidia-h200', 'NVIDIA: 570.1');
const mesa25 = facts('llvmpipe-llvm-15', 'llvmpipe: Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6) 0.0.1', true);
const mesa22 = facts('llvmpipe-llvm-15', 'llvmpipe: Mesa 22.3.6 (LLVM 15.0.6)', true);

async function thrown(work: () => Promise<unknown>): Promise<Error> {
  try {
    await work();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

/** Chooses as openAdapter does, over canned results. */
const choose = (results: Partial<Record<Source, AdapterFacts>>, order = candidates('auto')) =>
  firstThatWorks(order, async (source) => {
    const value = results[source];
    if (!value) throw new Error('nothing there');
    const reason = objection(source, value);
    if (reason) throw new Error(reason);
    return { value, reason: 'works' };
  });

test('a real GPU comes first, and every candidate has its reason', async () => {
  assert.is((await choose({ gpu: nvidia, system: mesa25, swiftshader: mesa25 })).source, 'gpu');
  const software = await choose({ gpu: mesa25, system: mesa25 });
  assert.equal(
    software.tried.map((t) => [t.source, t.taken]),
    [
      ['gpu', false],
      ['system', true],
    ],
  );
  assert.match(software.tried[0]!.reason, 'only a software driver');
  const old = await choose({ gpu: mesa22, system: mesa22, lavapipe: mesa25 });
  assert.is(old.source, 'lavapipe');
  assert.match(old.tried[1]!.reason, 'too old');
  assert.is((await choose({ swiftshader: facts('swiftshader') })).source, 'swiftshader');
});

test('one candidate when one is asked for; a clear line when nothing works', async () => {
  assert.equal(candidates('lavapipe'), ['lavapipe']);
  const one = await thrown(() => choose({}, candidates('gpu')));
  assert.is(one.message, '[adapter] gpu: nothing there');
  const none = (await thrown(() => choose({}))) as NoAdapterError;
  assert.is(none.tried.length, 5);
  assert.match(none.message, /^\[adapter\] .*(install|unset|update|use )/);
});

test('an adapter by its number or a part of its name; SwiftShader only where there is nothing else', () => {
  const all = ['SwiftShader Device (Subzero)', 'llvmpipe (LLVM 15.0.6, 256 bits)', 'NVIDIA H200'].map((name) => {
    return { backend: 'vulkan', name, facts: facts(name) };
  });
  assert.is(named('2', all), all[1]);
  assert.is(named('nvidia', all), all[2]);
  assert.throws(
    () => named('4', all),
    /^VPAE_DEVICE=4 is none of 1 SwiftShader Device \(Subzero\) \(vulkan\), 2 llvmpipe/,
  );
  assert.equal(
    fastestFirst(all.slice(0, 2)).map((a) => a.name),
    [all[1]!.name, all[0]!.name],
  );
  assert.equal(candidates('auto', 'nvidia'), ['gpu', 'system'], 'who names an adapter wants no other');
  const answer =
    "no suitable backends found\nAvailable adapters:\n * backend: 'd3d12', name: 'Intel(R) Arc(TM) A770'\n";
  assert.equal(
    [...answer.matchAll(LISTED)].map(([, backend, name]) => [backend, name]),
    [['d3d12', 'Intel(R) Arc(TM) A770']],
  );
});

test("every adapter of the system's drivers is listed, and can be asked for by its name", async () => {
  const { driver, adapters } = await systemAdapters().catch((error: Error) => {
    assert.match(error.message, /no Vulkan driver is installed|Dawn finds no adapter/); // there may be none
    return { driver: undefined, adapters: [] };
  });
  for (const { backend, name, facts: said } of adapters) {
    const { adapter } = await requestAdapter(driver!, [`backend=${backend}`, `adapter=${name}`]);
    assert.is(adapter.info.device, said.device);
  }
});

test('software adapters are known by what they say', () => {
  assert.not(isSoftware(nvidia));
  assert.ok(isSoftware(mesa25));
  assert.ok(isSoftware(facts('0', 'llvmpipe (LLVM 15.0.6, 256 bits)')));
  assert.ok(isSoftware(facts('swiftshader-device-subzero-')));
  assert.ok(isSoftware(facts('', 'Microsoft Basic Render Driver')));
});

test('Mesa versions of adapters and packages', () => {
  assert.equal(mesaVersion(mesa25.description), [25, 0]);
  assert.equal(mesaVersion('22.3.6-1+deb12u1'), [22, 3]);
  assert.is(mesaVersion('NVIDIA: 570.1'), undefined);
});

const LIMITS = {
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 32768,
  maxStorageBuffersPerShaderStage: 10,
  maxStorageBufferBindingSize: 2 ** 27,
};
const WANTED = { NO_F16: false, NO_MATRIX: false };
const sizes = (subgroupMinSize: number, subgroupMaxSize: number) => ({ subgroupMinSize, subgroupMaxSize });

test('capabilities', () => {
  const all = new Set(['shader-f16', 'subgroups']);
  const gpu = capsOf(LIMITS, all, sizes(32, 32), false, WANTED).caps;
  assert.equal(gpu, {
    tier: 'tiled',
    f16: true,
    subgroup: 32,
    maxInvocations: 256,
    maxWorkgroupBytes: 32768,
    maxStorageBuffers: 10,
    maxBindingBytes: 2 ** 27,
  });
  assert.is(capsOf(LIMITS, all, sizes(8, 32), false, WANTED).caps.subgroup, 0);
  assert.is(capsOf(LIMITS, new Set(), sizes(8, 8), true, WANTED).caps.subgroup, 0);
  assert.is(capsOf(LIMITS, all, {}, true, { ...WANTED, NO_F16: true }).caps.f16, false);
  assert.is(capsOf(LIMITS, all, {}, true, WANTED).caps.tier, 'scalar');
  assert.is(capsOf(LIMITS, all, {}, true, { ...WANTED, TIER: 'tiled' }).caps.tier, 'tiled');
});

test('subgroup sizes: the only one, the smallest that a kernel may ask for, else none', () => {
  const of = (reported: object, ...more: string[]) => {
    const { subgroup, sized } = capsOf(LIMITS, new Set(['subgroups', ...more]), reported, false, WANTED).caps;
    return [subgroup, sized ?? false];
  };
  assert.equal(of(sizes(32, 32), 'subgroup-size-control'), [32, false]);
  assert.equal(of(sizes(32, 64)), [0, false], 'AMD, in a browser without the feature');
  assert.equal(of(sizes(32, 64), 'subgroup-size-control'), [32, true], 'AMD');
  assert.equal(of(sizes(8, 32), 'subgroup-size-control'), [8, true], 'Intel');
  const apple = { ...sizes(4, 64), vendor: 'apple' };
  assert.equal(of(apple), [0, false]);
  assert.equal(of(apple, 'chromium-experimental-subgroup-matrix'), [32, false]);
});

test('matrix units: the largest of each type of operands with sums in f32, where subgroups have one size', () => {
  const all = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];
  const shape = (n: number, componentType = 'f16', resultComponentType = 'f32') => {
    return { componentType, resultComponentType, M: n, N: n, K: n };
  };
  const units = (
    min: number,
    max: number,
    wanted: object = {},
    more: string[] = [],
    shapes = [8, 16].map((n) => shape(n)),
  ) =>
    capsOf(
      LIMITS,
      new Set([...all, ...more]),
      { ...sizes(min, max), subgroupMatrixConfigs: [...shapes, shape(32, 'f16', 'f16')] },
      false,
      { ...WANTED, ...wanted },
    ).caps.units;
  assert.equal(units(32, 32), [UNITS.nvidia]);
  assert.equal(units(32, 64, {}, ['subgroup-size-control']), [UNITS.rdna3], 'whole workgroups of its largest size');
  const both = [shape(8, 'f32'), shape(8, 'f16')];
  assert.equal(
    units(32, 64, {}, ['subgroup-size-control'], both)?.map((u) => u.operands),
    ['f16', 'f32'],
  );
  assert.equal(
    units(32, 64, { NO_F16: true }, ['subgroup-size-control'], both)?.map((u) => u.operands),
    ['f32'],
  );
  assert.is(units(16, 32), undefined);
  for (const off of [{ NO_MATRIX: true }, { NO_F16: true }, { TIER: 'tiled' }])
    assert.is(units(32, 32, off), undefined);
  assert.is(units(16, 32, { TIER: 'matrix' })?.[0]?.emulated, true);
});

test('flags', () => {
  const read = (values: Record<string, string>) => readFlags((name) => values[name]);
  const plain = read({});
  assert.is(plain.DEBUG, 0);
  assert.is(plain.NO_F16, false);
  assert.is(plain.TIER, undefined);
  const set = read({
    DEBUG: '2',
    NO_F16: '1',
    NO_FUSE: '0',
    TIER: 'tiled',
    PROFILE: 'trace.json',
    NO_FETCH: '',
    VPAE_SUBMIT_MS: '50',
  });
  assert.equal(
    [set.DEBUG, set.NO_F16, set.NO_FUSE, set.TIER, set.PROFILE, set.NO_FETCH],
    [2, true, false, 'tiled', 'trace.json', false],
  );
  assert.equal([set.VPAE_SUBMIT_MS, plain.VPAE_SUBMIT_MS], [50, undefined]);
  assert.throws(() => read({ VPAE_SUBMIT_MS: '0' }), '[flags] VPAE_SUBMIT_MS: expected a number of 1 or more, got "0"');
  assert.throws(() => read({ TIER: 'fast' }), '[flags] TIER: expected scalar, tiled, got "fast"');
  assert.throws(() => read({ DEBUG: 'all' }), '[flags] DEBUG: expected 0 to 4');
  assert.equal(Object.keys(FLAG_DOCS), Object.keys(plain));
});

test('apt sources, in both formats', () => {
  const key = '/usr/share/keyrings/debian-archive-keyring.gpg';
  assert.equal(
    parseSources(
      `# a comment\ndeb [arch=amd64 signed-by=${key}] http://m/debian bookworm main\ndeb-src http://m/debian bookworm main\ndeb http://s/x bookworm-security main\n`,
      false,
    ),
    [
      { uri: 'http://m/debian', suites: ['bookworm'], signedBy: key },
      { uri: 'http://s/x', suites: ['bookworm-security'], signedBy: undefined },
    ],
  );
  assert.equal(
    parseSources(
      `Types: deb\n# http://snapshot\nURIs: http://m/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: ${key}\n\nTypes: deb\nEnabled: no\nURIs: http://off\nSuites: x\n`,
      true,
    ),
    [{ uri: 'http://m/debian', suites: ['trixie', 'trixie-updates'], signedBy: key }],
  );
});

test('packages of apt-get --print-uris', () => {
  const text =
    "Reading package lists...\n'http://m/libllvm15_15.0.6-4%2bb1_amd64.deb' libllvm15_1%3a15.0.6-4+b1_amd64.deb 23115156 MD5Sum:9ad0\n'http://m/x.deb' libstdc++6_12.2.0-14_amd64.deb 612604 \n";
  assert.equal(parseUris(text), [
    { name: 'libllvm15', version: '1:15.0.6-4+b1', bytes: 23115156 },
    { name: 'libstdc++6', version: '12.2.0-14', bytes: 612604 },
  ]);
});

test('tar archives', () => {
  const header = Buffer.alloc(512);
  header.write('bin/a.txt', 0);
  header.write('00000000003\0', 124);
  header.write('0', 156);
  const files = [...untar(Buffer.concat([header, Buffer.from('abc'.padEnd(512, '\0')), Buffer.alloc(1024)]))];
  assert.equal(
    files.map((f) => [f.name, f.data.toString()]),
    [['bin/a.txt', 'abc']],
  );
});

test('an ar archive gives its members, and says where it ends too soon', () => {
  const head = (name: string, size: number) => `${name.padEnd(48)}${String(size).padEnd(10)}\x60\n`;
  const ar = Buffer.from(`!<arch>\n${head('debian-binary', 3)}2.0\n${head('data.tar.xz/', 2)}ab`);
  assert.equal(
    [...members(ar)].map(({ name, data }) => [name, data.toString()]),
    [
      ['debian-binary', '2.0'],
      ['data.tar.xz', 'ab'],
    ],
  );
  assert.throws(() => [...members(ar.subarray(0, ar.length - 1))], /^it is cut short inside data\.tar\.xz$/);
  assert.throws(() => [...members(Buffer.from('PK'))], /^it is not a Debian package$/);
});

test('libraries load after what they need', () => {
  const libraries = new Map(
    Object.entries({ driver: ['b', 'a'], a: ['c', 'libc'], b: ['c'], c: ['a'], other: [] }).map(([name, needed]) => [
      name,
      { needed },
    ]),
  );
  assert.equal(loadOrder(libraries, ['driver']), ['a', 'c', 'b', 'driver']);
  assert.is(
    readLibrary(Buffer.from('no library at all, only some text that is long enough to hold a header')),
    undefined,
  );
  if (process.platform === 'linux')
    assert.ok(readLibrary(readFileSync(process.execPath))?.needed.some((name) => name.startsWith('libc.')));
});

test('children and their environment', async () => {
  const child = await withEnv({ VPAE_TEST: 'here' }, () => runScript('console.log(process.env.VPAE_TEST)'));
  assert.equal([child.code, child.stdout], [0, 'here\n']);
  assert.is(process.env.VPAE_TEST, undefined);
  assert.is((await run('no-such-program', [])).code, 127);
});

test('advice names what is missing', () => {
  const info = {
    name: 'x',
    vendor: '',
    driver: '',
    reason: '',
    tierReason: '',
    tried: [{ source: 'lavapipe', taken: false, reason: 'no apt-get' }],
  } as const;
  const caps = {
    tier: 'scalar',
    f16: false,
    subgroup: 4,
    maxInvocations: 256,
    maxWorkgroupBytes: 0,
    maxStorageBuffers: 8,
    maxBindingBytes: 0,
  } as const;
  assert.match(
    advice({ info: { ...info, tried: [...info.tried], kind: 'software', source: 'swiftshader' }, caps }).join('\n'),
    'no apt-get',
  );
  assert.equal(advice({ info: { ...info, tried: [], kind: 'gpu', source: 'gpu' }, caps: { ...caps, f16: true } }), []);
});

test('an adapter opens, waits restore the immediate, and errors are kept', async () => {
  const { device, caps, info, state } = await openAdapter();
  assert.ok(info.tried.at(-1)!.taken);
  assert.is(device.limits.maxStorageBufferBindingSize, caps.maxBindingBytes);
  const immediate = globalThis.setImmediate;
  await Promise.all([waiting(device.queue.onSubmittedWorkDone()), waiting(device.queue.onSubmittedWorkDone())]);
  assert.is(globalThis.setImmediate, immediate);
  assert.is(state.error, undefined);
  device.createBuffer({ size: 4, usage: 0 });
  await waiting(device.queue.onSubmittedWorkDone());
  assert.ok(state.error);
  device.destroy();
  assert.is((await device.lost).reason, 'destroyed');
  assert.ok(state.lost);
  const again = await openAdapter();
  assert.is(again.info.name, info.name);
  again.device.destroy();
});

test('a null adapter validates without a driver', async () => {
  const { device, info, caps } = await openAdapter({ adapter: 'null' });
  assert.equal([info.source, caps.tier], ['null', process.env.TIER ?? 'tiled']);
  device.pushErrorScope('validation');
  device.createShaderModule({ code: '@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }' });
  assert.ok(await waiting(device.popErrorScope()));
});

test.run();
