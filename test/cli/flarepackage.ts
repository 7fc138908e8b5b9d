/** A made-up package in the layout of Flare's: every part of a figure is one square of one colour, every floor tile one colour. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { GROUNDS, itemsOf, SEXES, SLOTS, type Slot } from '../../train/data/flare/outfits.ts';

export const MOD = 'usr/share/games/flare/mods/fantasycore';

/** Drawn from the first to the last; the shield is in front of all when the figure faces west, behind all otherwise. */
export const LAYERS = Array.from({ length: 8 }, (_, direction): Slot[] =>
  direction === 0
    ? ['main', 'feet', 'legs', 'hands', 'chest', 'head', 'off']
    : ['off', 'feet', 'legs', 'hands', 'chest', 'head', 'main'],
);

const MOTIONS = {
  stance: [4, 800, 'back_forth'],
  run: [8, 533, 'looped'],
  swing: [4, 400, 'play_once'],
  shoot: [4, 400, 'play_once'],
  cast: [4, 400, 'play_once'],
  die: [6, 800, 'play_once'],
} as const;

const SIDE = 6; // px of a square
/** Red of a part, by its slot; green is the frame's number times eight, blue 255. */
export const redOf = (slot: Slot): number => 20 + 30 * SLOTS.indexOf(slot);
/** Where a part's corner is from where the figure stands: every part in the same place. */
export const CORNER = [-3, -30] as const;

const slotOf = (item: string): Slot => {
  if (/cuirass|shirt|leather_chest|vest/.test(item)) return 'chest';
  if (/greaves|pants|skirt/.test(item)) return 'legs';
  if (/boots|sandals/.test(item)) return 'feet';
  if (/gloves|sleeves|gauntlets/.test(item)) return 'hands';
  if (/coif|hood|helm|head/.test(item)) return 'head';
  return /buckler|shield/.test(item) ? 'off' : 'main';
};

/** Of tile `id` of a tile set: red 0, so that it is told from a figure. */
export const tileColour = (tileset: number, id: number): [number, number, number] => [0, 8 * id, 60 * tileset];

function write(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

const png = (pixels: Uint8Array, width: number): Promise<Buffer> =>
  sharp(pixels, { raw: { width, height: pixels.length / 4 / width, channels: 4 } })
    .png()
    .toBuffer();

/** Writes it below `root`. */
export async function writePackage(root: string): Promise<void> {
  const mod = join(root, MOD);
  write(
    join(mod, 'engine/hero_layers.txt'),
    `# order\n${LAYERS.map((slots, d) => `layer=${d},${slots.join(',')}`).join('\n')}\n`,
  );
  const animation = Object.entries(MOTIONS)
    .map(([name, [frames, ms, type]]) => {
      const lines = Array.from({ length: frames * 8 }, (_, i) => {
        const [frame, direction] = [Math.floor(i / 8), i % 8];
        return `frame=${frame},${direction},${frame * SIDE},0,${SIDE},${SIDE},${-CORNER[0]},${-CORNER[1]}`;
      });
      return `[${name}]\nframes=${frames}\nduration=${ms}ms\ntype=${type}\n${lines.join('\n')}\n`;
    })
    .join('\n');
  for (const sex of SEXES) {
    for (const item of itemsOf(sex)) {
      const image = `images/avatar/${sex}/${item}.png`;
      write(join(mod, `animations/avatar/${sex}/${item}.txt`), `\nimage=${image}\n\n${animation}`);
      const sheet = new Uint8Array(4 * 8 * SIDE * SIDE);
      for (let i = 0; i < 8 * SIDE * SIDE; i++)
        sheet.set([redOf(slotOf(item)), 8 * Math.floor((i % (8 * SIDE)) / SIDE), 255, 255], 4 * i);
      write(join(mod, image), await png(sheet, 8 * SIDE));
    }
  }
  for (const [k, { tileset }] of Object.values(GROUNDS).entries()) {
    const image = `images/tilesets/tileset_${tileset}.png`;
    const sheet = new Uint8Array(4 * 64 * 32 * 16);
    const tiles = Array.from({ length: 16 }, (_, n) => {
      for (let i = 0; i < 64 * 32; i++) {
        const inside = Math.abs((i % 64) + 0.5 - 32) / 32 + Math.abs(Math.floor(i / 64) + 0.5 - 16) / 16 <= 1;
        sheet.set([...tileColour(k, n), inside ? 255 : 0], 4 * (n * 64 * 32 + i));
      }
      return `tile=${16 + n},0,${32 * n},64,32,32,16`;
    });
    write(join(mod, `tilesetdefs/tileset_${tileset}.txt`), `img=${image}\n\n${tiles.join('\n')}\n`);
    write(join(mod, image), await png(sheet, 64));
  }
}
