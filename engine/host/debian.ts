/** Packages of Debian's and its kin's archive, fetched by apt-get without root and unpacked. */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { list } from './archive.ts';
import type { Log } from './choose.ts';
import { readText, run, type ChildResult } from './runtime.ts';

interface AptSource {
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

/** The release this runs on, such as `bookworm`. */
export const codename = (): string =>
  /^VERSION_CODENAME=(\S+)/m.exec(readText('/etc/os-release') ?? '')?.[1] ?? 'unknown';

export const hasApt = (): boolean => existsSync('/usr/bin/apt-get');

function systemSources(): AptSource[] {
  return ['/etc/apt/sources.list', ...list('/etc/apt/sources.list.d')]
    .filter((file) => existsSync(file) && /\.(list|sources)$/.test(file))
    .flatMap((file) => parseSources(readFileSync(file, 'utf8'), file.endsWith('.sources')));
}

/** Debian 12's own Mesa is too old; its backports are not. */
const BACKPORTS: Record<string, string> = { bookworm: 'bookworm-backports' };
const DEBIAN_KEYS = '/usr/share/keyrings/debian-archive-keyring.gpg';

interface Package {
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

/** What went wrong, in one line: apt's first error, else the last thing said. */
function complaint({ stdout, stderr }: ChildResult): string {
  const lines = (stderr || stdout).trim().split('\n');
  return (lines.find((line) => /^[EW]: /.test(line))?.slice(3) ?? lines.at(-1) ?? '').trim();
}

/** How `run` says that there is no such program. */
const MISSING = 127;

export const MB = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

async function done(step: string, result: Promise<ChildResult>): Promise<string> {
  const finished = await result;
  if (finished.code !== 0) throw new Error(`${step} failed: ${complaint(finished)}`);
  return finished.stdout;
}

/** Options that give apt state, cache and sources of its own: nothing of the system's is written, no root is needed. */
function privateApt(dir: string): string[] {
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
  const backports = BACKPORTS[codename()];
  if (backports) {
    const system = systemSources().find((source) => source.suites.includes(codename()));
    const key = system?.signedBy ?? DEBIAN_KEYS;
    const uri = system?.uri ?? 'http://deb.debian.org/debian';
    writeFileSync(
      join(state, 'sources.list'),
      [codename(), backports].map((suite) => `deb [signed-by=${key}] ${uri} ${suite} main\n`).join(''),
    );
    settings.push(
      `Dir::Etc::sourcelist=${join(state, 'sources.list')}`,
      'Dir::Etc::sourceparts=/dev/null',
      `APT::Default-Release=${backports}`,
    );
  }
  return settings.flatMap((setting) => ['-o', setting]).concat('-q');
}

/** apt with its lists read into `dir`. @returns its options */
export async function openApt(dir: string): Promise<string[]> {
  const apt = privateApt(dir);
  await done('reading the package lists', run('apt-get', [...apt, 'update']));
  return apt;
}

/** The packages and all that they need. */
export async function resolvePackages(apt: readonly string[], names: readonly string[]): Promise<Package[]> {
  const install = ['install', '--print-uris', '-y', '--no-install-recommends', ...names];
  return parseUris(await done(`resolving ${names[0]}`, run('apt-get', [...apt, ...install])));
}

/** Downloads packages into `dir`, which it makes; apt checks their hashes. @param what is fetched, to head the log's lines */
export async function download(
  apt: readonly string[],
  packages: readonly Package[],
  dir: string,
  what: string,
  log: Log,
): Promise<void> {
  const total = packages.reduce((sum, p) => sum + p.bytes, 0);
  mkdirSync(dir);
  let told = 0;
  const timer = setInterval(() => {
    const share =
      list(dir).reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0) / total;
    if (share < told + 0.25 || share >= 1) return;
    told = share;
    log(`${what}: ${Math.round(100 * share)} % of ${MB(total)}`);
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

/** Members of an ar archive, as a .deb is one: a signature, then each with a header of 60 bytes, at even places. */
export function* members(ar: Buffer): Generator<{ name: string; data: Buffer }> {
  if (ar.toString('latin1', 0, 8) !== '!<arch>\n') throw new Error('it is not a Debian package');
  for (let at = 8; at + 60 <= ar.length;) {
    const name = ar
      .toString('latin1', at, at + 16)
      .trim()
      .replace(/\/$/, '');
    const size = Number(ar.toString('latin1', at + 48, at + 58));
    if (at + 60 + size > ar.length) throw new Error(`it is cut short inside ${name}`);
    yield { name, data: ar.subarray(at + 60, at + 60 + size) };
    at += 60 + size + (size % 2);
  }
}

/** Unpacks a .deb into `dir`, which it makes: by dpkg-deb, elsewhere by tar, which brings the decompression. @throws one line */
export async function unpackDeb(deb: string, dir: string): Promise<void> {
  mkdirSync(dir, { recursive: true });
  const unpacked = await run('dpkg-deb', ['-x', deb, dir]);
  if (unpacked.code !== MISSING) return void (await done('unpacking', Promise.resolve(unpacked)));
  const data = [...members(readFileSync(deb))].find(({ name }) => name.startsWith('data.tar'));
  if (!data) throw new Error('it holds no data.tar');
  const tar = join(dir, data.name);
  writeFileSync(tar, data.data);
  await done('unpacking', run('tar', ['-xf', tar, '-C', dir])).finally(() => rmSync(tar));
}
