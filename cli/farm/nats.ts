/** The connection to a NATS server. Its client is loaded here, and only in a process that is told of a queue. */
import { readFileSync } from 'node:fs';
import process from 'node:process';
import type { JetStreamClient, JetStreamManager } from '@nats-io/jetstream';
import type { ObjectStore } from '@nats-io/obj';
import type { Authenticator, ConnectionOptions, NatsConnection } from '@nats-io/transport-node';
import { reasonOf } from '../../train/loop/files.ts';
import { printable, UsageError } from '../common/errors.ts';

const CLIENT = ['transport-node', 'jetstream', 'obj'].map((name) => `@nats-io/${name}@3.4.0`).join(' ');
const PORT = 4222;

/** An open connection with what is called through it. */
export interface Nats {
  readonly server: string;
  readonly connection: NatsConnection;
  readonly jetstream: JetStreamClient;
  readonly manager: JetStreamManager;
  /** A bucket of objects: one that is there, or made where there is none. */
  bucket(name: string, how: 'open' | 'create'): Promise<ObjectStore>;
}

/** Servers as they are given, with commas between them; what they carry as `user:password@` or `token@` is taken out. */
function parseServers(text: string): { servers: string[]; secure: boolean; login: ConnectionOptions } {
  const refuse = (why: string): UsageError =>
    new UsageError(`--queue ${why}: it reads as nats://HOST:4222, or tls://HOST:4222`);
  const urls = text.split(',').map((part) => {
    try {
      return new URL(part.trim());
    } catch {
      throw refuse('is no address');
    }
  });
  const strange = urls.find(({ protocol, pathname }) => !/^(nats|tls):$/.test(protocol) || !/^\/?$/.test(pathname));
  if (strange) throw refuse(`begins with ${strange.protocol}// or has a path`);
  const alone = urls.find(({ hostname }) => !hostname);
  if (alone) throw refuse('names no host');
  const { username, password } = urls.find((u) => u.username) ?? { username: '', password: '' };
  const login = password
    ? { user: decodeURIComponent(username), pass: decodeURIComponent(password) }
    : username && { token: decodeURIComponent(username) };
  return {
    servers: urls.map((u) => `${u.hostname}:${u.port || PORT}`),
    secure: urls.some((u) => u.protocol === 'tls:'),
    login: login || {},
  };
}

/** What a secret's file holds. @throws one line */
function secret(name: string, path: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path));
  } catch (error) {
    throw new UsageError(`${name}=${path}: ${reasonOf(error)}`);
  }
}

/** How to log in, as NATS's own command is told it by the environment. */
function loginOf(
  env: Readonly<Record<string, string | undefined>>,
  of: { creds: (file: Uint8Array) => Authenticator; nkey: (seed: Uint8Array) => Authenticator },
): ConnectionOptions {
  const { NATS_CREDS: creds, NATS_NKEY: nkey, NATS_USER: user, NATS_PASSWORD: pass, NATS_TOKEN: token } = env;
  if (creds) return { authenticator: of.creds(secret('NATS_CREDS', creds)) };
  if (nkey) return { authenticator: of.nkey(secret('NATS_NKEY', nkey)) };
  if (user) return { user, pass: pass ?? '' };
  return token ? { token } : {};
}

/** Why a server is not reached, in one line. */
function refusal(server: string, error: Error): Error {
  const { name, message } = error;
  const code = (error as NodeJS.ErrnoException).code ?? (error.cause as NodeJS.ErrnoException | undefined)?.code;
  const why =
    name === 'AuthorizationError' || /authori[sz]ation|authentication/i.test(message)
      ? 'does not let us in: name a credentials file by NATS_CREDS, or give nats://USER:PASSWORD@HOST:4222'
      : code === 'ECONNREFUSED' || /connection refused/i.test(message)
        ? 'does not answer: is nats-server running there? vpae worker --local starts one here'
        : code === 'ENOTFOUND' || code === 'EAI_AGAIN'
          ? 'is not known by that name'
          : name === 'TimeoutError' || code === 'ETIMEDOUT'
            ? 'does not answer in time'
            : /unexpected response|invalid|JSON|parse/i.test(message)
              ? `is no NATS server (${message})`
              : `cannot be used: ${message}`;
  return new Error(`[queue] ${server} ${printable(why)}`, { cause: error });
}

/** @throws one line: the client is not installed, the server is not there, keeps us out, or has no JetStream */
export async function connect(address: string): Promise<Nats> {
  const { servers, secure, login } = parseServers(address);
  const [node, js, obj] = await Promise.all([
    import('@nats-io/transport-node'),
    import('@nats-io/jetstream'),
    import('@nats-io/obj'),
  ]).catch((error: Error) => {
    throw new Error(`[queue] NATS's client is needed for --queue: npm install ${CLIENT} brings it`, { cause: error });
  });
  const { NATS_CA: caFile, NATS_CERT: certFile, NATS_KEY: keyFile } = process.env;
  const own = { ...(caFile && { caFile }), ...(certFile && { certFile }), ...(keyFile && { keyFile }) };
  const shown = servers.join(', ');
  let connection: NatsConnection;
  try {
    connection = await node.connect({
      servers,
      ...loginOf(process.env, { creds: node.credsAuthenticator, nkey: node.nkeyAuthenticator }),
      ...login,
      ...((secure || Object.keys(own).length) && { tls: own }),
      name: 'vpae',
      maxReconnectAttempts: -1,
      reconnectTimeWait: 500,
      ignoreClusterUpdates: true,
    });
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw refusal(shown, error as Error);
  }
  try {
    const manager = await js.jetstreamManager(connection);
    const jetstream = js.jetstream(connection);
    const stores = new obj.Objm(jetstream);
    return { server: shown, connection, manager, jetstream, bucket: (name, how) => stores[how](name) };
  } catch (error) {
    await connection.close();
    throw new Error(`[queue] ${shown} has no JetStream, which keeps the queue: start it as nats-server -js`, {
      cause: error,
    });
  }
}
