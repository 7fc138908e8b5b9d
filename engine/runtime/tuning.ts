/** The tuning of a device: what `vpae tune` measured here, from the user's cache, and behind it what ships with the project. */
import type { Caps } from '../../kernels/kernel.ts';
import { BUNDLED } from '../../kernels/tuned.ts';
import { tuningOf, type Tuning, type TuningTable } from '../../kernels/tuning.ts';
import type { AdapterInfo } from '../host/adapter.ts';
import { flags } from '../host/flags.ts';
import { cacheDir, readText } from '../host/runtime.ts';

/** What a table was measured on. A driver's update asks for a new one. */
export interface Tuned {
  adapter: string;
  driver: string;
  tier: Caps['tier'];
  subgroup: number;
  table: TuningTable;
}

type Where = Pick<AdapterInfo, 'name' | 'driver'>;

export const tunedFile = ({ name, driver }: Where, { tier, subgroup }: Caps): string =>
  cacheDir('tuned', `${[name, driver, tier, subgroup].join(' ').replaceAll(/[^\w.]+/g, '-')}.json`);

/** The user's own table; undefined where there is none, or none that can be read: the planners' rules serve then. */
export function ownTable(info: Where, caps: Caps): TuningTable | undefined {
  const text = readText(tunedFile(info, caps));
  try {
    const { table } = JSON.parse(text ?? '{}') as Partial<Tuned>;
    return typeof table === 'object' ? table : undefined;
  } catch {
    return undefined;
  }
}

/** The first that fits of the tables that ship with the project. */
const bundledTable = (
  { name, vendor }: Pick<AdapterInfo, 'name' | 'vendor'>,
  { tier, subgroup }: Caps,
): TuningTable | undefined =>
  BUNDLED.find((b) => b.adapter.test(`${vendor} ${name}`) && b.tier === tier && b.subgroup === subgroup)?.table;

/** Whether this adapter and driver have a table: the user's own, or one that ships. */
export const isTuned = (info: AdapterInfo, caps: Caps): boolean =>
  ownTable(info, caps) !== undefined || bundledTable(info, caps) !== undefined;

/** @param own in the place of the user's own table */
export function tuningFor(info: AdapterInfo, caps: Caps, own = ownTable(info, caps)): Tuning | undefined {
  if (flags.NO_TUNE) return undefined;
  const tables = [own, bundledTable(info, caps)].filter((t) => t !== undefined);
  return tables.length ? tuningOf(...tables) : undefined;
}
