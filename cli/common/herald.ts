/**
 * How a rank that ends all of them lets rank 0 know that it has said why: a datagram, for Open MPI itself is in the middle of something
 * then. Where none comes through, rank 0 says that it was stopped, too.
 */
import { randomUUID } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { networkInterfaces } from 'node:os';
import type { Ranks } from '../../train/ranks/ranks.ts';

interface Herald {
  /** On rank 0: whether another has said why all end. */
  wasTold(): Promise<boolean>;
  /** On another: it has. */
  tell(): Promise<void>;
}

export async function herald(ranks: Ranks): Promise<Herald> {
  const socket = createSocket('udp4');
  socket.on('error', () => {}); // then nothing comes
  socket.unref();
  let told = false;
  const here = await ranks.told(async () => {
    const word = randomUUID();
    socket.on('message', (message) => (told ||= message.toString() === word));
    await new Promise((done) => socket.once('error', done).bind(0, () => done(undefined)));
    const hosts = Object.values(networkInterfaces()).flatMap((all) => all!.filter((a) => a.family === 'IPv4'));
    return { word, port: socket.address().port, hosts: hosts.map((a) => a.address) };
  });
  return {
    async wasTold() {
      for (let i = 0; i < 2; i++) await new Promise((resolve) => setImmediate(resolve)); // what has come is read
      return told;
    },
    async tell() {
      await Promise.all(here.hosts.map((host) => new Promise((sent) => socket.send(here.word, here.port, host, sent))));
    },
  };
}
