/**
 * What the engine asks of its runtime, the same under Node and Deno: environment, cache, Dawn, shared libraries, children, waiting.
 * This room alone knows that there is an operating system; a browser has its own files for what the engine needs of it (browser/).
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, constants, freemem, homedir, totalmem } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

interface DenoRuntime {
  version: { deno: string };
  dlopen(path: string, symbols: object): object;
}
const deno = (globalThis as { Deno?: DenoRuntime }).Deno;

/** `Node 20.20.2`, `Deno 2.9.6`. */
export const runtime = deno ? `Deno ${deno.version.deno}` : `Node ${process.versions.node}`;
export const platform: string = process.platform;
export const arch: string = process.arch;

export const env = (name: string): string | undefined => process.env[name];

/** A folder of this project's in the user's cache; not created. */
export const cacheDir = (...parts: string[]): string =>
  join(env('XDG_CACHE_HOME') || join(homedir(), '.cache'), 'vpae', ...parts);

/** A file's text; undefined where it cannot be read. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

export const writeText: (path: string, text: string) => void = writeFileSync;

/** The path of a file's URL; whatever else is given stays as it is. */
export const pathOf = (url: string): string => (url.startsWith('file:') ? fileURLToPath(url) : url);

/** Of the processor, for this process. */
export const cores = availableParallelism;

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** Bytes of main memory. */
export const memory = (): { total: number; free: number } => ({ total: totalmem(), free: freemem() });

let collect: (() => void) | undefined;

/** Has the garbage collector run, where the runtime lets it be asked. */
export function collectGarbage(): void {
  try {
    if (!collect) setFlagsFromString('--expose-gc'); // V8 gives `gc` to contexts made after it
    collect ??= runInNewContext('gc') as () => void;
    collect();
  } catch {
    collect = () => {};
  }
}

/** Runs `work` with environment variables set. Native code sees them; they are gone afterwards, so that children decide for themselves. */
export async function withEnv<T>(variables: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, variables);
  try {
    return await work();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

export interface ChildResult {
  /** Exit code, or null when a signal ended it. */
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end; never throws. A child that could not start has code 127 and the reason in stderr. */
export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; timeoutMs?: number } = {},
): Promise<ChildResult> {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      timeout: options.timeoutMs,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (d: Buffer) => {
      stdout += d.toString();
    });
    child.stderr.on('data', (d: Buffer) => {
      stderr += d.toString();
    });
    child.on('error', (error) => resolve({ code: 127, signal: null, stdout, stderr: error.message }));
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

/** Runs an ES module's text in a fresh process of this runtime. */
export const runScript = (
  text: string,
  options: { env?: Record<string, string>; timeoutMs?: number } = {},
): Promise<ChildResult> => run(process.execPath, deno ? ['eval', text] : ['--input-type=module', '-e', text], options);

/**
 * Flags of dlopen: resolve everything now, and never unload. Node closes a library that is no addon right after opening it;
 * with RTLD_NODELETE it stays, and whoever later asks for its soname gets it, without LD_LIBRARY_PATH.
 */
export const DLOPEN_KEEP = (constants.dlopen?.RTLD_NOW ?? 2) | 0x1000;

/** Loads shared libraries into this process for good, in this order. Returns the first failure's text. */
export function preload(libraries: readonly string[]): string | undefined {
  for (const library of libraries) {
    try {
      if (deno) deno.dlopen(library, {});
      else process.dlopen({ exports: {} }, library, DLOPEN_KEEP);
    } catch (error) {
      // Node reports every library that is no addon, also one that loaded.
      const text = (error as Error).message;
      if (!text.includes('did not self-register')) return text;
    }
  }
  return undefined;
}

const require = createRequire(import.meta.url);

/** URL of Dawn's npm package, or undefined where it is not installed. */
export function dawnUrl(): string | undefined {
  try {
    return pathToFileURL(require.resolve('webgpu')).href;
  } catch {
    return undefined;
  }
}

/** Folder of an installed package whose entry point lies `up` folders below its root. */
export function packageDir(name: string, up: number): string | undefined {
  try {
    return join(require.resolve(name), ...Array<string>(up + 1).fill('..'));
  } catch {
    return undefined;
  }
}

/** An instance that is garbage-collected takes the process with it, so every one is kept. */
const instances: GPU[] = [];

/** A Dawn instance. Throws where Dawn's binary does not load. `options` are Dawn's, such as `backend=null`. */
export async function createDawn(options: string[]): Promise<GPU> {
  const { create, globals } = (await import('webgpu')) as {
    create: (this: void, options: string[]) => GPU;
    globals: Record<string, unknown>;
  };
  for (const [name, value] of Object.entries(globals))
    if (!(name in globalThis)) Object.assign(globalThis, { [name]: value });
  const gpu = create(options);
  instances.push(gpu);
  return gpu;
}

/** The runtime's own WebGPU (Deno, browsers). */
export const nativeGpu = (): GPU | undefined => (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;

/**
 * Milliseconds from its beginning in which a wait asks without a pause, and then with naps in between: of this share of what it has waited.
 */
const SPIN_MS = 0.2;
const NAPS_MS = 8;
const NAP = 1 / 8;
let waits = 0;
let began = 0;
let realImmediate: typeof setImmediate;

/** Sleeps shorter than any timer does. Windows sleeps for many milliseconds at the least: there it spins. */
const pillow = new Int32Array(new SharedArrayBuffer(4));
const nap = (ms: number): void => {
  if (platform !== 'win32') Atomics.wait(pillow, 0, 0, ms);
};

/** Dawn's poll is a native function without arguments; everyone else's immediates stay what they are. */
const hybridImmediate = ((callback: () => void, ...args: []) => {
  const isPoll = !args.length && Function.prototype.toString.call(callback).endsWith('{ [native code] }');
  const ms = performance.now() - began;
  if (isPoll && ms >= NAPS_MS) return setTimeout(callback, 1);
  if (isPoll && ms >= SPIN_MS) nap(NAP * ms);
  return realImmediate(callback, ...args);
}) as unknown as typeof setImmediate;

/**
 * Awaits a GPU promise (mapAsync, onSubmittedWorkDone). Dawn polls by queueing `globalThis.setImmediate` again and again, which takes a
 * core from a CPU driver: here it does so for short waits' sake, then with naps in between, then once a millisecond.
 */
export async function waiting<T>(promise: Promise<T>): Promise<T> {
  began = performance.now();
  if (waits++ === 0) {
    realImmediate = globalThis.setImmediate;
    globalThis.setImmediate = hybridImmediate;
  }
  try {
    return await promise;
  } finally {
    if (--waits === 0) globalThis.setImmediate = realImmediate;
  }
}

/**
 * Runs `work`, which must not wait for anything; also a loop or a regular expression without end is left in the middle.
 * @param what it is, as the message has it
 * @throws what `work` throws, and one line when it takes too long
 */
export function withinTime<R>(ms: number, work: () => R, what: string): R {
  try {
    return runInNewContext('work()', { work }, { timeout: ms }) as R;
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw new Error(`${what} did not end within ${ms / 1000} s: its patterns may never do`, { cause: error });
  }
}
