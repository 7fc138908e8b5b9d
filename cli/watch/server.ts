/** The page of `vpae watch`: a handful of routes on the loopback interface, nothing kept between requests but bounded curves. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Jobs, type JobDetail, type JobSummary } from './jobs.ts';

/** What the page asks for every few seconds. */
export interface Snapshot {
  run: string;
  jobs: JobSummary[];
  shown?: string | undefined;
  detail?: JobDetail | undefined;
}

const HOST = '127.0.0.1';
const PAGE = fileURLToPath(new URL('page/', import.meta.url));
const UPLOT = join(dirname(createRequire(import.meta.url).resolve('uplot/package.json')), 'dist');
const FILES: Record<string, readonly [path: string, type: string]> = {
  '/': [join(PAGE, 'index.html'), 'text/html'],
  '/page.js': [join(PAGE, 'page.js'), 'text/javascript'],
  '/page.css': [join(PAGE, 'page.css'), 'text/css'],
  '/charts.js': [join(PAGE, 'charts.js'), 'text/javascript'],
  '/uplot.js': [join(UPLOT, 'uPlot.esm.js'), 'text/javascript'],
  '/uplot.css': [join(UPLOT, 'uPlot.min.css'), 'text/css'],
};

/** Only this page's own scripts and pictures; nothing from anywhere else. */
const HEADERS = {
  'cache-control': 'no-cache',
  'content-security-policy': "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
  'x-content-type-options': 'nosniff',
};

/** Serves a run's folder on 127.0.0.1. @param port 0 takes a free one. @throws one line: no such folder, or the port is taken */
export async function serve(run: string, port: number): Promise<{ url: string; close: () => Promise<void> }> {
  const jobs = new Jobs(run);
  const server = createServer((request, response) => {
    answer(jobs, run, request, response).catch((error: Error) => send(response, 500, 'text/plain', error.message));
  });
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

async function answer(jobs: Jobs, run: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  // A page elsewhere may make a browser ask us under a name of its own: only the loopback's names are answered.
  if (!/^(127\.0\.0\.1|localhost)(:\d+)?$/.test(request.headers.host ?? ''))
    return send(response, 403, 'text/plain', 'only 127.0.0.1 is served');
  if (request.method !== 'GET') return send(response, 405, 'text/plain', 'only GET is answered');
  const url = new URL(request.url ?? '/', `http://${HOST}`);
  const file = FILES[url.pathname];
  if (file) return send(response, 200, file[1], await readFile(file[0]));
  if (url.pathname === '/snapshot') return snapshot(jobs, run, url.searchParams.get('job') ?? '', request, response);
  const picture =
    url.pathname === '/picture' &&
    jobs.picture(url.searchParams.get('job') ?? '', Number(url.searchParams.get('step')));
  const bytes = picture && (await readFile(picture).catch(() => undefined));
  if (bytes) return send(response, 200, 'image/webp', bytes);
  return send(response, 404, 'text/plain', 'there is nothing of that name');
}

/** 304 where nothing has changed since the caller's last. */
async function snapshot(
  jobs: Jobs,
  run: string,
  wanted: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const list = await jobs.list();
  const shown = list.find((j) => j.name === wanted)?.name ?? list.findLast((j) => j.running)?.name ?? list.at(-1)?.name;
  const body = JSON.stringify({
    run,
    jobs: list,
    shown,
    detail: shown === undefined ? undefined : await jobs.detail(shown),
  } satisfies Snapshot);
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`;
  response.setHeader('etag', etag);
  if (request.headers['if-none-match'] === etag) send(response, 304, 'application/json', '');
  else send(response, 200, 'application/json', body);
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  response.writeHead(status, { ...HEADERS, 'content-type': `${type}; charset=utf-8` }).end(body);
}
