/**
 * Vulkan drivers on disk: what the system has, and the two software drivers that we can bring without root: Mesa's lavapipe,
 * fetched from the distribution's own mirror into the user's cache, and SwiftShader out of an npm package.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { mesaVersion, MIN_MESA, type AdapterFacts, type Log } from './choose.ts';
import { loadOrder, readLibrary, type Library } from './elf.ts';
import { arch, cacheDir, env, packageDir, platform, run, type ChildResult } from './runtime.ts';

/** What to do in a process before Dawn starts, so that it finds a Vulkan driver. */
export interface Driver {
  name: string;
  /** Shared libraries to load, in this order. */
  libraries: string[];
  /** ICD manifests to offer; empty leaves the choice to the Vulkan loader. */
  icds: string[];
}

/** Tries a driver in a child process. */
export type Trial = (driver: Driver) => Promise<{ adapters: AdapterFacts[] } | { failure: string }>;

// ---- what the system has -------------------------------------------------------------------------------------------

export interface SystemVulkan {
  /** libvulkan.so.1 can be found. */
  loader: boolean;
  /** Paths of ICD manifests. */
  icds: string[];
  /** Some manifest lies where the loader does not look by itself. */
  hidden: boolean;
}

const ICD_DIRS = ['/usr/local/etc', '/usr/local/share', '/etc', '/usr/share', '/run/opengl-driver/share'];
/** Where container runtimes mount NVIDIA's driver. */
const HIDDEN_DIR = '/usr/local/nvidia/share';

const list = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir).map((name) => join(dir, name)) : []);

export function systemVulkan(): SystemVulkan {
  const paths = (env('LD_LIBRARY_PATH') ?? '').split(':').filter(Boolean);
  const cache = '/etc/ld.so.cache';
  const loader =
    paths.some((dir) => existsSync(join(dir, 'libvulkan.so.1'))) ||
    (existsSync(cache) && readFileSync(cache, 'latin1').includes('libvulkan.so.1'));
  const home = env('XDG_DATA_HOME') ?? join(env('HOME') ?? '/', '.local/share');
  const dirs = new Set([home, ...ICD_DIRS, ...(env('XDG_DATA_DIRS') ?? '').split(':').filter(Boolean)]);
  const manifests = (dir: string) => list(join(dir, 'vulkan/icd.d')).filter((file) => file.endsWith('.json'));
  const hidden = manifests(HIDDEN_DIR);
  return { loader, icds: [...[...dirs].flatMap(manifests), ...hidden], hidden: hidden.length > 0 };
}

// ---- SwiftShader ---------------------------------------------------------------------------------------------------

/** Regular files of an uncompressed tar archive. */
export function* untar(tar: Buffer): Generator<{ name: string; data: Buffer }> {
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    const name = tar.toString('latin1', at, at + 100).replace(/\0.*/s, '');
    const size = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8);
    const type = String.fromCharCode(tar[at + 156]!);
    if (type === '0' || type === '\0') yield { name, data: tar.subarray(at + 512, at + 512 + size) };
    at += 512 + 512 * Math.ceil(size / 512);
  }
}

/** Builds a folder beside its place and moves it there in one step, so that what exists is whole. */
async function atomically(target: string, build: (dir: string) => Promise<void>): Promise<void> {
  mkdirSync(dirname(target), { recursive: true });
  const hourAgo = Date.now() - 3600e3;
  for (const left of list(dirname(target))) {
    // by a process that was killed
    if (left.startsWith(`${target}.part-`) && statSync(left).mtimeMs < hourAgo)
      rmSync(left, { recursive: true, force: true });
  }
  const dir = mkdtempSync(`${target}.part-`);
  try {
    await build(dir);
    try {
      renameSync(dir, target);
    } catch (error) {
      if (!existsSync(target)) throw error; // another process was faster: its folder serves
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const SWIFTSHADER = ['libvulkan.so.1', 'libvk_swiftshader.so', 'vk_swiftshader_icd.json'];

/** The SwiftShader (and Vulkan loader) that @sparticuz/chromium carries, extracted into the cache. */
export async function swiftshader(): Promise<Driver> {
  if (platform !== 'linux' || arch !== 'x64')
    throw new Error(`SwiftShader is carried for Linux x64 only, this is ${platform} ${arch}`);
  const root = packageDir('@sparticuz/chromium', 2);
  if (!root) throw new Error('the optional package @sparticuz/chromium is not installed');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const dir = cacheDir(`swiftshader-${version}`);
  if (!existsSync(dir)) {
    await atomically(dir, async (part) => {
      const files = untar(brotliDecompressSync(readFileSync(join(root, 'bin/swiftshader.tar.br'))));
      for (const { name, data } of files)
        if (SWIFTSHADER.includes(basename(name))) writeFileSync(join(part, basename(name)), data);
    });
  }
  return { name: 'SwiftShader', libraries: [join(dir, SWIFTSHADER[0]!)], icds: [join(dir, SWIFTSHADER[2]!)] };
}

// ---- lavapipe ------------------------------------------------------------------------------------------------------

export interface AptSource {
  uri: string;
  suites: string[];
  signedBy?: string;
}

/** Entries for binary packages of a `.list` or deb822 `.sources` file. */
export function parseSources(text: string, deb822: boolean): AptSource[] {
  const bare = text.replace(/^[ \t]*#.*\n?/gm, '');
  if (!deb822) {
    return [...bare.matchAll(/^\s*deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)/gm)].map(([, options, uri, suite]) => ({
      uri: uri!,
      suites: [suite!],
      signedBy: /signed-by=(\S+)/.exec(options ?? '')?.[1],
    }));
  }
  return bare.split(/\n\s*\n/).flatMap((stanza) => {
    const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.+)$`, 'mi').exec(stanza)?.[1]?.trim();
    if (!field('Types')?.split(/\s+/).includes('deb') || field('Enabled')?.toLowerCase() === 'no') return [];
    const key = field('Signed-By');
    return (field('URIs')?.split(/\s+/) ?? []).map((uri) => ({
      uri,
      suites: field('Suites')?.split(/\s+/) ?? [],
      signedBy: key?.startsWith('/') ? key : undefined,
    }));
  });
}

function systemSources(): AptSource[] {
  return ['/etc/apt/sources.list', ...list('/etc/apt/sources.list.d')]
    .filter((file) => existsSync(file) && /\.(list|sources)$/.test(file))
    .flatMap((file) => parseSources(readFileSync(file, 'utf8'), file.endsWith('.sources')));
}

/** Debian 12's own Mesa is too old; its backports are not. */
const BACKPORTS: Record<string, string> = { bookworm: 'bookworm-backports' };
const DEBIAN_KEYS = '/usr/share/keyrings/debian-archive-keyring.gpg';

export interface Package {
  name: string;
  version: string;
  bytes: number;
}

/** Packages of `apt-get --print-uris`: `'http://…/x_1%2b2_amd64.deb' x_1+2_amd64.deb 1234 SHA256:…`. */
export function parseUris(text: string): Package[] {
  return [...text.matchAll(/^'.*' (\S+?)_(\S+)_\w+\.deb (\d+)/gm)].map(([, name, version, bytes]) => ({
    name: name!,
    version: decodeURIComponent(version!),
    bytes: Number(bytes),
  }));
}

/** The process already runs on these; a second copy of the C library would break it. The rest holds no libraries. */
const HAVE = /^(libc6|libgcc-s1|libstdc\+\+6|libcrypt1|gcc-.*-base|.*-(common|data|bin))$/;

/** What went wrong, in one line: apt's first error, else the last thing said. */
function complaint({ stdout, stderr }: ChildResult): string {
  const lines = (stderr || stdout).trim().split('\n');
  return (lines.find((line) => /^[EW]: /.test(line))?.slice(3) ?? lines.at(-1) ?? '').trim();
}

const MB = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

async function done(step: string, result: Promise<ChildResult>): Promise<string> {
  const finished = await result;
  if (finished.code !== 0) throw new Error(`${step} failed: ${complaint(finished)}`);
  return finished.stdout;
}

/** Options that give apt state, cache and sources of its own: nothing of the system's is written, no root is needed. */
function privateApt(dir: string, codename: string): string[] {
  const state = join(dir, 'apt');
  for (const sub of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(state, sub), { recursive: true });
  // An empty status file: every dependency counts as missing, so that the result stands on its own.
  writeFileSync(join(state, 'status'), '');
  const settings = [
    `Dir::State=${state}`,
    `Dir::State::status=${join(state, 'status')}`,
    `Dir::State::lists=${join(state, 'lists')}`,
    `Dir::Cache=${join(state, 'cache')}`,
    'Dir::Etc::preferences=/dev/null',
    'Dir::Etc::preferencesparts=/dev/null',
    'APT::Sandbox::User=',
    'APT::Update::Error-Mode=any',
    'Acquire::Languages=none',
    'Acquire::Retries=2',
    'Acquire::http::Timeout=20',
    'Acquire::https::Timeout=20',
  ];
  const backports = BACKPORTS[codename];
  if (backports) {
    const system = systemSources().find((source) => source.suites.includes(codename));
    const key = system?.signedBy ?? DEBIAN_KEYS;
    const uri = system?.uri ?? 'http://deb.debian.org/debian';
    writeFileSync(
      join(state, 'sources.list'),
      [codename, backports].map((suite) => `deb [signed-by=${key}] ${uri} ${suite} main\n`).join(''),
    );
    settings.push(
      `Dir::Etc::sourcelist=${join(state, 'sources.list')}`,
      'Dir::Etc::sourceparts=/dev/null',
      `APT::Default-Release=${backports}`,
    );
  }
  return settings.flatMap((setting) => ['-o', setting]).concat('-q');
}

const DRIVER = 'libvulkan_lvp.so';
const LOADER = 'libvulkan.so.1';

/**
 * Moves the driver, the Vulkan loader and all they need from an unpacked root into one folder, each file under its soname.
 * Returns the names in loading order: a library's needs are in the process before it, whatever the system has.
 */
function gather(root: string, lib: string): string[] {
  const found = new Map<string, Library & { file: string }>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.so(\.|$)/.test(entry.name)) continue;
    const file = join(entry.parentPath ?? entry.path, entry.name);
    const library = readLibrary(readFileSync(file));
    if (library) found.set(library.soname ?? entry.name, { ...library, file });
  }
  const names = loadOrder(found, [LOADER, DRIVER]);
  for (const name of [LOADER, DRIVER]) if (!names.includes(name)) throw new Error(`the packages hold no ${name}`);
  mkdirSync(lib);
  for (const name of names) renameSync(found.get(name)!.file, join(lib, name));
  return names;
}

async function download(apt: string[], packages: Package[], dir: string, log: Log): Promise<void> {
  const total = packages.reduce((sum, p) => sum + p.bytes, 0);
  mkdirSync(dir);
  let told = 0;
  const timer = setInterval(() => {
    const share =
      list(dir).reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0) / total;
    if (share < told + 0.25 || share >= 1) return;
    told = share;
    log(`lavapipe: ${Math.round(100 * share)} % of ${MB(total)}`);
  }, 500);
  try {
    await done(
      'download',
      run('apt-get', [...apt, 'download', ...packages.map((p) => `${p.name}=${p.version}`)], { cwd: dir }),
    );
  } finally {
    clearInterval(timer);
  }
}

async function fetchLavapipe(target: string, codename: string, trial: Trial, log: Log): Promise<void> {
  await atomically(target, async (part) => {
    const apt = privateApt(part, codename);
    await done('reading the package lists', run('apt-get', [...apt, 'update']));
    const uris = await done(
      'resolving mesa-vulkan-drivers',
      run('apt-get', [
        ...apt,
        'install',
        '--print-uris',
        '-y',
        '--no-install-recommends',
        'mesa-vulkan-drivers',
        'libvulkan1',
      ]),
    );
    const packages = parseUris(uris).filter((p) => !HAVE.test(p.name));
    const mesa = packages.find((p) => p.name === 'mesa-vulkan-drivers')?.version ?? '';
    if ((mesaVersion(mesa)?.[0] ?? 0) < MIN_MESA)
      throw new Error(`${codename} has Mesa ${mesa || '(none)'}, ${MIN_MESA} or newer is needed`);
    log(
      `lavapipe: fetching Mesa ${mesa}, a software Vulkan driver, once: ${packages.length} packages, ${MB(packages.reduce((s, p) => s + p.bytes, 0))}, into ${target} (NO_FETCH=1 forbids it)`,
    );
    await download(apt, packages, join(part, 'debs'), log);
    for (const deb of list(join(part, 'debs')))
      await done('unpacking', run('dpkg-deb', ['-x', deb, join(part, 'root')]));

    const lib = join(part, 'lib');
    const names = gather(join(part, 'root'), lib);
    // A path relative to the manifest: the folder still moves to its place.
    writeFileSync(
      join(part, 'icd.json'),
      JSON.stringify({ file_format_version: '1.0.0', ICD: { library_path: `./lib/${DRIVER}`, api_version: '1.3.0' } }),
    );
    const verdict = await trial({
      name: 'lavapipe',
      libraries: names.map((name) => join(lib, name)),
      icds: [join(part, 'icd.json')],
    });
    if ('failure' in verdict) throw new Error(`the fetched driver does not work: ${verdict.failure}`);
    writeFileSync(join(part, 'manifest.json'), JSON.stringify({ mesa, libraries: names }, null, 1));
    for (const used of ['apt', 'debs', 'root']) rmSync(join(part, used), { recursive: true });
  });
  log('lavapipe: ready');
}

const DAY = 24 * 3600e3;

/**
 * lavapipe in the user's cache, fetched on first use where `apt-get` exists. A failed fetch is not repeated for a day, unless
 * `insist`. Throws an error with the reason where lavapipe cannot be had.
 */
export async function lavapipe(options: { fetch: boolean; insist: boolean; trial: Trial; log: Log }): Promise<Driver> {
  if (platform !== 'linux') throw new Error('lavapipe is fetched on Linux only');
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const codename = /^VERSION_CODENAME=(\S+)/m.exec(release)?.[1] ?? 'unknown';
  const dir = cacheDir(`lavapipe-${codename}-${arch}`);
  if (!existsSync(dir)) {
    if (!options.fetch) throw new Error('not fetched yet, and NO_FETCH is set');
    if (!existsSync('/usr/bin/apt-get')) throw new Error('not fetched: there is no apt-get here');
    const failed = `${dir}.failed`;
    if (!options.insist && existsSync(failed) && Date.now() - statSync(failed).mtimeMs < DAY) {
      throw new Error(`not fetched: ${readFileSync(failed, 'utf8')} (VPAE_ADAPTER=lavapipe tries again)`);
    }
    try {
      await fetchLavapipe(dir, codename, options.trial, options.log);
      rmSync(failed, { force: true });
    } catch (error) {
      const { message } = error as Error;
      options.log(`lavapipe: ${message}; going on without it`);
      if (existsSync(dirname(failed))) writeFileSync(failed, message);
      throw error;
    }
  }
  const { mesa, libraries } = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')) as {
    mesa: string;
    libraries: string[];
  };
  return {
    name: `lavapipe ${mesa}`,
    libraries: libraries.map((name) => join(dir, 'lib', name)),
    icds: [join(dir, 'icd.json')],
  };
}
