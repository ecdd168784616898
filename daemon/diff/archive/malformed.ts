/** What is read is no tar archive, or a broken one. The reader turns it into a failure that names the entry. */
export class Malformed extends Error {
  override readonly name = 'Malformed';
}
