/** `vpae data fetch flare`: the sprites of the free game Flare out of Debian's package, cut out of their sheets into the user's cache. */
import { existsSync, mkdtempSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { atomically, list } from '../../engine/host/archive.ts';
import { download, hasApt, MB, openApt, resolvePackages, unpackDeb } from '../../engine/host/debian.ts';
import { ACTIONS, GROUNDS, itemsOf, SEXES, type Action, type Ground } from '../../train/data/flare/outfits.ts';
import { DIRECTIONS, parseAnimation, parseLayers, parseTiles, type Placed } from '../../train/data/flare/parse.ts';
import { flareFiles, flareFolder, type FlareIndex, type Pack } from '../../train/data/flare/sprites.ts';
import { meter } from '../common/progress.ts';

const PACKAGE = 'flare-game';
const ATTRIBUTION = `Sprites and tiles of the game Flare (https://flarerpg.org), copyright Clint Bellanger and Flare's contributors,
licensed under Creative Commons Attribution-ShareAlike 3.0 (https://creativecommons.org/licenses/by-sa/3.0/) or later.
Cut out of their sheets; otherwise unchanged. Pictures and latents made from them carry the same licence.
`;

/** Where the art lies, below what --from names or a package unpacks to. */
const PLACES = ['', 'fantasycore', 'mods/fantasycore', 'usr/share/games/flare/mods/fantasycore'];

/**
 * Brings the sprites into the cache, from Debian's archive or from what a person has.
 * @returns the folder, or undefined when they were there
 * @param from a .deb of flare-game, or a folder with the game's files
 * @throws one line
 */
export async function fetchFlare(from: string | undefined, signal: AbortSignal): Promise<string | undefined> {
  if (existsSync(flareFiles().index)) return undefined;
  rmSync(flareFolder(), { recursive: true, force: true }); // without its index it is not whole
  if (from !== undefined && !existsSync(from))
    throw new Error(`[fetch] --from ${from}: there is no such file or folder`);
  if (from !== undefined && statSync(from).isDirectory()) return cutOut(from, signal);
  mkdirSync(dirname(flareFolder()), { recursive: true });
  const dir = mkdtempSync(join(dirname(flareFolder()), 'fetch-'));
  try {
    const deb = from ?? (await downloadPackage(dir));
    signal.throwIfAborted();
    await unpackDeb(deb, join(dir, 'root')).catch((error: unknown) => {
      throw new Error(`[fetch] ${deb}: ${(error as Error).message}`, { cause: error });
    });
    return await cutOut(join(dir, 'root'), signal);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function downloadPackage(dir: string): Promise<string> {
  const elsewhere = `get ${PACKAGE}_1.14-1_all.deb from any mirror of Debian, and give it by --from`;
  if (!hasApt()) throw new Error(`[fetch] there is no apt-get here: ${elsewhere}`);
  try {
    const apt = await openApt(dir);
    const packages = (await resolvePackages(apt, [PACKAGE])).filter((p) => p.name === PACKAGE);
    if (!packages.length) throw new Error(`the archive has no ${PACKAGE}`);
    console.error(`${PACKAGE} ${packages[0]!.version}: ${MB(packages[0]!.bytes)}`);
    await download(apt, packages, join(dir, 'debs'), PACKAGE, console.error);
    return list(join(dir, 'debs'))[0]!;
  } catch (error) {
    throw new Error(`[fetch] ${(error as Error).message}; or ${elsewhere}`, { cause: error });
  }
}

/** Cuts every sprite that clips are made of out of its sheet. */
async function cutOut(folder: string, signal: AbortSignal): Promise<string> {
  const root = PLACES.map((place) => join(folder, place)).find((place) =>
    existsSync(join(place, 'engine/hero_layers.txt')),
  );
  if (root === undefined)
    throw new Error(`[fetch] ${folder} holds no Flare: mods/fantasycore/engine/hero_layers.txt is not below it`);
  const read = (path: string): string => {
    try {
      return readFileSync(join(root, path), 'utf8');
    } catch {
      throw new Error(`[fetch] ${join(root, path)} is missing: this is not all of ${PACKAGE}`);
    }
  };
  const layersPath = 'engine/hero_layers.txt';
  const layers = parseLayers(read(layersPath), join(root, layersPath));
  const wanted = SEXES.flatMap((sex) => itemsOf(sex).map((item) => `${sex}/${item}`));
  const shown = meter('flare', { unit: 'sheets', total: wanted.length + Object.keys(GROUNDS).length });
  let done = 0;
  await atomically(flareFolder(), async (part) => {
    const packed: Buffer[] = [];
    let offset = 0;
    /** Cuts places out of a sheet and adds them to the file; undefined stays empty. */
    const pack = async (image: string, places: readonly (Placed | undefined)[]): Promise<Pack> => {
      signal.throwIfAborted();
      const sheet = await openSheet(join(root, image));
      const bytes = deflateSync(Buffer.concat(places.map((place) => (place ? sheet(place) : Buffer.alloc(0)))));
      packed.push(bytes);
      offset += bytes.length;
      shown.at(++done);
      const sizes = places.map((p) => (p ? ([p.width, p.height, p.originX, p.originY] as const) : (0 as const)));
      return { offset: offset - bytes.length, bytes: bytes.length, sizes };
    };
    let motions: FlareIndex['motions'] | undefined;
    const items: FlareIndex['items'] = {};
    for (const name of wanted) {
      const path = `animations/avatar/${name}.txt`;
      const animation = parseAnimation(read(path), join(root, path));
      motions ??= Object.fromEntries(
        ACTIONS.map((action) => {
          const motion = animation.motions[action];
          if (!motion) throw new Error(`[fetch] ${join(root, path)} has no [${action}]`);
          const { frames, milliseconds, type } = motion;
          return [action, { frames, milliseconds, type }];
        }),
      ) as Record<Action, FlareIndex['motions'][Action]>;
      const known = motions;
      const places = ACTIONS.flatMap((action) =>
        Array.from({ length: known[action].frames * DIRECTIONS }, (_, i) => animation.motions[action]?.sprites[i]),
      );
      items[name] = await pack(animation.image, places);
    }
    const grounds = {} as Record<Ground, Pack>;
    for (const [ground, { tileset, tiles: count }] of Object.entries(GROUNDS)) {
      const path = `tilesetdefs/tileset_${tileset}.txt`;
      const { image, tiles } = parseTiles(read(path), count, join(root, path));
      grounds[ground as Ground] = await pack(
        image,
        tiles.map((tile) => ({ ...tile, originX: 0, originY: 0 })),
      );
    }
    writeFileSync(join(part, 'sprites.bin'), Buffer.concat(packed));
    writeFileSync(join(part, 'ATTRIBUTION'), ATTRIBUTION);
    const index: FlareIndex = { layers, motions: motions!, items, grounds };
    writeFileSync(join(part, 'index.json'), JSON.stringify(index));
  }).finally(shown.end);
  return flareFolder();
}

/** A sheet's RGBA, to be cut. @throws one line */
async function openSheet(path: string): Promise<(place: Placed) => Buffer> {
  const { data, info } = await sharp(path)
    .ensureAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true })
    .catch((error: unknown) => {
      throw new Error(`[fetch] ${path}: ${(error as Error).message}`, { cause: error });
    });
  return ({ x, y, width, height }) => {
    if (!(x >= 0 && y >= 0 && x + width <= info.width && y + height <= info.height))
      throw new Error(
        `[fetch] ${path} is ${info.width}x${info.height} px: a sprite of ${width}x${height} at (${x}, ${y}) lies outside`,
      );
    const rows = Array.from({ length: height }, (_, j) => {
      const at = 4 * ((y + j) * info.width + x);
      return data.subarray(at, at + 4 * width);
    });
    return Buffer.concat(rows);
  };
}
