import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionError } from '../frame.ts';
import { HeaderDecoder } from './decoder.ts';
import { headerBlock } from './encoder.ts';

const read = (decoder: HeaderDecoder, block: string | Buffer): string[] => {
  const fields: string[] = [];
  decoder.decode(typeof block === 'string' ? Buffer.from(block, 'hex') : block, (name, value) =>
    fields.push(`${name}=${value}`),
  );
  return fields;
};

test('the blocks of the specification are read (RFC 7541, C.3 and C.4)', () => {
  const expected = [
    [':method=GET', ':scheme=http', ':path=/', ':authority=www.example.com'],
    [':method=GET', ':scheme=http', ':path=/', ':authority=www.example.com', 'cache-control=no-cache'],
    [
      ':method=GET',
      ':scheme=https',
      ':path=/index.html',
      ':authority=www.example.com',
      'custom-key=custom-value',
    ],
  ];
  const plain = [
    '828684410f7777772e6578616d706c652e636f6d',
    '828684be58086e6f2d6361636865',
    '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
  ];
  const packed = [
    '828684418cf1e3c2e5f23a6ba0ab90f4ff',
    '828684be5886a8eb10649cbf',
    '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
  ];
  for (const blocks of [plain, packed]) {
    const decoder = new HeaderDecoder();
    assert.deepEqual(
      blocks.map((block) => read(decoder, block)),
      expected,
    );
  }
});

test('what is written is read, and needs no table', () => {
  const fields = {
    ':status': '200',
    'content-type': 'application/grpc',
    'grpc-message': 'x'.repeat(5000),
    'x-empty': '',
  };
  assert.deepEqual(
    read(new HeaderDecoder(), headerBlock(fields)),
    Object.entries(fields).map(([name, value]) => `${name}=${value}`),
  );
});

test('a field that is larger than the table empties it', () => {
  const decoder = new HeaderDecoder();
  const kept = (name: string, value: string) => {
    const block = headerBlock({ [name]: value });
    block[0] = 0x40;
    return block;
  };
  assert.deepEqual(read(decoder, kept('a', '1')), ['a=1']);
  assert.deepEqual(read(decoder, 'be'), ['a=1']);
  assert.equal(read(decoder, kept('b', 'x'.repeat(5000))).length, 1);
  assert.throws(() => read(decoder, 'be'), ConnectionError);
});

test('what is no block is refused', () => {
  const blocks = {
    'the field with the number 0': '80',
    'a field that is not there': 'be',
    'a number that does not end': 'ffffffffffffffff',
    'a number that is cut off': 'ff',
    'a text that is cut off': '400161',
    'a text longer than the block': '40016105',
    'a table larger than was allowed': '3fe23f',
    'a table that changes behind a field': '8220',
    'the end of a text in the text': '400184ffffffff',
    'padding of a whole byte': '400161821fff',
    'padding that is not of ones': '4001618118',
  };
  for (const [what, block] of Object.entries(blocks))
    assert.throws(() => read(new HeaderDecoder(), block), ConnectionError, what);
});
