/** The page of `vpae watch`: a handful of routes on the loopback interface, nothing kept between requests but bounded curves. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo, Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ownFile } from '../common/root.ts';
import { Jobs, type View } from './jobs.ts';

/** What the page asks for every few seconds. */
export interface Snapshot extends View {
  run: string;
}

const HOST = '127.0.0.1';
const PAGE = ownFile('cli/watch/page');
const UPLOT = join(dirname(createRequire(import.meta.url).resolve('uplot/package.json')), 'dist');
const FILES: Record<string, readonly [path: string, type: string]> = {
  '/': [join(PAGE, 'index.html'), 'text/html'],
  '/page.js': [join(PAGE, 'page.js'), 'text/javascript'],
  '/page.css': [join(PAGE, 'page.css'), 'text/css'],
  '/charts.js': [join(PAGE, 'charts.js'), 'text/javascript'],
  '/uplot.js': [join(UPLOT, 'uPlot.esm.js'), 'text/javascript'],
  '/uplot.css': [join(UPLOT, 'uPlot.min.css'), 'text/css'],
};

/** Only this page's own scripts and pictures; nothing from anywhere else, and nothing for anybody else. */
const HEADERS = {
  'cache-control': 'no-cache',
  'content-security-policy': [
    "default-src 'self'",
    "img-src 'self' data:",
    ...['object-src', 'frame-ancestors', 'base-uri', 'form-action'].map((what) => `${what} 'none'`),
  ].join('; '),
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
};

const CONNECTIONS = 64; // the oldest makes room for one more
const STALLED_MS = 30_000; // of a client that neither asks nor reads

/** Serves a run's folder on 127.0.0.1. @param port 0 takes a free one. @throws one line: no such folder, or the port is taken */
export async function serve(run: string, port: number): Promise<{ url: string; close: () => Promise<void> }> {
  const jobs = new Jobs(run);
  const files = await readPage();
  const server = createServer({ requestTimeout: STALLED_MS, headersTimeout: STALLED_MS }, (request, response) => {
    if (isBusy(request.socket, response)) return;
    answer(jobs, run, files, request, response).catch((error: Error) => {
      if (response.headersSent) response.destroy();
      else send(response, 500, 'text/plain', error.message);
    });
  });
  server.timeout = STALLED_MS;
  boundConnections(server);
  await listen(server, port);
  return {
    url: `http://${HOST}:${(server.address() as AddressInfo).port}/`,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

/** The page itself, once for all who ask. */
async function readPage(): Promise<ReadonlyMap<string, readonly [type: string, bytes: Buffer]>> {
  const read = Object.entries(FILES).map(async ([name, [path, type]]) => [name, [type, await readFile(path)]] as const);
  return new Map(await Promise.all(read));
}

/** Each connection's last answer. */
const answers = new WeakMap<Socket, ServerResponse>();

/** A connection is answered one request at a time; no browser sends more, and who does would make answers wait in memory. */
function isBusy(socket: Socket, response: ServerResponse): boolean {
  const before = answers.get(socket);
  if (before && !before.writableFinished) {
    socket.destroy();
    return true;
  }
  answers.set(socket, response);
  return false;
}

function boundConnections(server: Server): void {
  const open = new Set<Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    if (open.size > CONNECTIONS) [...open][0]!.destroy();
  });
}

const listen = (server: Server, port: number): Promise<void> =>
  new Promise((done, failed) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      failed(
        new Error(
          `[watch] port ${port} of ${HOST} cannot be opened (${error.code === 'EADDRINUSE' ? 'something else listens there' : error.message}): choose another with --port`,
          { cause: error },
        ),
      );
    });
    server.listen(port, HOST, done);
  });

async function answer(
  jobs: Jobs,
  run: string,
  files: Awaited<ReturnType<typeof readPage>>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  // A page elsewhere may make a browser ask us under a name of its own: only the loopback's names are answered.
  if (!/^(127\.0\.0\.1|localhost)(:\d+)?$/.test(request.headers.host ?? ''))
    return send(response, 403, 'text/plain', 'only 127.0.0.1 is served');
  if (request.method !== 'GET') return send(response, 405, 'text/plain', 'only GET is answered');
  const url = new URL(request.url ?? '/', `http://${HOST}`);
  const file = files.get(url.pathname);
  if (file) return send(response, 200, ...file);
  const job = url.searchParams.get('job') ?? '';
  if (url.pathname === '/snapshot') return snapshot({ run, ...(await jobs.look(job)) }, request, response);
  const picture =
    url.pathname === '/picture' ? await jobs.picture(job, Number(url.searchParams.get('step'))) : undefined;
  if (!picture) return send(response, 404, 'text/plain', 'there is nothing of that name');
  response.writeHead(200, { ...HEADERS, 'content-type': 'image/webp' });
  await pipeline(picture.createReadStream(), response).catch(() => response.destroy()); // a client that left
}

/** 304 where nothing has changed since the caller's last. */
function snapshot(found: Snapshot, request: IncomingMessage, response: ServerResponse): void {
  const body = JSON.stringify(found);
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`;
  response.setHeader('etag', etag);
  if (request.headers['if-none-match'] === etag) send(response, 304, 'application/json', '');
  else send(response, 200, 'application/json', body);
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  response.writeHead(status, { ...HEADERS, 'content-type': `${type}; charset=utf-8` }).end(body);
}
