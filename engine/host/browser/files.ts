/** Files in a page: a path is an address, relative to the page. What is opened is fetched whole; nothing is listed or written. */
import type { OpenFile } from '../files.ts';

const parts = (path: string): [folder: string, name: string] => {
  const at = path.lastIndexOf('/');
  return [at < 0 ? '.' : path.slice(0, at) || '/', path.slice(at + 1)];
};
export const dirname = (path: string): string => parts(path)[0];
export const basename = (path: string): string => parts(path)[1];
export const join = (...paths: string[]): string => paths.filter(Boolean).join('/');

async function get(path: string): Promise<Response> {
  const response = await fetch(path);
  if (response.ok) return response;
  const why = `the server answers ${response.status} ${response.statusText}`.trimEnd();
  throw Object.assign(new Error(why), { code: response.status === 404 ? 'ENOENT' : 'EIO' });
}

/** @throws an error whose `code` is ENOENT where there is no such file */
export async function openFile(path: string): Promise<OpenFile> {
  const blob = await (await get(path)).blob();
  return {
    isFile: true,
    size: blob.size,
    async read(target, offset, length, position) {
      const bytes = new Uint8Array(await blob.slice(position, position + length).arrayBuffer());
      target.set(bytes, offset);
      return bytes.length;
    },
    close: () => Promise.resolve(),
  };
}

export const readTextFile = async (path: string): Promise<string> => (await get(path)).text();
export const readBytes = async (path: string): Promise<Uint8Array> =>
  new Uint8Array(await (await get(path)).arrayBuffer());

export const exists = (path: string): Promise<boolean> =>
  // What a page holds itself, a blob, knows no HEAD.
  fetch(path, { method: path.startsWith('blob:') ? 'GET' : 'HEAD' }).then(
    (response) => response.ok,
    () => false,
  );

export const isFolder = (_path: string): Promise<boolean> => Promise.resolve(false);

export const list = (folder: string): Promise<string[]> =>
  Promise.reject(new Error(`a page cannot list the folder ${folder}: name a file`));

export const nativeCrc32 = undefined;
