/** Who is seen in a clip of `flare`, what they wear and do and where: as the game's files name it, and as a caption says it. */
import { Stream } from '../../loop/rng.ts';
import type { Split } from '../sets.ts';

/** Clockwise from west on the screen, as the game numbers them. */
export const FACINGS = [
  'west',
  'north-west',
  'north',
  'north-east',
  'east',
  'south-east',
  'south',
  'south-west',
] as const;
export type Facing = (typeof FACINGS)[number];

export const SLOTS = ['chest', 'legs', 'feet', 'hands', 'head', 'main', 'off'] as const;
export type Slot = (typeof SLOTS)[number];

export const SEXES = ['male', 'female'] as const;
type Sex = (typeof SEXES)[number];
const PERSON: Record<Sex, string> = { male: 'a man', female: 'a woman' };

/** What can be told apart on a chest; the three colours of a mage's vest are for the first frame to show. */
export const GARMENTS = ['chain cuirass', 'cloth shirt', 'leather chest', 'mage vest', 'plate cuirass'] as const;
export type Garment = (typeof GARMENTS)[number];
const CHESTS: Record<string, Garment> = {
  chain_cuirass: 'chain cuirass',
  cloth_shirt: 'cloth shirt',
  leather_chest: 'leather chest',
  mage_vest: 'mage vest',
  mage_vest_alt1: 'mage vest',
  mage_vest_alt2: 'mage vest',
  plate_cuirass: 'plate cuirass',
};

/** How a weapon is used: `swing` at arm's length, `shoot` from afar, `cast` by magic. */
interface Weapon {
  use: 'swing' | 'shoot' | 'cast';
  word: string;
  /** Leaves no hand for a shield. */
  twoHanded?: true;
}
const WEAPONS: Record<string, Weapon> = {
  dagger: { use: 'swing', word: 'dagger' },
  shortsword: { use: 'swing', word: 'sword' },
  longsword: { use: 'swing', word: 'sword' },
  greatsword: { use: 'swing', word: 'sword', twoHanded: true },
  zweihander: { use: 'swing', word: 'sword', twoHanded: true },
  hand_axe: { use: 'swing', word: 'axe' },
  infantry_axe: { use: 'swing', word: 'axe' },
  battle_axe: { use: 'swing', word: 'axe', twoHanded: true },
  club: { use: 'swing', word: 'club' },
  reinforced_club: { use: 'swing', word: 'club' },
  mace: { use: 'swing', word: 'mace' },
  smith_hammer: { use: 'swing', word: 'hammer' },
  war_hammer: { use: 'swing', word: 'hammer' },
  maul: { use: 'swing', word: 'hammer', twoHanded: true },
  shortbow: { use: 'shoot', word: 'bow', twoHanded: true },
  longbow: { use: 'shoot', word: 'bow', twoHanded: true },
  greatbow: { use: 'shoot', word: 'bow', twoHanded: true },
  slingshot: { use: 'shoot', word: 'slingshot', twoHanded: true },
  wand: { use: 'cast', word: 'wand' },
  rod: { use: 'cast', word: 'rod' },
  staff: { use: 'cast', word: 'staff', twoHanded: true },
  greatstaff: { use: 'cast', word: 'staff', twoHanded: true },
};

const SHIELDS = ['buckler', 'iron_buckler', 'shield'];
const OTHERS = {
  legs: [
    'chain_greaves',
    'cloth_pants',
    'leather_pants',
    'mage_skirt',
    'mage_skirt_alt1',
    'mage_skirt_alt2',
    'plate_greaves',
  ],
  feet: [
    'chain_boots',
    'cloth_sandals',
    'leather_boots',
    'mage_boots',
    'mage_boots_alt1',
    'mage_boots_alt2',
    'plate_boots',
  ],
  hands: [
    'chain_gloves',
    'cloth_gloves',
    'leather_gloves',
    'mage_sleeves',
    'mage_sleeves_alt1',
    'mage_sleeves_alt2',
    'plate_gauntlets',
  ],
  head: ['chain_coif', 'leather_hood', 'mage_hood', 'mage_hood_alt1', 'mage_hood_alt2', 'plate_helm'],
} as const;
const HAIR: Record<Sex, readonly string[]> = { male: ['head_bald', 'head_short'], female: ['head_long'] };

/** Every item that is worn, by sex: what a package must hold. */
export const itemsOf = (sex: Sex): string[] => [
  ...Object.keys(CHESTS),
  ...Object.values(OTHERS).flat(),
  ...HAIR[sex],
  ...Object.keys(WEAPONS),
  ...SHIELDS,
];

/** What is done, with the word for it and how often of ten times: runners uncover new ground, and are seen most. */
export const ACTIONS = ['run', 'swing', 'shoot', 'cast', 'die', 'stance'] as const;
export type Action = (typeof ACTIONS)[number];
const DOING: Record<Action, string> = {
  run: 'running',
  swing: 'swinging',
  shoot: 'shooting',
  cast: 'casting',
  die: 'dying',
  stance: 'standing',
};
const TURNS: readonly Action[] = ['run', 'swing', 'run', 'cast', 'die', 'run', 'swing', 'shoot', 'run', 'stance'];

/** Floors by their tile sets; of a dungeon's only the first four are plain. */
export const GROUNDS = {
  grass: { tileset: 'grassland', tiles: 16 },
  stone: { tileset: 'dungeon', tiles: 4 },
  snow: { tileset: 'snowplains', tiles: 16 },
  rock: { tileset: 'cave', tiles: 16 },
} as const;
export type Ground = keyof typeof GROUNDS;
const GROUND_NAMES = Object.keys(GROUNDS) as Ground[];

export interface Scene {
  readonly sex: Sex;
  readonly wears: Readonly<Partial<Record<Slot, string>>>;
  readonly action: Action;
  readonly facing: Facing;
  readonly ground: Ground;
}

const HELD_OUT = 8; // one outfit in so many

/** Whether an outfit is held out, by all its parts: unseen together, though each was seen. */
export const isHeldOut = ({ sex, wears }: Pick<Scene, 'sex' | 'wears'>): boolean =>
  new Stream(0, 0, `flare.split.${sex}.${SLOTS.map((slot) => wears[slot] ?? '').join('.')}`).int(HELD_OUT) === 0;

/** The scene of clip i: actions and directions are balanced in every run of 40 clips, the rest is drawn. */
export function sceneOf(i: number, random: Stream, split: Split): Scene {
  const action = TURNS[(i + Math.floor(i / 40)) % TURNS.length]!;
  const facing = FACINGS[i % FACINGS.length]!;
  const one = <T>(of: readonly T[]): T => of[random.int(of.length)]!;
  const ground = one(GROUND_NAMES);
  for (;;) {
    const sex = one(SEXES);
    const fit = Object.keys(WEAPONS).filter(
      (w) => !['swing', 'shoot', 'cast'].includes(action) || WEAPONS[w]!.use === action,
    );
    const main = one(fit);
    const shield = random.int(2) === 0 && !WEAPONS[main]!.twoHanded;
    const wears = {
      chest: one(Object.keys(CHESTS)),
      legs: one(OTHERS.legs),
      feet: one(OTHERS.feet),
      hands: one(OTHERS.hands),
      head: random.int(2) === 0 ? one(HAIR[sex]) : one(OTHERS.head),
      main,
      ...(shield && { off: one(SHIELDS) }),
    };
    if (isHeldOut({ sex, wears }) === (split === 'heldout')) return { sex, wears, action, facing, ground };
  }
}

export const garmentOf = ({ wears }: Scene): Garment => CHESTS[wears.chest!]!;

/** As `a woman in a mage vest with a staff, running south-east, on snow`. */
export function captionOf(scene: Scene): string {
  const weapon = WEAPONS[scene.wears.main!]!.word;
  const held = `${/^[aeiou]/.test(weapon) ? 'an' : 'a'} ${weapon}${scene.wears.off ? ' and a shield' : ''}`;
  return `${PERSON[scene.sex]} in a ${garmentOf(scene)} with ${held}, ${DOING[scene.action]} ${scene.facing}, on ${scene.ground}`;
}

/** Every word of the captions. */
export const FLARE_WORDS: ReadonlySet<string> = new Set(
  [
    ...Object.values(PERSON),
    'in with and an shield on',
    ...GARMENTS,
    ...Object.values(WEAPONS).map((w) => w.word),
    ...Object.values(DOING),
    ...FACINGS,
    ...GROUND_NAMES,
  ].flatMap((words) => words.split(/[ -]/)),
);
