/** EngineError, and the line of user code that an op or an error stands for. */
import { pathOf } from './runtime.ts';

const ENGINE_URL = new URL('..', import.meta.url).href;
const ENGINE_PATH = pathOf(ENGINE_URL);
const ROOT_PATH = pathOf(new URL('../..', import.meta.url).href);
/** Frames between a user's call and the node it makes: mostly, and at most, composed ops included. A frame costs microseconds. */
const DEPTHS = [8, 20];

/** `[matmul] inner sizes differ: [2,80,128] · [96,512] (model/wan/dit.ts:88)`. */
export class EngineError extends Error {
  readonly op: string;
  readonly site: string;

  constructor(op: string, detail: string, site: string = callSite()) {
    super(`[${op}] ${detail}${site ? ` (${site})` : ''}`);
    this.name = 'EngineError';
    this.op = op;
    this.site = site;
  }
}

export function fail(op: string, detail: string): never {
  throw new EngineError(op, detail);
}

const printShape = (shape: readonly number[]): string => `[${shape.join()}]`;
export const printShapes = (...shapes: readonly (readonly number[])[]): string => shapes.map(printShape).join(' · ');

/** What is wrong with a shape: a size is no whole number, which a wrong division easily makes. */
export const shapeFault = (shape: readonly number[]): string | undefined =>
  shape.every((n) => Number.isInteger(n) && n >= 0)
    ? undefined
    : `sizes must be whole numbers, got ${printShapes(shape)}`;

/** @throws what `shapeFault` finds */
export function checkShape(op: string, shape: readonly number[]): void {
  const fault = shapeFault(shape);
  if (fault) fail(op, fault);
}

let fixed: string | undefined;

/** Runs `body` with every node and error in it standing for `site`: gradient nodes carry the line of their forward op. */
export function withSite<T>(site: string, body: () => T): T {
  const before = fixed;
  fixed = site;
  try {
    return body();
  } finally {
    fixed = before;
  }
}

const sites = new Map<string, string>();
const outside = (file: string | null | undefined): file is string =>
  !!file && !file.startsWith(ENGINE_URL) && !file.startsWith(ENGINE_PATH) && !file.startsWith('node:');

/** A frame of V8's, as far as it is read here. */
interface CallSite {
  getFileName(): string | null | undefined;
  getLineNumber(): number | null;
  getColumnNumber(): number | null;
}

/** What V8 lets be set on Error. */
interface StackSettings {
  stackTraceLimit: number;
  prepareStackTrace?(this: void, error: Error, frames: CallSite[]): unknown;
}

/**
 * The first stack frame outside the engine as `folder/file.ts:line`, or ''. Raw positions key a cache, because text with
 * source maps applied is what costs.
 */
export function callSite(): string {
  if (fixed !== undefined) return fixed;
  const settings: StackSettings = Error;
  const { stackTraceLimit, prepareStackTrace } = settings;
  try {
    settings.prepareStackTrace = (_, frames) => frames;
    let user: CallSite | undefined;
    for (const depth of DEPTHS) {
      if (user) break;
      settings.stackTraceLimit = depth;
      const frames: unknown = new Error().stack;
      if (!Array.isArray(frames)) return firstOutside(String(frames)); // not V8: text is all there is
      user = (frames as CallSite[]).find((f) => outside(f.getFileName()));
    }
    if (!user) return '';
    const key = `${user.getFileName()}:${user.getLineNumber()}:${user.getColumnNumber()}`;
    let site = sites.get(key);
    if (site === undefined) {
      settings.prepareStackTrace = prepareStackTrace;
      site = firstOutside(new Error().stack ?? '');
      sites.set(key, site);
    }
    return site;
  } finally {
    Object.assign(settings, { stackTraceLimit, prepareStackTrace });
  }
}

function firstOutside(stack: string): string {
  for (const line of stack.split('\n')) {
    const found = /\((.+):(\d+):\d+\)$/.exec(line) ?? /(?:at (?:async )?|@)(.+):(\d+):\d+$/.exec(line);
    if (!found || !outside(found[1])) continue;
    const file = found[1]!.replace(/\?.*$/, '');
    const path = pathOf(file);
    return `${path.startsWith(ROOT_PATH) ? path.slice(ROOT_PATH.length) : path}:${found[2]}`;
  }
  return '';
}

export const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 3 : 1)} MiB`;
