/** Messages made up at random from their contracts: every field, with what belongs there and with what does not. */
import * as fc from 'fast-check';
import { create, toBinary } from '@bufbuild/protobuf';
import type { DescField, DescMessage } from './contracts.ts';

/** What is put where the contract says no more than text. */
export interface Vocabulary {
  readonly texts: readonly string[];
  /** Types that an `Any` may claim to be, and bytes that it may have. */
  readonly types: readonly string[];
  readonly bytes: readonly Uint8Array[];
}

const MAX_DEPTH = 4;
const INT32 = 2 ** 31;

export function messageArbitrary(message: DescMessage, words: Vocabulary, depth = 0): fc.Arbitrary<unknown> {
  const fields = Object.fromEntries(
    message.fields
      .filter((field) => field.oneof === undefined && !(depth >= MAX_DEPTH && isNested(field)))
      .map((field) => [field.localName, fieldArbitrary(field, words, depth, message.typeName)]),
  );
  const unions = message.oneofs.map((union) => {
    const cases = union.fields
      .filter((field) => !(depth >= MAX_DEPTH && isNested(field)))
      .map((field) =>
        fieldArbitrary(field, words, depth, message.typeName).map((value) => ({
          case: field.localName,
          value,
        })),
      );
    return [union.localName, fc.oneof(fc.constant({ case: undefined }), ...cases)] as const;
  });
  return fc
    .record({ ...fields, ...Object.fromEntries(unions) }, { requiredKeys: [] })
    .map((value) => create(message, value as never));
}

/** The same, as it goes over the wire. */
export function wireArbitrary(message: DescMessage, words: Vocabulary): fc.Arbitrary<Uint8Array> {
  const whole = messageArbitrary(message, words).map((value) => toBinary(message, value as never));
  const spoilt = fc
    .tuple(whole, fc.nat(), fc.nat(255))
    .map(([bytes, at, byte]) => (bytes.length === 0 ? bytes : bytes.with(at % bytes.length, byte)));
  return fc.oneof(
    { weight: 12, arbitrary: whole },
    { weight: 1, arbitrary: spoilt },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }) },
  );
}

const isNested = ({ fieldKind }: DescField): boolean =>
  fieldKind === 'message' || fieldKind === 'map' || fieldKind === 'list';

function fieldArbitrary(
  field: DescField,
  words: Vocabulary,
  depth: number,
  owner: string,
): fc.Arbitrary<unknown> {
  switch (field.fieldKind) {
    case 'message':
      return messageArbitrary(field.message, words, depth + 1);
    case 'enum':
      return fc.oneof(
        fc.constantFrom(...field.enum.values.map(({ number }) => number)),
        fc.integer({ min: -1, max: 99 }),
      );
    case 'list': {
      const item =
        field.listKind === 'message'
          ? messageArbitrary(field.message, words, depth + 1)
          : field.listKind === 'enum'
            ? fc.integer({ min: 0, max: 9 })
            : scalarArbitrary(field.scalar, words, owner);
      return fc.array(item, { maxLength: 3 });
    }
    case 'map': {
      const value =
        field.mapKind === 'message'
          ? messageArbitrary(field.message, words, depth + 1)
          : field.mapKind === 'enum'
            ? fc.integer({ min: 0, max: 9 })
            : scalarArbitrary(field.scalar, words, owner);
      const mapKey: number = field.mapKey;
      const key = scalarArbitrary(mapKey, words, owner).map(String);
      return fc.dictionary(mapKey === STRING ? key : fc.nat(9).map(String), value, {
        maxKeys: 3,
      });
    }
    case 'scalar':
    default:
      return owner === 'google.protobuf.Any' && field.name === 'type_url'
        ? fc.constantFrom(...words.types)
        : scalarArbitrary(field.scalar, words, owner);
  }
}

/** Of `ScalarType`. */
const STRING = 9;
const BYTES = 12;
const BOOL = 8;
const FLOATS: ReadonlySet<number> = new Set([1, 2]);
const SIGNED_64: ReadonlySet<number> = new Set([3, 16, 18]);
const UNSIGNED_64: ReadonlySet<number> = new Set([4, 6]);
const UNSIGNED_32: ReadonlySet<number> = new Set([7, 13]);

function scalarArbitrary(scalar: number, words: Vocabulary, owner: string): fc.Arbitrary<unknown> {
  if (scalar === STRING) return fc.constantFrom(...words.texts);
  if (scalar === BOOL) return fc.boolean();
  if (scalar === BYTES) return fc.oneof(fc.constantFrom(...words.bytes), fc.uint8Array({ maxLength: 20 }));
  if (FLOATS.has(scalar)) return fc.float();
  if (SIGNED_64.has(scalar)) {
    // Times that no calendar has are as likely as those of today.
    const today = owner === 'google.protobuf.Timestamp' ? 1_800_000_000n : 1n;
    return fc.constantFrom(0n, 1n, -1n, today, 2n ** 62n, -(2n ** 63n), 2n ** 63n - 1n);
  }
  if (UNSIGNED_64.has(scalar)) return fc.constantFrom(0n, 1n, 4096n, 2n ** 53n, 2n ** 64n - 1n);
  if (UNSIGNED_32.has(scalar)) return fc.constantFrom(0, 1, 9, 15, INT32, 2 * INT32 - 1);
  return fc.constantFrom(0, 1, -1, 9, INT32 - 1, -INT32);
}
