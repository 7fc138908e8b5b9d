/** The campaigns in short: a few kills, some hundred mutants, races; `test/campaign.ts` has them by the thousand. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { killCampaign } from './kills.ts';
import { mutantCampaign } from './mutants.ts';
import { raceCampaign } from './races.ts';

const tmp = mkdtempSync(join(tmpdir(), 'campaign-'));
test.after(() => rmSync(tmp, { recursive: true }));
const quiet = (): void => {};
/** One format of each kind: every one is a process of its own. */
const FEW = ['safetensors', 'pickle', 'config.json', 'tokenizer', 'records of videos', 'metrics.jsonl', 'png'];

test('killed runs and exports come to the same files, and leave nothing', async () => {
  const { findings } = await killCampaign(4, 1, tmp, quiet, ['steps', 'export']);
  assert.equal(findings, []);
});

test('some hundred damaged files are read or refused, each in its own words', async () => {
  const { findings } = await mutantCampaign(400, 1, tmp, quiet, FEW);
  assert.equal(findings, []);
});

test('one owner of a lock, one view of a log', async () => {
  const { findings } = await raceCampaign(30, tmp, quiet);
  assert.equal(findings, []);
});

test.run();
