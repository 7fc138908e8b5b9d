/**
 * Vulkan drivers on disk: what the system has, and the two software drivers that we can bring without root: Mesa's lavapipe,
 * fetched from the distribution's own mirror into the user's cache, and SwiftShader out of an npm package.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { atomically, list, untar } from './archive.ts';
import { mesaVersion, MIN_MESA, type Listed, type Log } from './choose.ts';
import { codename, download, hasApt, MB, openApt, resolvePackages, unpackDeb } from './debian.ts';
import { loadOrder, readLibrary, type Library } from './elf.ts';
import { isBare, seal, verify } from './trusted.ts';
import { arch, cacheDir, env, packageDir, platform } from './runtime.ts';

/** What to do in a process before Dawn starts, so that it finds a Vulkan driver. */
export interface Driver {
  name: string;
  /** Shared libraries to load, in this order. */
  libraries: string[];
  /** ICD manifests to offer; empty leaves the choice to the Vulkan loader. */
  icds: string[];
}

/** Tries a driver in a child process. */
export type Trial = (driver: Driver) => Promise<{ adapters: Listed[] } | { failure: string }>;

// ---- what the system has -------------------------------------------------------------------------------------------

interface SystemVulkan {
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

const SWIFTSHADER = ['libvulkan.so.1', 'libvk_swiftshader.so', 'vk_swiftshader_icd.json'];

/** The SwiftShader (and Vulkan loader) that @sparticuz/chromium carries, extracted into the cache. */
export async function swiftshader(): Promise<Driver> {
  if (platform !== 'linux' || arch !== 'x64')
    throw new Error(`SwiftShader is carried for Linux x64 only, this is ${platform} ${arch}`);
  const root = packageDir('@sparticuz/chromium', 2);
  if (!root) throw new Error('it comes with an optional package: npm install @sparticuz/chromium@147.0.0 brings it');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const dir = cacheDir(`swiftshader-${version}`);
  if (!existsSync(dir)) {
    await atomically(dir, async (part) => {
      const files = untar(brotliDecompressSync(readFileSync(join(root, 'bin/swiftshader.tar.br'))));
      for (const { name, data } of files)
        if (SWIFTSHADER.includes(basename(name))) writeFileSync(join(part, basename(name)), data);
      seal(part);
    });
  }
  verify(dir);
  return { name: 'SwiftShader', libraries: [join(dir, SWIFTSHADER[0]!)], icds: [join(dir, SWIFTSHADER[2]!)] };
}

// ---- lavapipe ------------------------------------------------------------------------------------------------------

/** The process already runs on these; a second copy of the C library would break it. The rest holds no libraries. */
const HAVE = /^(libc6|libgcc-s1|libstdc\+\+6|libcrypt1|gcc-.*-base|.*-(common|data|bin))$/;

const DRIVER = 'libvulkan_lvp.so';
const LOADER = 'libvulkan.so.1';

/**
 * Moves `wanted` and all they need from an unpacked root into one folder, each file under its soname.
 * Returns the names in loading order: a library's needs are in the process before it, whatever the system has.
 */
function gather(root: string, lib: string, wanted: readonly string[]): string[] {
  const found = new Map<string, Library & { file: string }>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.so(\.|$)/.test(entry.name)) continue;
    const file = join(entry.parentPath ?? entry.path, entry.name);
    const library = readLibrary(readFileSync(file));
    if (library && isBare(library.soname ?? entry.name)) found.set(library.soname ?? entry.name, { ...library, file });
  }
  const names = loadOrder(found, wanted);
  for (const name of wanted) if (!names.includes(name)) throw new Error(`the packages hold no ${name}`);
  mkdirSync(lib);
  for (const name of names) renameSync(found.get(name)!.file, join(lib, name));
  return names;
}

/** A driver out of Mesa's packages. */
export interface MesaPart {
  /** Its name, to head the log's lines, and what it is. */
  name: string;
  what: string;
  packages: readonly string[];
  driver: string;
  /** Other libraries to keep. */
  beside: readonly string[];
}

const LAVAPIPE: MesaPart = {
  name: 'lavapipe',
  what: 'a software Vulkan driver',
  packages: ['mesa-vulkan-drivers', 'libvulkan1'],
  driver: DRIVER,
  beside: [],
};

/** Fetches a driver, and everything it needs, into a folder that is whole once it is there. @param check throws where it does not work */
export async function fetchMesa(
  target: string,
  { name, what, packages: wanted, driver, beside }: MesaPart,
  log: Log,
  check: (made: Driver) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  await atomically(target, async (part) => {
    const apt = await openApt(part);
    const all = await resolvePackages(apt, wanted);
    const packages = all.filter((p) => !HAVE.test(p.name));
    const mesa = packages.find((p) => p.name === 'mesa-vulkan-drivers')?.version ?? '';
    if ((mesaVersion(mesa)?.[0] ?? 0) < MIN_MESA)
      throw new Error(`${codename()} has Mesa ${mesa || '(none)'}, ${MIN_MESA} or newer is needed`);
    log(
      `${name}: fetching Mesa ${mesa}, ${what}, once: ${packages.length} packages, ${MB(packages.reduce((s, p) => s + p.bytes, 0))}, into ${target} (NO_FETCH=1 forbids it)`,
    );
    await download(apt, packages, join(part, 'debs'), name, log);
    for (const deb of list(join(part, 'debs'))) await unpackDeb(deb, join(part, 'root'));

    const lib = join(part, 'lib');
    const names = gather(join(part, 'root'), lib, [LOADER, driver, ...beside]);
    // A path relative to the manifest: the folder still moves to its place.
    writeFileSync(
      join(part, 'icd.json'),
      JSON.stringify({ file_format_version: '1.0.0', ICD: { library_path: `./lib/${driver}`, api_version: '1.3.0' } }),
    );
    await check({ name, libraries: names.map((file) => join(lib, file)), icds: [join(part, 'icd.json')] });
    for (const used of ['apt', 'debs', 'root']) rmSync(join(part, used), { recursive: true });
    seal(part, { mesa, libraries: names });
  });
  log(`${name}: ready`);
}

const DAY = 24 * 3600e3;

/**
 * lavapipe in the user's cache, fetched on first use where `apt-get` exists. A failed fetch is not repeated for a day, unless
 * `insist`. Throws an error with the reason where lavapipe cannot be had.
 */
export async function lavapipe(options: { fetch: boolean; insist: boolean; trial: Trial; log: Log }): Promise<Driver> {
  if (platform !== 'linux') throw new Error('lavapipe is fetched on Linux only');
  const dir = cacheDir(`lavapipe-${codename()}-${arch}`);
  if (!existsSync(dir)) {
    if (!options.fetch) throw new Error('not fetched yet, and NO_FETCH is set');
    if (!hasApt()) throw new Error('not fetched: there is no apt-get here');
    const failed = `${dir}.failed`;
    if (!options.insist && existsSync(failed) && Date.now() - statSync(failed).mtimeMs < DAY) {
      throw new Error(`not fetched: ${readFileSync(failed, 'utf8')} (VPAE_ADAPTER=lavapipe tries again)`);
    }
    try {
      await fetchMesa(dir, LAVAPIPE, options.log, async (made) => {
        const verdict = await options.trial(made);
        if ('failure' in verdict) throw new Error(`the fetched driver does not work: ${verdict.failure}`);
      });
      rmSync(failed, { force: true });
    } catch (error) {
      const { message } = error as Error;
      options.log(`lavapipe: ${message}; going on without it`);
      if (existsSync(dirname(failed))) writeFileSync(failed, message);
      throw error;
    }
  }
  const { mesa, libraries } = verify(dir);
  if (!Array.isArray(libraries) || !libraries.every(isBare))
    throw new Error(`${join(dir, 'manifest.json')} names no libraries: remove ${dir}, it is fetched anew`);
  return {
    name: `lavapipe ${String(mesa)}`,
    libraries: libraries.map((name) => join(dir, 'lib', name)),
    icds: [join(dir, 'icd.json')],
  };
}
