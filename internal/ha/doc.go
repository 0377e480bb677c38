// Package ha holds the words of Gemel: identities, roles, instants, events and
// their catalogue, the facts that come into a decision (Input), the orders that
// come out of it (Action), and the reason that each of them carries.
//
// Every other package speaks in these words, so that a fact is spelled in one
// way in code, in the journal, on the wire and on the screen. The package has no
// behaviour beyond printing, comparing and encoding, reads no clock, opens no
// file, and imports nothing of Gemel.
package ha
