// Package engine runs the loop in which everything is decided: it owns the
// machine of decide, takes facts from an inbox one by one, lets the machine
// decide, writes fact and decision to the journal, and then carries the orders
// out by the edges. What an order leads to comes back as a fact.
//
// Nothing else calls the machine. Edges never wait for the engine, and the
// engine never waits for an edge: each order is handed over and its outcome
// arrives in the inbox.
package engine
