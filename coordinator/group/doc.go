// Package group is the logic of consumer groups as a pure function of state,
// event and time: the classic protocol and the one of KIP-848. It has no clock,
// does no I/O and starts no goroutine; whoever drives it (package coordinator)
// gives it events and carries out the effects that it asks for.
package group
