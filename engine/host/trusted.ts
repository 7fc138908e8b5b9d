/** Code in the cache is loaded only where nobody else could have put it, and while it is what was put there. */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import process from 'node:process';

const MANIFEST = 'manifest.json';
const [WRITABLE, BY_ALL, STICKY] = [0o022, 0o002, 0o1000];

interface Sealed {
  sha256: string;
  /** Size, last change and number of the file that was hashed last: nobody but root can change one and keep these. */
  seen: string;
}
type Manifest = Record<string, unknown> & { files?: Record<string, Sealed> };

/** A name of a file in a folder, and of nothing elsewhere. */
export const isBare = (name: unknown): name is string => typeof name === 'string' && /^[\w+-][\w.+-]*$/.test(name);

const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

const seenAs = (path: string): string => {
  const { size, ctimeMs, ino } = statSync(path);
  return `${size} ${ctimeMs} ${ino}`;
};

/** All files below a folder but its manifest, by their path in it. */
const filesOf = (dir: string): string[] =>
  readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(dir, join(entry.parentPath ?? entry.path, entry.name)))
    .filter((name) => name !== MANIFEST && !name.endsWith('.part'));

/** A folder, and all folders and files below it. */
const allOf = (dir: string): string[] => [
  dir,
  ...readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => !name.endsWith('.part')) // another process may be at the manifest
    .map((name) => join(dir, name)),
];

/** @throws whose it is, or who may write there, where that is somebody else */
function refuseForeign(path: string, isAbove: boolean): void {
  const { uid, gid, mode } = lstatSync(path);
  const me = process.getuid?.();
  if (me === undefined) return; // Windows has none of these
  if (uid !== me && uid !== 0)
    throw new Error(
      `${path} belongs to user ${uid}, and code from there is not loaded: set XDG_CACHE_HOME to a folder of your own`,
    );
  // A group of one's own, as some systems give every user, is nobody else.
  const isOwnGroup = isAbove && gid === process.getgid?.() && uid === me;
  const others = mode & (isOwnGroup ? BY_ALL : WRITABLE);
  if (others && !(isAbove && mode & STICKY))
    throw new Error(
      `${path} may be written by others than its owner: chmod go-w makes it safe, after a look at what it holds`,
    );
}

/** The folders above, to the root. */
const above = (dir: string): string[] => (dirname(dir) === dir ? [] : [dirname(dir), ...above(dirname(dir))]);

function readManifest(dir: string): Manifest {
  try {
    return JSON.parse(readFileSync(join(dir, MANIFEST), 'utf8')) as Manifest;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new Error(`${join(dir, MANIFEST)} cannot be read: remove ${dir}, it is made anew`, { cause: error });
  }
}

function writeManifest(dir: string, manifest: Manifest): void {
  const part = join(dir, `${MANIFEST}.${process.pid}.part`);
  writeFileSync(part, JSON.stringify(manifest, null, 1), { mode: 0o644 });
  renameSync(part, join(dir, MANIFEST));
}

/** Takes down what a folder that was just made holds, and takes the right to write there from others. */
export function seal(dir: string, about: Record<string, unknown> = readManifest(dir)): void {
  const files = filesOf(dir);
  for (const path of allOf(dir)) chmodSync(path, statSync(path).mode & ~WRITABLE & 0o7777);
  const entries = files.map((name) => [name, { sha256: sha256(join(dir, name)), seen: seenAs(join(dir, name)) }]);
  writeManifest(dir, { ...about, files: Object.fromEntries(entries) as Record<string, Sealed> });
}

/**
 * Checks a folder before anything in it is loaded; one that was made before there were hashes gets them.
 * @returns what its maker noted
 * @throws one line: who could have put something there, or what is not as it was
 */
export function verify(dir: string): Record<string, unknown> {
  const real = realpathSync(dir);
  for (const path of above(real)) refuseForeign(path, true);
  for (const path of allOf(real)) refuseForeign(path, false);
  const manifest = readManifest(real);
  const canWrite = process.getuid === undefined || statSync(real).uid === process.getuid();
  if (!manifest.files) {
    if (canWrite) seal(real, manifest);
    return manifest;
  }
  let news = false;
  const now = new Set(filesOf(real));
  for (const [name, sealed] of Object.entries(manifest.files)) {
    const path = join(real, name.slice(0, 255));
    if (!now.delete(name)) throw new Error(`${path} is missing: remove ${dir}, it is made anew`);
    if (seenAs(path) === sealed.seen) continue;
    if (sha256(path) !== sealed.sha256)
      throw new Error(`${path} is not what was put there: remove ${dir}, it is made anew`);
    sealed.seen = seenAs(path);
    news = true;
  }
  if (now.size) throw new Error(`${join(real, [...now][0]!)} was not put there by us: remove ${dir}, it is made anew`);
  if (news && canWrite) writeManifest(real, manifest);
  return manifest;
}
