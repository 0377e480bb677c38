// Package addr puts the service addresses of a group on this machine and takes
// them away: addresses that belong to the node on which the group is active, of
// IPv4 and of IPv6.
//
// A Keeper adds an address, tells the neighbours at once and again later (ARP,
// neighbour advertisements), and watches what it added: that nobody else uses the
// same address, that nobody took it away, that the link is there. It judges
// nothing: what it sees is told by a callback, as facts.
//
// A Remover only takes addresses away. It is opened in advance by the half of the
// daemon that has to act at a deadline while the other half is frozen.
//
// What is on the machine is always asked of the kernel, never remembered: an
// address counts as removed when a list of all addresses no longer has it, and is
// announced only while the list has it, because an announcement from a node that
// was frozen meanwhile would turn the neighbours away from the new active one.
// docs/decisions/0155-service-addresses.md and the next ones have the reasons.
package addr
