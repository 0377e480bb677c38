// Package journal is the node's memory and its witness: an append-only record of
// every fact that came in, every order that was given with its reason, and every
// event. What it promises:
//
//   - A record is there in whole or not at all: each has a length and two
//     CRC-32C sums, and nothing is believed that does not fit them.
//   - A torn tail is cut off and a damaged middle is skipped when it is opened,
//     and both are told.
//   - Each segment begins with a base record that holds all that the journal
//     remembers. So the oldest segments can be deleted to keep the size bound,
//     and the newest alone restores the state.
//   - A disk that refuses writes never stops anybody: the memory goes on, records
//     wait in a bounded buffer, and what did not fit is counted in a gap record.
//   - After a failed fsync the file is given up, for the kernel may have dropped
//     what it could not write and then call the next fsync a success. The state
//     and the records that were not yet safe are written to a new segment.
//
// One process writes, any number read, also while it is being written.
package journal
