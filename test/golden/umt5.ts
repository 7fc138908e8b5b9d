/** Reference cases of the umT5 encoder: hidden states, position biases, and the table of buckets. */
import { gather } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { umt5Config } from '../../model/umt5/config.ts';
import { relativeBucket, relativeBuckets, umt5, type UMT5Context } from '../../model/umt5/umt5.ts';
import { Skip, type Executor } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';
import { prefixLengths } from './ops.ts';

interface Inputs<T> extends UMT5Context<T> {
  weights: Record<string, T>;
  ids: T;
}

export async function umt5Case(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const config = umt5Config(fixture.entry.config);
  const ids = fixture.get(`${c.name}/in/ids`);
  const expected = fixture.expected(c.name);
  const lengths = prefixLengths(fixture.get(`${c.name}/in/mask`));
  if (!lengths) throw new Skip('the mask hides tokens in the middle, which no padding does');
  const model = ({ weights, ids, ...context }: Inputs<Tensor>): Record<string, Tensor> => {
    const out: Record<string, Tensor> = {};
    out['out/hidden'] = umt5(
      weights,
      config,
      gather(weights['token_embedding.weight']!, ids),
      context,
      (name, value) => {
        out[`out/${name}`] = name.startsWith('pos_bias') ? value.unsqueeze(0) : value;
      },
    );
    return Object.fromEntries(Object.entries(out).filter(([name]) => expected.includes(name)));
  };
  const inputs: Inputs<HostTensor> = {
    weights: fixture.weights(),
    ids,
    lengths,
    buckets: relativeBuckets(ids.shape[1]!, config),
  };
  return judge(fixture, c.name, await executor.run(model, inputs));
}

/** `buckets/*`: the bucket of every distance. */
export async function bucketCase(fixture: Fixture): Promise<Verdict> {
  const distances = fixture.get('buckets/rel_pos');
  const config = umt5Config(fixture.entry.config);
  return judge(fixture, 'buckets', {
    bucket: host(
      Int32Array.from(distances.data, (d) => relativeBucket(d, config)),
      distances.shape,
    ),
  });
}
