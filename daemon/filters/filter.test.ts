import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { type Fields, inMap, parseFilters, present } from './filter.ts';

interface Thing {
  name: string;
  other: string;
  labels: { [key: string]: string };
}

const things: Thing[] = [
  { name: 'foo', other: 'bar', labels: { foo: 'omg', complex: 'too' } },
  { name: 'bar', other: '', labels: { bar: 'done', empty: '' } },
  {
    name: 'fooo',
    other: 'x',
    labels: { 'very complex label': 'something', 'a.b/c': 'deep', quote: 'say "hi"' },
  },
  { name: 'baz', other: 'true', labels: {} },
];

const fieldsOf =
  (thing: Thing): Fields =>
  ([first, ...rest]) => {
    if (first === 'name') return present(thing.name);
    if (first === 'other') return present(thing.other);
    if (first === 'labels') return inMap(thing.labels, rest);
    return undefined;
  };

const select = (...filters: string[]): string[] => {
  const filter = parseFilters(filters);
  return things.filter((thing) => filter(fieldsOf(thing))).map((thing) => thing.name);
};

for (const [filters, names] of [
  [[], ['foo', 'bar', 'fooo', 'baz']],
  [[''], ['foo', 'bar', 'fooo', 'baz']],
  [
    ['name==bar', ''],
    ['foo', 'bar', 'fooo', 'baz'],
  ],
  [['name'], ['foo', 'bar', 'fooo', 'baz']],
  [['other'], ['foo', 'fooo', 'baz']],
  [['name==foo'], ['foo']],
  [['name == foo'], ['foo']],
  [['name=="foo"'], ['foo']],
  [['name!=foo'], ['bar', 'fooo', 'baz']],
  [['other!=bar'], ['bar', 'fooo', 'baz']],
  [['nothing!=x'], ['foo', 'bar', 'fooo', 'baz']],
  [['nothing=='], undefined],
  [['nothing'], []],
  [['name~=fo+'], ['foo', 'fooo']],
  [['name~=^fo{2}$'], ['foo']],
  [['name~=/^foo?$/'], ['foo']],
  [['name~=|ba[rz]|'], ['bar', 'baz']],
  [['name~="^b"'], ['bar', 'baz']],
  [['name~=(?i)FOO'], ['foo', 'fooo']],
  [[String.raw`name~=|\\Afoo\\z|`], ['foo']],
  [[String.raw`name~=|^\\w{3}$|,name!=bar`], ['foo', 'baz']],
  [['name~=(?P<first>b)ar'], ['bar']],
  [['other~=^$'], ['bar']],
  [['labels.foo'], ['foo']],
  [['labels.empty'], ['bar']],
  [['labels.empty==""'], ['bar']],
  [['labels.foo==omg'], ['foo']],
  [['labels."very complex label"==something'], ['fooo']],
  [['labels."very complex label"'], ['fooo']],
  [['labels."a.b/c"==deep'], ['fooo']],
  [['labels.a."b/c"==deep'], ['fooo']],
  [[String.raw`labels.quote=="say \"hi\""`], ['fooo']],
  [[String.raw`name=="\x66\157\u006f"`], ['foo']],
  [['name==foo,labels.foo'], ['foo']],
  [['name==foo,labels.bar'], []],
  [['name==foo, labels.foo'], ['foo']],
  [
    ['name==foo', 'name==bar'],
    ['foo', 'bar'],
  ],
  [['name==foo', 'labels.foo'], ['foo']],
  [['name==a.b=c!d~e'], []],
] as [string[], string[] | undefined][]) {
  test(`${JSON.stringify(filters)} selects ${names === undefined ? 'nothing, being wrong' : names.join(' ')}`, () => {
    if (names === undefined)
      assert.throws(
        () => select(...filters),
        (e) => isCode(e, Code.InvalidArgument),
      );
    else assert.deepEqual(select(...filters), names);
  });
}

for (const [filter, message] of [
  ['name=foo', '[name >|=|< foo]: unsupported operator "="'],
  ['name===foo', '[name >|=|< ==foo]: unsupported operator "==="'],
  ['name foo', '[name  >|f|< oo]: expected an operator ("=="|"!="|"~=")'],
  ['name==', '[name==]: expected value or quoted'],
  ['name==foo,', '[name==foo,]: expected field or quoted'],
  [',name', '[ >|,|< name]: expected field or quoted'],
  ['name..x', '[name. >|.|< x]: expected field or quoted'],
  ['name==foo bar', '[name==foo >| |< bar]: unexpected input'],
  ['name=="foo', '[name== >|"|< foo]: quoted literal not terminated'],
  ['name==/foo/', '[name== >|/|< foo/]: invalid quote encountered'],
  ['|name|==foo', '[ >|||< name|==foo]: invalid quote encountered'],
  [String.raw`name=="\q"`, String.raw`[name==" >|\|< q"]: illegal escape sequence`],
  [String.raw`name=="\xg0"`, String.raw`[name==" >|\|< xg0"]: illegal numeric escape sequence`],
  [String.raw`name=="\U00110000"`, String.raw`[name==" >|\|< U00110000"]: illegal numeric escape sequence`],
  ['name==.foo', '[name== >|.|< foo]: expected value or quoted'],
]) {
  test(`${JSON.stringify(filter)} is refused, with the place`, () => {
    assert.throws(
      () => parseFilters([filter!]),
      (error) => {
        assert.ok(isCode(error, Code.InvalidArgument));
        assert.equal(error.message, `filters: parse error: ${message}: invalid argument`);
        return true;
      },
    );
  });
}

test('a regular expression that cannot be compiled is refused', () => {
  assert.throws(() => parseFilters(['name~=(foo']), /\[name~= >\|\(\|< foo\]: Invalid regular expression/);
});

test('a wrong filter is refused beside one that selects everything', () => {
  assert.throws(
    () => parseFilters(['', 'name=']),
    (error) => isCode(error, Code.InvalidArgument),
  );
});

test('random text is either a filter or refused as one', () => {
  const alphabet = 'ab_."/|\\,=!~ x0\n\u0000é';
  for (let round = 0; round < 3000; round += 1) {
    const text = Array.from(
      { length: 1 + (round % 12) },
      () => alphabet[Math.floor(Math.random() * alphabet.length)],
    );
    try {
      select(text.join(''));
    } catch (error) {
      assert.ok(isCode(error, Code.InvalidArgument), `${JSON.stringify(text.join(''))}: ${String(error)}`);
    }
  }
});
