// Package place chooses the bookies of an ensemble. It is pure: randomness and
// time come from the caller.
//
// Entry e has its replicas on WriteQuorum neighbours of the ensemble, taken as a
// circle: e mod Ensemble and those after it. Two bookies share an entry if they
// are less than WriteQuorum apart, so a rack may come up Ensemble/WriteQuorum
// times, rounded down, without ever holding two replicas of one entry.
//
//	ensemble 5, write quorum 2:   a1 b1 a2 b2 c1    every neighbour is in another rack
package place
