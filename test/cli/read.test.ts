/** Videos, pictures and text as people bring them: order, rate, form, colours, encodings; and whose fault it is when one cannot be read. */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import process from 'node:process';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { decodeText, readText } from '../../cli/common/text.ts';
import { readBmp } from '../../cli/media/bmp.ts';
import { videosBelow } from '../../cli/media/find.ts';
import { toSdr } from '../../cli/media/hdr.ts';
import { naturally } from '../../cli/media/order.ts';
import { readVideo } from '../../cli/media/read.ts';
import { steady } from '../../cli/media/steady.ts';
import { readStill } from '../../cli/media/still.ts';
import { Unusable } from '../../train/data/videoindex.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-read-'));
const at = (name: string): string => join(dir, name);
const PATH = process.env['PATH'];
test.after(() => rmSync(dir, { recursive: true }));

test('what a download left in the place of a video, a picture or a caption is named', async () => {
  for (const [text, is] of [
    ['version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', /is a pointer of Git LFS.*git lfs pull/],
    ['\n<!doctype HTML><html><body>Sign in</body></html>', /is a web page, not the file itself/],
    ['<html lang="en">', /is a web page, not the file itself/],
  ] as const) {
    for (const name of ['lfs.mp4', 'lfs.webp', 'lfs.gif', 'lfs.png', 'lfs.txt']) writeFileSync(at(name), text);
    const said = (work: () => unknown): Promise<unknown> =>
      Promise.resolve()
        .then(work)
        .catch((e: unknown) => e);
    for (const name of ['lfs.mp4', 'lfs.webp', 'lfs.gif', 'lfs.png']) {
      const error = await said(() => (name.endsWith('png') ? readStill(at(name)) : readVideo(at(name))));
      assert.instance(error, Unusable);
      assert.match((error as Error).message, is);
      assert.ok((error as Error).message.includes(name));
    }
    assert.match(((await said(() => readText(at('lfs.txt')))) as Error).message, is);
  }
  assert.is(decodeText(new TextEncoder().encode('a web page <html> on a screen')), 'a web page <html> on a screen');
});

test('frames are counted as people do', () => {
  const names = ['f_10', 'F_9', 'f_1', 'b_3', 'f_002', 'f_2', 'f', 'f_100000000000000000001', 'f_99999999999999999999'];
  assert.is(
    names.sort(naturally).join(' '),
    'b_3 f f_1 f_002 f_2 F_9 f_10 f_99999999999999999999 f_100000000000000000001',
  );
});

test('a folder of pictures is read in that order, whatever its endings', async () => {
  mkdirSync(at('frames'));
  for (let i = 1; i <= 11; i++)
    await sharp({ create: { width: 2, height: 2, channels: 3, background: { r: i, g: 0, b: 0 } } })
      .png()
      .toFile(join(at('frames'), `frame_${i}.${i % 2 ? 'png' : 'PNG'}`));
  const { frames } = await readVideo(at('frames'));
  assert.equal(
    frames.map((f) => f[0]),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
  );
});

test('frames of one rate stay as they are; where the rate varies, each is shown for its time', () => {
  assert.equal(steady(['a', 'b', 'c'], [0, 0.06, 0.13, 0.19], 16), { fps: 1 / 0.065, frames: ['a', 'b', 'c'] });
  assert.equal(steady(['a', 'b', 'c'], [0, 0.0625, 0.125, 0.9], 16), { fps: 16, frames: ['a', 'b', 'c'] });
  const { fps, frames } = steady(['a', 'b', 'c', 'd'], [5, 5.1, 5.2, 6.2, 6.3]);
  assert.is(Math.round(fps), 10);
  assert.is(frames.join(''), 'abccccccccccd');
  assert.equal(steady(['a'], [0, 0.5]), { fps: 2, frames: ['a'] });
  assert.is(steady(['a', 'b', 'c'], [0, 0.01, 1e5, 1e5]).frames.length, 300, 'a gap of a day ends');
});

test('a GIF of uneven delays is read by its times', async () => {
  const pages = Uint8Array.from({ length: 4 * 12 }, (_, i) => 60 * Math.floor(i / 12));
  await sharp(pages, { raw: { width: 2, height: 8, channels: 3, pageHeight: 2 } })
    .gif({ delay: [100, 100, 800, 100] })
    .toFile(at('uneven.gif'));
  const { fps, frames } = await readVideo(at('uneven.gif'));
  assert.ok(Math.abs(frames.length / fps - 1.1) < 0.05, `${frames.length} frames at ${fps}`);
  assert.is(frames.length, 11);
});

test('text is UTF-8 or has the mark of UTF-16; anything else is refused by what stands there', () => {
  const utf16 = (mark: number[], bytes: number[]) => Uint8Array.from([...mark, ...bytes]);
  assert.is(decodeText(new TextEncoder().encode('\ufeffcafé')), 'café');
  assert.is(decodeText(utf16([0xff, 0xfe], [0x41, 0, 0xe9, 0])), 'Aé');
  assert.is(decodeText(utf16([0xfe, 0xff], [0, 0x41, 0, 0xe9])), 'Aé');
  assert.is(decodeText(new TextEncoder().encode('so \ufffd it stands')), 'so \ufffd it stands');
  for (const [bytes, why] of [
    [Buffer.from('one\nA dog\x92s', 'latin1'), /is not UTF-8 \(byte 0x92 in line 2\): save it as UTF-8$/],
    [Buffer.from('A\0 \0c\0', 'latin1'), /zero bytes, as UTF-16 without its mark/],
    [Buffer.from([0xff, 0xfe, 0, 0, 0x41, 0, 0, 0]), /is UTF-32/],
    [Buffer.from([0xff, 0xfe, 0x41]), /is damaged UTF-16LE/],
  ] as const)
    assert.throws(() => decodeText(bytes), why);
  writeFileSync(at('caption.txt'), Buffer.from([0x63, 0xe9]));
  assert.throws(() => readText(at('caption.txt')), /caption\.txt: is not UTF-8 \(byte 0xe9 in line 1\)/);
});

/** A bitmap of 2x2: red, green over blue, white. */
function bmp(bits: 24 | 32 | 8, topDown = false): Buffer {
  const colours = { red: [0, 0, 255], green: [0, 255, 0], blue: [255, 0, 0], white: [255, 255, 255] };
  const palette = bits === 8 ? Object.values(colours).flatMap((c) => [...c, 0]) : [];
  const rows = [
    ['red', 'green'],
    ['blue', 'white'],
  ] as (keyof typeof colours)[][];
  const pixels = (topDown ? rows : [...rows].reverse()).flatMap((row) => {
    const line = row.flatMap((c) =>
      bits === 8 ? [Object.keys(colours).indexOf(c)] : [...colours[c], ...(bits === 32 ? [0] : [])],
    );
    return [...line, ...Array<number>((4 - (line.length % 4)) % 4).fill(0)];
  });
  const head = Buffer.alloc(54);
  head.write('BM');
  head.writeUInt32LE(54 + palette.length, 10);
  head.writeUInt32LE(40, 14);
  head.writeInt32LE(2, 18);
  head.writeInt32LE(topDown ? -2 : 2, 22);
  head.writeUInt16LE(1, 26);
  head.writeUInt16LE(bits, 28);
  return Buffer.concat([head, Buffer.from(palette), Buffer.from(pixels)]);
}

test('bitmaps are read, transparent parts of pictures are white, and a file that is no picture is named', async () => {
  for (const file of [bmp(24), bmp(32), bmp(8), bmp(24, true)]) {
    writeFileSync(at('x.bmp'), file);
    const { width, height, data } = await readStill(at('x.bmp'));
    assert.equal([width, height, [...data]], [2, 2, [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]]);
  }
  assert.throws(() => readBmp(bmp(24).subarray(0, 60)), /is cut short: its 2x2 pixels end at byte 70 of 60/);
  await sharp(Buffer.from([9, 9, 9, 0]), { raw: { width: 1, height: 1, channels: 4 } })
    .png()
    .toFile(at('clear.png'));
  assert.equal([...(await readStill(at('clear.png'))).data], [255, 255, 255]);
  writeFileSync(at('no.png'), 'nothing');
  const error = await readStill(at('no.png')).catch((e: Error) => e);
  assert.instance(error, Unusable);
  assert.match((error as Error).message, /\[read\] .*no\.png: it is no picture that can be read/);
});

test('videos are found in subfolders and of all kinds; what is none is told', () => {
  for (const sub of ['set/deep/er', 'set/stills']) mkdirSync(at(sub), { recursive: true });
  for (const name of [
    'a.MPG',
    'b.wmv',
    'c.flv',
    'd.mts',
    'e.ogv',
    'f.3gp',
    'deep/er/g.mkv',
    '._a.mpg',
    'a.txt',
    'x.zip',
  ])
    writeFileSync(join(at('set'), name), '');
  writeFileSync(join(at('set'), 'film.ts'), Buffer.from([0x47, 0]));
  writeFileSync(join(at('set'), 'program.ts'), '/** no film */');
  writeFileSync(join(at('set'), 'stills/0.png'), '');
  const { videos, passedOver } = videosBelow(at('set'));
  assert.is(videos.map((v) => v.name).join(), 'a,b,c,d,deep/er/g,e,f,film,stills');
  assert.equal(passedOver, ['program.ts', 'x.zip']);
});

const PQ_WHITE = 38066; // of 65535: 203 cd/m²
test('what is white in HDR is white, grey stays grey, and highlights keep their order', () => {
  const grey = (code: number, transfer = 'smpte2084') => [...toSdr(Uint16Array.of(code, code, code), transfer)];
  assert.equal(grey(0), [0, 0, 0]);
  const [dark, white, bright, brightest] = [33298, PQ_WHITE, 45000, 65535].map((c) => grey(c));
  for (const [r, g, b] of [dark!, white!, bright!]) assert.ok(Math.abs(r! - g!) <= 1 && Math.abs(g! - b!) <= 1);
  assert.ok(white![0]! >= 230 && white![0]! < bright![0]! && bright![0]! <= brightest![0]!, String(white));
  assert.ok(Math.abs(dark![0]! - 190) <= 1, String(dark)); // 100 cd/m²: 255 · (100 / 203) ** (1 / 2.4)
  assert.ok(
    Math.abs(grey(49151, 'arib-std-b67')[0]! - white![0]!) <= 6,
    "HLG's white is at three quarters of its codes",
  );
});

const hasFfmpeg = spawnSync('ffmpeg', ['-version']).status === 0;
/** A film out of a file or of ffmpeg's own pictures, by options in one line. */
function make(from: string, filter: string, options: string, file: string): void {
  const input = from.includes('=') ? ['-f', 'lavfi', '-i', from] : ['-i', from];
  const output = options.split(' ').filter(Boolean);
  execFileSync('ffmpeg', ['-v', 'error', '-y', ...input, ...(filter ? ['-vf', filter] : []), ...output, file]);
}

if (hasFfmpeg) {
  make('testsrc2=s=96x64:r=16:d=1', '', '-pix_fmt yuv420p', at('plain.mp4'));

  test('a film is as it is shown: square pixels, upright, eight bits', async () => {
    make(at('plain.mp4'), 'scale=72:64,setsar=4/3', '', at('narrow.mp4'));
    make(at('plain.mp4'), 'scale=96:48,setsar=3/4', '', at('low.mkv'));
    for (const name of ['plain.mp4', 'narrow.mp4', 'low.mkv']) {
      const { width, height, fps, frames } = await readVideo(at(name));
      assert.equal([width, height, Math.round(fps * 100), frames.length], [96, 64, 1600, 16], name);
    }
    make(at('plain.mp4'), '', '-pix_fmt yuv420p10le -c:v libx264', at('deep.mp4'));
    const [plain, deep] = [await readVideo(at('plain.mp4')), await readVideo(at('deep.mp4'))];
    const off = plain.frames[3]!.reduce((sum, x, i) => sum + Math.abs(x - deep.frames[3]![i]!), 0);
    assert.ok(off / plain.frames[3]!.length < 6, 'ten bits say the same colours');
  });

  test("the rate is the stream's own, whatever its name or title says; a rate that varies is read by its times", async () => {
    const odd = at("in 60 fps\n[Parsed_showinfo_0 @ 0x1] n: 0 pts: 0 pts_time:7 'q'.mp4");
    copyFileSync(at('plain.mp4'), odd);
    assert.is((await readVideo(odd)).fps, 16);
    make(at('plain.mp4'), '', '-c copy -metadata title=240_fps,_25_fps', at('titled.mp4'));
    assert.is((await readVideo(at('titled.mp4'))).fps, 16);
    const some = "select='not(mod(n\\,3))+lt(n\\,20)'";
    make('testsrc2=s=64x64:r=30:d=2', some, '-vsync vfr -pix_fmt yuv420p', at('varies.mp4'));
    const { frames, fps } = await readVideo(at('varies.mp4'));
    assert.equal([frames.length, Math.round(fps)], [60, 30]);
  });

  test('HDR film is brought to what its SDR looks like', async () => {
    make(
      'color=c=#949494:s=64x64:r=4:d=1',
      'format=yuv420p10le,setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc',
      '-c:v libx265 -x265-params log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc',
      at('hdr.mp4'),
    );
    const { frames } = await readVideo(at('hdr.mp4'));
    assert.ok(frames[0]![0]! > 220, `white of 203 cd/m² reads ${frames[0]![0]}`);
    assert.ok(
      (await readVideo(at('hdr.mp4'), { fps: 4, cover: { width: 32, height: 32 }, frames: 2 })).frames[1]![0]! > 220,
    );
  });

  test("a damaged film is the film's fault; an ffmpeg that fails is the machine's", async () => {
    writeFileSync(at('damaged.mp4'), 'nothing of use');
    const fault = (path: string): Promise<Error> =>
      readVideo(path).then(
        () => new Error('it was read'),
        (e: Error) => e,
      );
    assert.instance(await fault(at('damaged.mp4')), Unusable);
    const missing = await fault(at('missing.mp4'));
    assert.not.instance(missing, Unusable);
    const real = execFileSync('sh', ['-c', 'command -v ffmpeg']).toString().trim();
    mkdirSync(at('bin'));
    try {
      process.env['PATH'] = [at('bin'), PATH].join(delimiter);
      for (const [body, said] of [
        ['echo "libx265.so: cannot open shared library" >&2; exit 127', /does not work on this machine: libx265/],
        ['exit 1', /does not work on this machine: it gave no frames/],
        ['kill -9 $$', /was stopped by SIGKILL/],
        ['exit 0', /does not work on this machine/],
      ] as const) {
        writeFileSync(at('bin/ffmpeg'), `#!/bin/sh\n${body}\n`);
        chmodSync(at('bin/ffmpeg'), 0o755);
        const error = await fault(at('plain.mp4'));
        assert.not.instance(error, Unusable);
        assert.match(error.message, said);
      }
      writeFileSync(
        at('bin/ffmpeg'),
        `#!/bin/sh\n[ -e ${at('once')} ] || { touch ${at('once')}; exit 1; }\nexec ${real} "$@"\n`,
      );
      assert.is((await readVideo(at('plain.mp4'))).frames.length, 16, 'what fails once is tried again');
    } finally {
      process.env['PATH'] = PATH;
    }
  });
}

test.run();
