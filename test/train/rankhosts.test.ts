/** Two hosts, as far as the ranks can see: network namespaces joined by a virtual link, one rank in each, train as one process does. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { needing } from '../needs.ts';
import { finished, onSeveral } from './ranks.ts';

const STEPS = 12;
const NETWORK = '10.213.77';
const dir = mkdtempSync(join(tmpdir(), 'vpae-hosts-'));
/** Names of links have 15 letters at most. */
const hosts = ['a', 'b'].map((side, i) => ({ name: `v${process.pid}${side}`, address: `${NETWORK}.${i + 1}` }));
const [a, b] = hosts as [(typeof hosts)[0], (typeof hosts)[0]];
const ip = (...words: string[]): string => execFileSync('ip', words, { encoding: 'utf8', stdio: 'pipe' });

/** Why there can be no such hosts here; nothing where they stand. */
function noHosts(): string | undefined {
  try {
    for (const { name } of hosts) ip('netns', 'add', name);
    ip('link', 'add', a.name, 'netns', a.name, 'type', 'veth', 'peer', 'name', b.name, 'netns', b.name);
    for (const { name, address } of hosts) {
      ip('-n', name, 'addr', 'add', `${address}/24`, 'dev', name);
      for (const link of [name, 'lo']) ip('-n', name, 'link', 'set', link, 'up');
    }
    execFileSync('ip', ['netns', 'exec', b.name, 'unshare', '-u', 'true'], { stdio: 'pipe' });
    return undefined;
  } catch (error) {
    return `no network namespaces here (${(error as Error).message.split('\n').slice(0, 2).join(' ')}): ranks on two hosts are not tried`;
  }
}

const onHosts = needing(noHosts(), onSeveral);
test.after(() => {
  rmSync(dir, { recursive: true, force: true });
  for (const { name } of hosts) {
    try {
      ip('netns', 'del', name);
    } catch {
      // it was never made
    }
  }
});

onHosts(
  'one rank on each of two hosts ends in the bits of one process, and the link carried the gradients',
  async () => {
    const folder = (name: string): string => {
      mkdirSync(join(dir, name));
      return join(dir, name);
    };
    const [two, one] = [folder('two'), folder('one')];
    // In the place of ssh: mpirun gives a host and what to run there.
    const agent = join(dir, 'agent');
    writeFileSync(agent, `#!/bin/sh\nshift\nexec ip netns exec ${b.name} unshare -u sh -c "hostname ${b.name}; $*"\n`);
    chmodSync(agent, 0o755);
    const net = `${NETWORK}.0/24`;
    const parameters = {
      plm_rsh_agent: agent,
      btl: 'tcp,self', // no shared memory
      btl_tcp_if_include: net,
      oob_tcp_if_include: net,
    };
    const child = 'test/train/smallchild.ts';
    await finished(2, [child, two, String(STEPS)], {
      through: ['ip', 'netns', 'exec', a.name],
      flags: [
        '--host',
        hosts.map(({ address }) => `${address}:1`).join(),
        ...Object.entries(parameters).flatMap(([name, value]) => ['--mca', name, value]),
      ],
    });
    await finished(1, [child, one, String(STEPS)]);
    const made = (path: string): Buffer => readFileSync(join(path, 'weights.safetensors'));
    assert.ok(made(two).equals(made(one)), 'the same bits');
    const [{ stats64 }] = JSON.parse(ip('-n', a.name, '-s', '-j', 'link', 'show', a.name)) as [
      { stats64: { tx: { bytes: number } } },
    ];
    // Each step a rank sends half of the gradients of its two micro-batches, and half of the sums.
    const numbers = 200 * 160 + 16 * 8 + 64 + 3;
    assert.ok(stats64.tx.bytes > STEPS * 1.5 * 4 * numbers, `${stats64.tx.bytes} bytes`);
  },
);

test.run();
