/** Choosing among adapters: pure but for the error that says what to do where there is none. */
import type { Flags } from './flags.ts';
import { env, platform } from './runtime.ts';

export type Choice = NonNullable<Flags['VPAE_ADAPTER']>;
/** Where an adapter came from. `native` is the runtime's own WebGPU, `null` a device that validates and computes nothing. */
export type Source = Exclude<Choice, 'auto'>;

/** One candidate and why it was taken or not. */
export interface Verdict {
  source: Source;
  taken: boolean;
  reason: string;
}

/** What an adapter says of itself, as plain data. */
export interface AdapterFacts {
  vendor: string;
  architecture: string;
  device: string;
  description: string;
  isFallbackAdapter: boolean;
}

/** An adapter of a driver, as Dawn lists it: this name chooses it. */
export interface Listed {
  /** `vulkan`, `d3d12`, `metal`. */
  backend: string;
  name: string;
  facts: AdapterFacts;
}

/** A line of Dawn's answer to a name that no adapter has. */
export const LISTED = / \* backend: '(.*)', name: '(.*)'/g;

/** SwiftShader is ten times slower than any other. */
export const fastestFirst = (adapters: readonly Listed[]): Listed[] => {
  const slow = ({ name }: Listed): number => Number(/swiftshader/i.test(name));
  return [...adapters].sort((a, b) => slow(a) - slow(b));
};

/** The adapter that VPAE_DEVICE means: its number in the list, from 1, or a part of its name. @throws one line with the list */
export function named(wanted: string, adapters: readonly Listed[]): Listed {
  const found =
    adapters[Number(wanted) - 1] ?? adapters.find((a) => a.name.toLowerCase().includes(wanted.toLowerCase()));
  if (found) return found;
  const list = adapters.map((a, i) => `${i + 1} ${a.name} (${a.backend})`).join(', ');
  throw new Error(`VPAE_DEVICE=${wanted} is none of ${list || 'no adapters'}`);
}

/** Hears of downloads. */
export type Log = (line: string) => void;

/** No candidate gave an adapter. The message is one line that says what to do; `tried` says why. */
export class NoAdapterError extends Error {
  readonly tried: Verdict[];
  constructor(tried: Verdict[]) {
    const user = userVulkan();
    const asked = tried.length === 1 ? tried[0] : tried.find((t) => t.reason.startsWith('VPAE_DEVICE='));
    super(
      asked
        ? `[adapter] ${asked.source}: ${asked.reason}`
        : user
          ? `[adapter] ${user}=${env(user)} gives no adapter: correct it or unset it`
          : `[adapter] no GPU or software driver found: ${remedy(platform)}`,
    );
    this.name = 'NoAdapterError';
    this.tried = tried;
  }
}

/** Where a page has WebGPU; by caniuse.com/webgpu in 2026. */
export const WEBGPU_BROWSERS =
  'Chrome or Edge 113 and later, Safari 26 and later, or Firefox 141 and later on Windows (145 on macOS)';

/** What to do where nothing works. */
export function remedy(system: string): string {
  if (system === 'linux')
    return "install your GPU's Vulkan driver, or a software one (Debian, Ubuntu: apt install mesa-vulkan-drivers libvulkan1; Fedora: dnf install mesa-vulkan-drivers vulkan-loader; Arch: pacman -S vulkan-swrast vulkan-icd-loader; on x64 also npm install @sparticuz/chromium@147.0.0)";
  if (system === 'darwin')
    return 'Metal is part of macOS: update macOS, and run outside a virtual machine without a GPU';
  if (system === 'browser') return `use ${WEBGPU_BROWSERS}`;
  if (system === 'win32') return "install your GPU's driver from its vendor";
  return 'use Linux, macOS or Windows on x64 or arm64';
}

/** The variable by which the user chose Vulkan drivers; it is never overridden. */
export const userVulkan = (): string | undefined => ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'].find((name) => env(name));

/** Mesa's version from an adapter's description (`llvmpipe: Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)`) or a package's (`25.0.7-2`): [25, 0]. */
export function mesaVersion(text: string): [number, number] | undefined {
  const found = /(?:Mesa\s+|^)(\d+)\.(\d+)/.exec(text);
  return found ? [Number(found[1]), Number(found[2])] : undefined;
}

/** Dawn finds no usable device in an older lavapipe. */
export const MIN_MESA = 23;

export const isSoftware = (a: AdapterFacts): boolean =>
  a.isFallbackAdapter ||
  /llvmpipe|lavapipe|swiftshader|basic render|^software$/i.test([a.device, a.description, a.architecture].join('\n'));

const label = (a: AdapterFacts): string =>
  [a.device || a.architecture || a.vendor, a.description].filter(Boolean).join(', ').trim();

/** Why `source` must not take this adapter; undefined when it may. */
export function objection(source: Source, a: AdapterFacts): string | undefined {
  const mesa = mesaVersion(a.description);
  if (/llvmpipe/i.test(a.device + a.description) && mesa && mesa[0] < MIN_MESA)
    return `Mesa ${mesa.join('.')}'s lavapipe is too old: ${MIN_MESA} or newer is needed`;
  if (source === 'gpu' && isSoftware(a)) return `only a software driver: ${label(a)}`;
  if (source === 'system' && !isSoftware(a)) return `no software driver: ${label(a)}`;
  return undefined;
}

/** Tries candidates in order; a thrown error is a candidate's reason to be passed over. */
export async function firstThatWorks<T>(
  order: readonly Source[],
  attempt: (source: Source) => Promise<{ value: T; reason: string }>,
): Promise<{ source: Source; value: T; tried: Verdict[] }> {
  const tried: Verdict[] = [];
  for (const source of order) {
    try {
      const { value, reason } = await attempt(source);
      return { source, value, tried: [...tried, { source, taken: true, reason }] };
    } catch (error) {
      tried.push({ source, taken: false, reason: (error as Error).message });
    }
  }
  throw new NoAdapterError(tried);
}
