/** Where this program's own files lie, its version, and whether it runs from its sources in the repository or built in a package. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** `.ts` in the repository, `.js` in a package. */
export const EXTENSION = import.meta.url.endsWith('.ts') ? '.ts' : '.js';

// The build lies one folder deeper, in dist; what it reads while it runs lies beside dist as in the repository.
const ROOT = fileURLToPath(new URL(EXTENSION === '.ts' ? '../..' : '../../..', import.meta.url));

/** The path of a file that comes with the program, from its root. */
export const ownFile = (path: string): string => join(ROOT, path);

export const VERSION = (JSON.parse(readFileSync(ownFile('package.json'), 'utf8')) as { version: string }).version;
