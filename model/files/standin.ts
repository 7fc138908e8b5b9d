/** What stands where a file should: a pointer of Git LFS that was not followed, or the web page of a wrong link. */

const KINDS: readonly { begins: RegExp; is: string }[] = [
  {
    begins: /^version https:\/\/git-lfs\./,
    is: 'is a pointer of Git LFS, not the file itself: git lfs pull fetches it',
  },
  {
    begins: /^(\ufeff|\u00ef\u00bb\u00bf)?\s*(<!doctype html|<html[\s>])/i,
    is: 'is a web page, not the file itself: download it again, by its link to the raw file',
  },
];

/** Bytes of a file's begin that tell. */
export const TELLING = 64;

/** What the file is instead, and what to do; nothing where it may be itself. @param begin of the file, `TELLING` bytes or more */
export function standIn(begin: Uint8Array | string): string | undefined {
  const text = typeof begin === 'string' ? begin.slice(0, TELLING) : String.fromCharCode(...begin.subarray(0, TELLING));
  return KINDS.find((k) => k.begins.test(text))?.is;
}
