/** A real browser for tests: the headless Chromium of @sparticuz/chromium, or the system's, driven over a pipe (DevTools protocol). */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import type { Readable, Writable } from 'node:stream';
import { untar } from '../../engine/host/archive.ts';

interface Reply {
  id?: number;
  method?: string;
  params?: {
    exceptionDetails?: { text: string; exception?: { description?: string } };
    entry?: { level: string; text: string };
  };
  result?: Record<string, unknown>;
  error?: { message: string };
}

/** Extracts the libraries of Amazon Linux that the package carries. */
function packedLibraries(): string {
  const dir = mkdtempSync(join(tmpdir(), 'vpae-'));
  const root = dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium'));
  const pack = ['.', '..', '../..', '../../..'].map((up) => join(root, up, 'bin/al2023.tar.br')).find(existsSync)!;
  for (const { name, data } of untar(brotliDecompressSync(readFileSync(pack))))
    writeFileSync(join(dir, basename(name)), data);
  return dir;
}

export class Browser {
  /** What the page's scripts threw and what the console calls an error. */
  readonly errors: string[] = [];
  private readonly process: ChildProcess;
  private readonly waiting = new Map<
    number,
    { done: (result: Record<string, unknown>) => void; failed: (error: Error) => void }
  >();
  private session: string | undefined;
  private count = 0;

  private constructor(process: ChildProcess) {
    this.process = process;
    let rest = '';
    (process.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop()!;
      for (const m of messages) this.take(JSON.parse(m) as Reply);
    });
    process.stdio[3]!.on('error', () => {
      /* told by its exit */
    });
    process.on('error', () => {
      for (const w of this.waiting.values()) w.failed(new Error('the browser does not start'));
    });
    process.on('exit', () => {
      for (const w of this.waiting.values()) w.failed(new Error('the browser has ended'));
    });
  }

  /** Opens a page, or undefined where no browser runs. @param webgpu with an adapter in software */
  static async open(url: string, { width = 1280, height = 900, webgpu = false } = {}): Promise<Browser | undefined> {
    for (const { path, libraries } of await Browser.programs()) {
      const browser = await Browser.start(path, url, { width, height, webgpu }, libraries).catch(() => undefined);
      const adapter = 'navigator.gpu?.requestAdapter().then((adapter) => adapter !== null)';
      if (browser && (!webgpu || (await browser.evaluate<boolean>(adapter)))) return browser;
      await browser?.close();
    }
    console.error(`no Chromium${webgpu ? ' with WebGPU' : ''} starts here: what is tested in it is not tested`);
    return undefined;
  }

  /** The package's, whose libraries are the system's or else those that come in it; and what the system calls chromium. */
  private static async programs(): Promise<{ path: string; libraries?: string | undefined }[]> {
    const found = await import('@sparticuz/chromium').catch(() => undefined);
    const path = await found?.default.executablePath();
    const packed = path ? [undefined, packedLibraries()].map((libraries) => ({ path, libraries })) : [];
    return [...packed, { path: 'chromium' }];
  }

  private static async start(
    path: string,
    url: string,
    { width, height, webgpu }: { width: number; height: number; webgpu: boolean },
    libraries: string | undefined,
  ): Promise<Browser> {
    const args = [
      '--headless',
      '--no-sandbox',
      ...(webgpu ? ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'] : ['--disable-gpu']),
      '--no-first-run',
      '--remote-debugging-pipe',
      `--user-data-dir=${mkdtempSync(join(tmpdir(), 'vpae-'))}`,
      `--window-size=${width},${height}`,
    ];
    const env = {
      ...process.env,
      LANG: 'en_US.UTF-8',
      LC_ALL: 'en_US.UTF-8',
      FONTCONFIG_PATH: process.env['FONTCONFIG_PATH'] ?? join(tmpdir(), 'fonts'),
      ...(libraries && { LD_LIBRARY_PATH: libraries }),
    };
    const browser = new Browser(spawn(path, args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], env }));
    const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    browser.session = sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Log']) await browser.send(`${domain}.enable`);
    await browser.send('Page.navigate', { url });
    return browser;
  }

  private take({ id, method, params, result, error }: Reply): void {
    const asked = id === undefined ? undefined : this.waiting.get(id);
    if (asked) {
      this.waiting.delete(id!);
      if (error) asked.failed(new Error(error.message));
      else asked.done(result ?? {});
    }
    if (method === 'Runtime.exceptionThrown')
      this.errors.push(params!.exceptionDetails!.exception?.description ?? params!.exceptionDetails!.text);
    if (method === 'Log.entryAdded' && params!.entry!.level === 'error') this.errors.push(params!.entry!.text);
  }

  send(method: string, params: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const id = ++this.count;
    (this.process.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((done, failed) => this.waiting.set(id, { done, failed }));
  }

  /** Value of an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    return (result as { value: T }).value;
  }

  /** Waits until an expression is true. @throws after `seconds` */
  async until(expression: string, seconds = 20): Promise<void> {
    for (const end = Date.now() + 1000 * seconds; Date.now() < end;) {
      if (await this.evaluate<boolean>(`Boolean(${expression})`)) return;
      await new Promise((r) => setTimeout(r, 100));
    }
    throw new Error(`the page did not come to ${expression}; its errors: ${this.errors.join('; ') || 'none'}`);
  }

  /** PNG of what is seen. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(data as string, 'base64');
  }

  async close(): Promise<void> {
    const ended = new Promise((done) => this.process.once('exit', done));
    this.process.kill('SIGKILL');
    await ended;
  }
}
